"""Writes frames to the sockets: one task of the edge flushes each outbox that has new frames.

The frames of one event-loop iteration are written together, to save system calls. The native edge writes a single frame
immediately. `NativeSubscriber` writes to a transport, and `AsgiSubscriber` to an ASGI server.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import copy_context
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from starlette.types import Send
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.protocol import State

from bridgekit.counters import DeliveryCounters
from bridgekit.events import Frame
from bridgekit.transport.authorization import Subscription
from bridgekit.transport.cancellation import ends_task
from bridgekit.transport.log import Replay
from bridgekit.transport.outbox import OUTBOX_LIMITS, CrowdedOutboxes, OutboxLimits, Subscriber
from bridgekit.transport.started_coroutine import resumed

__all__ = ["AsgiSubscriber", "NativeSubscriber", "WriteScheduler", "WritingSubscriber", "encode_frames"]

BATCH_MIN_EVENTS: Final = 16
"""If at least this many frames are enqueued in one event-loop iteration, the write waits for more."""
BATCH_MAX_ITERATIONS: Final = 8
BATCH_MAX_SECONDS: Final = 0.005
"""Longest time that a write waits for more frames while producers are active. Larger writes need fewer system calls."""
BATCH_MAX_FRAMES: Final = 64
"""If this many frames wait for one socket, they are written without waiting for more."""
MAX_IDLE_WORKERS: Final = 64
"""Limit on idle worker tasks, which remain after several sockets were slow at the same time."""


class WriteScheduler:
    """Flushes each subscriber that has new frames, once per event-loop iteration.

    Use the scheduler as an async context manager: it writes only inside the block. If a send has to wait, the task that
    started it waits, and another task continues with the other sockets. No socket therefore waits for a slow socket.
    Each send ends in the task in which it started, as cancel scopes and timeouts require.
    """

    def __init__(
        self,
        counters: DeliveryCounters,
        crowded: CrowdedOutboxes | None = None,
        limits: OutboxLimits = OUTBOX_LIMITS,
    ) -> None:
        self.counters = counters
        self.crowded = CrowdedOutboxes() if crowded is None else crowded
        self.limits = limits
        self.enqueued = 0
        self.quiet = False
        self._scheduled: deque[WritingSubscriber] = deque()
        self._seen = 0
        """The value of `enqueued` when the scheduler last read it."""
        self._tasks: TaskGroup | None = None
        self._idle_workers: list[anyio.Event] = []
        """For each idle worker task, the anyio.Event that wakes it."""
        self._awake = False
        """True if a worker task processes the scheduled subscribers, or was woken to process them."""

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        self._wake_worker()
        self._tasks.start_soon(self.crowded.watch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        tasks.cancel_scope.cancel()
        return await tasks.__aexit__(kind, error, traceback)

    def schedule(self, subscriber: Subscriber) -> None:
        """Flush the subscriber when the current task yields to the event loop."""
        assert isinstance(subscriber, WritingSubscriber)
        self._scheduled.append(subscriber)
        self.wake()

    def wake(self) -> None:
        """Record a put or a write, so that frames are batched until this event-loop iteration ends."""
        self.quiet = False
        if not self._awake:
            self._wake_worker()

    def _wake_worker(self) -> None:
        if self._idle_workers:
            self._idle_workers.pop().set()
        elif self._tasks is not None:
            self._tasks.start_soon(self._run)
        self._awake = True

    async def _run(self) -> None:
        with anyio.CancelScope() as scope:
            while True:
                enqueued = self.enqueued - self._seen
                if enqueued >= BATCH_MIN_EVENTS:
                    await self._wait_for_batch()
                self._seen = self.enqueued
                slow = self._flush()
                self._awake = False
                self.quiet = enqueued <= 1
                if slow is not None:
                    # Start the next worker here, because `schedule` runs in an agent's task, whose context the worker
                    # would inherit.
                    if self._scheduled or not self._idle_workers:
                        self._wake_worker()
                    await self._await_slow_send(*slow, scope)
                    if scope.cancel_called or len(self._idle_workers) >= MAX_IDLE_WORKERS:
                        return
                work = anyio.Event()
                self._idle_workers.append(work)
                await work.wait()

    async def _wait_for_batch(self) -> None:
        """Yield while producers keep enqueuing many frames, so that one write carries more of them."""
        until = time.monotonic() + BATCH_MAX_SECONDS
        for _ in range(BATCH_MAX_ITERATIONS):
            if any(len(subscriber) >= BATCH_MAX_FRAMES for subscriber in self._scheduled):
                return
            self._seen = self.enqueued
            await checkpoint()
            if self.enqueued - self._seen < BATCH_MIN_EVENTS or time.monotonic() > until:
                return

    def _flush(self) -> tuple[WritingSubscriber, Awaitable[None]] | None:
        """Flush the scheduled subscribers. If a send has to wait, return its subscriber and the rest of the send."""
        scheduled = self._scheduled
        try:
            while scheduled:
                subscriber = scheduled.popleft()
                try:
                    if (rest := subscriber.flush()) is not None:
                        return subscriber, rest
                except BaseException as error:  # noqa: BLE001  # the socket's own task raises it, and others continue
                    subscriber.fail(error)
        except BaseException:
            # This task ends, so another task must flush the subscribers that are still scheduled.
            self._wake_worker()
            raise
        return None

    async def _await_slow_send(
        self, subscriber: WritingSubscriber, rest: Awaitable[None], scope: anyio.CancelScope
    ) -> None:
        subscriber.begin_waiting(scope)
        try:
            await rest
        except BaseException as error:  # noqa: BLE001  # the socket's own task raises it
            subscriber.fail(error)
        finally:
            subscriber.end_waiting()


class WritingSubscriber(Subscriber):
    """A subscriber with a socket, to which the edge's scheduler writes."""

    __slots__ = ("_closed", "failure")

    _scheduler: WriteScheduler

    def __init__(self, subscription: Subscription, scheduler: WriteScheduler) -> None:
        super().__init__(subscription, scheduler)
        self._closed = False
        """True if no more frames may be written."""
        self.failure: BaseException | None = None
        """The error that a write raised. The socket's own task raises it again."""

    def fail(self, error: BaseException) -> None:
        """Store an unexpected error of a write, or raise the error if it ends the current task."""
        if ends_task(error):
            raise error
        self.failure = error

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        """The scheduler calls this before it awaits the result of `flush`. Cancelling `scope` cancels that wait."""

    def end_waiting(self) -> None:
        """The scheduler calls this when the wait has ended or was cancelled."""

    def _resume(self) -> None:
        """Schedule a flush of the waiting frames."""
        if not self._scheduled:
            self._scheduled = True
            self._scheduler.schedule(self)


