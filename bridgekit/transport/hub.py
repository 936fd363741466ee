"""Link 10: this worker's sockets by thread, and the way from an event to each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol

from msgspec.structs import asdict, replace

from bridgekit.events import FRAME_BYTES, AgentEvent, Answer, Frame, Outcome, Receipt
from bridgekit.ids import ThreadId, UserId
from bridgekit.signals import Cursor
from bridgekit.transport.log import LINK, EventLog, MemoryEventLog, Replay, Retention
from bridgekit.transport.outbox import CrowdedOutboxes

__all__ = ["LINK", "NO_ROOM", "Connection", "Hub"]

NO_ROOM: Final = "an outbox of the thread is full: await each answer, so that sockets are written to meanwhile"
"""The reason of an event that was refused, and not retained, because it would have disconnected a client that reads."""


class Connection(Protocol):
    """One user's socket, bound to exactly one thread for as long as it lives."""

    @property
    def thread_id(self) -> ThreadId: ...

    @property
    def user_id(self) -> UserId: ...

    def put(self, frame: Frame) -> bool:
        """Take the frame for this socket, at once; False when it cannot. Never waits, never raises."""

    def restart(self) -> None:
        """Let the client connect again: what it is owed can only be said to a new subscription. Never waits."""


class Hub:
    """Connections by thread, in front of a log. Publishing never waits for a socket."""

    def __init__(self, log: EventLog | None = None, *, frame_bytes: int = FRAME_BYTES) -> None:
        self._log = MemoryEventLog() if log is None else log
        self._log.bind(self, frame_bytes=frame_bytes)
        self.crowded = CrowdedOutboxes()
        """Subscribers whose outbox is crowded. They add and remove themselves."""
        self._crowded_threads = self.crowded.by_thread
        self._connections: dict[ThreadId, tuple[Connection, ...]] = {}
        """Tuples, because one that is being read from is not to change when a connection leaves."""

    @property
    def healthy(self) -> bool:
        """Whether events get through, as far as the log knows."""
        return self._log.healthy

    @property
    def retention(self) -> Retention:
        """How much of each thread the log retains."""
        return self._log.retention

    def attach(self, connection: Connection) -> None:
        """From now on the connection gets what is delivered to its thread in this worker."""
        thread_id = self._thread_of(connection)
        self._connections[thread_id] = (*self._connections.get(thread_id, ()), connection)

    def detach(self, connection: Connection) -> None:
        """From now on it gets none. A connection that is not attached is no error: it may have left already."""
        thread_id = self._thread_of(connection)
        attached = self._connections.get(thread_id, ())
        if connection not in attached:
            return
        place = attached.index(connection)
        if remaining := attached[:place] + attached[place + 1 :]:
            self._connections[thread_id] = remaining
        else:
            self._connections.pop(thread_id, None)

    def _thread_of(self, connection: Connection) -> ThreadId:
        """The thread under which a connection is kept."""
        return connection.thread_id

    @contextmanager
    def attached(self, connection: Connection) -> Iterator[None]:
        """Attach for the length of a block."""
        self.attach(connection)
        try:
            yield
        finally:
            self.detach(connection)

    async def join(self, connection: Connection, after: Cursor | None = None) -> Replay:
        """Subscribe the connection to its thread until it leaves, and give what it is to be sent first.

        Every event after the replay's is put to the connection. Those that come while the replay is read are put
        already, so that some may be in both: the one with the same number is the same event. StoreUnavailable comes through.
        """
        await self._log.join(connection.thread_id)
        try:
            self.attach(connection)
            return await self._log.replay(connection.thread_id, after)
        except BaseException:
            self.leave(connection)
            raise

    def leave(self, connection: Connection) -> None:
        """End what `join` began."""
        self.detach(connection)
        self._log.leave(connection.thread_id)

    @asynccontextmanager
    async def joined(self, connection: Connection, after: Cursor | None = None) -> AsyncIterator[Replay]:
        """Subscribe it as `join` does for the length of a block."""
        replay = await self.join(connection, after)
        try:
            yield replay
        finally:
            self.leave(connection)

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
        """Number the event within its thread, encode it once, and put it in the outbox of each of the thread's sockets.

        PayloadError or FrameTooLarge where it cannot be encoded: then it was not numbered and reached no socket. While
        an outbox is crowded, awaiting the answer lets the event loop write it; where it has no room although its client
        reads, the event is REFUSED with `NO_ROOM`, and not retained.
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
        return self._answered_with_room(answer, thread_id)

    async def _answered_with_room(self, answer: Awaitable[Receipt], thread_id: ThreadId) -> Receipt:
        receipt = await answer
        await self.crowded.wait_for_room(thread_id)
        return receipt

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """Let the event loop write until no outbox of the thread is crowded, but for those of slow clients."""
        await self.crowded.wait_for_room(thread_id)

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        """Put a numbered frame in the outbox of each of the thread's sockets; return how many took it.

        The last step of every event: to change what becomes of one, override this.
        """
        attached = self._connections.get(thread_id, ())
        if len(attached) == 1:
            return 1 if attached[0].put(frame) else 0
        return sum([connection.put(frame) for connection in attached])

    def restart(self, thread_id: ThreadId) -> None:
        """The thread's numbering began anew."""
        for connection in self.connections(thread_id):
            connection.restart()

    def connections(self, thread_id: ThreadId) -> tuple[Connection, ...]:
        """The connections that get this thread's events now."""
        return self._connections.get(thread_id, ())

    def __len__(self) -> int:
        """How many connections are attached."""
        return sum(len(attached) for attached in self._connections.values())


class CrowdedReceipt(Receipt, frozen=True, kw_only=True):
    """The receipt of an event whose thread has a crowded outbox. Awaiting it lets the event loop write first."""

    room: Callable[[ThreadId], Awaitable[None]]

    def __await__(self) -> Generator[Any, Any, Receipt]:
        if self.thread_id is not None:
            yield from self.room(self.thread_id).__await__()
        fields = asdict(self)
        del fields["room"]
        return Receipt(**fields)
