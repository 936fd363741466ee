"""The set of used tickets: each ticket opens one socket, whichever worker it is presented to."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

__all__ = ["MemoryUsedTickets", "UsedTickets"]


class UsedTickets(Protocol):
    """Stores used tickets for as long as they would be valid."""

    async def mark_used(self, ticket_id: str, seconds: float) -> bool:
        """Mark a ticket as used for `seconds`, and return whether this is its first use. Atomic. StoreUnavailable if
        the store does not answer."""


class MemoryUsedTickets:
    """Used tickets in this process's memory. O(1), amortised: each call removes expired tickets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: OrderedDict[str, float] = OrderedDict()
        """Expiry times in order of use. With equal lifetimes this is the order of expiry; a shorter-lived ticket is
        kept slightly longer."""

    def __len__(self) -> int:
        return len(self._until)

    async def mark_used(self, ticket_id: str, seconds: float) -> bool:
        return self.add(ticket_id, self._clock() + seconds)

    def add(self, ticket_id: str, until: float) -> bool:
        """Do what `mark_used` does, as a plain method. `until` is the expiry by this set's clock."""
        now = self._clock()
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if ticket_id in self._until:
            return False
        self._until[ticket_id] = until
        return True

    def remove(self, ticket_id: str) -> None:
        """Forget a ticket, which may then be used again."""
        self._until.pop(ticket_id, None)
