"""Access tokens of programs and paired devices, and the one-time codes that pair a device.

In: names, tokens, codes. Out: holders. Only hashes of tokens and codes are stored, in a separate SQLite file. Several
processes may use it at the same time; a token revoked by one is invalid for all.
This file does not know HTTP, addresses or certificates.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from impchat import paths, settings
from impchat.errors import HistoryError, RequestError, SettingsError
from impchat.history import mutations
from impchat.history.database import Database
from impchat.peers.pairing import LETTERS, one_line, spelt

if TYPE_CHECKING:
    import sqlite_utils

Kind = Literal["token", "device"]


def m001_holders(db: sqlite_utils.Database) -> None:
    db.execute("""
        create table holders (
            id text primary key,
            owner text not null,
            name text not null,
            kind text not null check (kind in ('token', 'device')),
            hash text not null unique,
            created_utc text not null,
            used_utc text
        )""")
    db.execute("""
        create table codes (
            hash text primary key,
            owner text not null,
            expires_at real not null,  -- seconds since 1970
            tries integer not null,  -- wrong ones that are still borne
            holder text references holders(id) on delete set null  -- who used it
        )""")
    db.execute("create table server (id text not null)")
    db.execute("insert into server (id) values (?)", (str(uuid4()),))


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a token: a program or a paired device."""

    id: str
    owner: str  # the owner whose conversations it may see
    name: str
    kind: Kind
    created_utc: str
    used_utc: str | None  # to the minute; None: never


@dataclass(frozen=True, slots=True)
class Code:
    """The state of a one-time code."""

    state: Literal["open", "used", "over"]
    seconds: int  # until it expires; 0 unless it is open
    device: str  # the name of the device that used it


