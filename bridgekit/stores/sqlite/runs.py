"""Active runs in a SQLite file: those that a killed process left there are ended by the next process."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio

from bridgekit.errors import StoreUnavailable
from bridgekit.ids import RunId
from bridgekit.mapping import ActiveRun
from bridgekit.stores.sqlite.database import LOAD_TIMEOUT_SECONDS, Database, PendingRows

__all__ = ["SqliteRunRegistry"]

_RUNS: Final = "SELECT run_id, thread_id, agent_name FROM runs"


class SqliteRunRegistry:
    """Only one process can have the file open. So the runs in it are those of processes that ended before."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = PendingRows(database, "runs")
        self._lost: list[ActiveRun] = []
        self._unclosed: set[RunId] = set()
        """Runs that have ended, and are still in the file, because it could not be written."""

    async def load(self) -> SqliteRunRegistry:
        """Read the runs in the file. Called before any other method."""
        rows = await self._database.read(_RUNS, timeout_seconds=LOAD_TIMEOUT_SECONDS)
        self._lost = [ActiveRun(*row) for row in rows]
        return self

    async def open(self, run: ActiveRun) -> None:
        await self._rows.put(run)

    async def holds(self, run_id: RunId) -> bool:
        return True

    async def close(self, run_id: RunId) -> None:
        waiting, self._unclosed = {run_id, *self._unclosed}, set()
        try:
            for each in sorted(waiting):
                with suppress(StoreUnavailable):
                    await self._rows.put((each, None, None))
                    waiting.discard(each)
        finally:
            self._unclosed |= waiting

    async def take_lost(self) -> list[ActiveRun]:
        if not self._lost:
            await anyio.sleep_forever()
        lost, self._lost = self._lost, []
        return lost
