"""The task that writes to the sockets: in order, and without waiting for a slow one. On both backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from websockets.protocol import State

from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import Cursor
from bridgekit.transport.authorization import Subscription
from bridgekit.transport.log import Replay
from bridgekit.transport.native import NativeConnection
from bridgekit.transport.outbox import WRITE_BYTES
from bridgekit.transport.writer import (
    BATCH_MAX_FRAMES,
    BATCH_MAX_ITERATIONS,
    BATCH_MIN_EVENTS,
    MAX_IDLE_WORKERS,
    NativeSubscriber,
    WriteScheduler,
    WritingSubscriber,
    encode_frames,
)
from tests.factories import ALICE, BOB, OTHER, THREAD, frame
from tests.transport.fake_browser import TIMEOUT_SECONDS, Browser, Site

CONTEXT_NAME = ContextVar("CONTEXT_NAME", default="default")


class ScriptedSubscriber(WritingSubscriber):
    """A subscriber that records when it is flushed, and blocks on request."""

    def __init__(
        self,
        scheduler: WriteScheduler,
        record: list[str],
        name: str,
        waits: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(Subscription(ALICE, THREAD), scheduler)
        self.scope: anyio.CancelScope | None = None
        self.frames = 1
        self._record = record
        self._name = name
        self._waits = waits

    def __len__(self) -> int:
        return self.frames

    def flush(self) -> Awaitable[None] | None:
        self._record.append(self._name)
        return None if self._waits is None else self._waits()

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        self.scope = scope

    def end_waiting(self) -> None:
        self._record.append(f"{self._name} over")


@asynccontextmanager
async def scheduling() -> AsyncIterator[tuple[WriteScheduler, list[str]]]:
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with WriteScheduler(DeliveryCounters()) as scheduler:
            yield scheduler, []


async def test_sockets_are_flushed_in_order_when_the_scheduling_task_yields() -> None:
    async with scheduling() as (scheduler, record):
        for name in "abc":
            scheduler.schedule(ScriptedSubscriber(scheduler, record, name))
        assert record == []
        await anyio.wait_all_tasks_blocked()
        scheduler.schedule(ScriptedSubscriber(scheduler, record, "d"))
        await anyio.wait_all_tasks_blocked()
    assert record == ["a", "b", "c", "d"]


async def iterations_until_written(events: int, *, turns: int, frames: int = 1) -> int:
    """Return after how many iterations a socket is flushed when this many events are put in each of several
    iterations."""
    async with scheduling() as (scheduler, record):
        await anyio.wait_all_tasks_blocked()
        socket = ScriptedSubscriber(scheduler, record, "a")
        socket.frames = frames
        for turn in range(10):
            if turn < turns:
                scheduler.enqueued += events
                if not turn:
                    scheduler.schedule(socket)
            if record:
                return turn
            await checkpoint()
    raise AssertionError("it was not flushed")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("events", "turns", "frames", "passed"),
    [
        (1, 1, 1, 1),
        (BATCH_MIN_EVENTS - 1, 9, 1, 1),
        (BATCH_MIN_EVENTS, 1, 1, 2),
        (BATCH_MIN_EVENTS, 2, 1, 3),
        (BATCH_MIN_EVENTS, 9, 1, 1 + BATCH_MAX_ITERATIONS),
        (BATCH_MIN_EVENTS, 9, BATCH_MAX_FRAMES, 1),
    ],
)
async def test_frames_are_written_at_the_end_of_an_iteration_or_a_few_iterations_later_under_load(
    monkeypatch: pytest.MonkeyPatch, events: int, turns: int, frames: int, passed: int
) -> None:
    monkeypatch.setattr("bridgekit.transport.writer.BATCH_MAX_SECONDS", TIMEOUT_SECONDS)
    assert await iterations_until_written(events, turns=turns, frames=frames) == passed


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_batching_delay_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgekit.transport.writer.BATCH_MAX_SECONDS", -1.0)
    assert await iterations_until_written(BATCH_MIN_EVENTS, turns=9) == 2


async def test_slow_socket_delays_no_other_socket() -> None:
    async with scheduling() as (scheduler, record):
        free = anyio.Event()
        for socket in (
            ScriptedSubscriber(scheduler, record, "slow", free.wait),
            ScriptedSubscriber(scheduler, record, "slower", free.wait),
            ScriptedSubscriber(scheduler, record, "quick"),
        ):
            scheduler.schedule(socket)
        await anyio.wait_all_tasks_blocked()
        scheduler.schedule(ScriptedSubscriber(scheduler, record, "late"))
        await anyio.wait_all_tasks_blocked()
        assert record == ["slow", "slower", "quick", "late"]
        free.set()
        await anyio.wait_all_tasks_blocked()
    assert sorted(record[4:]) == ["slow over", "slower over"]


async def test_aborted_slow_socket_is_no_longer_awaited_and_others_continue() -> None:
    async with scheduling() as (scheduler, record):
        stuck = ScriptedSubscriber(scheduler, record, "stuck", anyio.sleep_forever)
        scheduler.schedule(stuck)
        await anyio.wait_all_tasks_blocked()
        assert stuck.scope is not None
        stuck.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        scheduler.schedule(ScriptedSubscriber(scheduler, record, "late"))
        await anyio.wait_all_tasks_blocked()
    assert record == ["stuck", "stuck over", "late"]


async def test_error_of_one_socket_does_not_affect_others() -> None:
    class Broken(ScriptedSubscriber):
        def flush(self) -> Awaitable[None] | None:
            super().flush()
            raise ValueError("at once")

    async def late() -> None:
        await checkpoint()
        raise ValueError("late")

    async with scheduling() as (scheduler, record):
        sockets = (
            Broken(scheduler, record, "a"),
            ScriptedSubscriber(scheduler, record, "b", late),
            ScriptedSubscriber(scheduler, record, "c"),
        )
        for socket in sockets:
            scheduler.schedule(socket)
        await anyio.wait_all_tasks_blocked()
        scheduler.schedule(ScriptedSubscriber(scheduler, record, "d"))
        await anyio.wait_all_tasks_blocked()
    assert [str(socket.failure) for socket in sockets] == ["at once", "late", "None"]
    assert sorted(record) == ["a", "b", "b over", "c", "d"]


async def test_number_of_idle_workers_is_bounded_after_many_slow_sockets() -> None:
    tasks = len(anyio.get_running_tasks())
    async with scheduling() as (scheduler, record):
        free = anyio.Event()
        for _ in range(2 * MAX_IDLE_WORKERS):
            scheduler.schedule(ScriptedSubscriber(scheduler, record, "slow", free.wait))
        await anyio.wait_all_tasks_blocked()
        assert len(anyio.get_running_tasks()) > tasks + 2 * MAX_IDLE_WORKERS
        free.set()
        await anyio.wait_all_tasks_blocked()
        assert len(anyio.get_running_tasks()) <= tasks + MAX_IDLE_WORKERS + 1, (
            "and the one that watches for slow clients"
        )
        scheduler.schedule(ScriptedSubscriber(scheduler, record, "late"))
        await anyio.wait_all_tasks_blocked()
    assert record[-1] == "late"
    assert len(anyio.get_running_tasks()) == tasks


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_unexpected_cancellation_ends_one_socket_and_not_the_scheduler() -> None:
    """For example by a future that other code has cancelled."""

    class Cancelled(ScriptedSubscriber):
        def flush(self) -> Awaitable[None] | None:
            super().flush()
            raise anyio.get_cancelled_exc_class()

    async with scheduling() as (scheduler, record):
        for name, kind in (("a", Cancelled), ("b", ScriptedSubscriber)):
            scheduler.schedule(kind(scheduler, record, name))
        await anyio.wait_all_tasks_blocked()
    assert record == ["a", "b"]


class SendMiddleware:
    """Middleware that wraps an application's `send`, with its own cancel scope and context; slow on request."""

    def __init__(self, app: Any, waits: Callable[[], Awaitable[None]] | None = None) -> None:
        self.seen: list[tuple[str, bool]] = []
        """The context in which each frame was sent, and whether one task started and ended the send."""
        self._app = app
        self._waits = waits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        CONTEXT_NAME.set(scope["query_string"].decode().partition("&")[0])

        async def timed(message: Any) -> None:
            with anyio.fail_after(TIMEOUT_SECONDS):
                started_by = anyio.get_current_task().id
                if self._waits is not None and message["type"] == "websocket.send":
                    await self._waits()
                await send(message)
            if message["type"] == "websocket.send":
                self.seen.append((CONTEXT_NAME.get(), started_by == anyio.get_current_task().id))

        await self._app(scope, receive, timed)


