"""Spent tickets in a SQLite file, beside what the contract says of all stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridgekit.errors import StoreAway
from bridgekit.storage import sqlite
from bridgekit.storage.sqlite_file import Synchronous
from bridgekit.stores import sqlite_stores
from bridgekit.transport.spent_sqlite import SpentInSqlite
from tests.storage.sqlite_files import Clock, asked, changed

FULL = """
CREATE TRIGGER full BEFORE INSERT ON spent WHEN NEW.ticket_id = 'unlucky' AND (SELECT count(*) FROM spent) = 0
BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_ticket_that_the_file_does_not_take_lets_nobody_in_and_may_be_tried_again(path: Path) -> None:
    async with sqlite_stores(path)():
        pass
    changed(path, FULL)
    async with sqlite_stores(path)() as stores:
        with pytest.raises(StoreAway, match="full"):
            await stores.spent.spend("unlucky", 60)
        assert await stores.spent.spend("lucky", 60)
        assert await stores.spent.spend("unlucky", 60)
        assert not await stores.spent.spend("unlucky", 60)


async def test_expired_tickets_leave_memory_and_file(path: Path) -> None:
    clock = Clock()
    async with sqlite.opened(path, Synchronous.OFF, clock) as database:
        spent = await SpentInSqlite(database).load()
        for number in range(20):
            assert await spent.spend(f"ticket {number}", 10)
        assert len(spent) == 20
        clock.now += 11
        assert await spent.spend("another", 10)
        assert len(spent) == 1
    assert asked(path, "SELECT ticket_id FROM spent") == [("another",)]


async def test_expired_tickets_are_not_taken_up_again(path: Path) -> None:
    clock = Clock()
    async with sqlite.opened(path, Synchronous.OFF, clock) as database:
        spent = await SpentInSqlite(database).load()
        assert await spent.spend("short", 5)
        assert await spent.spend("long", 50)
    clock.now += 10
    async with sqlite.opened(path, Synchronous.OFF, clock) as database:
        spent = await SpentInSqlite(database).load()
        assert len(spent) == 1
        assert await spent.spend("short", 5)
        assert not await spent.spend("long", 5)
