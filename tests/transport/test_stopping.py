"""Who hears a signal, and in which order. Real signals, in this process; on both backends."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import anyio
import pytest

from bridgekit.transport import stopping
from bridgekit.transport.stopping import before_the_server_stops

SOON = 60.0
BOTH = (signal.SIGTERM, signal.SIGINT)


class Server:
    """What a server does about signals: one handler, for both."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.stops = anyio.Event()

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        self.heard.append(number)
        self.stops.set()


class Drain:
    """Draining that takes until it is let go, and knows how often it was begun and how it ended."""

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
async def test_server_hears_a_signal_when_all_is_drained(number: signal.Signals, server: Server, drain: Drain) -> None:
    with handled(server.handle_exit, *BOTH), anyio.fail_after(SOON):
        async with before_the_server_stops(drain):
            signal.raise_signal(number)
            await drain.begun.wait()
            assert server.heard == []
            drain.goes_on.set()
            await server.stops.wait()
            assert (server.heard, drain.ended) == ([number], "well")
        assert drain.times == 1
        assert [signal.getsignal(each) for each in BOTH] == [server.handle_exit] * 2


async def test_second_signal_ends_the_draining_and_both_are_handed_on(
    server: Server, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "ECHO_SECONDS", 0.0)
    with handled(server.handle_exit, *BOTH), anyio.fail_after(SOON):
        async with before_the_server_stops(drain):
            signal.raise_signal(signal.SIGTERM)
            await drain.begun.wait()
            signal.raise_signal(signal.SIGINT)
            await server.stops.wait()
            assert (server.heard, drain.ended) == ([signal.SIGTERM, signal.SIGINT], "cut short")


async def test_signal_that_comes_twice_at_once_is_one_wish(server: Server, drain: Drain) -> None:
    """As when Ctrl-C goes to a whole group, and the parent of the workers tells them besides."""
    with handled(server.handle_exit, *BOTH), anyio.fail_after(SOON):
        async with before_the_server_stops(drain):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            await drain.begun.wait()
            await anyio.wait_all_tasks_blocked()
            drain.goes_on.set()
            await server.stops.wait()
        assert (server.heard, drain.ended) == ([signal.SIGINT], "well")


async def test_signal_after_the_draining_is_the_servers_but_not_one_that_comes_twice(
    server: Server, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain.goes_on.set()
    with handled(server.handle_exit, *BOTH), anyio.fail_after(SOON):
        async with before_the_server_stops(drain):
            signal.raise_signal(signal.SIGTERM)
            await server.stops.wait()
            signal.raise_signal(signal.SIGTERM)
            await anyio.wait_all_tasks_blocked()
            assert server.heard == [signal.SIGTERM]
            monkeypatch.setattr(stopping, "ECHO_SECONDS", 0.0)
            signal.raise_signal(signal.SIGINT)
            await anyio.wait_all_tasks_blocked()
            assert server.heard == [signal.SIGTERM, signal.SIGINT]


async def test_server_that_stops_without_a_signal_is_drained_at_the_end(server: Server, drain: Drain) -> None:
    drain.goes_on.set()
    with handled(server.handle_exit, *BOTH), anyio.fail_after(SOON):
        async with before_the_server_stops(drain):
            assert drain.times == 0
        assert (drain.times, drain.ended, server.heard) == (1, "well", [])


async def test_signal_during_the_last_draining_is_heard_too(
    server: Server, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "ECHO_SECONDS", 0.0)

    async def impatience() -> None:
        await drain.begun.wait()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    with handled(server.handle_exit, *BOTH), anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks, before_the_server_stops(drain):
            tasks.start_soon(impatience)
        assert (server.heard, drain.ended) == ([signal.SIGTERM] * 2, "cut short")


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
async def test_nothing_is_changed_and_nothing_is_drained_where_there_is_no_server(
    handler: signal._HANDLER, server: Server, drain: Drain
) -> None:
    """SIGINT may have any handler: asyncio installs one for every program that it runs, and so does trio."""
    with handled(handler, signal.SIGTERM), handled(server.handle_exit, signal.SIGINT):
        async with before_the_server_stops(drain):
            assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == (handler, server.handle_exit)
    assert drain.times == 0


async def test_signal_with_a_handler_of_its_own_is_the_programs_own_affair(server: Server, drain: Drain) -> None:
    drain.goes_on.set()
    with handled(server.handle_exit, signal.SIGTERM):
        before = signal.getsignal(signal.SIGINT)
        async with before_the_server_stops(drain):
            assert signal.getsignal(signal.SIGTERM) != server.handle_exit
            assert signal.getsignal(signal.SIGINT) == before


async def test_nothing_is_changed_from_another_thread(server: Server, drain: Drain) -> None:
    async def elsewhere() -> None:
        async with before_the_server_stops(drain):
            assert signal.getsignal(signal.SIGTERM) == server.handle_exit
            assert threading.current_thread() is not threading.main_thread()

    with handled(server.handle_exit, *BOTH):
        await anyio.to_thread.run_sync(anyio.run, elsewhere)
    assert drain.times == 0


async def test_handler_that_came_later_is_left_where_it_is(server: Server, drain: Drain) -> None:
    """A server that was forced to end has given back what it found, before its tasks are cancelled."""
    drain.goes_on.set()
    with handled(server.handle_exit, *BOTH):
        async with before_the_server_stops(drain):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) == server.handle_exit


async def test_signal_is_handed_on_although_draining_failed(server: Server) -> None:
    async def failing() -> None:
        raise OSError("the store is gone")

    async def stopped() -> None:
        async with before_the_server_stops(failing):
            signal.raise_signal(signal.SIGTERM)
            await anyio.sleep_forever()

    with handled(server.handle_exit, *BOTH), anyio.fail_after(SOON):
        with pytest.raises(OSError, match="the store is gone"):
            await stopped()
        assert server.heard == [signal.SIGTERM]


async def test_error_inside_comes_through_as_it_is_and_nothing_is_drained(server: Server, drain: Drain) -> None:
    async def failing() -> None:
        async with before_the_server_stops(drain):
            raise LookupError

    with handled(server.handle_exit, *BOTH):
        with pytest.raises(LookupError):
            await failing()
        assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    assert drain.times == 0


@contextmanager
def inherited() -> Iterator[socket.socket]:
    """A listening socket as a worker has it from its parent."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.set_inheritable(True)
        yield door


async def test_worker_that_hears_no_signal_drains_when_its_server_shuts_the_door(drain: Drain) -> None:
    with inherited() as door, anyio.fail_after(SOON):
        async with before_the_server_stops(drain):
            door.close()
            await drain.begun.wait()
            drain.goes_on.set()
    assert (drain.times, drain.ended) == (1, "well")


async def test_server_that_listens_elsewhere_goes_on_when_a_door_is_shut(
    drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.001)
    with inherited() as leaked, socket.create_server(("127.0.0.1", 0)):
        async with before_the_server_stops(drain):
            leaked.close()
            await anyio.wait_all_tasks_blocked()
            await anyio.sleep(20 * stopping.LOOK_SECONDS)
            assert drain.times == 0
            drain.goes_on.set()
