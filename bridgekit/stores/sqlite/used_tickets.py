"""Used tickets in a SQLite file: a ticket that was used before a restart is refused after it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from bridgekit.errors import StoreUnavailable
from bridgekit.stores.sqlite.database import LOAD_TIMEOUT_SECONDS, Database, PendingRows

__all__ = ["SqliteUsedTickets"]

_TICKETS: Final = "SELECT ticket_id, until FROM used_tickets WHERE until > ? ORDER BY until"


class SqliteUsedTickets:
    """Used tickets in memory, for lookups, and in the file. A ticket is in the file before its first use is
    confirmed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = PendingRows(database, "used_tickets")
        self._until: OrderedDict[str, float] = OrderedDict()
        """Expiry times in order of use. With equal lifetimes this is the order of expiry; a shorter-lived ticket is
        kept slightly longer."""

    async def load(self) -> SqliteUsedTickets:
        """Read the tickets in the file. Called before any other method."""
        rows = await self._database.read(_TICKETS, self._database.clock(), timeout_seconds=LOAD_TIMEOUT_SECONDS)
        self._until.update(rows)
        return self

    def __len__(self) -> int:
        return len(self._until)

    async def mark_used(self, ticket_id: str, seconds: float) -> bool:
        now = self._database.clock()
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if ticket_id in self._until:
            return False
        self._until[ticket_id] = now + seconds
        try:
            await self._rows.put((ticket_id, now + seconds))
        except StoreUnavailable:
            # No socket was opened with the ticket, so it may be presented again.
            self._until.pop(ticket_id, None)
            raise
        return True
