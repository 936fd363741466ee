"""Rows that wait for their commit: their number is limited, and a cancelled caller affects no other."""

from __future__ import annotations

from pathlib import Path

import anyio

from bridgekit.errors import StoreUnavailable
from bridgekit.stores.sqlite.file import Synchronous
from bridgekit.stores.sqlite.group_commit import PendingRows, open_database
from tests.stores.sqlite.files import query


async def test_rows_over_the_limit_are_refused_and_earlier_rows_are_committed_together(tmp_path: Path) -> None:
    refused: list[str] = []
    async with open_database(tmp_path / "store.db", Synchronous.OFF) as database:
        rows = PendingRows(database, "runs", limit=3)

        async def put(number: int) -> None:
            try:
                await rows.put((f"run {number}", "thread", "agent", 0))
            except StoreUnavailable as error:
                refused.append(error.problem)

        # Wait until the writer is idle: on trio it could commit before all rows are queued.
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(put, number)
        await put(5)
    assert refused == ["its queue of unwritten rows is full; try again later"] * 2
    assert query(tmp_path / "store.db", "SELECT count(*) FROM runs") == [(4,)]


async def test_row_is_written_when_its_caller_was_cancelled(tmp_path: Path) -> None:
    async with open_database(tmp_path / "store.db", Synchronous.OFF) as database:
        rows = PendingRows(database, "runs")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rows.put, ("run", "thread", "agent", 0))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert query(tmp_path / "store.db", "SELECT run_id FROM runs") == [("run",)]
