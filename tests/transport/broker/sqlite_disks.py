"""SQLite stores on disks that have a will of their own: SQLite itself says no, or takes its time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from bridgekit.storage import sqlite
from bridgekit.storage.sqlite_file import Synchronous
from bridgekit.transport.broker.sqlite import SqliteBroker
from bridgekit.transport.log import HISTORY, Keep
from tests.contract.stores import Worker
from tests.patience import PATIENCE_SECONDS
from tests.storage.sqlite_files import Clock, changed

POISON = 666
"""The number of an event that the disk does not take, or takes its time over."""

_POISONOUS = f"""instr(CAST(NEW.data AS TEXT), '"number":{POISON}')"""
_NO = "SELECT RAISE(ABORT, 'database or disk is full')"

REFUSING = f"CREATE TRIGGER refuse BEFORE INSERT ON events WHEN {_POISONOUS} BEGIN {_NO}; END;"
WORK = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {steps}) SELECT n FROM n"


FULL = f"""
  CREATE TRIGGER full_for_events BEFORE INSERT ON events BEGIN {_NO}; END;
  CREATE TRIGGER full_for_heads BEFORE INSERT ON threads BEGIN {_NO}; END;
  CREATE TRIGGER full_for_trials BEFORE UPDATE OF synchronous ON store WHEN NEW.boot = OLD.boot BEGIN {_NO}; END;
"""
"""A disk that takes nothing."""


async def make_room(worker: Worker) -> None:
    """From now on the full disk takes something. The file is open, so its own connection must see to that."""
    assert isinstance(worker.broker, SqliteBroker)
    for full in ("events", "heads", "trials"):
        await worker.broker._database.read(f"DROP TRIGGER full_for_{full}")


def slow_for(seconds: float) -> str:
    """A disk that takes about so long over the poison, whatever the machine."""
    steps = 300_000
    with closing(sqlite3.connect(":memory:")) as connection:
        began = time.perf_counter()
        connection.execute(f"SELECT count(*) FROM ({WORK.format(steps=steps)})").fetchall()
        took = time.perf_counter() - began
    work = WORK.format(steps=int(steps * seconds / took))
    return f"CREATE TRIGGER slow BEFORE INSERT ON events WHEN {_POISONOUS} BEGIN SELECT count(*) FROM ({work}); END;"


@asynccontextmanager
async def worker(
    path: Path, keep: Keep = HISTORY, clock: Clock | None = None, answer_seconds: float = PATIENCE_SECONDS
) -> AsyncIterator[Worker]:
    """A worker on the file, which is made if there is none."""
    async with sqlite.opened(path, Synchronous.OFF, clock or time.time, answer_seconds) as database:
        yield Worker(await SqliteBroker(database, keep).load())


async def made(path: Path, disk: str) -> None:
    """A store on such a disk."""
    async with worker(path):
        pass
    changed(path, disk)


def is_well(worker: Worker) -> bool:
    return worker.broker.healthy
