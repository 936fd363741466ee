"""Used tickets in a SQLite file: cases that the contract suite does not cover."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridgekit.errors import StoreUnavailable
from bridgekit.stores import sqlite_stores
from bridgekit.stores.sqlite.database import open_database
from bridgekit.stores.sqlite.file import Synchronous
from bridgekit.stores.sqlite.mapping import SqliteUsedTickets
from tests.stores.sqlite.files import Clock, query, run_script

FULL = """
CREATE TRIGGER full BEFORE INSERT ON used_tickets
WHEN NEW.ticket_id = 'unlucky' AND (SELECT count(*) FROM used_tickets) = 0
BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_ticket_that_cannot_be_written_is_refused_and_can_be_retried(path: Path) -> None:
    async with sqlite_stores(path)():
        pass
    run_script(path, FULL)
    async with sqlite_stores(path)() as stores:
        with pytest.raises(StoreUnavailable, match="full"):
            await stores.used_tickets.mark_used("unlucky", 60)
        assert await stores.used_tickets.mark_used("lucky", 60)
        assert await stores.used_tickets.mark_used("unlucky", 60)
        assert not await stores.used_tickets.mark_used("unlucky", 60)


async def test_expired_tickets_are_removed_from_memory_and_file(path: Path) -> None:
    clock = Clock()
    async with open_database(path, Synchronous.OFF, clock) as database:
        used_tickets = await SqliteUsedTickets(database).load()
        for number in range(20):
            assert await used_tickets.mark_used(f"ticket {number}", 10)
        assert len(used_tickets) == 20
        clock.now += 11
        assert await used_tickets.mark_used("another", 10)
        assert len(used_tickets) == 1
    assert query(path, "SELECT ticket_id FROM used_tickets") == [("another",)]


async def test_expired_tickets_are_not_loaded(path: Path) -> None:
    clock = Clock()
    async with open_database(path, Synchronous.OFF, clock) as database:
        used_tickets = await SqliteUsedTickets(database).load()
        assert await used_tickets.mark_used("short", 5)
        assert await used_tickets.mark_used("long", 50)
    clock.now += 10
    async with open_database(path, Synchronous.OFF, clock) as database:
        used_tickets = await SqliteUsedTickets(database).load()
        assert len(used_tickets) == 1
        assert await used_tickets.mark_used("short", 5)
        assert not await used_tickets.mark_used("long", 5)
