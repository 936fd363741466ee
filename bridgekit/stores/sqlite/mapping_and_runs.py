"""Stores routes and active runs in a SQLite file.

After a restart, the routes still exist, and the new process ends the runs of the killed process.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import anyio

from bridgekit.errors import StoreUnavailable
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import ActiveRun
from bridgekit.mapping.memory import MAX_ROUTES, MemoryMappingStore
from bridgekit.stores.sqlite.file import STORE, checksum, damaged
from bridgekit.stores.sqlite.group_commit import LOAD_TIMEOUT_SECONDS, Database, PendingRows
from bridgekit.transport.cancellation import require_loop

__all__ = ["SqliteMappingStore", "SqliteRunRegistry"]

_ROUTES: Final = "SELECT run_id, thread_id, sum, due, closed FROM routes WHERE due > ? ORDER BY due"
_RUNS: Final = "SELECT run_id, thread_id, agent_name, sum FROM runs"


async def _load(database: Database, sql: str, *parameters: object, values: int) -> list[Any]:
    """Return rows after checking each row's first `values` columns against the checksum in the next column."""
    rows = await database.read(sql, *parameters, timeout_seconds=LOAD_TIMEOUT_SECONDS)
    for row in rows:
        if checksum(*row[:values]) != row[values]:
            raise damaged(database.path, f"the entry of run {row[0]!r} was changed")
    return rows


class SqliteMappingStore:
    """Keeps routes in memory, for lookups, and in the file.

    A new route is committed before the caller gets an answer.

    The copy in memory is always current, because only one process can open the file.
    """

    shared = False

    def __init__(self, database: Database, *, routes: int = MAX_ROUTES) -> None:
        self._database = database
        self._rows = PendingRows(database, "routes")
        self._memory = MemoryMappingStore(database.clock, routes=routes)
        self.known = self._memory.known
        self._stale: set[RunId] = set()
        """Runs that were active when the file was closed. Their routes expire unless the runs are registered again."""
        self._adding: dict[RunId, anyio.Event] = {}
        """Runs whose routes are being written. Further registrations of such a run wait for the result."""

    async def load(self) -> SqliteMappingStore:
        """Read the routes in the file. Call this before any other method."""
        for run_id, thread_id, _, due, closed in await _load(self._database, _ROUTES, self._database.clock(), values=2):
            self._memory.restore(run_id, thread_id, due)
            if not closed:
                self._stale.add(run_id)
        return self

    def __len__(self) -> int:
        return len(self._memory)

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        require_loop(self._database.loop, STORE)
        while (other := self._adding.get(run_id)) is not None:
            await other.wait()
        before, due = self._memory.lookup(run_id), self._memory.due(run_id)
        holds = self._memory.insert(run_id, thread_id)
        if holds != thread_id or (before is not None and due is None):
            return holds
        added = self._adding[run_id] = anyio.Event()
        try:
            await self._put(run_id, thread_id, None)
        except BaseException:
            self._memory.restore(run_id, before, due)
            raise
        finally:
            del self._adding[run_id]
            added.set()
        self._stale.discard(run_id)
        return holds

    async def get(self, run_id: RunId) -> ThreadId | None:
        return self._memory.lookup(run_id)

    async def expire(self, run_id: RunId, seconds: float) -> None:
        require_loop(self._database.loop, STORE)
        thread_id = self._memory.lookup(run_id)
        if run_id in self._stale and thread_id is not None:
            self._stale.discard(run_id)
            self._memory.insert(run_id, thread_id)
        due = self._memory.close(run_id, self._database.clock() + seconds)
        if due is not None:
            # The route in memory expires in any case. If this row cannot be written, the route in the file expires
            # STALE_ROUTE_SECONDS after the next start.
            with suppress(StoreUnavailable):
                await self._put(run_id, thread_id, due)

    async def _put(self, run_id: RunId, thread_id: ThreadId | None, due: float | None) -> None:
        await self._rows.put((run_id, thread_id, due, checksum(run_id, thread_id)))


class SqliteRunRegistry:
    """Records active runs in the file, so that the next process can end them.

    Only one process can open the file. At startup, the file therefore contains only runs of processes that have ended.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = PendingRows(database, "runs")
        self._lost: list[ActiveRun] = []
        self._unclosed: set[RunId] = set()
        """Ended runs that are still in the file, because it could not be written."""

    async def load(self) -> SqliteRunRegistry:
        """Read the runs in the file. Call this before any other method."""
        self._lost = [ActiveRun(*row[:3]) for row in await _load(self._database, _RUNS, values=3)]
        return self

    async def open(self, run: ActiveRun) -> None:
        await self._rows.put((*run, checksum(*run)))

    async def holds(self, run_id: RunId) -> bool:
        return True

    async def close(self, run_id: RunId) -> None:
        waiting, self._unclosed = {run_id, *self._unclosed}, set()
        try:
            for each in sorted(waiting):
                with suppress(StoreUnavailable):
                    await self._rows.put((each, None, None, 0))
                    waiting.discard(each)
        finally:
            self._unclosed |= waiting

    async def take_lost(self) -> list[ActiveRun]:
        if not self._lost:
            await anyio.sleep_forever()
        lost, self._lost = self._lost, []
        return lost