@pytest.mark.parametrize("waits", [None, checkpoint])
async def test_middleware_around_send_runs_in_its_own_context_and_one_task(
    site: Site, waits: Callable[[], Awaitable[None]] | None
) -> None:
    middleware = SendMiddleware(site.app, waits)
    alices, bobs = (
        Browser(middleware, user_id=user, thread_id=thread)  # type: ignore[arg-type]  # any ASGI application works
        for user, thread in ((ALICE, THREAD), (BOB, OTHER))
    )
    async with site.open(alices, bobs):
        await site.publish(2)
        await site.publish(2, OTHER)
    assert (alices.seqs, bobs.seqs) == ([1, 2], [1, 2])
    assert sorted(middleware.seen) == sorted([(f"user_id={user}", True) for user in (ALICE, BOB)] * 3)


@pytest.mark.parametrize("waits", [None, checkpoint])
async def test_error_of_a_send_is_raised_in_the_sockets_own_task_only(
    site: Site, waits: Callable[[], Awaitable[None]] | None
) -> None:
    broken = ValueError("no such message")
    browser = Browser(
        SendMiddleware(site.app, waits),  # type: ignore[arg-type]  # any ASGI application works
        broken_at="websocket.send",
        broken_by=broken,
        user_id=ALICE,
        thread_id=THREAD,
    )
    async with site.visited((ALICE, THREAD)) as [neighbour]:
        with pytest.raises(ValueError, match="no such message"):
            await browser.run()
        await site.publish(2)
    assert neighbour.seqs == [1, 2]
    assert len(site.hub) == 0


