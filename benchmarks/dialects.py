"""The client protocols of the servers: what the client sends first, and which received bytes are events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bridgekit_verify.harness.websocket_protocol import (
    TEXT,
    Dialect,
    FrameDecoder,
    HttpDialect,
    WebSocketDialect,
    frame,
    http_request,
    upgrade_request,
)

__all__ = ["DIALECTS"]


class Lines:
    """Raw TCP: the client sends a line with the thread id, and the server sends one JSON text per line."""

    def __init__(self, thread_id: str) -> None:
        self.events: list[bytes] = []
        self.ready = False
        self.closed = False
        self._thread_id = thread_id
        self._rest = b""

    def opening(self) -> bytes:
        return f"{self._thread_id}\n".encode()

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines and not self.ready:
            self.ready = True
            del lines[0]
        self.events += lines


class SocketIo(HttpDialect):
    """Engine.IO protocol 4 and Socket.IO protocol 5 over one WebSocket."""

    _EVENT: Final = b'42["event",'

    def __init__(self, thread_id: str) -> None:
        super().__init__()
        self.events: list[bytes] = []
        self._path = f"/socket.io/?EIO=4&transport=websocket&thread_id={thread_id}"
        self._decoder = FrameDecoder()

    def opening(self) -> bytes:
        return upgrade_request(self._path)

    def feed(self, data: bytes) -> bytes | None:
        decoder = self._decoder
        decoder.feed(data if self._head is None else self._body(data, b" 101 "))
        for message in decoder.messages:
            if message.startswith(self._EVENT):
                self.events.append(message[len(self._EVENT) : -1])
            elif message.startswith(b"0"):
                decoder.replies += frame(TEXT, b"40")
            elif message == b"2":
                decoder.replies += frame(TEXT, b"3")
            elif message.startswith(b"40"):
                self.ready = True
        decoder.messages.clear()
        self.closed = decoder.close_code is not None
        return decoder.take_replies()


class ServerSentEvents(HttpDialect):
    """Server-sent events in an unending HTTP response with chunked encoding (RFC 9112, section 7.1)."""

    def __init__(self, thread_id: str) -> None:
        super().__init__()
        self.events: list[bytes] = []
        self._thread_id = thread_id
        self._rest = b""
        self._text = b""

    def opening(self) -> bytes:
        return http_request(f"/events?thread_id={self._thread_id}", "Accept: text/event-stream")

    def feed(self, data: bytes) -> None:
        self._rest += self._body(data, b" 200 ")
        at = 0
        while (line_end := self._rest.find(b"\r\n", at)) >= 0:
            size = int(self._rest[at:line_end], 16)
            begin = line_end + 2
            if len(self._rest) < begin + size + 2:
                break
            self._text += self._rest[begin : begin + size]
            self.closed = size == 0
            at = begin + size + 2
        self._rest = self._rest[at:]
        *whole, self._text = self._text.split(b"\r\n\r\n")
        # Lines that start with a colon are comments, which keep the connection alive and are not events.
        self.events += [each.removeprefix(b"data: ") for each in whole if each.startswith(b"data: ")]
        if not self.ready and self.events:
            self.ready = True
            del self.events[0]


def _websocket(thread_id: str) -> Dialect:
    return WebSocketDialect(f"/ws?thread_id={thread_id}&user_id=user")


DIALECTS: Final[Mapping[str, Callable[[str], Dialect]]] = {
    "lines": Lines,
    "websocket": _websocket,
    "socket.io": SocketIo,
    "server-sent events": ServerSentEvents,
}
"""The dialects by name, each as a factory that takes a thread id."""
