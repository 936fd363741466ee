"""Spent tickets in a SQLite file: one that opened a socket opens none when the process is back."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from bridgekit.errors import StoreAway
from bridgekit.storage.sqlite import LOAD_SECONDS, Database
from bridgekit.storage.sqlite_rows import Rows

__all__ = ["SpentInSqlite"]

_LOAD: Final = "SELECT ticket_id, until FROM spent WHERE until > ? ORDER BY until"


class SpentInSqlite:
    """Looked up in memory, and in the file before anybody is told that it was the first time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database, "spent")
        self._until: OrderedDict[str, float] = OrderedDict()
        """In the order of spending. Tickets of one lifetime expire in it; a shorter one is kept a little longer."""

    async def load(self) -> SpentInSqlite:
        """Take up the tickets that the file knows. To be done first."""
        self._until.update(await self._database.read(_LOAD, self._database.clock(), seconds=LOAD_SECONDS))
        return self

    def __len__(self) -> int:
        return len(self._until)

    async def spend(self, ticket_id: str, seconds: float) -> bool:
        now = self._database.clock()
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if ticket_id in self._until:
            return False
        self._until[ticket_id] = now + seconds
        try:
            await self._rows.put((ticket_id, now + seconds))
        except StoreAway:
            # It opened no socket: it may be tried again.
            self._until.pop(ticket_id, None)
            raise
        return True
