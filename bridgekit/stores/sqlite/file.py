"""The file of a SQLite store: one process opens, locks, checks and closes it.

These functions block, so they run in a worker thread.
"""

from __future__ import annotations

import enum
import os
import sqlite3
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from bridgekit.errors import StoreInUse, StoreUnusable, UnknownName

__all__ = ["STALE_ROUTE_SECONDS", "STORE", "Synchronous", "close_file", "fetch", "open_file", "parse_synchronous"]

STORE: Final = "SQLite"
STALE_ROUTE_SECONDS: Final = 86_400.0
"""How long a run that was live when the file was closed keeps its route, unless it is registered again. Possibly no
process is left to end the run."""
CACHE_KB: Final = 32_768

_SCHEMA: Final = files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")
_APPLICATION_ID: Final = 0x62726467
"""Identifies our files by their header. It encodes the letters "brdg"."""
_VERSION: Final = 3
_PRIMARY_CODE: Final = 0xFF
"""The lowest byte of an extended error code of SQLite is the primary error code."""


class Synchronous(enum.StrEnum):
    """When SQLite waits for the disk, which decides what an acknowledged event survives.

    With each setting it survives the end of the process. If a power loss may have lost events, every thread begins a
    new epoch, so that a client that resumes gets a gap.
    """

    OFF = "off"
    """Never. A power loss may damage the file."""
    NORMAL = "normal"
    """At checkpoints. A power loss may lose the last seconds."""
    FULL = "full"
    """At every commit. A power loss loses nothing, if the disk stores what it confirms."""


def parse_synchronous(value: str) -> Synchronous:
    """Parse a setting. UnknownName lists the known ones."""
    try:
        return Synchronous(value)
    except ValueError:
        raise UnknownName("synchronous setting", value, tuple(Synchronous)) from None


def fetch(connection: sqlite3.Connection, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
    """Execute a statement and return all of its rows."""
    return connection.execute(sql, parameters).fetchall()


def open_file(path: Path, synchronous: Synchronous, now: float) -> sqlite3.Connection:
    """Open the file for this process alone. Raises StoreInUse or StoreUnusable if that is not possible."""
    try:
        _create_private(path)
        # No timeout: a second worker is refused immediately. No isolation level: every statement is a transaction.
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            _acquire_lock(connection, path)
            _begin_session(connection, synchronous, now)
        except BaseException:
            connection.close()
            raise
    except OSError as error:
        raise StoreUnusable(STORE, str(path), error.strerror or str(error)) from error
    except sqlite3.Error as error:
        if error.sqlite_errorcode & _PRIMARY_CODE == sqlite3.SQLITE_BUSY:
            raise StoreInUse(STORE, f"another has {path} open") from error
        raise StoreUnusable(STORE, str(path), str(error)) from error
    return connection


def _create_private(path: Path) -> None:
    """Create the file with permissions for its owner only. An existing file is not changed."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _acquire_lock(connection: sqlite3.Connection, path: Path) -> None:
    """Lock the file against every other connection, check that it is ours, and create the tables if it is new."""
    # Set before the first read, so that the index of the write-ahead log stays in memory and the first lock is kept.
    fetch(connection, "PRAGMA locking_mode=EXCLUSIVE")
    application_id = _value(connection, "PRAGMA application_id")
    version = _value(connection, "PRAGMA user_version")
    is_new = (application_id, version, _value(connection, "SELECT count(*) FROM sqlite_master")) == (0, 0, 0)
    if not is_new and application_id != _APPLICATION_ID:
        raise StoreUnusable(STORE, str(path), "the file is not a store of bridgekit; choose another path")
    if not is_new and version != _VERSION:
        problem = f"the file is of version {version}, but this release needs version {_VERSION}; choose another path"
        raise StoreUnusable(STORE, str(path), problem)
    journal_mode = _value(connection, "PRAGMA journal_mode=WAL")
    if journal_mode != "wal":
        raise StoreUnusable(
            STORE, str(path), f"it cannot have a write-ahead log ({journal_mode=}); choose a local disk"
        )
    fetch(connection, "PRAGMA synchronous=FULL")
    if is_new:
        connection.executescript(_SCHEMA)


def _begin_session(connection: sqlite3.Connection, synchronous: Synchronous, now: float) -> None:
    """Record which boot has the file open, after all earlier writes are safe on the disk."""
    boot = _boot_id()
    ((last_boot, last_synchronous),) = fetch(connection, "SELECT boot, synchronous FROM store")
    if last_boot is not None and last_synchronous != Synchronous.FULL and (last_boot != boot or not boot):
        # The file was not closed, and the machine has rebooted since, so the latest events may be missing. A client
        # that received them must not mistake new events with the same numbers for them.
        connection.executescript("BEGIN; DELETE FROM events; DELETE FROM threads; COMMIT")
    fetch(connection, "UPDATE routes SET due = ? WHERE due IS NULL", (now + STALE_ROUTE_SECONDS,))
    fetch(connection, "UPDATE store SET boot = ?, synchronous = ?", (boot, synchronous))
    fetch(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
    fetch(connection, f"PRAGMA synchronous={synchronous}")
    fetch(connection, f"PRAGMA cache_size=-{CACHE_KB}")


def close_file(connection: sqlite3.Connection) -> None:
    """Close the file, so that it can be moved and a later power loss loses nothing of it."""
    with suppress(sqlite3.Error):
        fetch(connection, "PRAGMA synchronous=FULL")
        fetch(connection, "UPDATE store SET boot = NULL")
        fetch(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
    # Closing copies the write-ahead log into the file. On a full disk the data stays in the log.
    with suppress(sqlite3.Error):
        connection.close()


def _boot_id() -> str:
    """Return the id of this boot of the machine; empty if unknown. Then any unclean end counts as a power loss."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _value(connection: sqlite3.Connection, sql: str) -> Any:
    ((value,),) = fetch(connection, sql)
    return value