WRITE_FRAMES: Final = 512
"""Limit on the frames in one write."""
_TEXT_FRAME: Final = 0x81
"""First byte of an unfragmented text message (RFC 6455, section 5.2). A server does not mask its frames."""
_headers: dict[int, bytes] = {}
"""Cached frame headers by payload length. Only lengths below 65,536 are cached."""


def _header(size: int) -> bytes:
    if size < 126:
        header = bytes((_TEXT_FRAME, size))
    elif size < 65_536:
        header = bytes((_TEXT_FRAME, 126)) + size.to_bytes(2)
    else:
        return bytes((_TEXT_FRAME, 127)) + size.to_bytes(8)
    _headers[size] = header
    return header


def encode_frames(texts: Iterable[bytes]) -> bytes:
    """Encode each text as one WebSocket text frame, and concatenate the frames."""
    parts: list[bytes] = []
    for text in texts:
        size = len(text)
        parts.append(_headers.get(size) or _header(size))
        parts.append(text)
    return b"".join(parts)


class NativeSocket(Protocol):
    """The part of a native connection that its subscriber uses."""

    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def protocol(self) -> WebSocketProtocol: ...
    @property
    def paused(self) -> bool: ...
    def abort_soon(self) -> None: ...


class NativeSubscriber(WritingSubscriber):
    """A subscriber that writes to an asyncio transport. If the transport is full, frames stay in the outbox.

    A write never waits. `send_close` sends a close frame with the given code, behind all waiting frames.
    """

    __slots__ = ("_connection", "_send_close")

    def __init__(
        self, subscription: Subscription, scheduler: WriteScheduler, *, send_close: Callable[[int], None]
    ) -> None:
        super().__init__(subscription, scheduler)
        self._send_close = send_close
        self._connection: NativeSocket | None = None

    def start_sending(self, connection: NativeSocket, replay: Replay) -> None:
        """Send the confirmation and the replay, and let the scheduler write frames that are put in the outbox."""
        first = self.start(replay)
        self._connection = connection
        # The client may have left while the replay was read.
        if connection.protocol.state is State.OPEN:
            connection.transport.write(encode_frames(first))
            self._resume()

    def _write_directly(self, frame: Frame) -> bool:
        connection = self._connection
        if (
            connection is None
            or self._closed
            or frame.seq != self._last_sent_seq + 1
            or connection.paused
            or connection.protocol.state is not State.OPEN
        ):
            return False
        self._last_sent_seq = frame.seq
        data = frame.data
        size = len(data)
        try:
            connection.transport.write((_headers.get(size) or _header(size)) + data)
        except Exception as error:  # noqa: BLE001  # the socket's own task raises it
            self.fail(error)
        self._scheduler.wake()
        return True

    def _write_early(self) -> None:
        if self._connection is not None and not self._closed:
            self._write(self._connection)

    def flush(self) -> None:
        """Write the frames that the transport accepts. Close the socket if it must close and no frame waits."""
        self._scheduled = False
        connection = self._connection
        if connection is None or self._closed:
            return
        self._write(connection)
        if self.code is not None and not len(self):
            self._close()

    def _write(self, connection: NativeSocket) -> None:
        while len(self) and not connection.paused and connection.protocol.state is State.OPEN:
            taken = self.next_frames(WRITE_FRAMES)
            self.in_flight = 0
            connection.transport.write(encode_frames(taken))

    def abort(self) -> None:
        """Close the socket and discard unwritten frames."""
        self._close()
        if self._connection is not None:
            self._connection.abort_soon()

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        self._closed = True
        if self._connection is not None:
            self._connection.abort_soon()

    def _close(self) -> None:
        if not self._closed and self.code is not None:
            self._closed = True
            self._send_close(self.code)


