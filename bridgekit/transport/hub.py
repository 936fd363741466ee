"""Link 10: a thread's sockets, and the one place where an event gets its number and becomes a frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

from bridgekit.errors import PayloadError
from bridgekit.events import FRAME_BYTES, AgentEvent, Frame, Outcome, Receipt, RoutedEvent, encode
from bridgekit.ids import ThreadId, UserId

__all__ = ["LINK", "Connection", "Hub"]

LINK: Final = 10
"""The audit's list ends at link 9. Whether a socket belongs to a thread at all is the link after it."""


class Connection(Protocol):
    """One user's socket, bound to exactly one thread for as long as it lives."""

    @property
    def thread_id(self) -> ThreadId: ...

    @property
    def user_id(self) -> UserId: ...

    def put(self, frame: Frame) -> bool:
        """Take the frame for this socket, at once; False when it cannot. Never waits, never raises."""


class Hub:
    """Connections by thread. Publishing costs one encoding and one `put` a socket, and never waits."""

    def __init__(self, *, frame_bytes: int = FRAME_BYTES) -> None:
        self._frame_bytes = frame_bytes
        self._connections: dict[ThreadId, list[Connection]] = {}
        self._last_seq: Counter[ThreadId] = Counter()

    def attach(self, connection: Connection) -> None:
        """From now on the connection gets its thread's events."""
        self._connections.setdefault(self._thread_of(connection), []).append(connection)

    def detach(self, connection: Connection) -> None:
        """From now on it gets none. A connection that is not attached is no error: it may have left already."""
        thread_id = self._thread_of(connection)
        attached = self._connections.get(thread_id, [])
        if connection in attached:
            attached.remove(connection)
        if not attached:
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

    def connections(self, thread_id: ThreadId) -> tuple[Connection, ...]:
        """The connections that get this thread's events now."""
        return tuple(self._connections.get(thread_id, ()))

    def __len__(self) -> int:
        """How many connections are attached."""
        return sum(len(attached) for attached in self._connections.values())

    def last_seq(self, thread_id: ThreadId) -> int:
        """The number of the thread's latest event; 0 before the first."""
        return self._last_seq.get(thread_id, 0)

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Receipt:
        """Number the event within its thread, encode it once and give it to every connection of the thread.

        PayloadError or FrameTooLarge where it cannot be encoded: then it was not numbered and nobody got it.
        """
        if not isinstance(event.payload, Mapping):
            raise PayloadError(event.type, f"must be a JSON object, not {type(event.payload).__name__}")
        seq = self.last_seq(thread_id) + 1
        frame = encode(
            RoutedEvent(
                type=event.type,
                thread_id=thread_id,
                run_id=event.run_id,
                agent_name=event.agent_name,
                seq=seq,
                event_id=event.event_id,
                timestamp=event.timestamp,
                payload=dict(event.payload),
            ),
            limit_bytes=self._frame_bytes,
        )
        self._last_seq[thread_id] = seq
        sockets = sum(connection.put(frame) for connection in self.connections(thread_id))
        if sockets:
            return Receipt(outcome=Outcome.SENT, sockets=sockets, thread_id=thread_id, seq=seq)
        return Receipt(
            outcome=Outcome.NOBODY_LISTENING,
            thread_id=thread_id,
            seq=seq,
            link=LINK,
            reason="no socket of the thread took it",
        )
