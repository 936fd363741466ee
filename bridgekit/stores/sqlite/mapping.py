"""Routes and used tickets in a SQLite file: after a restart, runs are still known and used tickets are refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio

from bridgekit.errors import StoreUnavailable
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping.memory import MAX_ROUTES, MemoryMappingStore
from bridgekit.stores.sqlite.database import LOAD_TIMEOUT_SECONDS, Database, PendingRows
from bridgekit.transport.used_tickets import MemoryUsedTickets

__all__ = ["SqliteMappingStore", "SqliteUsedTickets"]

_ROUTES: Final = "SELECT run_id, thread_id, due, closed FROM routes WHERE due > ? ORDER BY due"
_TICKETS: Final = "SELECT ticket_id, until FROM used_tickets WHERE until > ? ORDER BY until"


class SqliteMappingStore:
    """Routes in memory, for lookups, and in the file. Every change is in the file before the caller gets its answer.

    The copy in memory is exact, because only one process can have the file open.
    """

    def __init__(self, database: Database, *, routes: int = MAX_ROUTES) -> None:
        self._database = database
        self._rows = PendingRows(database, "routes")
        self._memory = MemoryMappingStore(database.clock, routes=routes)
        self._stale: set[RunId] = set()
        """Runs that were live when the file was closed. They expire unless they are registered again."""
        self._adding: dict[RunId, anyio.Event] = {}
        """Runs whose routes are being written. Other registrations of such a run wait for the result."""

    async def load(self) -> SqliteMappingStore:
        """Read the routes in the file. Called before any other method."""
        rows = await self._database.read(_ROUTES, self._database.clock(), timeout_seconds=LOAD_TIMEOUT_SECONDS)
        for run_id, thread_id, due, closed in rows:
            self._memory.restore(run_id, thread_id, due)
            if not closed:
                self._stale.add(run_id)
        return self

    def __len__(self) -> int:
        return len(self._memory)

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        while (other := self._adding.get(run_id)) is not None:
            await other.wait()
        before, due = self._memory.lookup(run_id), self._memory.due(run_id)
        holds = self._memory.insert(run_id, thread_id)
        if holds != thread_id or (before is not None and due is None):
            return holds
        added = self._adding[run_id] = anyio.Event()
        try:
            await self._rows.put((run_id, thread_id, None))
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
        thread_id = self._memory.lookup(run_id)
        if run_id in self._stale and thread_id is not None:
            self._stale.discard(run_id)
            self._memory.insert(run_id, thread_id)
        due = self._memory.close(run_id, self._database.clock() + seconds)
        if due is not None:
            # In memory the route expires in any case. If this row is not written, the route is live in the file, and
            # expires like that of a stale run.
            with suppress(StoreUnavailable):
                await self._rows.put((run_id, thread_id, due))


class SqliteUsedTickets:
    """Used tickets in memory, for lookups, and in the file. A ticket is in the file before its first use is
    confirmed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = PendingRows(database, "used_tickets")
        self._memory = MemoryUsedTickets(database.clock)

    async def load(self) -> SqliteUsedTickets:
        """Read the tickets in the file. Called before any other method."""
        rows = await self._database.read(_TICKETS, self._database.clock(), timeout_seconds=LOAD_TIMEOUT_SECONDS)
        for ticket_id, until in rows:
            self._memory.add(ticket_id, until)
        return self

    def __len__(self) -> int:
        return len(self._memory)

    async def mark_used(self, ticket_id: str, seconds: float) -> bool:
        until = self._database.clock() + seconds
        if not self._memory.add(ticket_id, until):
            return False
        try:
            await self._rows.put((ticket_id, until))
        except StoreUnavailable:
            # No socket was opened with the ticket, so it may be presented again.
            self._memory.remove(ticket_id)
            raise
        return True
