"""Raw clients and servers without a WebSocket library, which may violate the protocol after the handshake."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream

from bridgekit.cursors_and_gaps import Subscribed, encode_signal
from bridgekit.errors import unwrap_single_error
from bridgekit.ids import ThreadId, UserId
from tests.factories import ALICE, THREAD

MASK: Final = b"\x00" * 4
BUFFER_BYTES: Final = 4_096
"""Socket buffer size, for a peer that does not read. The system rounds it up."""
HEADER_END: Final = b"\r\n\r\n"
EPOCH: Final = "0123456789abcdef"


class RawPeer:
    """A subscribed socket, and the bytes received on it."""

    def __init__(self, here: socket.socket) -> None:
        self._here = here
        self.read = b""
        """All bytes since the end of the handshake."""

    async def send_text(self, payload: bytes) -> None:
        """Send one text frame of up to 65,535 bytes."""
        await self.write(b"\x81\xfe" + len(payload).to_bytes(2, "big") + MASK + payload)

    async def send_close(self) -> None:
        await self.write(b"\x88\x82" + MASK + b"\x03\xe8")

    async def read_until(self, wanted: bytes) -> None:
        """Read until these bytes are received."""
        while wanted not in self.read:
            await anyio.wait_readable(self._here)
            if not (data := self._here.recv(65_536)):
                raise EOFError(f"{wanted!r} did not come")
            self.read += data

    async def read_slowly(self, frames: int, chunk_bytes: int) -> None:
        """Read until this many frames are received, at most `chunk_bytes` in an iteration of the event loop."""
        while self.read.count(b'"seq":') < frames:
            await anyio.wait_readable(self._here)
            if not (data := self._here.recv(chunk_bytes)):
                raise EOFError(f"the connection ended before {frames} frames")
            self.read += data

    async def write(self, data: bytes) -> None:
        while data:
            data = data[await self.write_some(data) :]

    async def write_some(self, data: bytes) -> int:
        """Wait until the system accepts a part of the data, and return the number of bytes accepted."""
        await anyio.wait_writable(self._here)
        return self._here.send(data)


@asynccontextmanager
async def raw_peer(url: str, user: UserId = ALICE, thread: ThreadId = THREAD) -> AsyncIterator[RawPeer]:
    """Connect a peer that is subscribed, has read its first frame, and then sends nothing. The server needs no
    ticket."""
    address = urlsplit(url)
    with socket.socket() as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        here.connect((address.hostname, address.port))
        here.setblocking(False)
        peer = RawPeer(here)
        await peer.write(handshake(address.netloc, urlencode({"user_id": user, "thread_id": thread})))
        await peer.read_until(HEADER_END)
        assert peer.read.startswith(b"HTTP/1.1 101 ")
        peer.read = peer.read.partition(HEADER_END)[2]
        await peer.read_until(b'"seq":')
        yield peer


def handshake(host: str, query: str) -> bytes:
    """Return an upgrade request for `/ws` with this query."""
    lines = (
        f"GET /ws?{query} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
    )
    return "\r\n".join(lines).encode() + HEADER_END


Answer = Callable[[SocketStream, bytes], Awaitable[None]]
"""How a server answers a connection on which it has read a request."""


@dataclass
class RawServer:
    """A server that answers each connection with the next of its answers, and then always with the last."""

    answers: list[Answer]
    url: str = ""
    requests: list[str] = field(default_factory=list)
    """The request target of each connection."""

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            request = b""
            while HEADER_END not in request:
                request += await stream.receive()
            self.requests.append(request.split()[1].decode())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            await answer(stream, request)


@asynccontextmanager
async def raw_server(*answers: Answer) -> AsyncIterator[RawServer]:
    """Run a RawServer for the length of a block."""
    server = RawServer(list(answers))
    with unwrap_single_error():
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as tasks,
        ):
            server.url = f"ws://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
            tasks.start_soon(listener.serve, server.serve)
            yield server
            tasks.cancel_scope.cancel()


def status(line: str) -> Answer:
    """Return an answer with this HTTP status, such as "404 Not Found"."""

    async def answer(stream: SocketStream, request: bytes) -> None:
        await stream.send(f"HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    return answer


async def nothing(stream: SocketStream, request: bytes) -> None:
    """Never answers."""
    await anyio.sleep_forever()


async def hang_up(stream: SocketStream, request: bytes) -> None:
    """Closes the connection instead of answering."""


def subscribed(*frames: bytes, seq: int = 0, epoch: str = EPOCH, close: int | None = None) -> Answer:
    """Return an answer that accepts the handshake, confirms a subscription at this position, sends these frames, and
    closes with a code, or never."""
    return sending(encode_signal(Subscribed(THREAD, epoch, seq)), *frames, close=close)


def sending(*frames: bytes, close: int | None = None) -> Answer:
    """Return an answer that accepts the handshake, sends these frames, and closes with a code, or when the client does.
    It answers no ping."""

    async def answer(stream: SocketStream, request: bytes) -> None:
        await stream.send(_accepting(request))
        for data in frames:
            await stream.send(_header(0x81, len(data)) + data)
        if close is not None:
            await stream.send(_header(0x88, 2) + close.to_bytes(2, "big"))
        await _until_close(stream)

    return answer


def _accepting(request: bytes) -> bytes:
    found = re.search(rb"(?i)sec-websocket-key: (\S+)", request)
    assert found is not None
    key = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
    accept = f"Sec-WebSocket-Accept: {base64.b64encode(key).decode()}"
    return "\r\n".join((*lines, accept)).encode() + HEADER_END


def _header(kind: int, size: int) -> bytes:
    if size < 126:
        return bytes((kind, size))
    return (
        bytes((kind, 126)) + size.to_bytes(2, "big") if size < 65_536 else bytes((kind, 127)) + size.to_bytes(8, "big")
    )


async def _until_close(stream: SocketStream) -> None:
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while (await stream.receive())[0] != 0x88:
            pass
