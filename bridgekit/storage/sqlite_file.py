"""The file of a SQLite store: opened by one process, ours or left alone, and whether it missed anything."""

from __future__ import annotations

import enum
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import anyio
import sqlite_anyio

from bridgekit.errors import StoreInUse, StoreUnusable, UnknownName

__all__ = ["ORPHAN_SECONDS", "STORE", "Synchronous", "connected", "let_go", "synchronous"]

STORE: Final = "SQLite"
ORPHAN_SECONDS: Final = 86_400.0
"""How long a run that was live when the file was closed keeps its route, unless it is registered again: nobody may be
left to say that it has ended."""
CACHE_KB: Final = 32_768
_SCHEMA: Final = files(__package__).joinpath("sqlite_schema.sql").read_text(encoding="utf-8")
_OURS: Final = 0x62726467
"""In a file's header, says what it is: the letters "brdg"."""
_VERSION: Final = 1
_CODE: Final = 0xFF
"""SQLite's error codes are in the lowest byte; what is above says more of the same."""


class Synchronous(enum.StrEnum):
    """What SQLite waits for before a commit is done, and so what an acknowledged event survives.

    Each survives the end of the process, however it comes. Where a power loss may have cost something, every thread's
    numbering begins anew, so that who resumes is told.
    """

    OFF = "off"
    """For nothing. A power loss may cost the file."""
    NORMAL = "normal"
    """For the disk, from time to time. A power loss may cost the last seconds."""
    FULL = "full"
    """For the disk, at every commit. A power loss costs nothing, if the disk keeps what it says it has."""


def synchronous(value: str) -> Synchronous:
    """Check a setting from outside; UnknownName names the known ones."""
    try:
        return Synchronous(value)
    except ValueError:
        raise UnknownName("synchronous setting", value, tuple(Synchronous)) from None


async def connected(
    path: Path, setting: Synchronous, now: float
) -> tuple[sqlite_anyio.Connection, sqlite_anyio.Cursor]:
    """Open the file for this process alone, made if there is none; StoreInUse or StoreUnusable where that cannot be."""
    with _said_plainly(path):
        _made_private(path)
        connection = await sqlite_anyio.connect(str(path))
        cursor = await connection.cursor(_committing_by_itself)
        try:
            await _taken(cursor, path)
            await _begun(cursor, setting, now)
        except BaseException:
            await _closed(connection, cursor)
            raise
    return connection, cursor


async def let_go(connection: sqlite_anyio.Connection, cursor: sqlite_anyio.Cursor) -> None:
    """Close the file, so that it may be moved, and that even a power loss takes nothing of it any more."""
    with anyio.CancelScope(shield=True), suppress(sqlite3.Error):
        await cursor.execute("PRAGMA synchronous=FULL")
        await cursor.execute("UPDATE store SET boot = NULL")
        await cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await _closed(connection, cursor)


async def _closed(connection: sqlite_anyio.Connection, cursor: sqlite_anyio.Cursor) -> None:
    # First the cursor: a statement that is not done with keeps the file open, and locked, as long as it lives.
    # Closing writes what is in the log into the file; where the disk is full it stays in the log.
    with suppress(sqlite3.Error):
        await cursor.close()
        await connection.close()


def _committing_by_itself(connection: sqlite3.Connection) -> sqlite3.Cursor:
    """A cursor each of whose statements is a transaction: otherwise Python begins one, and commits when it is told."""
    connection.isolation_level = None
    return sqlite3.Cursor(connection)


@contextmanager
def _said_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnusable(STORE, str(path), error.strerror or str(error)) from error
    except sqlite3.Error as error:
        if error.sqlite_errorcode & _CODE == sqlite3.SQLITE_BUSY:
            raise StoreInUse(STORE, f"another has {path} open") from error
        raise StoreUnusable(STORE, str(path), str(error)) from error


def _made_private(path: Path) -> None:
    """What users are told is nobody else's to read. A file that is there already keeps its mode, and its time."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


async def _taken(cursor: sqlite_anyio.Cursor, path: Path) -> None:
    """Lock the file against every other connection, see that it is ours, and make it so if it is new."""
    # At once, or not at all: a second worker is not to wait until this one ends.
    await cursor.execute("PRAGMA busy_timeout=0")
    # Before the file is read: then the index of the log is kept in memory, and the first lock is for good.
    await cursor.execute("PRAGMA locking_mode=EXCLUSIVE")
    application = await _value(cursor, "PRAGMA application_id")
    version = await _value(cursor, "PRAGMA user_version")
    things = await _value(cursor, "SELECT count(*) FROM sqlite_master")
    new = (application, version, things) == (0, 0, 0)
    if not new and application != _OURS:
        raise StoreUnusable(STORE, str(path), "it holds something else")
    if not new and version != _VERSION:
        raise StoreUnusable(STORE, str(path), f"it is of version {version}, and this is for version {_VERSION}")
    journal = await _value(cursor, "PRAGMA journal_mode=WAL")
    if journal != "wal":
        raise StoreUnusable(STORE, str(path), f"no write-ahead log is to be had there, only {journal!r}")
    await cursor.execute("PRAGMA synchronous=FULL")
    if new:
        await cursor.executescript(_SCHEMA)


async def _begun(cursor: sqlite_anyio.Cursor, setting: Synchronous, now: float) -> None:
    """Note who has the file open, with all that came before safe on the disk."""
    boot = _boot()
    await cursor.execute("SELECT boot, synchronous FROM store")
    ((had, with_setting),) = await cursor.fetchall()
    if had is not None and with_setting != Synchronous.FULL and (had != boot or not boot):
        # It was not closed, and the machine has not been up ever since: some of the latest events may be missing.
        # Whoever read them must not take new ones of the same numbers for them.
        await cursor.executescript("BEGIN; DELETE FROM events; DELETE FROM threads; COMMIT")
    await cursor.execute("UPDATE routes SET due = ? WHERE due IS NULL", (now + ORPHAN_SECONDS,))
    await cursor.execute("UPDATE store SET boot = ?, synchronous = ?", (boot, setting))
    await cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await cursor.execute(f"PRAGMA synchronous={setting}")
    await cursor.execute(f"PRAGMA cache_size=-{CACHE_KB}")


def _boot() -> str:
    """What this boot of the machine is called. Empty where nobody says: then any unclean end counts as a power loss."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


async def _value(cursor: sqlite_anyio.Cursor, sql: str) -> Any:
    await cursor.execute(sql)
    (row,) = await cursor.fetchall()
    return row[0]
