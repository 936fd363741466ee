"""Opens, locks, checks and closes the file of a SQLite store, which only one process can open.

Functions that access the file are blocking, so they run in a worker thread. A state file beside the store's file shows
whether the store's file has the latest commits, or is an older version such as a restored backup.
"""

from __future__ import annotations

import enum
import mmap
import os
import sqlite3
import sys
import time
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet
from zlib import crc32

import msgspec

from bridgekit.errors import StoreInUse, StoreUnusable, UnknownName

if sys.platform != "win32":
    import fcntl

__all__ = [
    "STALE_ROUTE_SECONDS",
    "STORE",
    "StoreFile",
    "Synchronous",
    "checksum",
    "damaged",
    "error_code",
    "identity",
    "parse_synchronous",
]

STORE: Final = "SQLite"
STALE_ROUTE_SECONDS: Final = 86_400.0
"""How long the store keeps the route of a run that was active when the file was closed, unless the run is registered
again. Without this limit, the route would never expire if the process that executed the run has ended."""
CACHE_KB: Final = 32_768

_SCHEMA: Final = files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")
_APPLICATION_ID: Final = 0x62726467
"""The application id in the header of bridgekit's files: the letters "brdg" as a number."""
_VERSION: Final = 4
_STATE_BYTES: Final = 64
CHECK_SECONDS: Final = 1.0
"""Shortest time between two checks that the file still exists."""
_ADVICE: Final = {
    sqlite3.SQLITE_CORRUPT: "the file is damaged: move it away, so that a new one is created, or restore a backup",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database, or its header is damaged: move it away or restore a backup",
    sqlite3.SQLITE_CANTOPEN: "the process needs to write to its folder",
    sqlite3.SQLITE_READONLY: "the process needs to write to it and to its folder",
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_IOERR: "the disk failed or is full, or the process may not write to the file",
}
"""The advice for an error, by SQLite's primary error code."""


class Synchronous(enum.StrEnum):
    """When SQLite waits for the disk, which decides whether acknowledged events survive a power loss.

    With every setting, acknowledged events survive the end of the process. If a power loss may have lost events, every
    thread begins a new epoch, so that a client that resumes gets a gap.
    """

    OFF = "off"
    """Never. A power loss may damage the file."""
    NORMAL = "normal"
    """At checkpoints. A power loss may lose the events of the last seconds."""
    FULL = "full"
    """At every commit. A power loss loses no event, if the disk stores the writes that it confirms."""


def parse_synchronous(value: str) -> Synchronous:
    """Parse a setting. Raises UnknownName, which lists the valid settings."""
    try:
        return Synchronous(value)
    except ValueError:
        raise UnknownName("synchronous setting", value, tuple(Synchronous)) from None


def checksum(*values: object) -> int:
    """Return the checksum of a row that is read at startup. SQLite does not detect that a value in the file was
    changed."""
    return crc32(msgspec.json.encode(values))


def damaged(path: Path, what: str) -> StoreUnusable:
    """Return the error for a file that SQLite can read, although its content was changed from outside."""
    return StoreUnusable(STORE, str(path), f"{what}; {_ADVICE[sqlite3.SQLITE_CORRUPT]}")


