"""What a connection may do to uvicorn before it is a request or a socket of the application, and outside of both.

uvicorn itself sets no time limit for a request's head, and answers the pings of a client that does not read.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["HEAD_TIMEOUT_SECONDS", "LimitedHttpProtocol", "LimitedWebSocketProtocol"]

HEAD_TIMEOUT_SECONDS: Final = 10.0
"""How long a client may take to send the head of a request, however often it sends a part of it."""

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
