"""Routes in a SQLite file: what was registered is still known when the process is back."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio

from bridgekit.errors import StoreAway
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping.memory import ROUTES, MemoryStore
from bridgekit.storage.sqlite import LOAD_SECONDS, Database
from bridgekit.storage.sqlite_rows import Rows

__all__ = ["SqliteStore"]

_LOAD: Final = "SELECT run_id, thread_id, due, closed FROM routes WHERE due > ? ORDER BY due"


class SqliteStore:
    """All routes in memory, which is where they are looked up, and every change in the file before it is answered.

    That is the truth as long as one process has the file, and none but one can.
    """

    def __init__(self, database: Database, *, routes: int = ROUTES) -> None:
        self._database = database
        self._rows = Rows(database, "routes")
        self._orphans: set[RunId] = set()
        """Runs that nobody has closed, and that lapse all the same unless somebody registers them again."""
        self._adding: dict[RunId, anyio.Event] = {}
        """Runs whose routes are being written. Who claims one of them waits until that is decided."""
        self._memory = MemoryStore(database.clock, routes=routes)

    async def load(self) -> SqliteStore:
        """Take up the routes that the file knows. To be done first."""
        found = await self._database.read(_LOAD, self._database.clock(), seconds=LOAD_SECONDS)
        for run_id, thread_id, due, closed in found:
            self._memory.restore(run_id, thread_id, due)
            if not closed:
                self._orphans.add(run_id)
        return self

    def __len__(self) -> int:
        return len(self._memory)

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        while (other := self._adding.get(run_id)) is not None:
            await other.wait()
        had, due = self._memory.find(run_id), self._memory.due(run_id)
        holds = self._memory.hold(run_id, thread_id)
        if holds != thread_id or (had is not None and due is None):
            return holds
        adding = self._adding[run_id] = anyio.Event()
        try:
            await self._rows.put((run_id, thread_id, None))
        except BaseException:
            self._memory.restore(run_id, had, due)
            raise
        finally:
            del self._adding[run_id]
            adding.set()
        self._orphans.discard(run_id)
        return holds

    async def get(self, run_id: RunId) -> ThreadId | None:
        return self._memory.find(run_id)

    async def expire(self, run_id: RunId, seconds: float) -> None:
        thread_id = self._memory.find(run_id)
        if run_id in self._orphans and thread_id is not None:
            self._orphans.discard(run_id)
            self._memory.hold(run_id, thread_id)
        due = self._memory.close(run_id, self._database.clock() + seconds)
        if due is not None:
            # Here it lapses in any case. What the file was not told it knows as an orphan, which lapses as well.
            with suppress(StoreAway):
                await self._rows.put((run_id, thread_id, due))
