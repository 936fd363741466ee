"""Which signals the server receives, and when. Real signals, in this process; on both backends."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import anyio
import pytest

from bridgekit.transport import graceful_shutdown, listeners_and_worker_lock
from bridgekit.transport.graceful_shutdown import drain_on_shutdown, start_deadline

TIMEOUT_SECONDS = 60.0
BOTH = (signal.SIGTERM, signal.SIGINT)


class Server:
    """A server's signal handler: one for both signals."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.called = anyio.Event()

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        self.called.set()


class Drain:
    """A drain that lasts until `goes_on` is set; it records how often it was called and how it ended."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.goes_on = anyio.Event()
        self.times = 0
        self.ended = ""

    async def __call__(self) -> None:
        self.times += 1
        self.begun.set()
        self.ended = "cut short"
        await self.goes_on.wait()
        self.ended = "well"


@contextmanager
def handled(handler: signal._HANDLER, *numbers: signal.Signals) -> Iterator[None]:
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def drain() -> Drain:
    return Drain()


@pytest.mark.parametrize("number", BOTH)
async def test_server_receives_a_signal_after_the_drain(number: signal.Signals, server: Server, drain: Drain) -> None:
    with handled(server.handle_exit, *BOTH), anyio.fail_after(TIMEOUT_SECONDS):
        async with drain_on_shutdown(drain):
            signal.raise_signal(number)
            await drain.begun.wait()
            assert server.received == []
            drain.goes_on.set()
            await server.called.wait()
            assert (server.received, drain.ended) == ([number], "well")
        assert drain.times == 1
        assert [signal.getsignal(each) for each in BOTH] == [server.handle_exit] * 2


async def test_deadline_continues_after_the_draining(server: Server, drain: Drain) -> None:
    """The rest of the shutdown may hang too, such as the end of the application's own lifespan."""
    timers: list[threading.Timer] = []

    def start(seconds: float, number: int) -> threading.Timer:
        timers.append(threading.Timer(TIMEOUT_SECONDS, lambda: None))
        return timers[-1]

    token = start_deadline.set(start)
    with handled(server.handle_exit, *BOTH), anyio.fail_after(TIMEOUT_SECONDS):
        async with drain_on_shutdown(drain):
            start_deadline.reset(token)
            signal.raise_signal(signal.SIGTERM)
            await drain.begun.wait()
            assert [timer.finished.is_set() for timer in timers] == [False]
            drain.goes_on.set()
            await server.called.wait()
        assert [timer.finished.is_set() for timer in timers] == [False]


async def test_duplicate_of_a_signal_that_arrives_while_the_deadline_starts_starts_none(
    server: Server, drain: Drain
) -> None:
    starts: list[float] = []

    def start(seconds: float, number: int) -> threading.Timer:
        starts.append(seconds)
        if len(starts) == 1:
            signal.raise_signal(signal.SIGTERM)
        return threading.Timer(TIMEOUT_SECONDS, lambda: None)

    token = start_deadline.set(start)
    with handled(server.handle_exit, *BOTH), anyio.fail_after(TIMEOUT_SECONDS):
        async with drain_on_shutdown(drain):
            start_deadline.reset(token)
            signal.raise_signal(signal.SIGINT)
            await drain.begun.wait()
            assert len(starts) == 1
            drain.goes_on.set()
            await server.called.wait()
    # The handler of the second signal runs within that of the first, and schedules its work first.
    assert (server.received, drain.ended) == ([signal.SIGTERM], "well")


async def test_second_signal_cancels_the_draining_and_both_are_passed_on(
    server: Server, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graceful_shutdown, "DUPLICATE_SIGNAL_SECONDS", 0.0)
    with handled(server.handle_exit, *BOTH), anyio.fail_after(TIMEOUT_SECONDS):
        async with drain_on_shutdown(drain):
            signal.raise_signal(signal.SIGTERM)
            await drain.begun.wait()
            signal.raise_signal(signal.SIGINT)
            await server.called.wait()
            assert (server.received, drain.ended) == ([signal.SIGTERM, signal.SIGINT], "cut short")


async def test_duplicate_of_a_signal_is_ignored(server: Server, drain: Drain) -> None:
    """Ctrl-C signals the whole process group, and the parent then signals its workers as well."""
    with handled(server.handle_exit, *BOTH), anyio.fail_after(TIMEOUT_SECONDS):
        async with drain_on_shutdown(drain):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            await drain.begun.wait()
            await anyio.wait_all_tasks_blocked()
            drain.goes_on.set()
            await server.called.wait()
        assert (server.received, drain.ended) == ([signal.SIGINT], "well")


