"""Rows on their way into a SQLite file: no more wait than the limit, also where nobody waits for them any more."""

from __future__ import annotations

from pathlib import Path

import anyio

from bridgekit.errors import StoreAway
from bridgekit.storage import sqlite
from bridgekit.storage.sqlite_file import Synchronous
from bridgekit.storage.sqlite_rows import Rows
from tests.storage.sqlite_files import asked


async def test_rows_over_the_limit_are_refused_and_those_before_are_committed_together(tmp_path: Path) -> None:
    refused: list[str] = []
    async with sqlite.opened(tmp_path / "store.db", Synchronous.OFF) as database:
        rows = Rows(database, "spent", limit=3)

        async def put(number: int) -> None:
            try:
                await rows.put((f"ticket {number}", 10**10))
            except StoreAway as away:
                refused.append(away.problem)

        # Until the writer waits: on trio it may begin in the midst of them.
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(put, number)
        await put(5)
    assert refused == ["it is behind"] * 2
    assert asked(tmp_path / "store.db", "SELECT count(*) FROM spent") == [(4,)]


async def test_row_whose_sender_was_cancelled_is_written_all_the_same(tmp_path: Path) -> None:
    async with sqlite.opened(tmp_path / "store.db", Synchronous.OFF) as database:
        rows = Rows(database, "spent")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rows.put, ("ticket", 10**10))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert asked(tmp_path / "store.db", "SELECT ticket_id FROM spent") == [("ticket",)]
