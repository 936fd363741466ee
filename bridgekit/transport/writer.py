"""Who writes to the sockets: one task of the edge, which flushes each outbox that a frame was put in.

What is put in an outbox within one iteration of the event loop is written together, because the system call is what
costs most. A lone frame is written at once. Both edges' subscribers are here: `NativeSubscriber` writes to a transport,
`AsgiSubscriber` sends through an ASGI server.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from contextvars import copy_context
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from starlette.types import Send
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.protocol import State

from bridgekit.events import Frame
from bridgekit.transport.authorization import Subscription
from bridgekit.transport.log import Replay
from bridgekit.transport.outbox import OUTBOX_LIMITS, CrowdedOutboxes, OutboxLimits, Subscriber
from bridgekit.transport.resumed_coroutine import ResumedCoroutine

__all__ = ["AsgiSubscriber", "NativeSubscriber", "WriteScheduler", "WritingSubscriber", "encode_frames"]

BATCH_MIN_EVENTS: Final = 16
"""Where fewer were put in an iteration of the loop, they are written at its end. Where more, producers are at work."""
BATCH_MAX_ITERATIONS: Final = 4
BATCH_MAX_SECONDS: Final = 0.002
"""How long producers are given to put more, at most, while they do: a write that carries more costs no more calls."""
BATCH_MAX_FRAMES: Final = 64
"""From so many on that wait for one socket, they are written at once."""
MAX_IDLE_WORKERS: Final = 64
"""How many tasks that wait for work are kept. Only where so many sockets had to wait at a time are there so many."""
WRITE_FRAMES: Final = 512
"""Frames in one write, at most."""


class WriteScheduler:
    """Flushes each subscriber that a frame was put to, once for an iteration of the event loop.

    It works for the length of an `async with` block, and does nothing outside of it. A socket that cannot be written to
    at once keeps the task that began with it, and another takes over the rest. So no socket waits for a slow one; and
    what was begun in a task is continued in it, as cancel scopes and timeouts require.
    """

    def __init__(self, crowded: CrowdedOutboxes | None = None, limits: OutboxLimits = OUTBOX_LIMITS) -> None:
        self.crowded = CrowdedOutboxes() if crowded is None else crowded
        self.limits = limits
        self.enqueued = 0
        self.quiet = False
        self._scheduled: deque[WritingSubscriber] = deque()
        self._seen = 0
        """As much of `enqueued` as was looked at."""
        self._tasks: TaskGroup | None = None
        self._idle_workers: list[anyio.Event] = []
        """What wakes each of the tasks that wait for work."""
        self._awake = False
        """Whether one of them sees to what is scheduled, or was woken to."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._wake_worker()
        self._tasks.start_soon(self.crowded.watch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        self._tasks = None
        return await self._stack.__aexit__(kind, error, traceback)

    def schedule(self, subscriber: Subscriber) -> None:
        """Have it flushed when the task that runs now lets others run."""
        assert isinstance(subscriber, WritingSubscriber)
        self._scheduled.append(subscriber)
        self.wake()

    def wake(self) -> None:
        """Something was put, or written: until this iteration of the event loop is over, what comes is batched."""
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
                    # One task can always see to the others. The one that schedules does not start it: that is an
                    # agent's, and a task of the edge should not live in an agent's context.
                    if self._scheduled or not self._idle_workers:
                        self._wake_worker()
                    await self._await_slow_send(*slow, scope)
                    if scope.cancel_called or len(self._idle_workers) >= MAX_IDLE_WORKERS:
                        return
                work = anyio.Event()
                self._idle_workers.append(work)
                await work.wait()

    async def _wait_for_batch(self) -> None:
        """Yield while producers keep enqueuing, so that one write carries more frames. Not for a lone event."""
        until = time.monotonic() + BATCH_MAX_SECONDS
        for _ in range(BATCH_MAX_ITERATIONS):
            if any(len(subscriber) >= BATCH_MAX_FRAMES for subscriber in self._scheduled):
                return
            self._seen = self.enqueued
            await checkpoint()
            if self.enqueued - self._seen < BATCH_MIN_EVENTS or time.monotonic() > until:
                return

    def _flush(self) -> tuple[WritingSubscriber, Awaitable[None]] | None:
        """Flush all that are scheduled, up to the first that has to wait."""
        scheduled = self._scheduled
        try:
            while scheduled:
                subscriber = scheduled.popleft()
                try:
                    if (rest := subscriber.flush()) is not None:
                        return subscriber, rest
                except Exception as error:  # noqa: BLE001  # its own task raises it, and disturbs no other socket
                    subscriber.fail(error)
        except BaseException:
            # This task ends, and what is scheduled still waits.
            self._wake_worker()
            raise
        return None

    async def _await_slow_send(
        self, subscriber: WritingSubscriber, rest: Awaitable[None], scope: anyio.CancelScope
    ) -> None:
        subscriber.begin_waiting(scope)
        try:
            await rest
        except Exception as error:  # noqa: BLE001  # as above
            subscriber.fail(error)
        finally:
            subscriber.end_waiting()


class WritingSubscriber(Subscriber):
    """A subscriber with a socket, which the edge's scheduler writes to."""

    __slots__ = ("_closed", "failure")

    _scheduler: WriteScheduler

    def __init__(self, subscription: Subscription, scheduler: WriteScheduler) -> None:
        super().__init__(subscription, scheduler)
        self._closed = False
        """Whether nothing more is to be written."""
        self.failure: Exception | None = None
        """What a write raised. The socket's own task raises it."""

    def fail(self, error: Exception) -> None:
        """A write raised what it should not."""
        self.failure = error

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        """What `flush` returned is awaited now. Cancelling the scope ends that."""

    def end_waiting(self) -> None:
        """It was awaited to its end, or given up."""

    def _resume(self) -> None:
        """Have what waits flushed."""
        if not self._scheduled:
            self._scheduled = True
            self._scheduler.schedule(self)


_TEXT_FRAME: Final = 0x81
"""A text message in one frame (RFC 6455, section 5.2); a server masks nothing."""
_headers: dict[int, bytes] = {}
"""By the length of the payload, as they are needed: no more of them than there are short lengths."""


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
    """One WebSocket text frame for each text, side by side."""
    parts: list[bytes] = []
    for text in texts:
        size = len(text)
        parts.append(_headers.get(size) or _header(size))
        parts.append(text)
    return b"".join(parts)


class Writable(Protocol):
    """What a subscriber needs of its connection."""

    @property
    def transport(self) -> asyncio.Transport: ...

    @property
    def protocol(self) -> WebSocketProtocol: ...

    @property
    def paused(self) -> bool:
        """Whether so much waits in the transport's own buffer that no more should be written."""

    def abort_soon(self) -> None:
        """Close it soon, whatever waits in its buffer."""


class NativeSubscriber(WritingSubscriber):
    """A subscriber that writes to a transport. It writes without waiting, or leaves the frames waiting.

    `end` sends a close frame with that code, behind all that waits.
    """

    __slots__ = ("_connection", "_send_close")

    def __init__(
        self, subscription: Subscription, scheduler: WriteScheduler, *, send_close: Callable[[int], None]
    ) -> None:
        super().__init__(subscription, scheduler)
        self._send_close = send_close
        self._connection: Writable | None = None

    def begin(self, connection: Writable, replay: Replay) -> None:
        """Send what comes first; from now on whatever is put follows."""
        first = self.start(replay)
        self._connection = connection
        # Its client may have left while the replay was read.
        if connection.protocol.state is State.OPEN:
            connection.transport.write(encode_frames(first))
            self._resume()

    def _write_alone(self, frame: Frame) -> bool:
        connection = self._connection
        if (
            connection is None
            or self._closed
            or frame.seq != self._sent + 1
            or connection.paused
            or connection.protocol.state is not State.OPEN
        ):
            return False
        self._sent = frame.seq
        data = frame.data
        size = len(data)
        try:
            connection.transport.write((_headers.get(size) or _header(size)) + data)
        except Exception as error:  # noqa: BLE001  # as above
            self.fail(error)
        self._scheduler.wake()
        return True

    def _write_early(self) -> None:
        if self._connection is not None and not self._closed:
            self._write(self._connection)

    def flush(self) -> None:
        """Write what waits, as far as the connection takes it; then close, if the end is decided."""
        self._scheduled = False
        connection = self._connection
        if connection is None or self._closed:
            return
        self._write(connection)
        if self.code is not None and not len(self):
            self._close()

    def _write(self, connection: Writable) -> None:
        while len(self) and not connection.paused and connection.protocol.state is State.OPEN:
            taken = self.take(WRITE_FRAMES)
            self.in_flight = 0
            connection.transport.write(encode_frames(taken))

    def abort(self) -> None:
        """Close, whatever the client has not read."""
        self._close()
        if self._connection is not None:
            self._connection.abort_soon()

    def fail(self, error: Exception) -> None:
        super().fail(error)
        self._closed = True
        if self._connection is not None:
            self._connection.abort_soon()

    def _close(self) -> None:
        if not self._closed and self.code is not None:
            self._closed = True
            self._send_close(self.code)


_NOTHING: Final[list[bytes]] = []


class AsgiSubscriber(WritingSubscriber):
    """A subscriber that sends by the `send` of an ASGI connection. Its own task reads, within `read_scope`.

    A server's `send` is a coroutine that may wait, and mostly does not: uvicorn's goes through at once while little
    waits in the connection's own buffer. So the scheduler takes the first step of each, and awaits it only where that
    is not its end. The read scope is cancelled when there is nothing more to read for.
    """

    __slots__ = ("_context", "_first", "_pending", "_read_scope", "_send")

    def __init__(
        self, subscription: Subscription, scheduler: WriteScheduler, *, send: Send, read_scope: anyio.CancelScope
    ) -> None:
        super().__init__(subscription, scheduler)
        self._send = send
        self._read_scope = read_scope
        self._context = copy_context()
        """What middleware around the application has set for this connection; a send runs in it."""
        self._first: list[bytes] | None = None
        """What is sent before what waits in the outbox; None before the client is subscribed."""
        self._pending: tuple[anyio.CancelScope, anyio.Event] | None = None
        """While a send is being awaited: its scope, and what is set when it is over."""

    def begin(self, replay: Replay) -> None:
        """Send what comes first; from now on whatever is put follows."""
        self._first = self.start(replay)
        self._resume()

    def abort(self) -> None:
        self._closed = True
        self._read_scope.cancel()
        if self._pending is not None:
            self._pending[0].cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is being sent any more."""
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
        return ResumedCoroutine(self._context, sending, waits_for)

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        self._pending = scope, anyio.Event()

    def end_waiting(self) -> None:
        if self._pending is not None:
            self._pending[1].set()
            self._pending = None

    async def _send_waiting(self, first: list[bytes]) -> None:
        """Send what waits until nothing does."""
        send, stays = self._send, False
        try:
            self._first = _NOTHING
            for data in first:
                await send({"type": "websocket.send", "text": data.decode()})
            while taken := self.take():
                for data in taken:
                    await send({"type": "websocket.send", "text": data.decode()})
                    self.in_flight -= 1
            stays = self.code is None
        finally:
            self._scheduled = False
            if not stays:
                # Either all was sent that will be, or the connection is broken.
                self._closed = True
                self._read_scope.cancel()