class StoreFile:
    """The store's file, which is open in this process only, and the state file beside it."""

    def __init__(self, path: Path, synchronous: Synchronous, now: float) -> None:
        """Raises StoreInUse or StoreUnusable if the file cannot be opened.

        The constructor does not change a file of another program.
        """
        self.path = path
        self._lock = -1
        self._state = mmap.mmap(-1, _STATE_BYTES)
        try:
            _create_private(path)
            self._identity = identity(path)
            with suppress(FileNotFoundError):
                os.close(_lock_state(path, os.O_RDWR))  # before SQLite reads, because it writes when it closes the file
            # Without a timeout, a second worker is refused immediately. Without an isolation level, each statement is a
            # transaction.
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._acquire_lock()
                self._begin_session(synchronous, now)
            except BaseException:
                self._connection.close()
                self.unlock()
                raise
        except OSError as error:
            raise StoreUnusable(STORE, str(path), error.strerror or str(error)) from error
        except ValueError as error:  # A table that must have one row has none or several.
            raise damaged(path, str(error)) from error
        except sqlite3.Error as error:
            code = error_code(error)
            if code == sqlite3.SQLITE_BUSY:
                raise StoreInUse(STORE, f"another has {path} open") from error
            raise StoreUnusable(STORE, str(path), "; ".join(filter(None, (str(error), _ADVICE.get(code))))) from error
        _open_files.add(self)
        self._inodes = self._read_inodes()
        self._checked_at = 0.0

    def fetch(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Execute a statement and return all of its rows."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except UnicodeError as error:
            # Python's `sqlite3` module raises this error for damaged text.
            corrupt = sqlite3.DatabaseError(str(error))
            corrupt.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise corrupt from error

    def commit(self, sql: str, parameters: tuple[object, ...], position: float) -> list[Any]:
        """Execute a statement that writes. `position` is the time that it writes to `threads`, or 0 if it writes
        none."""
        if (now := time.monotonic()) - self._checked_at >= CHECK_SECONDS:
            if self._read_inodes() != self._inodes:
                # Data that is written to a deleted file is lost when the process ends.
                raise sqlite3.OperationalError(f"{self.path}* was deleted, moved or replaced; restart the application")
            self._checked_at = now
        rows = self.fetch(sql, parameters)
        if position:
            self._write_state(f"open {position!r}")
        return rows

    def close(self) -> None:
        """Sync and close the file, so that a later power loss does not affect it."""
        with suppress(sqlite3.Error):
            self.fetch("PRAGMA synchronous=FULL")
            self.fetch("UPDATE store SET boot = NULL")
            self.fetch("PRAGMA wal_checkpoint(TRUNCATE)")
        # Closing copies the write-ahead log into the file. On a full disk, the data stays in the write-ahead log.
        with suppress(sqlite3.Error):
            self._connection.close()
        with suppress(OSError):
            self._write_state(f"closed {identity(self.path)}")
            self._state.flush()
        self.unlock()

    def unlock(self) -> None:
        """Close the state file, which releases the lock unless another process has copies of the descriptors."""
        _open_files.discard(self)
        self._state.close()
        if self._lock >= 0:
            os.close(self._lock)

    def _read_inodes(self) -> list[int | None]:
        return [_inode(f"{self.path}{suffix}") for suffix in ("", "-wal", "-state")]

    def _open_state(self) -> mmap.mmap:
        """Map the state file to memory, because a system call in each commit would release the interpreter's lock."""
        self._lock = _lock_state(self.path, os.O_RDWR | os.O_CREAT)
        # Reserve the space, because a write to mapped memory cannot report a full disk.
        os.write(self._lock, b" " * _STATE_BYTES)
        return mmap.mmap(self._lock, _STATE_BYTES)

    def _write_state(self, text: str) -> None:
        self._state[:] = text.ljust(_STATE_BYTES).encode()

    def _acquire_lock(self) -> None:
        """Lock the file against every other connection, and check that it is an undamaged file of bridgekit.

        Create the tables if the file is new.
        """
        # Set the locking mode before the first read, so that the index of the write-ahead log stays in memory and the
        # lock is kept.
        self.fetch("PRAGMA locking_mode=EXCLUSIVE")
        application_id, version = self._value("PRAGMA application_id"), self._value("PRAGMA user_version")
        is_new = (application_id, version, self._value("SELECT count(*) FROM sqlite_master")) == (0, 0, 0)
        if not is_new and application_id != _APPLICATION_ID:
            self._refuse("the file is not a store of bridgekit; choose another path")
        if not is_new and version != _VERSION:
            self._refuse(f"it is of version {version}, but this release needs version {_VERSION}; choose another path")
        journal_mode = self._value("PRAGMA journal_mode=WAL")
        if journal_mode != "wal":
            self._refuse(f"it cannot have a write-ahead log ({journal_mode=}); choose a local disk")
        self.fetch("PRAGMA synchronous=FULL")
        if is_new:
            self._connection.executescript(_SCHEMA)
        elif (problem := self._value("PRAGMA quick_check(1)")) != "ok":
            raise damaged(self.path, " ".join(problem.split()))

    def _begin_session(self, synchronous: Synchronous, now: float) -> None:
        """Delete logs and runs that may be out of date, record this boot, and wait until all writes are on the disk."""
        boot = _boot_id()
        ((last_boot, last_synchronous),) = self.fetch("SELECT boot, synchronous FROM store")
        lost_power = last_boot is not None and last_synchronous != Synchronous.FULL and (last_boot != boot or not boot)
        if lost_power or not self._is_latest():
            # The file may lack the latest events. Without a new epoch, a client would discard new events whose numbers
            # it has already received. The runs in the file may have ended.
            self._connection.executescript("BEGIN; DELETE FROM events; DELETE FROM threads; DELETE FROM runs; COMMIT")
        self._state = self._open_state()
        newest = self._newest() or 0.0
        self._write_state(f"open {newest!r}")
        self.begun_at = max(now, newest)
        """The time of this opening, which never decreases, although the machine's clock may have been set back."""
        self.fetch("UPDATE routes SET due = ? WHERE due IS NULL", (self.begun_at + STALE_ROUTE_SECONDS,))
        self.fetch("UPDATE store SET boot = ?, synchronous = ?", (boot, synchronous))
        self.fetch("PRAGMA wal_checkpoint(TRUNCATE)")
        self.fetch(f"PRAGMA synchronous={synchronous}")
        self.fetch(f"PRAGMA cache_size=-{CACHE_KB}")

    def _is_latest(self) -> bool:
        """Return whether the file has every commit that the state file records."""
        newest = self._newest()
        with suppress(OSError, ValueError):
            match Path(f"{self.path}-state").read_text(encoding="ascii").split():
                case ["closed", *identity]:
                    return " ".join(identity) == self._identity
                case ["open", position]:
                    return (newest or 0.0) >= float(position)
        return newest is None

    def _newest(self) -> float | None:
        """Return the time of the last commit that wrote to a thread."""
        newest: float | None = self._value("SELECT max(used_at) FROM threads")
        return newest

    def _refuse(self, problem: str) -> None:
        raise StoreUnusable(STORE, str(self.path), problem)

    def _value(self, sql: str) -> Any:
        ((value,),) = self.fetch(sql)
        return value


def _create_private(path: Path) -> None:
    """Create the file with permissions for its owner only. The function does not change an existing file."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _lock_state(path: Path, flags: int) -> int:
    """Open and lock the state file, and return its descriptor. Raises StoreInUse if another has locked it.

    SQLite's own lock is not enough: it ends when any code of this process opens and closes the file, for example to
    copy it.
    """
    descriptor = os.open(f"{path}-state", flags, 0o600)
    try:
        if sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreInUse(STORE, f"another has {path} open") from None
    except OSError:
        pass  # the file system has no such locks
    return descriptor


_open_files: Final = WeakSet[StoreFile]()


def _release_in_a_fork() -> None:
    """Close a forked child's descriptors of the locks, which the child would keep when its parent has ended."""
    for opened in list(_open_files):
        opened.unlock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_release_in_a_fork)


def error_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code, which is the lowest byte of the extended code.

    Return 0 for an error that Python's `sqlite3` module raises itself, because it has no SQLite code.
    """
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def identity(path: Path) -> str:
    """Return a string that changes whenever a file is written, restored or moved.

    The string contains the ctime, because a program can set back a file's other times but not the ctime.
    """
    status = path.stat()
    return f"{status.st_ino} {status.st_ctime_ns}"


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino  # noqa: PTH116  # called at each commit
    except OSError:
        return None


def _boot_id() -> str:
    """Return the id of this boot of the machine, or an empty string if it is unknown.

    Without a boot id, any unclean end counts as a power loss.
    """
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
