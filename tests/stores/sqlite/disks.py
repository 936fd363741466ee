"""SQLite stores on a full or slow disk: triggers make SQLite itself fail or take long."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from bridgekit.stores.sqlite.file import Synchronous
from bridgekit.stores.sqlite.group_commit import open_database
from bridgekit.stores.sqlite.log import SqliteEventLog
from bridgekit.transport.log import DEFAULT_RETENTION, Retention
from tests.contract.stores import Worker
from tests.stores.sqlite.files import Clock, run_script
from tests.timeouts import TIMEOUT_SECONDS

POISON = 666
"""The number of the event that the disk rejects or writes slowly."""

_POISONOUS = f"""instr(CAST(NEW.data AS TEXT), '"number":{POISON}')"""
_NO = "SELECT RAISE(ABORT, 'database or disk is full')"

REFUSING = f"CREATE TRIGGER refuse BEFORE INSERT ON events WHEN {_POISONOUS} BEGIN {_NO}; END;"
WORK = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {steps}) SELECT n FROM n"


FULL = f"""
  CREATE TRIGGER full_for_events BEFORE INSERT ON events BEGIN {_NO}; END;
  CREATE TRIGGER full_for_heads BEFORE INSERT ON threads BEGIN {_NO}; END;
  CREATE TRIGGER full_for_trials BEFORE UPDATE OF synchronous ON store WHEN NEW.boot = OLD.boot BEGIN {_NO}; END;
"""
"""A full disk."""


async def make_room(worker: Worker) -> None:
    """End FULL. Only the store's own connection can do that while the file is open."""
    assert isinstance(worker.log, SqliteEventLog)
    for full in ("events", "heads", "trials"):
        await worker.log._database.read(f"DROP TRIGGER full_for_{full}")


def slow_for(seconds: float) -> str:
    """Return a trigger that makes the event POISON take about this long to write, on any machine."""
    steps = 300_000
    with closing(sqlite3.connect(":memory:")) as connection:
        began = time.perf_counter()
        connection.execute(f"SELECT count(*) FROM ({WORK.format(steps=steps)})").fetchall()
        took = time.perf_counter() - began
    work = WORK.format(steps=int(steps * seconds / took))
    return f"CREATE TRIGGER slow BEFORE INSERT ON events WHEN {_POISONOUS} BEGIN SELECT count(*) FROM ({work}); END;"


@asynccontextmanager
async def worker(
    path: Path,
    retention: Retention = DEFAULT_RETENTION,
    clock: Clock | None = None,
    answer_seconds: float = TIMEOUT_SECONDS,
) -> AsyncIterator[Worker]:
    """Open the file, which is created if there is none, and connect a Worker to its log."""
    async with open_database(path, Synchronous.OFF, clock or time.time, answer_seconds) as database:
        yield Worker(await SqliteEventLog(database, retention).load())


async def create_store(path: Path, disk: str) -> None:
    """Create a store on such a disk."""
    async with worker(path):
        pass
    run_script(path, disk)


def is_healthy(worker: Worker) -> bool:
    """Read the attribute again: a type checker assumes that an asserted attribute does not change."""
    return worker.log.healthy
