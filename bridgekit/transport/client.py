"""A client for tests, notebooks and users: one subscribed socket. `following` has one that connects again by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import anyio
from websockets.asyncio.client import connect as open_on_asyncio
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.typing import Subprotocol

from bridgekit.errors import BridgekitError, Disconnected, MalformedFrame, NotInstalled, SubscriptionRefused
from bridgekit.events import FRAME_BYTES, RoutedEvent
from bridgekit.signals import Cursor, Gap, Subscribed, decode_any
from bridgekit.transport.authorization import CLOSE_DRAINED, PROTOCOL, TICKET_PROTOCOL
from bridgekit.transport.log_redaction import redact_tickets

__all__ = ["KEEPALIVE_SECONDS", "EventClient", "connect", "on_trio"]

FIRST_TERMINAL_CODE: Final = 4_500
NORMAL_CLOSE_CODES: Final = frozenset({1_000, 1_001, 1_012, CLOSE_DRAINED})
"""Closed in good order (RFC 6455, section 7.4.1; 1012 is "service restart"), with nothing left behind."""
NO_STATUS: Final = 1_006
"""What stands for a close code where the connection broke without one (RFC 6455, section 7.1.5)."""
NO_WEBSOCKET: Final = frozenset({1_002, 1_003, 1_007, 1_009})
"""With which our side closes where the server sends what it may not: another try would find the same."""
OPEN_TIMEOUT_SECONDS: Final = 10.0
"""How long a handshake may take, and how long after it the server may take to confirm the subscription."""
CLOSE_TIMEOUT_SECONDS: Final = 2.0
"""How long a server may take to answer a goodbye."""
KEEPALIVE_SECONDS: Final = 20.0
"""After so long a ping is sent, and after as long again without a pong the server counts as dead."""
QUEUE_FRAMES: Final = 256
"""Frames that are read before anybody asks for them. Then the server is left waiting, and sees a slow socket."""

TRIO_CLIENT: Final = "websockets>=17,<18"

_log = logging.getLogger(__name__)
redact_tickets(__name__)


def on_trio() -> bool:
    """Return whether the calling task runs on trio; if not, it runs on asyncio."""
    return anyio.get_cancelled_exc_class() is not asyncio.CancelledError


class ReadableSocket(Protocol):
    """What the sockets of `websockets` have in common on both backends."""

    async def recv(self) -> str | bytes: ...


class EventClient:
    """One subscribed socket. Iterate over it, or `receive` one event at a time.

    Iteration ends when the server says goodbye; Disconnected where the connection broke, or was cut.
    """

    def __init__(self, socket: ReadableSocket, hello: str | bytes, subscribed: Subscribed) -> None:
        self._socket = socket
        self.hello = hello
        """The server's first frame as it came; it confirms the subscription."""
        self.subscribed = subscribed
        """The same, decoded: where this socket's stream begins."""
        self.gaps: list[Gap] = []
        """What the server said that this socket will not get, as far as it was received."""

    async def receive(self) -> RoutedEvent:
        """Wait for the next event; Disconnected when the socket was closed, MalformedFrame when it is no event.

        Gaps that come before it are added to `gaps`.
        """
        while isinstance(item := await self.receive_any(), Gap):
            self.gaps.append(item)
        return item

    async def receive_any(self) -> RoutedEvent | Gap:
        """Wait for the next event, or for the next gap; raises as `receive` does."""
        item = decode_any(await self.receive_frame())
        if isinstance(item, Subscribed):
            raise MalformedFrame("a subscription is confirmed once")
        return item

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
                if gone.code in NORMAL_CLOSE_CODES:
                    return
                raise
            yield event


