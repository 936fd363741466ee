"""How a client speaks to each kind of server: what it says first, and how events are told from the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from benchmarks.load.frames import TEXT, Frames, frame

__all__ = ["DIALECTS", "Dialect"]


class Dialect(Protocol):
    """One socket's conversation, without the socket."""

    events: list[bytes]
    """Whole events, as the bytes of their JSON texts, in order."""
    ready: bool
    """Whether the server has said that it is subscribed. What it says before is no event."""
    closed: bool
    """Whether the server has said goodbye."""

    def opening(self, thread_id: str) -> bytes:
        """What to say first."""

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes in; answer what is to be sent back, if anything is."""


class Lines:
    """Raw TCP: the thread's name in a line, then JSON texts in lines."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.ready = False
        self.closed = False
        self._rest = b""

    def opening(self, thread_id: str) -> bytes:
        return f"{thread_id}\n".encode()

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines and not self.ready:
            self.ready = True
            del lines[0]
        self.events += lines


class _Http:
    """What is common to those that begin with an HTTP request."""

    def __init__(self) -> None:
        self.ready = False
        self.closed = False
        self._head: bytes | None = b""

    def _body(self, data: bytes, status: bytes) -> bytes:
        """What comes after the head of the answer. ConnectionRefusedError for another status."""
        if self._head is None:
            return data
        self._head += data
        head, found, body = self._head.partition(b"\r\n\r\n")
        if not found:
            return b""
        if status not in head.split(b"\r\n", 1)[0]:
            raise ConnectionRefusedError(head.decode("latin-1"))
        self._head = None
        return body


def _request(path: str, *headers: str) -> bytes:
    lines = (f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def _upgrade(path: str) -> bytes:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    return _request(
        path, "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"
    )


class WebSocket(_Http):
    """One text frame an event. The first one says that the socket is subscribed."""

    def __init__(self) -> None:
        super().__init__()
        self._frames = Frames()
        self.events = self._frames.messages

    def opening(self, thread_id: str) -> bytes:
        return _upgrade(f"/ws?thread_id={thread_id}&user_id=user")

    def feed(self, data: bytes) -> bytes | None:
        frames = self._frames
        frames.feed(data if self._head is None else self._body(data, b" 101 "))
        if not self.ready and self.events:
            self.ready = True
            del self.events[0]
        if not frames.replies:
            return None
        self.closed = frames.closed is not None
        replies = bytes(frames.replies)
        frames.replies.clear()
        return replies


class SocketIo(_Http):
    """Engine.IO 4 and Socket.IO 5 over one WebSocket."""

    _EVENT: Final = b'42["event",'

    def __init__(self) -> None:
        super().__init__()
        self._frames = Frames()
        self.events: list[bytes] = []

    def opening(self, thread_id: str) -> bytes:
        return _upgrade(f"/socket.io/?EIO=4&transport=websocket&thread_id={thread_id}")

    def feed(self, data: bytes) -> bytes | None:
        frames = self._frames
        frames.feed(data if self._head is None else self._body(data, b" 101 "))
        for message in frames.messages:
            if message.startswith(self._EVENT):
                self.events.append(message[len(self._EVENT) : -1])
            elif message.startswith(b"0"):
                frames.replies += frame(TEXT, b"40")
            elif message == b"2":
                frames.replies += frame(TEXT, b"3")
            elif message.startswith(b"40"):
                self.ready = True
        frames.messages.clear()
        self.closed = frames.closed is not None
        replies = bytes(frames.replies)
        frames.replies.clear()
        return replies or None


class ServerSentEvents(_Http):
    """An HTTP answer that does not end, in chunks (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[bytes] = []
        self._rest = b""
        self._text = b""

    def opening(self, thread_id: str) -> bytes:
        return _request(f"/events?thread_id={thread_id}", "Accept: text/event-stream")

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
        # Comments, which begin with a colon, keep the connection alive and are no events.
        self.events += [each.removeprefix(b"data: ") for each in whole if each.startswith(b"data: ")]
        if not self.ready and self.events:
            self.ready = True
            del self.events[0]


DIALECTS: Final[Mapping[str, Callable[[], Dialect]]] = {
    "lines": Lines,
    "websocket": WebSocket,
    "socket.io": SocketIo,
    "server-sent events": ServerSentEvents,
}
