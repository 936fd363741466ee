"""The set of used tickets: each ticket opens one socket, whichever worker it is presented to."""

from __future__ import annotations

import time
from collections import deque
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
        self._used: set[str] = set()
        self._queue: deque[tuple[float, str]] = deque()
        """Tickets in order of use. With equal lifetimes this is the order of expiry; a shorter-lived ticket is kept
        slightly longer."""

    def __len__(self) -> int:
        return len(self._used)

    async def mark_used(self, ticket_id: str, seconds: float) -> bool:
        now = self._clock()
        while self._queue and self._queue[0][0] <= now:
            self._used.discard(self._queue.popleft()[1])
        if ticket_id in self._used:
            return False
        self._used.add(ticket_id)
        self._queue.append((now + seconds, ticket_id))
        return True