class RecordingSubscriber(WritingSubscriber):
    """A subscriber that takes all waiting frames and records their number."""

    def __init__(self, scheduler: WriteScheduler) -> None:
        super().__init__(Subscription(ALICE, THREAD), scheduler)
        self.record: list[int] = []

    def flush(self) -> None:
        self._scheduled = False
        self.record.append(len(self))
        self.next_frames()


async def test_frames_of_one_iteration_are_flushed_once_and_each_is_counted() -> None:
    async with scheduling() as (scheduler, _):
        sockets = [RecordingSubscriber(scheduler), RecordingSubscriber(scheduler)]
        for seq in (1, 2, 3):
            assert all(socket.put(frame(seq)) for socket in sockets)
        assert scheduler.enqueued == 6
        await anyio.wait_all_tasks_blocked()
        assert sockets[0].put(frame(4))
        await anyio.wait_all_tasks_blocked()
    assert [socket.record for socket in sockets] == [[3, 1], [3]]


class ClosedConnection:
    """A connection whose client has left: writing to it is an error."""

    paused = False
    state = State.CLOSED

    @property
    def protocol(self) -> Any:
        return self

    @property
    def transport(self) -> asyncio.Transport:
        raise RuntimeError("Cannot call write() after write_eof()")

    def abort_soon(self) -> None:
        pass


class Broken(ClosedConnection):
    """A connection whose transport raises an unexpected error."""

    state = State.OPEN
    aborted = False

    def abort_soon(self) -> None:
        self.aborted = True


class Transport:
    """A transport that records what is written, and pauses after this many writes."""

    def __init__(self, connection: PausingConnection, writes: int) -> None:
        self.written: list[bytes] = []
        self._connection = connection
        self._left = writes

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._left -= 1
        self._connection.paused = self._left <= 0


class PausingConnection(Broken):
    """A connection that accepts this many writes before it pauses."""

    def __init__(self, writes: int = 1_000) -> None:
        self.out = Transport(self, writes)

    @property
    def transport(self) -> Any:
        return self.out


