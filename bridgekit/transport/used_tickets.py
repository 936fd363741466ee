"""Records used tickets, so that each ticket opens only one socket, whichever worker receives the ticket.

Each ticket names the generation of the set of used tickets. If the set is lost, its generation changes, so that used
tickets do not become valid again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from bridgekit.ids import new_id

__all__ = ["MemoryUsedTickets", "UsedTickets"]


class UsedTickets(Protocol):
    """Stores used tickets until they expire."""

    @property
    def generation(self) -> str:
        """A random string that changes when used tickets may have been lost. With a shared store, `mark_used` updates
        the generation."""

    async def mark_used(self, ticket_id: str, seconds: float) -> bool:
        """Mark a ticket as used for `seconds`, and return whether this is its first use.

        The call is atomic. Raises StoreUnavailable if the store does not answer in time.
        """


class MemoryUsedTickets:
    """Used tickets in this process's memory. A call takes amortised O(1), and removes expired tickets.

    In a process that only issues tickets, pass the generation "", which is not checked.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, generation: str | None = None) -> None:
        self._clock = clock
        self.generation = new_id() if generation is None else generation
        self._until: OrderedDict[str, float] = OrderedDict()
        """Expiry times in order of use. An expired ticket is kept until all tickets that were used before it have
        expired."""

    def __len__(self) -> int:
        return len(self._until)

    async def mark_used(self, ticket_id: str, seconds: float) -> bool:
        now = self._clock()
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if ticket_id in self._until:
            return False
        self._until[ticket_id] = now + seconds
        return True