async def test_signal_after_the_draining_is_passed_on_and_a_duplicate_is_not(
    server: Server, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain.goes_on.set()
    with handled(server.handle_exit, *BOTH), anyio.fail_after(TIMEOUT_SECONDS):
        async with drain_on_shutdown(drain):
            signal.raise_signal(signal.SIGTERM)
            await server.called.wait()
            signal.raise_signal(signal.SIGTERM)
            await anyio.wait_all_tasks_blocked()
            assert server.received == [signal.SIGTERM]
            monkeypatch.setattr(graceful_shutdown, "DUPLICATE_SIGNAL_SECONDS", 0.0)
            signal.raise_signal(signal.SIGINT)
            await anyio.wait_all_tasks_blocked()
            assert server.received == [signal.SIGTERM, signal.SIGINT]


async def test_application_is_drained_at_the_end_when_no_signal_came(server: Server, drain: Drain) -> None:
    drain.goes_on.set()
    with handled(server.handle_exit, *BOTH), anyio.fail_after(TIMEOUT_SECONDS):
        async with drain_on_shutdown(drain):
            assert drain.times == 0
        assert (drain.times, drain.ended, server.received) == (1, "well", [])


async def test_second_signal_cancels_the_draining_at_the_end_too(
    server: Server, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graceful_shutdown, "DUPLICATE_SIGNAL_SECONDS", 0.0)

    async def impatience() -> None:
        await drain.begun.wait()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    with handled(server.handle_exit, *BOTH), anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as tasks, drain_on_shutdown(drain):
            tasks.start_soon(impatience)
        assert (server.received, drain.ended) == ([signal.SIGTERM] * 2, "cut short")


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
async def test_nothing_is_changed_or_drained_without_a_server(
    handler: signal._HANDLER, server: Server, drain: Drain
) -> None:
    """SIGINT may have any handler: asyncio and trio install one for every program that they run."""
    with handled(handler, signal.SIGTERM), handled(server.handle_exit, signal.SIGINT):
        async with drain_on_shutdown(drain):
            assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == (handler, server.handle_exit)
    assert drain.times == 0


async def test_signal_with_its_own_handler_is_left_alone(server: Server, drain: Drain) -> None:
    drain.goes_on.set()
    with handled(server.handle_exit, signal.SIGTERM):
        before = signal.getsignal(signal.SIGINT)
        async with drain_on_shutdown(drain):
            assert signal.getsignal(signal.SIGTERM) != server.handle_exit
            assert signal.getsignal(signal.SIGINT) == before


async def test_nothing_is_changed_from_another_thread(server: Server, drain: Drain) -> None:
    async def elsewhere() -> None:
        async with drain_on_shutdown(drain):
            assert signal.getsignal(signal.SIGTERM) == server.handle_exit
            assert threading.current_thread() is not threading.main_thread()

    with handled(server.handle_exit, *BOTH):
        await anyio.to_thread.run_sync(anyio.run, elsewhere)
    assert drain.times == 0


async def test_handler_installed_later_is_kept(server: Server, drain: Drain) -> None:
    """A server that was forced to stop restores the previous handlers before its tasks are cancelled."""
    drain.goes_on.set()
    with handled(server.handle_exit, *BOTH):
        async with drain_on_shutdown(drain):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) == server.handle_exit


async def test_signal_is_passed_on_when_draining_failed(server: Server) -> None:
    async def failing() -> None:
        raise OSError("the store is gone")

    async def stopped() -> None:
        async with drain_on_shutdown(failing):
            signal.raise_signal(signal.SIGTERM)
            await anyio.sleep_forever()

    with handled(server.handle_exit, *BOTH), anyio.fail_after(TIMEOUT_SECONDS):
        with pytest.raises(OSError, match="the store is gone"):
            await stopped()
        assert server.received == [signal.SIGTERM]


async def test_error_in_the_block_is_raised_unchanged_and_nothing_is_drained(server: Server, drain: Drain) -> None:
    async def failing() -> None:
        async with drain_on_shutdown(drain):
            raise LookupError

    with handled(server.handle_exit, *BOTH):
        with pytest.raises(LookupError):
            await failing()
        assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    assert drain.times == 0


@contextmanager
def inherited() -> Iterator[socket.socket]:
    """A listening socket as a worker inherits it from its parent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        yield listener


async def test_worker_that_receives_no_signal_drains_when_its_server_closes_the_listening_socket(drain: Drain) -> None:
    with inherited() as listener, anyio.fail_after(TIMEOUT_SECONDS):
        async with drain_on_shutdown(drain):
            listener.close()
            await drain.begun.wait()
            drain.goes_on.set()
    assert (drain.times, drain.ended) == (1, "well")


async def test_server_that_listens_elsewhere_continues_when_an_inherited_socket_is_closed(
    drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = anyio.Event()

    def anything_listens() -> bool:
        checked.set()
        return listeners_and_worker_lock.anything_listens()

    monkeypatch.setattr(graceful_shutdown, "anything_listens", anything_listens)
    with inherited() as leaked, socket.create_server(("127.0.0.1", 0)), anyio.fail_after(TIMEOUT_SECONDS):
        async with drain_on_shutdown(drain):
            leaked.close()
            await checked.wait()
            await anyio.wait_all_tasks_blocked()
            assert drain.times == 0
            drain.goes_on.set()