def as_connection(connection: object) -> NativeConnection:
    return cast("NativeConnection", connection)


def native(scheduler: WriteScheduler) -> NativeSubscriber:
    return NativeSubscriber(Subscription(ALICE, THREAD), scheduler, send_close=lambda code: None)


ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
NOTHING = Replay(Cursor("0" * 16, 0))


@ON_ASYNCIO
async def test_nothing_is_written_to_a_client_that_left_during_joining() -> None:
    socket = native(WriteScheduler(DeliveryCounters()))
    socket.start_sending(as_connection(ClosedConnection()), Replay(Cursor("0" * 16, 0), (frame(1),)))
    assert socket.put(frame(2))
    socket.flush()
    assert socket.unwritten == 1


@ON_ASYNCIO
async def test_error_of_a_write_is_stored_for_the_sockets_own_task_and_the_connection_is_aborted() -> None:
    async with scheduling() as (scheduler, _):
        connection, socket = Broken(), native(scheduler)
        with pytest.raises(RuntimeError):
            socket.start_sending(as_connection(connection), NOTHING)
        assert socket.put(frame(1))
        await anyio.wait_all_tasks_blocked()
        assert (connection.aborted, str(socket.failure)) == (True, "Cannot call write() after write_eof()")


@ON_ASYNCIO
async def test_single_frame_is_written_at_once_and_later_frames_of_the_iteration_together() -> None:
    async with scheduling() as (scheduler, _):
        connection, socket = PausingConnection(), native(scheduler)
        socket.start_sending(as_connection(connection), NOTHING)
        await anyio.wait_all_tasks_blocked()
        del connection.out.written[:]
        assert all(socket.put(frame(seq)) for seq in (1, 2, 3))
        assert connection.out.written == [encode_frames([frame(1).data])]
        await anyio.wait_all_tasks_blocked()
        assert connection.out.written[1:] == [encode_frames([frame(2).data, frame(3).data])]


@ON_ASYNCIO
async def test_error_of_writing_a_single_frame_is_not_raised_in_the_emitter() -> None:
    async with scheduling() as (scheduler, _):
        connection, socket = PausingConnection(), native(scheduler)
        socket.start_sending(as_connection(connection), NOTHING)
        await anyio.wait_all_tasks_blocked()
        connection.out = None  # type: ignore[assignment]  # it breaks
        assert socket.put(frame(1))
        assert (connection.aborted, isinstance(socket.failure, AttributeError)) == (True, True)


@ON_ASYNCIO
async def test_frames_over_the_write_size_are_written_at_once() -> None:
    async with scheduling() as (scheduler, _):
        connection, socket = PausingConnection(), native(scheduler)
        socket.start_sending(as_connection(connection), NOTHING)
        for seq in range(1, 3_001):
            assert socket.put(frame(seq))
            assert socket._waiting_bytes < WRITE_BYTES
        assert scheduler.crowded.by_thread == {}
        assert max(map(len, connection.out.written)) < WRITE_BYTES + 2_000


@ON_ASYNCIO
async def test_outbox_of_a_paused_connection_is_crowded_until_it_resumes() -> None:
    async with scheduling() as (scheduler, _):
        connection, socket = PausingConnection(writes=2), native(scheduler)
        socket.start_sending(as_connection(connection), NOTHING)
        seq = 0
        while not scheduler.crowded.by_thread:
            seq += 1
            assert socket.put(frame(seq))
        connection.out = Transport(connection, 1_000)
        connection.paused = False
        socket.flush()
        assert scheduler.crowded.by_thread == {}
        assert len(socket) == 0


@pytest.mark.parametrize(("size", "header"), [(125, "817d"), (126, "817e007e"), (65_536, "817f0000000000010000")])
def test_frame_header_encodes_the_length_as_in_rfc_6455(size: int, header: str) -> None:
    assert encode_frames([b"x" * size]).hex().startswith(header)
    assert len(encode_frames([b"x" * size])) == len(header) // 2 + size
