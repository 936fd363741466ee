"""Which tickets have been used: a ticket opens one socket, once, wherever it is presented."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

__all__ = ["MemoryUsedTickets", "UsedTickets"]


class UsedTickets(Protocol):
    """Remembers tickets for as long as they would be valid."""

    async def spend(self, ticket_id: str, seconds: float) -> bool:
        """Whether this is the first time; remembered for that many seconds. Atomic. StoreUnavailable where nobody can say."""


class MemoryUsedTickets:
    """In this process's memory, O(1) amortised: each call forgets what has expired."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spent: set[str] = set()
        self._queue: deque[tuple[float, str]] = deque()
        """In the order of spending. Tickets of one lifetime expire in it; a shorter one is kept a little longer."""

    def __len__(self) -> int:
        return len(self._spent)

    async def spend(self, ticket_id: str, seconds: float) -> bool:
        now = self._clock()
        while self._queue and self._queue[0][0] <= now:
            self._spent.discard(self._queue.popleft()[1])
        if ticket_id in self._spent:
            return False
        self._spent.add(ticket_id)
        self._queue.append((now + seconds, ticket_id))
        return True
