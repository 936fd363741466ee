"""A WebSocket client that opens one socket. For a client that reconnects, see `resuming_client`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import anyio
from websockets.asyncio.client import connect as open_on_asyncio
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.typing import Subprotocol

from bridgekit.cursors_and_gaps import START, Cursor, Gap, Subscribed, decode_any
from bridgekit.errors import BridgekitError, Disconnected, MalformedFrame, NotInstalled, SubscriptionRefused
from bridgekit.events import FRAME_BYTES, RoutedEvent
from bridgekit.transport.authorization import CLOSE_DRAINED, PROTOCOL, TICKET_PROTOCOL
from bridgekit.transport.log_redaction import redact_tickets

__all__ = ["KEEPALIVE_SECONDS", "EventClient", "connect", "on_trio"]

FIRST_TERMINAL_CODE: Final = 4_500
NORMAL_CLOSE_CODES: Final = frozenset({1_000, CLOSE_DRAINED})
"""Close codes that a server sends after it has written every event. A server that goes away (1001) or restarts (1012,
RFC 6455, section 7.4.1) may have discarded events."""
NO_STATUS: Final = 1_006
"""The close code of a connection that broke without a close frame (RFC 6455, section 7.1.5)."""
PROTOCOL_ERROR_CODES: Final = frozenset({1_002, 1_003, 1_007, 1_009})
"""Close codes that this client sends when the server violates the WebSocket protocol. A retry cannot succeed."""
OPEN_TIMEOUT_SECONDS: Final = 10.0
"""Time limit for the handshake, and a separate limit of this length for the confirmation of the subscription."""
CLOSE_TIMEOUT_SECONDS: Final = 2.0
"""How long the server may take to answer a close frame."""
KEEPALIVE_SECONDS: Final = 20.0
"""Time between pings, and time limit for the answer to a ping. Without an answer, the connection counts as broken."""
QUEUE_FRAMES: Final = 256
"""Limit on frames that the client reads before the caller requests them. At this limit, the client stops reading from
the socket."""

TRIO_CLIENT: Final = "websockets>=17,<18"

_log = logging.getLogger(__name__)
redact_tickets(__name__)


def on_trio() -> bool:
    """Return whether the calling task runs on trio."""
    return anyio.get_cancelled_exc_class() is not asyncio.CancelledError


class ReadableSocket(Protocol):
    """The `recv` method, which the asyncio and trio sockets of `websockets` share."""

    async def recv(self) -> str | bytes: ...


class EventClient:
    """One subscribed socket: iterate over it, or call `receive` for one event.

    Iteration ends when the server closes the socket after it has written every event, for example after a drain (4000).
    Otherwise, iteration raises the errors of `receive`, for example Disconnected with the code 1012 if the server ended
    without a drain. The thread may get more events after iteration has ended. `subscribe` reconnects to receive them,
    and `connect` does not.
    """

    def __init__(self, socket: ReadableSocket, confirmation: str | bytes, subscribed: Subscribed) -> None:
        self._socket = socket
        self.confirmation = confirmation
        """The server's first frame, undecoded. It confirms the subscription."""
        self.subscribed = subscribed
        """The decoded confirmation, with the position at which this socket's stream starts."""
        self.gaps: list[Gap] = []
        """The gaps that arrived while `receive` waited for an event."""

    async def receive(self) -> RoutedEvent:
        """Return the next event.

        Raises Disconnected if the socket is closed, or SubscriptionRefused if the server closed it with a terminal
        code. Raises FrameTooLarge or MalformedFrame if the frame cannot be decoded.

        Gaps that arrive before the event are appended to `gaps`.
        """
        while isinstance(item := await self.receive_any(), Gap):
            self.gaps.append(item)
        return item

    async def receive_any(self) -> RoutedEvent | Gap:
        """Return the next event or gap. Raises the same errors as `receive`."""
        item = decode_any(await self.receive_frame())
        if isinstance(item, Subscribed):
            raise MalformedFrame("the server confirmed the subscription twice")
        return item

    async def receive_frame(self) -> str | bytes:
        """Return the next frame, undecoded. Raises the same errors as `receive` if the socket is closed."""
        return await _read(self._socket)

    def __aiter__(self) -> AsyncIterator[RoutedEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[RoutedEvent]:
        while True:
            try:
                event = await self.receive()
            except Disconnected as disconnected:
                if disconnected.code in NORMAL_CLOSE_CODES:
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
    headers: Mapping[str, str] | None = None,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
) -> AsyncIterator[EventClient]:
    """Subscribe to a thread while the block runs.

    The client receives every later event of the thread or, with `after`, every event after that cursor. With `START` as
    the cursor, the client receives every event that the log retains. `url` is the server's address, such as
    `ws://127.0.0.1:8000`. `ticket` comes from the application and opens one socket. A server that does not require
    tickets accepts `user_id` instead, or `headers` such as a cookie. The client ignores proxy settings in the
    environment.

    Raises SubscriptionRefused if the server refuses the subscription, and Disconnected if the socket closes before the
    confirmation. Raises OSError or `websockets.InvalidHandshake` if the handshake fails, and TimeoutError if the server
    does not answer in time. Raises MalformedFrame if the first frame is not the confirmation. On trio, raises
    NotInstalled if `websockets` is too old. See `EventClient` for how iteration ends.
    """
    query = {"thread_id": thread_id}
    if user_id is not None:
        query["user_id"] = user_id
    if after is not None:
        query |= {"after": "start"} if after == START else {"epoch": after.epoch, "seq": str(after.seq)}
    protocols = None if ticket is None else [Subprotocol(PROTOCOL), Subprotocol(TICKET_PROTOCOL + ticket)]
    async with _open_socket(
        f"{url.rstrip('/')}/ws?{urlencode(query)}", protocols, headers, keepalive_seconds
    ) as socket:
        with anyio.fail_after(OPEN_TIMEOUT_SECONDS):
            confirmation = await _read(socket)
        subscribed = decode_any(confirmation)
        if not isinstance(subscribed, Subscribed):
            raise MalformedFrame("the server's first frame does not confirm the subscription")
        yield EventClient(socket, confirmation, subscribed)


