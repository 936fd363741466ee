"""Frames that are joined into one write, and a connection that is over: nothing is written to it."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from bridgekit.transport.flusher import Flusher
from bridgekit.transport.joined_writes import NativeSubscriber, frames

from bridgekit.signals import Cursor
from bridgekit.transport.admission import Subscription
from bridgekit.transport.log import Replay
from bridgekit.transport.outbox import Outbox
from tests.samples import ALICE, THREAD, frame


class Over:
    """A connection whose client has left: to write to it is an error."""

    takes = False

    @property
    def transport(self) -> asyncio.Transport:
        raise RuntimeError("Cannot call write() after write_eof()")

    def let_go(self) -> None:
        pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nothing_is_written_to_a_client_that_left_while_it_joined() -> None:
    socket = NativeSubscriber(Subscription(ALICE, THREAD), Flusher(), lambda code: None, outbox=Outbox())
    socket.start(Over(), socket.begin(Replay(Cursor("0" * 16, 0), (frame(1),))))
    assert socket.put(frame(2))
    socket.flush()
    assert socket.unwritten == 1


class Broken(Over):
    """A connection whose transport raises what nobody expects."""

    takes = True
    gone = False

    def let_go(self) -> None:
        self.gone = True


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_writing_raises_is_kept_for_the_socket_s_own_task_and_its_connection_let_go() -> None:
    connection = Broken()
    async with Flusher() as flusher:
        socket = NativeSubscriber(Subscription(ALICE, THREAD), flusher, lambda code: None, outbox=Outbox())
        with pytest.raises(RuntimeError):
            socket.start(connection, [b""])
        assert socket.put(frame(1))
        await anyio.wait_all_tasks_blocked()
        assert (connection.gone, str(socket.failure)) == (True, "Cannot call write() after write_eof()")


@pytest.mark.parametrize(("size", "header"), [(125, "817d"), (126, "817e007e"), (65_536, "817f0000000000010000")])
def test_header_tells_the_length_as_rfc_6455_says(size: int, header: str) -> None:
    assert frames([b"x" * size]).hex().startswith(header)
    assert len(frames([b"x" * size])) == len(header) // 2 + size
