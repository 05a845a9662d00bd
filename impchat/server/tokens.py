"""Who may use the server: tokens that programs and paired devices show, and the one-time code that pairs a device.

In: names, tokens, codes. Out: holders. Only hashes of tokens and codes are kept, in a SQLite file of its own; several
processes may use it at once, and what one revokes no other lets in again.
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
    """Whoever holds a token: a program, or a device that was paired."""

    id: str
    owner: str  # whose conversations it may see
    name: str
    kind: Kind
    created_utc: str
    used_utc: str | None  # to the minute; None: never


@dataclass(frozen=True, slots=True)
class Code:
    """How a one-time code stands."""

    state: Literal["open", "used", "over"]
    seconds: int  # that it stays open
    device: str  # who used it


class Access:
    """The file in the data folder `data`, made at the first use. May be used from any thread.

    Raises HistoryError as `Database` does."""

    def __init__(self, data: Path, clock: Callable[[], float] = time.time) -> None:
        file = paths.ensure_data_dir(paths.server_dir(data)) / "access.db"
        self._database = Database(file, settings.BUSY_TIMEOUT_S, (m001_holders,))
        # Who shows a token is looked up on a connection of its own: one that writes may wait for another process.
        self._lookups = Database(file, settings.BUSY_TIMEOUT_S, (m001_holders,))
        self._notes = ThreadPoolExecutor(1, "access-notes")
        self._noted: dict[str, str] = {}  # holder -> the minute of its use that is being noted
        self._clock = clock

    def close(self) -> None:
        self._notes.shutdown(cancel_futures=True)
        self._lookups.close()
        self._database.close()

    @property
    def server(self) -> str:
        """The id of this server, for ever the same."""
        with self._database.read() as db:
            return str(db.execute("select id from server").fetchone()["id"])

    # Tokens

    def create(self, name: str, owner: str = settings.OWNER) -> tuple[Holder, str]:
        """A new token for a program: its holder, and the token itself, which cannot be had again.

        Raises SettingsError "token.name" for an empty name or one that is taken."""
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
        """Programs and devices, oldest first."""
        with self._database.read() as db:
            return [_holder(row) for row in db.execute("select * from holders order by created_utc, id")]

    def revoke(self, word: str) -> Holder:
        """Let the holder with this id or name in no longer. Raises SettingsError "token.unknown"."""
        with self._database.write() as db:
            row = db.execute("select * from holders where id = ? or name = ? order by id = ? desc", (word, word, word))
            if (found := row.fetchone()) is None:
                raise SettingsError("token.unknown", name=word)
            db.execute("delete from codes where holder = ?", (found["id"],))  # or it could be used once more
            db.execute("delete from holders where id = ?", (found["id"],))
            return _holder(found)

    def holder(self, token: str) -> Holder | None:
        """Who shows `token`; None where nobody has it. That it was used is noted afterwards, if that can be: it holds
        nobody up."""
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
            self._noted.pop(id, None)  # what failed is tried again at the next use

    # Codes

    def offer(self, owner: str = settings.OWNER) -> str:
        """A new one-time code. It takes the place of every earlier one that was not used."""
        code = "".join(secrets.choice(LETTERS) for _ in range(settings.PAIR_CODE_CHARS))
        with self._database.write() as db:
            db.execute("delete from codes where holder is null or expires_at < ?", (self._clock(),))
            db.execute(
                "insert into codes (hash, owner, expires_at, tries) values (?, ?, ?, ?)",
                (_hash(code), owner, self._clock() + settings.PAIR_CODE_S, settings.PAIR_TRIES),
            )
        return f"{code[:4]}-{code[4:]}"

    def code(self, code: str) -> Code:
        """How `code` stands."""
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
        """Take a one-time code for a token of a device called `name`. A wrong code costs every open one a try.

        Raises RequestError "pair.code" for one that is wrong, used, expired or tried too often."""
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
    """A token holds 256 random bits, a code lives for minutes: neither needs a slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _free(db: sqlite3.Connection, name: str) -> str:
    """`name`, with a number where somebody has it already: a name must say who is to be revoked."""
    taken = {row["name"] for row in db.execute("select name from holders")}
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return next(each for each in itertools.chain((name,), numbered) if each not in taken)


def _holder(row: sqlite3.Row) -> Holder:
    return Holder(row["id"], row["owner"], row["name"], row["kind"], row["created_utc"], row["used_utc"])
