"""Link 10: this worker's sockets by thread, and the way from an event to each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from bridgekit.events import FRAME_BYTES, AgentEvent, Frame, Receipt, draft
from bridgekit.ids import ThreadId, UserId
from bridgekit.signals import Cursor
from bridgekit.transport.broker import LINK, Broker, Replay
from bridgekit.transport.broker.memory import MemoryBroker

__all__ = ["LINK", "Connection", "Hub"]


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
    """Connections by thread, in front of a broker. Publishing never waits for a socket."""

    def __init__(self, broker: Broker | None = None, *, frame_bytes: int = FRAME_BYTES) -> None:
        self._broker = MemoryBroker() if broker is None else broker
        self._broker.bind(self)
        self._frame_bytes = frame_bytes
        self._connections: dict[ThreadId, tuple[Connection, ...]] = {}
        """Tuples, because one that is being read from is not to change when a connection leaves."""

    @property
    def healthy(self) -> bool:
        """Whether events get through, as far as the broker knows."""
        return self._broker.healthy

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
        already, so that some may be in both: the one with the same number is the same event. StoreAway comes through.
        """
        await self._broker.join(connection.thread_id)
        try:
            self.attach(connection)
            return await self._broker.replay(connection.thread_id, after)
        except BaseException:
            self.leave(connection)
            raise

    def leave(self, connection: Connection) -> None:
        """End what `join` began."""
        self.detach(connection)
        self._broker.leave(connection.thread_id)

    @asynccontextmanager
    async def joined(self, connection: Connection, after: Cursor | None = None) -> AsyncIterator[Replay]:
        """Subscribe it as `join` does for the length of a block."""
        replay = await self.join(connection, after)
        try:
            yield replay
        finally:
            self.leave(connection)

    async def publish(self, event: AgentEvent, thread_id: ThreadId) -> Receipt:
        """Encode the event once, number it within its thread, and bring it to every connection of the thread.

        PayloadError or FrameTooLarge where it cannot be encoded: then it was not numbered and nobody got it.
        """
        return await self._broker.publish(draft(event, thread_id, limit_bytes=self._frame_bytes))

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        """Put a numbered frame to every connection of the thread; how many took it."""
        attached = self.connections(thread_id)
        if len(attached) == 1:
            return int(attached[0].put(frame))
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
