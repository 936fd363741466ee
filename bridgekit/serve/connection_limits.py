"""Protects uvicorn against clients that are slow, do not read, or open too many connections.

By itself, uvicorn sets no time limit for a request's head and body. Also, uvicorn answers the pings of a client that
does not read, and accepts connections until the process has no file descriptor left.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import sys
import time
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode

if sys.platform != "win32":
    import resource

__all__ = ["LimitedHttpProtocol", "LimitedWebSocketProtocol", "few_files_left", "limit_connection_errors", "rejection"]

HEAD_TIMEOUT_SECONDS: Final = 10.0
"""How long a client may take to send the whole head of a request."""
HEAD_BYTES: Final = 65_536
"""Limit on the bytes that the server reads before the head of a request is complete."""
REPLACED_AFTER_SECONDS: Final = 1.0
"""A new connection replaces a connection without a request only after this time, because the request may still wait to
be read."""
BODY_TIMEOUT_SECONDS: Final = 30.0
BODY_BYTES: Final = 16_384
"""While the application reads a body, the client must send at least this many bytes in every BODY_TIMEOUT_SECONDS."""
RESERVED_FILES: Final = 128
"""File descriptors that are reserved for stores, agents and single requests such as `/healthz`: at most a quarter of
the process's limit."""

LINE_BYTES: Final = 8_190
"""The longest line in the head of an upgrade request. The `websockets` library rejects a longer line."""
MAX_HEADERS: Final = 128
"""Limit on the headers of an upgrade request, as in the `websockets` library."""
CONTROL_CHARACTER: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
MAX_FRAGMENTS: Final = 4_096
"""Limit on the frames of one message, because frames may be empty. On the native edge, the `websockets` library has its
own limit."""

ACCEPT_ERRORS: Final = ("socket.accept() out of system resource", "Exception in callback BaseSelectorEventLoop._start_")
"""The first words of the two records that asyncio logs when no file descriptor is left. The first record can occur
thousands of times per second. The second record occurs if the server stops meanwhile."""
ACCEPT_ERROR_INTERVAL_SECONDS: Final = 10.0
LOST_CONNECTION: Final = "socket.send() raised exception."
"""The record that asyncio logs for each further write to a lost connection, so for each event of a replay."""

# uvicorn chooses this class by the installed parser, so a type checker does not know it.
_HttpProtocol: Any = AutoHTTPProtocol
_without_request: Final[dict[LimitedHttpProtocol, float]] = {}
"""The connections of this process that have not sent the head of a request, oldest first, each with the time at which
it was opened."""


class LimitedHttpProtocol(_HttpProtocol):  # type: ignore[misc]
    """uvicorn's HTTP protocol, with limits for the head and the body of each request.

    If few file descriptors are left, a new connection serves only one request, and replaces the oldest connection
    without a request.
    """

    _timer: asyncio.TimerHandle | None = None
    _unread_bytes = 0
    """Bytes that were received since the timer was started."""
    _serves_one_request = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if few_files_left(self.server_state):
            self._serves_one_request = True
            oldest, since = next(iter(_without_request.items()), (self, math.inf))
            if self.loop.time() - since >= REPLACED_AFTER_SECONDS:
                del _without_request[oldest]
                oldest.transport.abort()
        self._start_timer()
        _without_request[self] = self.loop.time()

    def data_received(self, data: bytes) -> None:
        request = self.cycle
        self._unread_bytes += len(data)
        super().data_received(data)
        if self.cycle is not request or not (self._lacks_head or self._lacks_body):
            self._stop_timer()
        if self._timer is None and (self._lacks_head or self._lacks_body):
            self._start_timer()
        elif self._lacks_head and self._unread_bytes > HEAD_BYTES:
            self.transport.abort()

    @property
    def _lacks_head(self) -> bool:
        """True if the head of the next request is incomplete or missing."""
        idle = self.cycle is None or self.cycle.response_complete
        return idle and not self._lacks_body and self.transport.get_protocol() is self

    @property
    def _lacks_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._serves_one_request:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._unread_bytes = 0
        # A connection that uses a reserved file descriptor is closed before asyncio tries to accept others again.
        head_seconds = REPLACED_AFTER_SECONDS if self._serves_one_request else HEAD_TIMEOUT_SECONDS
        seconds = BODY_TIMEOUT_SECONDS if self._lacks_body else head_seconds
        self._timer = self.loop.call_later(seconds, self._on_timeout)

    def _stop_timer(self) -> None:
        _without_request.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        if self._lacks_body and (self._unread_bytes >= BODY_BYTES or self.flow.read_paused):
            self._start_timer()
        else:
            self.transport.abort()


def few_files_left(state: ServerState) -> bool:
    """Return whether this server's connections already use reserved file descriptors."""
    if sys.platform == "win32":
        return False
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit != resource.RLIM_INFINITY and len(state.connections) > limit - min(RESERVED_FILES, limit // 4)


def limit_connection_errors() -> None:
    """Log at most one line per ACCEPT_ERROR_INTERVAL_SECONDS when asyncio cannot accept connections, and none for
    writes to lost connections."""
    logging.getLogger("asyncio").addFilter(_is_logged)


_accept_error_at = -ACCEPT_ERROR_INTERVAL_SECONDS


def _is_logged(record: logging.LogRecord) -> bool:
    global _accept_error_at  # The filter is a global function, because a logger adds the same function only once.
    if not str(record.msg).startswith(ACCEPT_ERRORS):
        return record.msg != LOST_CONNECTION
    now = time.monotonic()
    if now - _accept_error_at < ACCEPT_ERROR_INTERVAL_SECONDS:
        return False
    _accept_error_at = now
    record.msg, record.args, record.exc_info = "no file descriptor is left for a new connection", (), None
    return True


def rejection(head: bytes) -> HTTPStatus | None:
    """Return the HTTP status that rejects an upgrade request with this head, or None if an edge may serve it."""
    first, *headers = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    if len(first) > LINE_BYTES:
        return HTTPStatus.REQUEST_URI_TOO_LONG
    if len(headers) > MAX_HEADERS or any(len(line) > LINE_BYTES for line in headers):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    fields = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in headers)]
    # Reject a request with several origins, because each edge, proxy and middleware might check a different one. Reject
    # a request with a body, because no edge reads it, or with control characters, because uvicorn would not answer it.
    bodies = [name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in fields]
    origins = sum(name == b"origin" for name, _ in fields)
    controls = any(CONTROL_CHARACTER.search(line) for line in headers)
    return HTTPStatus.BAD_REQUEST if origins > 1 or any(bodies) or controls else None


class LimitedWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol.

    Stops reading from a client that sends pings and does not read the answers, and limits the frames of a message.
    """

    _answers_unread = False

    def data_received(self, data: bytes) -> None:
        unsent = self.transport.get_write_buffer_size()
        super().data_received(data)
        if not self.writable.is_set() and self.transport.get_write_buffer_size() > unsent:
            self._answers_unread = True
            self.transport.pause_reading()

    def handle_cont(self, event: Any) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        # uvicorn would log a traceback for each message that is not UTF-8.
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            self.conn.fail(CloseCode.INVALID_DATA, "not UTF-8")
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answers_unread = False
        if not self.read_paused:
            self.transport.resume_reading()

    def shutdown(self) -> None:
        # If the connection is closing, but the client does not read, uvicorn would raise InvalidState and not shut down
        # the other connections and the application.
        if not self.transport.is_closing():
            super().shutdown()

    async def receive(self) -> Any:
        message = await super().receive()  # which may resume reading
        if self._answers_unread:
            self.transport.pause_reading()
        return message


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
