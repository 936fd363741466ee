"""The client side of one WebSocket (RFC 6455) without I/O, fast enough not to limit a measurement."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = [
    "TEXT",
    "Dialect",
    "FrameDecoder",
    "HttpDialect",
    "InvalidFrame",
    "WebSocketDialect",
    "frame",
    "http_request",
    "upgrade_request",
]

TEXT: Final = 0x81
BINARY: Final = 0x82
_FINAL: Final = 0x80
_RESERVED: Final = 0x70
_OPCODE: Final = 0x0F
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_NO_CODE: Final = 1_005


class Dialect(Protocol):
    """A client protocol for one kind of server over one connection, without I/O."""

    events: list[bytes]
    """Complete events, as the bytes of their JSON texts, in order."""
    ready: bool
    """Whether the server has confirmed the subscription. Messages before the confirmation are not events."""
    closed: bool
    """Whether the server has closed the session at the protocol level."""

    def opening(self) -> bytes:
        """Return the bytes that the client sends first."""

    def feed(self, data: bytes) -> bytes | None:
        """Decode bytes from the server. Return the bytes to send back, or None."""


class InvalidFrame(Exception):
    """Raised for a frame from the server that the protocol forbids, and for a frame that this client cannot send."""


class FrameDecoder:
    """Decodes the frames of one connection from chunks of any size."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        """Complete messages, in order. The caller removes them."""
        self.replies = bytearray()
        """Bytes to send back: pongs, and the reply to a close frame."""
        self.close_code: int | None = None
        """The server's close code: None before a close frame arrives, 1005 for a close frame without a code."""
        self._rest = b""
        self._fragments: list[bytes] = []

    def feed(self, data: bytes) -> None:  # noqa: C901  # a call for each frame would distort the measurement
        """Decode bytes from the server. Raises InvalidFrame for a frame that RFC 6455 or the handshake forbids."""
        if self._rest:
            data = self._rest + data
        at, end, messages = 0, len(data), self.messages
        while end - at >= 2:
            size, begin = data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, begin = data[at + 2] << 8 | data[at + 3], at + 4
            elif size == 127:
                if end - at < 10:
                    break
                size, begin = int.from_bytes(data[at + 2 : at + 10]), at + 10
            elif size > 127:
                raise InvalidFrame("the server sent a masked frame, which RFC 6455 forbids")
            if begin + size > end:
                break
            first = data[at]
            if first in (TEXT, BINARY):
                messages.append(data[begin : begin + size])
            else:
                self._control_or_fragment(first, data[begin : begin + size])
            at = begin + size
        self._rest = data[at:]

    def take_replies(self) -> bytes | None:
        """Return the bytes to send back and clear them, or None if there are none."""
        replies, self.replies = bytes(self.replies), bytearray()
        return replies or None

    def _control_or_fragment(self, first: int, payload: bytes) -> None:
        """Handle a fragment, or a control frame, which may arrive between fragments."""
        if first & _RESERVED:
            raise InvalidFrame("the server sent a compressed frame, but this client did not offer compression")
        opcode = first & _OPCODE
        if opcode <= 0x2:
            self._fragments.append(payload)
            if first & _FINAL:
                self.messages.append(b"".join(self._fragments))
                self._fragments.clear()
        elif opcode == _CLOSE:
            self.close_code = int.from_bytes(payload[:2]) if payload else _NO_CODE
            self.replies += frame(_FINAL | _CLOSE, payload[:2])
        elif opcode == _PING:
            self.replies += frame(_FINAL | _PONG, payload)
        elif opcode != _PONG:
            raise InvalidFrame(f"the server sent a frame with the unknown opcode {opcode}")


def frame(first: int, payload: bytes) -> bytes:
    """Return a client frame masked with zeros, which is valid and leaves the payload readable.

    Raises InvalidFrame for a payload of more than 125 bytes.
    """
    size = len(payload)
    if size > 125:
        raise InvalidFrame(f"a payload has {size} bytes, but this client sends at most 125 bytes")
    return bytes((first, 0x80 | size)) + bytes(4) + payload


class HttpDialect:
    """Base class of the dialects that start with an HTTP request."""

    def __init__(self) -> None:
        self.ready = False
        self.closed = False
        self._head: bytes | None = b""

    def _body(self, data: bytes, status: bytes) -> bytes:
        """Return the bytes after the response header. Raises ConnectionRefusedError if the header lacks `status`."""
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


class WebSocketDialect(HttpDialect):
    """Decodes one text frame for each event. The first frame confirms the subscription."""

    def __init__(self, path: str, *protocols: str) -> None:
        super().__init__()
        self.confirmation = b""
        """The frame that confirmed the subscription."""
        self._path = path
        self._protocols = protocols
        self._decoder = FrameDecoder()
        self.events = self._decoder.messages

    def opening(self) -> bytes:
        return upgrade_request(self._path, *self._protocols)

    def feed(self, data: bytes) -> bytes | None:
        decoder = self._decoder
        decoder.feed(data if self._head is None else self._body(data, b" 101 "))
        if not self.ready and self.events:
            self.ready = True
            self.confirmation = self.events.pop(0)
        if not decoder.replies:
            return None
        self.closed = decoder.close_code is not None
        return decoder.take_replies()


def http_request(path: str, *headers: str) -> bytes:
    """Return a GET request with the given headers."""
    lines = (f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def upgrade_request(path: str, *protocols: str) -> bytes:
    """Return a WebSocket upgrade request that offers the given subprotocols."""
    offer = (f"Sec-WebSocket-Protocol: {', '.join(protocols)}",) if protocols else ()
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    return http_request(path, "Upgrade: websocket", "Connection: Upgrade", key, "Sec-WebSocket-Version: 13", *offer)
