"""What a connection may do to uvicorn before it is a request or a socket of the application, and outside of both.

uvicorn itself sets no time limit for a request's head, and answers the pings of a client that does not read.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["HEAD_TIMEOUT_SECONDS", "LimitedHttpProtocol", "LimitedWebSocketProtocol", "rejection"]

HEAD_TIMEOUT_SECONDS: Final = 10.0
"""How long a client may take to send the head of a request, however often it sends a part of it."""

LINE_BYTES: Final = 8_190
"""The longest line in the head of an upgrade request. The `websockets` library reads no longer one."""
MAX_HEADERS: Final = 128
"""The most headers of an upgrade request, for the same reason."""

# uvicorn chooses the class by the parser that is installed, so its type is not known here.
_HttpProtocol: Any = AutoHTTPProtocol


class LimitedHttpProtocol(_HttpProtocol):  # type: ignore[misc]
    """uvicorn's HTTP protocol, with a time limit for the head of each request."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._start_deadline()

    def data_received(self, data: bytes) -> None:
        request = self.cycle
        super().data_received(data)
        upgraded = self.transport.get_protocol() is not self
        if upgraded or self.cycle is not request:
            self._stop_deadline()
        elif self._deadline is None and request is not None and request.response_complete:
            self._start_deadline()  # the first part of the next request on a persistent connection

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def rejection(head: bytes) -> HTTPStatus | None:
    """Return the status that rejects an upgrade request with this head, or None if an edge may serve it."""
    first, *headers = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    if len(first) > LINE_BYTES:
        return HTTPStatus.REQUEST_URI_TOO_LONG
    if len(headers) > MAX_HEADERS or any(len(line) > LINE_BYTES for line in headers):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    # Each edge, proxy and middleware might check another one of several.
    names = [line.partition(b":")[0].strip().lower() for line in headers]
    return HTTPStatus.BAD_REQUEST if names.count(b"origin") > 1 else None


class LimitedWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol. It stops reading from a client that does not read the answers to its pings."""

    _answers_unread = False

    def data_received(self, data: bytes) -> None:
        unsent = self.transport.get_write_buffer_size()
        super().data_received(data)
        if not self.writable.is_set() and self.transport.get_write_buffer_size() > unsent:
            self._answers_unread = True
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answers_unread = False
        if not self.read_paused:
            self.transport.resume_reading()

    async def receive(self) -> Any:
        message = await super().receive()  # which may resume reading
        if self._answers_unread:
            self.transport.pause_reading()
        return message