class Access:
    """The access database in the data folder `data`, created at the first use. May be used from any thread. `clock`:
    returns seconds since 1970.

    Raises HistoryError as `Database` does."""

    def __init__(self, data: Path, clock: Callable[[], float] = time.time) -> None:
        file = paths.ensure_data_dir(paths.server_dir(data)) / "access.db"
        self._database = Database(file, settings.BUSY_TIMEOUT_S, (m001_holders,))
        # A separate connection for lookups, because a write may have to wait for another process.
        self._lookups = Database(file, settings.BUSY_TIMEOUT_S, (m001_holders,))
        self._notes = ThreadPoolExecutor(1, "access-notes")
        self._noted: dict[str, str] = {}  # holder -> the minute of use that is being written
        self._clock = clock

    def close(self) -> None:
        self._notes.shutdown(cancel_futures=True)
        self._lookups.close()
        self._database.close()

    @property
    def server(self) -> str:
        """The permanent id of this server."""
        with self._database.read() as db:
            return str(db.execute("select id from server").fetchone()["id"])

    # Tokens

    def create(self, name: str, owner: str = settings.OWNER) -> tuple[Holder, str]:
        """Create a token for a program. Returns its holder and the token, which cannot be read again.

        Raises SettingsError "token.name" if the name is empty or taken."""
        with self._database.write() as db:
            name = one_line(name)
            if not name or db.execute("select 1 from holders where name = ?", (name,)).fetchone():
                raise SettingsError("token.name", name=name)
            return self._insert(db, name, "token", owner)

    def _insert(self, db: sqlite3.Connection, name: str, kind: Kind, owner: str) -> tuple[Holder, str]:
        token = f"impchat-{secrets.token_urlsafe(32)}"
        holder = Holder(secrets.token_hex(4), owner, name, kind, self._now(), None)
        db.execute(
            "insert into holders (id, owner, name, kind, hash, created_utc) values (?, ?, ?, ?, ?, ?)",
            (holder.id, owner, name, kind, _hash(token), holder.created_utc),
        )
        return holder, token

    def holders(self) -> list[Holder]:
        """All programs and devices, oldest first."""
        with self._database.read() as db:
            return [_holder(row) for row in db.execute("select * from holders order by created_utc, id")]

    def revoke(self, word: str) -> Holder:
        """Revoke the token of the holder with this id or name. Raises SettingsError "token.unknown"."""
        with self._database.write() as db:
            row = db.execute("select * from holders where id = ? or name = ? order by id = ? desc", (word, word, word))
            if (found := row.fetchone()) is None:
                raise SettingsError("token.unknown", name=word)
            db.execute("delete from codes where holder = ?", (found["id"],))  # without a holder it could be used again
            db.execute("delete from holders where id = ?", (found["id"],))
            return _holder(found)

    def holder(self, token: str) -> Holder | None:
        """The holder of `token`, or None. The time of use is recorded later, on another thread, and failures are
        ignored, so that requests never wait for it."""
        with self._lookups.read() as db:
            row = db.execute("select * from holders where hash = ?", (_hash(token),)).fetchone()
        if row is None:
            return None
        now = self._now()
        if now[:16] not in ((row["used_utc"] or "")[:16], self._noted.get(row["id"])):
            self._noted[row["id"]] = now[:16]
            self._notes.submit(self._note, row["id"], now)
        return _holder(row)

    def _note(self, id: str, now: str) -> None:
        try:
            with suppress(HistoryError), self._database.write() as db:
                db.execute("update holders set used_utc = ? where id = ?", (now, id))
        finally:
            self._noted.pop(id, None)  # after a failure, the next use tries again

    # Codes

    def offer(self, owner: str = settings.OWNER) -> str:
        """Create a one-time code. It replaces every earlier code that was not used."""
        code = "".join(secrets.choice(LETTERS) for _ in range(settings.PAIR_CODE_CHARS))
        with self._database.write() as db:
            db.execute("delete from codes where holder is null or expires_at < ?", (self._clock(),))
            db.execute(
                "insert into codes (hash, owner, expires_at, tries) values (?, ?, ?, ?)",
                (_hash(code), owner, self._clock() + settings.PAIR_CODE_S, settings.PAIR_TRIES),
            )
        return f"{code[:4]}-{code[4:]}"

    def code(self, code: str) -> Code:
        """The state of `code`."""
        with self._database.read() as db:
            row = db.execute(
                "select expires_at, tries, holder, name from codes left join holders on holders.id = holder"
                " where codes.hash = ?",
                (_hash(spelt(code)),),
            ).fetchone()
        if row is not None and row["holder"] is not None:
            return Code("used", 0, row["name"] or "")
        seconds = 0 if row is None or row["tries"] <= 0 else int(row["expires_at"] - self._clock())
        return Code("open", seconds, "") if seconds > 0 else Code("over", 0, "")

    def redeem(self, code: str, name: str) -> tuple[Holder, str]:
        """Exchange a one-time code for a token of a device called `name`. Returns its holder and the token. A wrong
        code uses up one try of every stored code.

        Raises RequestError "pair.code" if the code is wrong, used, expired or was tried too often."""
        with self._database.write() as db:
            row = db.execute(
                "select * from codes where hash = ? and holder is null and expires_at > ? and tries > 0",
                (_hash(spelt(code)), self._clock()),
            ).fetchone()
            if row is None:
                db.execute("update codes set tries = tries - 1")
            else:
                holder, token = self._insert(db, _free(db, one_line(name) or "?"), "device", row["owner"])
                db.execute("update codes set holder = ? where hash = ?", (holder.id, row["hash"]))
                return holder, token
        raise RequestError("pair.code")

    def _now(self) -> str:
        return mutations.utc(datetime.fromtimestamp(self._clock(), UTC))


def _hash(secret: str) -> str:
    """SHA-256 in hex. A slow hash is not needed: a token has 256 random bits, and a code is valid for minutes."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _free(db: sqlite3.Connection, name: str) -> str:
    """`name`, with a number if it is taken: names must be unique, because `revoke` accepts them."""
    taken = {row["name"] for row in db.execute("select name from holders")}
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return next(each for each in itertools.chain((name,), numbered) if each not in taken)


def _holder(row: sqlite3.Row) -> Holder:
    return Holder(row["id"], row["owner"], row["name"], row["kind"], row["created_utc"], row["used_utc"])