class AsgiSubscriber(WritingSubscriber):
    """A subscriber that writes through the `send` function of an ASGI connection.

    `send` is a coroutine that may wait but usually does not: uvicorn's `send` returns immediately while the
    connection's buffer is small. The scheduler therefore runs the first step of each send, and awaits the rest only if
    the send is not finished. When the socket ends, the subscriber cancels `read_scope`, in which another task reads.
    """

    __slots__ = ("_context", "_first", "_pending", "_read_scope", "_send")

    def __init__(
        self, subscription: Subscription, scheduler: WriteScheduler, *, send: Send, read_scope: anyio.CancelScope
    ) -> None:
        super().__init__(subscription, scheduler)
        self._send = send
        self._read_scope = read_scope
        self._context = copy_context()
        """The context variables that middleware has set for this connection. Sends run in this context."""
        self._first: Sequence[bytes] | None = None
        """Messages to send before those of the outbox, or None until the client is subscribed."""
        self._pending: tuple[anyio.CancelScope, anyio.Event] | None = None
        """The cancel scope of a send that waits, and the event that is set when the send has ended."""

    def start_sending(self, replay: Replay) -> None:
        """Send the confirmation and the replay, and let the scheduler write frames that are put in the outbox."""
        self._first = self.start(replay)
        self._resume()

    def abort(self) -> None:
        self._closed = True
        self._read_scope.cancel()
        if self._pending is not None:
            self._pending[0].cancel()

    async def wait_closed(self) -> None:
        """Wait until no send is in progress."""
        if self._pending is not None:
            await self._pending[1].wait()

    def flush(self) -> Awaitable[None] | None:
        if self._closed or self._first is None:
            self._scheduled = False
            return None
        sending = self._send_waiting(self._first)
        try:
            waits_for = self._context.run(sending.send, None)
        except StopIteration:
            return None
        return resumed(self._context, sending, waits_for)

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        self._pending = scope, anyio.Event()

    def end_waiting(self) -> None:
        if self._pending is not None:
            self._pending[1].set()
            self._pending = None

    async def _send_waiting(self, first: Sequence[bytes]) -> None:
        """Send the waiting frames until none is left."""
        send, open_after = self._send, False
        try:
            self._first = ()
            for data in first:
                await send({"type": "websocket.send", "text": data.decode()})
            while taken := self.next_frames():
                for data in taken:
                    await send({"type": "websocket.send", "text": data.decode()})
                    self.in_flight -= 1
            open_after = self.code is None
        finally:
            self._scheduled = False
            if not open_after:
                # Either all frames were sent and the socket is to be closed, or the connection is broken.
                self._closed = True
                self._read_scope.cancel()