@asynccontextmanager
async def _open_socket(
    url: str, protocols: list[Subprotocol] | None, headers: Mapping[str, str] | None, keepalive_seconds: float
) -> AsyncIterator[ReadableSocket]:
    options: dict[str, Any] = {
        "subprotocols": protocols,
        "additional_headers": headers,
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
        # On trio, a shield would not help, because cancelling the block also cancels the connection's own tasks.
        async with AsyncExitStack() as stack:
            try:
                socket = await stack.enter_async_context(open_on_trio(url, **options))
            except ConnectionClosed as error:
                # On trio, a connection that is lost during the handshake may raise ConnectionClosed instead of
                # InvalidHandshake.
                raise ConnectionResetError("the connection was lost before it was open") from error
            async with _closing(socket, socket.aclose, shield=False):
                yield socket
    else:
        connection = await open_on_asyncio(url, **options)
        async with _closing(connection, connection.close, shield=True):
            yield connection


@asynccontextmanager
async def _closing(
    socket: ReadableSocket, close: Callable[[], Awaitable[None]], *, shield: bool
) -> AsyncIterator[None]:
    """When the block ends, close the socket with a close frame. With `shield`, send the frame even if the block is
    cancelled."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=shield):
            async with anyio.create_task_group() as tasks:
                # Discard unread frames, because they would delay the server's close frame.
                tasks.start_soon(_discard_incoming, socket)
                await close()
                tasks.cancel_scope.cancel()


async def _discard_incoming(socket: ReadableSocket) -> None:
    with suppress(ConnectionClosed, ConcurrencyError):
        while True:
            await socket.recv()


async def _read(socket: ReadableSocket) -> str | bytes:
    try:
        return await socket.recv()
    except ConnectionClosed as closed:
        raise _close_error(closed) from closed


def _close_error(closed: ConnectionClosed) -> BridgekitError:
    if closed.sent is not None and closed.sent.code in PROTOCOL_ERROR_CODES and not closed.rcvd_then_sent:
        return MalformedFrame(closed.sent.reason or "the server violated the WebSocket protocol")
    code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (NO_STATUS, "the connection broke")
    return (SubscriptionRefused if code >= FIRST_TERMINAL_CODE else Disconnected)(code, reason)
