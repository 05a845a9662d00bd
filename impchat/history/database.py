"""An open SQLite file, the history or another one: one connection guarded by a lock, safe for several processes.

In: a path. Out: transactions, which raise sqlite3's errors as HistoryError. Opening and migrating hold a file lock,
because two processes that open a new file would block each other. Every write begins with BEGIN IMMEDIATE, because a
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

MEMORY = Path(":memory:")  # SQLite's name for a database in memory


class Database:
    """The file at `path`, created or migrated to the newest schema by `steps`. May be used from any thread. With `path`
    MEMORY, a new database in memory, which writes no file and is lost when it is closed.
    `busy_timeout_s`: how long to wait for the lock of another process.

    Raises HistoryError "data.unwritable", "history.locked", "history.newer", "history.broken", "history.disk_full"."""

    def __init__(self, path: Path, busy_timeout_s: float, steps: Sequence[migrations.Step] = migrations.STEPS) -> None:
        self.path = path
        self.host = platform.node()
        self.pid = os.getpid()
        self.writer = f"{self.pid}-{uuid4().hex}"  # the name of a lock held until close() or the end of the process
        self._busy_timeout_s = busy_timeout_s
        self._steps = steps
        self._lock = threading.Lock()
        if path == MEMORY:
            self._connection = self._connect()
            return
        paths.ensure_data_dir(path.parent)
        paths.ensure_data_dir(path.parent / "writers")
        self._alive = locks.FileLock(self._writer_file(self.writer))
        with self._opening():
            self._connection = self._connect()
            self._alive.acquire()

    def close(self) -> None:
        """Close the file. It must not be used afterwards."""
        with self._lock:
            self._connection.close()
        if self.path == MEMORY:
            return
        with suppress(HistoryError), self._opening():  # a leftover file is removed at the next opening
            self._alive.release()
            self._writer_file(self.writer).unlink(missing_ok=True)
        self._alive.release()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: all reads inside see one state of the file."""
        with self._transaction("begin") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, atomic."""
        with self._transaction("begin immediate") as connection:
            yield connection

    @contextmanager
    def write_after_deaths(self) -> Iterator[tuple[sqlite3.Connection, list[str]]]:
        """A write transaction, with the names of the writers that are alive. Removes the lock files of dead writers."""
        if self.path == MEMORY:
            with self.write() as connection:
                yield connection, [self.writer]
            return
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
        with self._lock, _sqlite_errors(self.path):
            connection.execute(begin)
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:  # false after a full disk, which ends the transaction
                    connection.execute("rollback")
                raise

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Exclude other processes that open or close the file."""
        lock = locks.FileLock(self.path.with_suffix(".lock"))
        with _sqlite_errors(self.path):
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
            connection.execute("pragma journal_mode = wal")  # of a database in memory, no file is written
            if self.path == MEMORY:
                connection.execute("pragma temp_store = memory")  # large sorts would write temporary files
            migrations.migrate(connection, str(self.path), steps=self._steps)
        except BaseException:
            connection.close()
            raise
        return connection

    def _writer_file(self, writer: str) -> Path:
        return self.path.parent / "writers" / f"{writer}.lock"


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """Convert errors of SQLite and of the disk to HistoryError."""
    try:
        yield
    except sqlite3.Error as exc:
        code = _code(getattr(exc, "sqlite_errorcode", None))
        if code is None:  # a bug, such as invalid SQL
            raise
        raise HistoryError(code, path=str(path)) from exc
    except OSError as exc:
        raise HistoryError(disk_code(exc), path=str(path)) from exc


def disk_code(exc: OSError) -> str:
    """The HistoryError code for a file that could not be written."""
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
        sqlite3.SQLITE_IOERR: "history.disk_full",  # reported for a quota or a file size limit
        sqlite3.SQLITE_CANTOPEN: "data.unwritable",
        sqlite3.SQLITE_READONLY: "data.unwritable",
        sqlite3.SQLITE_PERM: "data.unwritable",
        sqlite3.SQLITE_NOTADB: "history.broken",
        sqlite3.SQLITE_CORRUPT: "history.broken",
    }.get(sqlite_errorcode & 0xFF)
