"""WebSocket frames as a client reads them (RFC 6455, section 5), fast: a client must not be what is measured."""

from __future__ import annotations

from typing import Final

__all__ = ["Frames", "WrongFrame", "frame"]

TEXT: Final = 0x81
BINARY: Final = 0x82
_FINAL: Final = 0x80
_RESERVED: Final = 0x70
_OPCODE: Final = 0x0F
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA


class WrongFrame(Exception):
    """A server sent what no server may send."""


class Frames:
    """Takes apart what comes on one socket, in whatever pieces it comes."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        """Whole messages, in order. Whoever reads them takes them away."""
        self.replies = bytearray()
        """What is to be sent back: pongs, and the answer to a close."""
        self.closed: int | None = None
        """The code with which the server closed; 1005 where it said none."""
        self._rest = b""
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:  # noqa: C901  # a call for each frame would show in what is measured
        """Take bytes in. WrongFrame where they are no frames of a server."""
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
                raise WrongFrame("masked")
            if begin + size > end:
                break
            first = data[at]
            if first in (TEXT, BINARY):
                messages.append(data[begin : begin + size])
            else:
                self._rare(first, data[begin : begin + size])
            at = begin + size
        self._rest = data[at:]

    def _rare(self, first: int, payload: bytes) -> None:
        """Parts of messages, and control frames, which may stand between them."""
        if first & _RESERVED:
            raise WrongFrame("compressed, and nobody asked for it")
        opcode = first & _OPCODE
        if opcode <= 0x2:
            self._parts.append(payload)
            if first & _FINAL:
                self.messages.append(b"".join(self._parts))
                self._parts.clear()
        elif opcode == _CLOSE:
            self.closed = int.from_bytes(payload[:2]) if payload else 1_005
            self.replies += frame(_FINAL | _CLOSE, payload[:2])
        elif opcode == _PING:
            self.replies += frame(_FINAL | _PONG, payload)
        elif opcode != _PONG:
            raise WrongFrame(f"opcode {opcode}")


def frame(first: int, payload: bytes) -> bytes:
    """A frame of a client: masked, as it must be, with a mask of zeros, which changes nothing."""
    size = len(payload)
    if size > 125:
        raise WrongFrame("this client has nothing so long to say")
    return bytes((first, 0x80 | size)) + bytes(4) + payload
