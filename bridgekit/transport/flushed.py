"""A subscriber whose frames the edge's flusher writes: what both edges' subscribers have in common."""

from __future__ import annotations

import abc
from collections.abc import Awaitable

import anyio

from bridgekit.transport.admission import Subscription
from bridgekit.transport.flusher import Flusher
from bridgekit.transport.outbox import Outbox
from bridgekit.transport.subscriber import Subscriber

__all__ = ["FlushedSubscriber"]


class FlushedSubscriber(Subscriber, abc.ABC):
    """Marked when something is put to it; a subclass says how it is flushed, and takes the mark away."""

    __slots__ = ("_flusher", "_marked", "_over", "failure")

    def __init__(self, subscription: Subscription, flusher: Flusher, *, outbox: Outbox) -> None:
        super().__init__(subscription, outbox=outbox)
        self._flusher = flusher
        self._marked = False
        """Whether the flusher will come, or is here."""
        self._over = False
        """Whether nothing more is to be written."""
        self.failure: Exception | None = None
        """What writing raised that it should not."""

    @property
    def waiting(self) -> int:
        """How many frames wait for it."""
        return len(self.outbox)

    def wake(self) -> None:
        self._flusher.puts += 1
        if not self._marked:
            self._marked = True
            self._flusher.mark(self)

    @abc.abstractmethod
    def flush(self) -> Awaitable[None] | None:
        """As the flusher wants it: write what waits; give what is still to be awaited."""

    @abc.abstractmethod
    def fail(self, error: Exception) -> None:
        """Writing raised what it should not."""

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        """By default a flush never waits."""

    def end_waiting(self) -> None:
        """By default a flush never waits."""
