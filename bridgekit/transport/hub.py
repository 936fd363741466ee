"""Link 10: delivers each event to the outboxes of its thread's sockets in this worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from msgspec.structs import asdict, replace

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import FRAME_BYTES, AgentEvent, Answer, Frame, Outcome, Receipt
from bridgekit.ids import ThreadId, UserId
from bridgekit.transport.log import LINK, EventLog, MemoryEventLog, Replay, Retention
from bridgekit.transport.outbox import CrowdedOutboxes

__all__ = ["LINK", "NO_ROOM", "Connection", "Hub"]

NO_ROOM: Final = "an outbox of the thread is full: await each answer, so that the event loop can write to the sockets"
"""The reason for refusing an event whose delivery would disconnect a client that reads. The log does not retain a
refused event."""
NO_EPOCH: Final = Cursor("-", 0)
"""A cursor with an epoch that no thread has."""


class Connection(Protocol):
    """One user's socket, subscribed to one thread."""

    @property
    def thread_id(self) -> ThreadId: ...

    @property
    def user_id(self) -> UserId: ...

    def put(self, frame: Frame) -> bool:
        """Enqueue the frame, and return whether it was accepted. Never waits, never raises."""

    def force_reconnect(self) -> None:
        """Make the client reconnect, because a subscription's stream has only one epoch.

        Never waits.
        """


class Hub:
    """The connections of each thread, and the log that publishes to them. Publishing never waits for a socket."""

    def __init__(self, log: EventLog | None = None, *, frame_bytes: int = FRAME_BYTES) -> None:
        self._log = MemoryEventLog() if log is None else log
        self._log.bind(self, frame_bytes=frame_bytes)
        self.crowded = CrowdedOutboxes()
        """Subscribers with a crowded outbox. Each subscriber adds itself and removes itself."""
        self._crowded_threads = self.crowded.by_thread
        self._connections: dict[ThreadId, tuple[Connection, ...]] = {}
        """The values are tuples, so that a connection can detach while another task iterates over the thread's
        connections."""

    @property
    def healthy(self) -> bool:
        """True if no known problem prevents the log from delivering events."""
        return self._log.healthy

    @property
    def problem(self) -> str:
        """The problem of the log, or an empty string. A healthy log may still have a problem with some threads."""
        return self._log.problem

    @property
    def retention(self) -> Retention:
        """The retention policy of the log."""
        return self._log.retention

    def attach(self, connection: Connection) -> None:
        """Start delivering the thread's events in this worker to the connection."""
        thread_id = self._thread_of(connection)
        self._connections[thread_id] = (*self._connections.get(thread_id, ()), connection)

    def detach(self, connection: Connection) -> None:
        """Stop delivering events to the connection.

        A connection that is not attached is ignored, because it may already have left.
        """
        thread_id = self._thread_of(connection)
        attached = self._connections.get(thread_id, ())
        if connection not in attached:
            return
        index = attached.index(connection)
        if remaining := attached[:index] + attached[index + 1 :]:
            self._connections[thread_id] = remaining
        else:
            self._connections.pop(thread_id, None)

    def _thread_of(self, connection: Connection) -> ThreadId:
        """Return the thread to which the connection is attached."""
        return connection.thread_id

    async def join(self, connection: Connection, after: Cursor | None = None) -> Replay:
        """Subscribe the connection to its thread until `leave`, and return the replay to send first.

        The hub puts every event after the replay in the connection's outbox. An event that is published during the call
        may be both in the replay and in the outbox. Raises StoreUnavailable if the log does not answer in time.
        """
        await self._log.join(connection.thread_id)
        try:
            self.attach(connection)
            return await self._log.replay(connection.thread_id, after)
        except BaseException:
            self.leave(connection)
            raise

    def leave(self, connection: Connection) -> None:
        """End the subscription that `join` started."""
        self.detach(connection)
        self._log.leave(connection.thread_id)

    @asynccontextmanager
    async def joined(self, connection: Connection, after: Cursor | None = None) -> AsyncIterator[Replay]:
        """Subscribe the connection, as `join` does, while the block runs."""
        replay = await self.join(connection, after)
        try:
            yield replay
        finally:
            self.leave(connection)

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
        """Assign the event its `seq`, encode it once, and put it in the outbox of each of the thread's sockets.

        Raises PayloadError or FrameTooLarge if the event cannot be encoded. Such an event gets no `seq` and reaches no
        socket. While an outbox of the thread is crowded, awaiting the receipt lets the event loop write to the sockets.
        If an outbox is full although its client reads, the event is REFUSED with `NO_ROOM`, and is not retained.
        """
        if event.thread_id != thread_id:
            event = replace(event, thread_id=thread_id)
        if self._crowded_threads and thread_id in self._crowded_threads:
            return self._publish_crowded(event, thread_id)
        return self._log.publish(event)

    def _publish_crowded(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
        if self.crowded.refuses(thread_id):
            answer: Answer = Receipt(outcome=Outcome.REFUSED, thread_id=thread_id, link=LINK, reason=NO_ROOM)
        else:
            answer = self._log.publish(event)
        if isinstance(answer, Receipt):
            return CrowdedReceipt(**asdict(answer), room=self.crowded.wait_for_room)
        return self._answer_with_room(answer, thread_id)

    async def _answer_with_room(self, answer: Awaitable[Receipt], thread_id: ThreadId) -> Receipt:
        receipt = await answer
        await self.crowded.wait_for_room(thread_id)
        return receipt

    async def retained(self, thread_id: ThreadId) -> tuple[Frame, ...]:
        """Return every frame that the thread's log retains.

        Raises StoreUnavailable if the log does not answer in time.
        """
        # For a cursor of another epoch, the replay contains every retained event.
        return (await self._log.replay(thread_id, NO_EPOCH)).frames

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """Wait until no outbox of the thread is crowded. Outboxes of slow clients are ignored."""
        await self.crowded.wait_for_room(thread_id)

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        """Put a numbered frame in the outbox of each of the thread's sockets, and return how many accepted it.

        Every event passes through `deliver`: override this method to change delivery.
        """
        attached = self._connections.get(thread_id, ())
        if len(attached) == 1:
            return 1 if attached[0].put(frame) else 0
        return sum([connection.put(frame) for connection in attached])

    def force_reconnect(self, thread_id: ThreadId) -> None:
        """Make the thread's clients reconnect, because the thread begins a new epoch."""
        for connection in self.connections(thread_id):
            connection.force_reconnect()

    def connections(self, thread_id: ThreadId) -> tuple[Connection, ...]:
        """Return the connections that receive this thread's events now."""
        return self._connections.get(thread_id, ())

    def __len__(self) -> int:
        """Return the number of attached connections."""
        return sum(len(attached) for attached in self._connections.values())


class CrowdedReceipt(Receipt, frozen=True, kw_only=True):
    """The receipt of an event that was published while an outbox of its thread was crowded.

    Awaiting the receipt lets the event loop write to the sockets.
    """

    room: Callable[[ThreadId], Awaitable[None]]

    def __await__(self) -> Generator[Any, Any, Receipt]:
        if self.thread_id is not None:
            yield from self.room(self.thread_id).__await__()
        fields = asdict(self)
        del fields["room"]
        return Receipt(**fields)
