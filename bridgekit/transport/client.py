"""A client for tests, notebooks and users: reads one thread's events from a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final
from urllib.parse import urlencode

import msgspec
from websockets.asyncio.client import connect as open_on_asyncio
from websockets.exceptions import ConnectionClosed

from bridgekit.errors import BridgekitError, Disconnected, MalformedFrame, SubscriptionRefused
from bridgekit.events import FRAME_BYTES, RoutedEvent, decode
from bridgekit.transport import on_trio
from bridgekit.transport.admission import CLOSE_DRAINED
from bridgekit.transport.on_trio import ReadableSocket

__all__ = ["EventClient", "connect"]

FIRST_TERMINAL_CODE: Final = 4_500
GOODBYES: Final = frozenset({1_000, 1_001, 1_012, CLOSE_DRAINED})
"""Closed in good order (RFC 6455, section 7.4.1; 1012 is "service restart"), with nothing left behind."""
NO_STATUS: Final = 1_006
"""What stands for a close code where the connection broke without one (RFC 6455, section 7.1.5)."""


class EventClient:
    """One subscribed socket. Iterate over it, or `receive` one event at a time.

    Iteration ends when the server says goodbye; Disconnected where the connection broke, or was cut.
    """

    def __init__(self, socket: ReadableSocket, hello: str | bytes) -> None:
        self._socket = socket
        self.hello = hello
        """The server's first frame as it came; it confirms the subscription."""

    async def receive(self) -> RoutedEvent:
        """Wait for the next event; Disconnected when the socket was closed, MalformedFrame when it is no event."""
        return decode(await self.receive_frame())

    async def receive_frame(self) -> str | bytes:
        """Wait for the next frame and give it as it came; Disconnected when the socket was closed."""
        return await _read(self._socket)

    def __aiter__(self) -> AsyncIterator[RoutedEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[RoutedEvent]:
        while True:
            try:
                event = await self.receive()
            except Disconnected as gone:
                if gone.code in GOODBYES:
                    return
                raise
            yield event


@asynccontextmanager
async def connect(url: str, *, user_id: str, thread_id: str) -> AsyncIterator[EventClient]:
    """Subscribe to a thread: inside the block every later event of it arrives.

    `url` is a server's, such as `ws://127.0.0.1:8000`. Raises SubscriptionRefused when the server will not have
    the socket, and Disconnected when it goes away at once. No proxy of the environment comes between. On
    trio, NotInstalled where `websockets` is too old for it.
    """
    query = urlencode({"user_id": user_id, "thread_id": thread_id})
    async with _open_socket(f"{url}/ws?{query}") as socket:
        hello = await _read(socket)
        try:
            said = msgspec.json.decode(hello)
        except msgspec.DecodeError as error:
            raise MalformedFrame(f"the server's first frame: {error}") from error
        if not isinstance(said, dict) or said.get("type") != "subscribed":
            raise MalformedFrame("the server's first frame does not confirm the subscription")
        yield EventClient(socket, hello)


def _open_socket(url: str) -> AbstractAsyncContextManager[ReadableSocket]:
    open_here = on_trio.open_socket if on_trio.running() else open_on_asyncio
    return open_here(url, compression=None, proxy=None, max_size=FRAME_BYTES, max_queue=None)


async def _read(socket: ReadableSocket) -> str | bytes:
    try:
        return await socket.recv()
    except ConnectionClosed as closed:
        raise _told(closed) from closed


def _told(closed: ConnectionClosed) -> BridgekitError:
    code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (NO_STATUS, "the connection broke")
    return (SubscriptionRefused if code >= FIRST_TERMINAL_CODE else Disconnected)(code, reason)
