"""Writes to the sockets: one task of the edge flushes each outbox that a frame was put in.

Frames of one event-loop iteration are written together, because the system call is the largest cost. A single frame is
written immediately. Each edge has its own subscriber, which knows how to write.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from bridgekit.counters import DeliveryCounters
from bridgekit.transport.authorization import Subscription
from bridgekit.transport.outbox import OUTBOX_LIMITS, CrowdedOutboxes, OutboxLimits, Subscriber

__all__ = ["WriteScheduler", "WritingSubscriber"]

BATCH_MIN_EVENTS: Final = 16
"""If an event-loop iteration puts fewer frames, they are written at its end. Otherwise the write waits for more
frames."""
BATCH_MAX_ITERATIONS: Final = 8
BATCH_MAX_SECONDS: Final = 0.005
"""Longest time that a write waits for more frames while producers are active. Larger writes need fewer system calls."""
BATCH_MAX_FRAMES: Final = 64
"""With this many frames waiting for one socket, they are written without waiting for more."""
MAX_IDLE_WORKERS: Final = 64
"""How many idle worker tasks are kept. This many exist only after as many sockets were slow at the same time."""


class WriteScheduler:
    """Flushes each subscriber with new frames once per event-loop iteration.

    Use it as an async context manager; outside of the block it does nothing. If a socket cannot be written immediately,
    the task that started the send waits for it, and another task continues with the other sockets. So no socket waits
    for a slow one, and each send ends in the task in which it started, as cancel scopes and timeouts require.
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
        """The part of `enqueued` that was already considered."""
        self._tasks: TaskGroup | None = None
        self._idle_workers: list[anyio.Event] = []
        """Events that wake the idle worker tasks."""
        self._awake = False
        """Whether a worker task is processing the scheduled subscribers, or was woken for it."""

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
        """Record a put or a write: until this event-loop iteration ends, further frames are batched."""
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
                    # Another task must serve the other sockets. `schedule` does not start it: it runs in an agent's
                    # task, and a task of the edge must not inherit an agent's context.
                    if self._scheduled or not self._idle_workers:
                        self._wake_worker()
                    await self._await_slow_send(*slow, scope)
                    if scope.cancel_called or len(self._idle_workers) >= MAX_IDLE_WORKERS:
                        return
                work = anyio.Event()
                self._idle_workers.append(work)
                await work.wait()

    async def _wait_for_batch(self) -> None:
        """Yield while producers keep enqueuing, so that one write carries more frames. Not called for a few events."""
        until = time.monotonic() + BATCH_MAX_SECONDS
        for _ in range(BATCH_MAX_ITERATIONS):
            if any(len(subscriber) >= BATCH_MAX_FRAMES for subscriber in self._scheduled):
                return
            self._seen = self.enqueued
            await checkpoint()
            if self.enqueued - self._seen < BATCH_MIN_EVENTS or time.monotonic() > until:
                return

    def _flush(self) -> tuple[WritingSubscriber, Awaitable[None]] | None:
        """Flush the scheduled subscribers. If one has to wait, return it with the rest of its send."""
        scheduled = self._scheduled
        try:
            while scheduled:
                subscriber = scheduled.popleft()
                try:
                    if (rest := subscriber.flush()) is not None:
                        return subscriber, rest
                except Exception as error:  # noqa: BLE001  # the socket's own task raises it; others continue
                    subscriber.fail(error)
        except BaseException:
            # This task ends while subscribers are still scheduled.
            self._wake_worker()
            raise
        return None

    async def _await_slow_send(
        self, subscriber: WritingSubscriber, rest: Awaitable[None], scope: anyio.CancelScope
    ) -> None:
        subscriber.begin_waiting(scope)
        try:
            await rest
        except Exception as error:  # noqa: BLE001  # the socket's own task raises it
            subscriber.fail(error)
        finally:
            subscriber.end_waiting()


class WritingSubscriber(Subscriber):
    """A subscriber with a socket, written to by the edge's scheduler."""

    __slots__ = ("_closed", "failure")

    _scheduler: WriteScheduler

    def __init__(self, subscription: Subscription, scheduler: WriteScheduler) -> None:
        super().__init__(subscription, scheduler)
        self._closed = False
        """Whether nothing more may be written."""
        self.failure: Exception | None = None
        """The error that a write raised. The socket's own task raises it again."""

    def fail(self, error: Exception) -> None:
        """Store an unexpected error of a write."""
        self.failure = error

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        """Called before the result of `flush` is awaited. Cancelling `scope` cancels that wait."""

    def end_waiting(self) -> None:
        """Called when that wait has ended or was cancelled."""

    def _resume(self) -> None:
        """Schedule a flush of the waiting frames."""
        if not self._scheduled:
            self._scheduled = True
            self._scheduler.schedule(self)