@asynccontextmanager
async def connect(
    url: str,
    *,
    thread_id: str,
    ticket: str | None = None,
    user_id: str | None = None,
    after: Cursor | None = None,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
) -> AsyncIterator[EventClient]:
    """Subscribe to a thread: inside the block every later event of it arrives, or all that came after a cursor.

    `url` is a server's, such as `ws://127.0.0.1:8000`. `ticket` is what the application gave for this one socket; a
    server that believes its clients takes `user_id` instead. Raises SubscriptionRefused when the server will not have
    the socket, Disconnected when it goes away at once, and OSError, TimeoutError or an InvalidHandshake of
    `websockets` where there is no such server. No proxy of the environment comes between. On trio, NotInstalled where
    `websockets` is too old for it.
    """
    query = {"thread_id": thread_id}
    if user_id is not None:
        query["user_id"] = user_id
    if after is not None:
        query |= {"epoch": after.epoch, "seq": str(after.seq)}
    protocols = None if ticket is None else [Subprotocol(PROTOCOL), Subprotocol(TICKET_PROTOCOL + ticket)]
    async with _open_socket(f"{url}/ws?{urlencode(query)}", protocols, keepalive_seconds) as socket:
        with anyio.fail_after(OPEN_TIMEOUT_SECONDS):
            hello = await _read(socket)
        subscribed = decode_any(hello)
        if not isinstance(subscribed, Subscribed):
            raise MalformedFrame("the server's first frame does not confirm the subscription")
        yield EventClient(socket, hello, subscribed)


@asynccontextmanager
async def _open_socket(
    url: str, protocols: list[Subprotocol] | None, keepalive_seconds: float
) -> AsyncIterator[ReadableSocket]:
    choices: dict[str, Any] = {
        "subprotocols": protocols,
        "compression": None,
        "proxy": None,
        "open_timeout": OPEN_TIMEOUT_SECONDS,
        "close_timeout": CLOSE_TIMEOUT_SECONDS,
        "ping_interval": keepalive_seconds,
        "ping_timeout": keepalive_seconds,
        "max_size": FRAME_BYTES,
        "max_queue": QUEUE_FRAMES,
        "logger": _log,
    }
    if on_trio():
        try:
            from websockets.trio.client import connect as open_on_trio
        except ImportError as error:
            raise NotInstalled("a client on trio", TRIO_CLIENT) from error
        # A block that is cancelled needs no help to leave: trio has cancelled the connection's own tasks along with it.
        async with AsyncExitStack() as stack:
            try:
                socket = await stack.enter_async_context(open_on_trio(url, **choices))
            except ConnectionClosed as error:
                # On trio a connection that is lost at the wrong moment of the handshake is no InvalidHandshake.
                raise ConnectionResetError("the connection was lost before it was open") from error
            async with _left(socket, socket.aclose, shield=False):
                yield socket
    else:
        connection = await open_on_asyncio(url, **choices)
        async with _left(connection, connection.close, shield=True):
            yield connection


@asynccontextmanager
async def _left(socket: ReadableSocket, close: Callable[[], Awaitable[None]], *, shield: bool) -> AsyncIterator[None]:
    """Say goodbye at the end of a block, also of one that is cancelled: the server is told, and nothing stays open."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=shield):
            async with anyio.create_task_group() as tasks:
                # What nobody has read would hold up the server's answer.
                tasks.start_soon(_read_over, socket)
                await close()
                tasks.cancel_scope.cancel()


async def _read_over(socket: ReadableSocket) -> None:
    with suppress(ConnectionClosed, ConcurrencyError):
        while True:
            await socket.recv()


async def _read(socket: ReadableSocket) -> str | bytes:
    try:
        return await socket.recv()
    except ConnectionClosed as closed:
        raise _told(closed) from closed


def _told(closed: ConnectionClosed) -> BridgekitError:
    if closed.sent is not None and closed.sent.code in NO_WEBSOCKET and not closed.rcvd_then_sent:
        return MalformedFrame(closed.sent.reason or "not what a WebSocket may carry")
    code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (NO_STATUS, "the connection broke")
    return (SubscriptionRefused if code >= FIRST_TERMINAL_CODE else Disconnected)(code, reason)
