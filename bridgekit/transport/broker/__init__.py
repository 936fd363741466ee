"""Where a thread's events get their numbers, are kept for who resumes, and are handed to the workers with its sockets.

The interface, and what all brokers share. `memory` is the default, `sqlite` survives restarts of one worker, `redis`
serves any number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from bridgekit.events import Draft, Frame, Receipt
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, Gap

__all__ = ["HISTORY", "LINK", "UNHEARD", "Broker", "Keep", "Replay", "Sink"]

LINK: Final = 10
"""The audit's list ends at link 9. Whether a socket belongs to a thread at all is the link after it."""
UNHEARD: Final = "no socket of the thread took it"
"""The reason of an event that nobody was there to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How much of a thread's log is kept: what is over any of the bounds goes, oldest first."""

    events: int = 1_000
    """A thread. 0 keeps nothing: then delivery is at most once."""
    size_bytes: int = 4_194_304
    """A thread, in bytes of its frames. The latest event is kept whatever its size."""
    seconds: float = 300.0
    """From an event's publication."""
    threads: int = 100_000
    """How many threads' epochs and numbers are remembered. The one without sockets that was idle longest is forgotten
    first; who resumes it later is told of a gap."""


HISTORY: Final = Keep()


class Replay(NamedTuple):
    """What a joining socket is sent before the events to come."""

    cursor: Cursor
    """Where its stream begins: the first of `frames`, or else the next event of the thread, comes right after this."""
    frames: tuple[Frame, ...] = ()
    """Every event after the cursor, up to now."""
    gap: Gap | None = None
    """Of the numbering that the socket asked for: set where not every event after its cursor can be given. Then none
    of it is given, and the stream begins at the log's end; or, where numbering began anew, with all of the new one."""
    expired: Gap | None = None
    """Of a numbering that began anew: what is not held any more of its beginning."""

    @property
    def gaps(self) -> list[Gap]:
        """What the socket is told before the frames."""
        return [gap for gap in (self.gap, self.expired) if gap is not None]


class Sink(Protocol):
    """The sockets of this worker. Both methods are called on the event loop, return at once and do not raise."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        """Give the frame to every socket of the thread; answer how many took it.

        A thread's frames come in rising order. Where a number is left out, that event is lost.
        """

    def restart(self, thread_id: ThreadId) -> None:
        """The thread's numbering began anew: its sockets must connect again, and will be told what they miss."""


class Broker(Protocol):
    """A log for each thread, and the way from it to the sockets. What is told of one thread reaches no other."""

    @property
    def healthy(self) -> bool:
        """Whether an event that is published now would reach its sockets, as far as is known."""

    def bind(self, sink: Sink) -> None:
        """Deliver to these sockets. Called once, before anything else."""

    async def publish(self, draft: Draft) -> Receipt:
        """Give the event its number, keep it, and see it delivered wherever the thread has sockets.

        Answers in bounded time whatever state the store is in, and says what is true: SENT, RELAYED, NOBODY_LISTENING,
        PENDING, or REFUSED with the reason. A REFUSED event takes a number all the same as soon as it can, so that
        readers are told of the gap. Events of a thread that are published one after the other keep their order.
        """

    async def join(self, thread_id: ThreadId) -> None:
        """When this returns, every later event of the thread is delivered to the sink. Once for each socket.

        StoreAway where the store does not answer in time.
        """

    def leave(self, thread_id: ThreadId) -> None:
        """Take back one `join`."""

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        """What a socket that has just joined is sent: what came after its cursor; without one, nothing.

        Covers all that was not delivered to the sink since `join` returned, and may overlap with it. A cursor of
        another epoch, or ahead of the log, is answered by a gap to an unknown end, and by all that there is of this
        epoch: the rule stands in `resuming`. StoreAway as in `join`.
        """
