"""An open SQLite file, the history or another one: one connection behind a lock, safe beside other processes.

In: a path. Out: transactions, in which sqlite3's errors come back as HistoryError. Opening and migrating happen under
a file lock, because two processes opening a new file lock each other out. Every write begins IMMEDIATE, because a
transaction that reads first and writes later cannot wait for another writer.
This file does not know what is stored.
"""

from __future__ import annotations

import errno
import os
import platform
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from impchat import locks, paths
from impchat.errors import HistoryError
from impchat.history import migrations


class Database:
    """The file at `path`, made or migrated by `steps` to the newest schema. May be used from any thread.

    Raises HistoryError "data.unwritable", "history.locked", "history.newer", "history.broken", "history.disk_full"."""

    def __init__(self, path: Path, busy_timeout_s: float, steps: Sequence[migrations.Step] = migrations.STEPS) -> None:
        self.path = path
        self.host = platform.node()
        self.pid = os.getpid()
        self.writer = f"{self.pid}-{uuid4().hex}"  # names a lock that is held until the process ends
        self._busy_timeout_s = busy_timeout_s
        self._steps = steps
        self._lock = threading.Lock()
        paths.ensure_data_dir(path.parent)
        paths.ensure_data_dir(path.parent / "writers")
        self._alive = locks.FileLock(self._writer_file(self.writer))
        with self._opening():
            self._connection = self._connect()
            self._alive.acquire()

    def close(self) -> None:
        """Close the file. Nothing may be read or written afterwards."""
        with self._lock:
            self._connection.close()
        with suppress(HistoryError), self._opening():  # a file that stays is removed by the next one to open
            self._alive.release()
            self._writer_file(self.writer).unlink(missing_ok=True)
        self._alive.release()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Several reads that see one state of the file."""
        with self._transaction("begin") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One write, whole or not at all."""
        with self._transaction("begin immediate") as connection:
            yield connection

    @contextmanager
    def write_after_deaths(self) -> Iterator[tuple[sqlite3.Connection, list[str]]]:
        """A write that is told the names of the writers that live; files of the dead are removed."""
        with self._opening(), self.write() as connection:
            living = []
            for file in (self.path.parent / "writers").glob("*.lock"):
                if locks.is_held(file):
                    living.append(file.stem)
                else:
                    file.unlink(missing_ok=True)
            yield connection, living

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with self._lock, _told(self.path):
            connection.execute(begin)
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("rollback")
                raise

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Alone among all processes that open or close the file."""
        lock = locks.FileLock(self.path.with_suffix(".lock"))
        with _told(self.path):
            if not lock.acquire(self._busy_timeout_s):
                raise HistoryError("history.locked", path=str(self.path))
            try:
                yield
            finally:
                lock.release()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("pragma foreign_keys = on")
            connection.execute("pragma journal_mode = wal")
            migrations.migrate(connection, str(self.path), steps=self._steps)
        except BaseException:
            connection.close()
            raise
        return connection

    def _writer_file(self, writer: str) -> Path:
        return self.path.parent / "writers" / f"{writer}.lock"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the disk become the sentence a person can act on."""
    try:
        yield
    except sqlite3.Error as exc:
        code = _code(getattr(exc, "sqlite_errorcode", None))
        if code is None:  # our own mistake, such as wrong SQL
            raise
        raise HistoryError(code, path=str(path)) from exc
    except OSError as exc:
        raise HistoryError(disk_code(exc), path=str(path)) from exc


def disk_code(exc: OSError) -> str:
    """The code of HistoryError for a file that could not be written."""
    return "history.disk_full" if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "data.unwritable"


def _code(sqlite_errorcode: int | None) -> str | None:
    if sqlite_errorcode is None:
        return None
    if sqlite_errorcode in (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ):
        return "history.broken"
    return {
        sqlite3.SQLITE_BUSY: "history.locked",
        sqlite3.SQLITE_LOCKED: "history.locked",
        sqlite3.SQLITE_FULL: "history.disk_full",
        sqlite3.SQLITE_IOERR: "history.disk_full",  # a quota or a file size limit comes back as this
        sqlite3.SQLITE_CANTOPEN: "data.unwritable",
        sqlite3.SQLITE_READONLY: "data.unwritable",
        sqlite3.SQLITE_PERM: "data.unwritable",
        sqlite3.SQLITE_NOTADB: "history.broken",
        sqlite3.SQLITE_CORRUPT: "history.broken",
    }.get(sqlite_errorcode & 0xFF)
