"""Many plain sockets in one process: what they read is timestamped at once and decoded when the clock has stopped.

A client must not be what is measured. So nothing is decoded while a load runs, and no event loop stands between a
socket and the clock. A program builds its own messages on a LoadClient: which sockets to open, and how to judge them.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from bridgekit.errors import BridgekitError
from bridgekit_verify.harness.messages import STDIN, ProcessTimes, raise_file_limit
from bridgekit_verify.harness.websocket import Dialect

__all__ = ["Clear", "ClientSocket", "LoadClient", "NotSubscribed", "ReadReport", "StopReading"]

READ_BYTES: Final = 262_144
OPENING_AT_ONCE: Final = 64
"""Sockets that are being opened at a time: fewer than a server lets wait to be accepted."""
OPEN_TIMEOUT_SECONDS: Final = 20.0
QUIET_SECONDS: Final = 0.02
"""No bytes for so long: there is time to decode what was read."""
LAST_EVENT_SECONDS: Final = 3.0
"""How long no bytes may come, once everything was sent, before the missing events are lost."""
PING_REPLY_SECONDS: Final = 5.0
"""A load that lasts longer is decoded in between, in a quiet moment, so that the server's pings are answered."""


class StopReading(msgspec.Struct, frozen=True, tag=True):
    """Everything was sent: what does not come soon is lost. Ends a `LoadClient.read`."""


class Clear(msgspec.Struct, frozen=True, tag=True):
    """Forget what was read so far, before the next load."""


class NotSubscribed(BridgekitError):
    """Sockets were not subscribed in time."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} sockets were not subscribed within {OPEN_TIMEOUT_SECONDS:g} s")
        self.missing = missing


class ReadReport(NamedTuple):
    """How a read went."""

    complete: bool
    """Whether every expected event came."""
    cpu_share: float
    """CPU time of this process over time, while the load ran: near 1 the client cannot keep up."""
    run_queue_wait: float
    """Share of that time in which it had work and other processes had the processors."""


class ClientSocket:
    """One connection to a server."""

    def __init__(self, port: int, dialect: Dialect, *, receive_buffer_bytes: int = 0) -> None:
        self.dialect = dialect
        self.gone = False
        """Whether the server has closed the connection."""
        self.paused = False
        """Whether this socket is not read."""
        self.read_ns: list[int] = []
        """For each event of the dialect: when its last byte was read, on the monotonic clock."""
        self._chunks: list[tuple[int, bytes]] = []
        self.raw = socket.socket()
        if receive_buffer_bytes:
            self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.raw.settimeout(OPEN_TIMEOUT_SECONDS)
        self.raw.connect(("127.0.0.1", port))
        self.raw.sendall(dialect.opening())

    def clear(self) -> None:
        """Forget what was read so far."""
        self.decode()
        self.dialect.events.clear()
        self.read_ns.clear()

    def read(self) -> None:
        """Note the bytes that are there, and when."""
        try:
            data = self.raw.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        self._chunks.append((time.monotonic_ns(), data))
        self.gone = not data

    def decode(self) -> None:
        """Decode what was noted, and send what the server is to be answered."""
        chunks, self._chunks = self._chunks, []
        dialect, read_ns, replies = self.dialect, self.read_ns, b""
        for moment, data in chunks:
            replies += dialect.feed(data) or b""
            if new := len(dialect.events) - len(read_ns):
                read_ns += [moment] * new
        if replies and not self.gone:
            try:
                self.raw.sendall(replies)
            except OSError:
                self.gone = True


S = TypeVar("S", bound=ClientSocket)


class LoadClient(Generic[S]):
    """All sockets of this process, and its standard input."""

    def __init__(self) -> None:
        raise_file_limit()
        self.sockets: list[S] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(STDIN, selectors.EVENT_READ)
        self._rest = b""
        self._lines: list[bytes] = []
        self._undecoded: set[S] = set()
        self._stdin_closed = False

    @property
    def reading(self) -> list[S]:
        """The sockets that are not paused."""
        return [each for each in self.sockets if not each.paused]

    def requests(self, kind: Any) -> Iterator[Any]:
        """Yield the messages of these kinds until standard input closes; meanwhile the server's pings are answered."""
        decoder = msgspec.json.Decoder(kind)
        while True:
            while self._lines:
                yield decoder.decode(self._lines.pop(0))
            if self._stdin_closed:
                return
            self.poll(None)
            self._decode()

    def connect(self, sockets: Iterable[S]) -> None:
        """Wait until all these sockets are subscribed, a few at a time: the iterable opens them. NotSubscribed."""
        opening = list[S]()
        for opened in sockets:
            self._selector.register(opened.raw, selectors.EVENT_READ, opened)
            self.sockets.append(opened)
            opening.append(opened)
            if len(opening) == OPENING_AT_ONCE:
                self._wait_subscribed(opening)
                opening.clear()
        self._wait_subscribed(opening)

    def _wait_subscribed(self, opening: Sequence[S]) -> None:
        deadline = time.monotonic() + OPEN_TIMEOUT_SECONDS
        while missing := [each for each in opening if not each.dialect.ready]:
            if time.monotonic() > deadline or any(each.gone for each in missing):
                raise NotSubscribed(len(missing))
            self.poll(QUIET_SECONDS)
            self._decode()

    def clear(self) -> None:
        """Forget what was read so far, and collect garbage: a collection later would look like a slow server."""
        self._decode()
        for each in self.sockets:
            each.clear()
        gc.collect()

    def read(self, expected: int, *, until: float | None = None) -> ReadReport:
        """Read until StopReading arrives and `expected` events have come, or none comes any more.

        Nothing is decoded before StopReading, or before `until` on the wall clock; the shares cover that time.
        """
        gc.disable()
        began = ProcessTimes.read()
        self._read_load(until)
        cpu_share, run_queue_wait = began.shares_until(ProcessTimes.read())
        stopped, complete, deadline = False, False, time.monotonic() + LAST_EVENT_SECONDS
        while not (self._stdin_closed or (stopped and (complete or time.monotonic() > deadline))):
            if self.poll(QUIET_SECONDS):
                deadline = time.monotonic() + LAST_EVENT_SECONDS
                continue
            if self._lines:
                stopped = bool(msgspec.json.decode(self._lines.pop(0), type=StopReading))
                deadline = time.monotonic() + LAST_EVENT_SECONDS
            self._decode()
            complete = sum(len(each.read_ns) for each in self.reading) >= expected
        gc.enable()
        return ReadReport(complete, cpu_share, run_queue_wait)

    def _read_load(self, until: float | None) -> None:
        decoded = time.monotonic()
        while not (self._lines or self._stdin_closed) if until is None else time.time() < until:
            quiet = not self.poll(QUIET_SECONDS)
            if quiet and time.monotonic() > decoded + PING_REPLY_SECONDS:
                self._decode()
                decoded = time.monotonic()

    def poll(self, seconds: float | None) -> bool:
        """Wait at most so long, and read every socket that has bytes; whether there was one."""
        came = False
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._read_stdin()
                continue
            came = True
            key.data.read()
            self._undecoded.add(key.data)
            if key.data.gone:
                self._selector.unregister(key.fileobj)
        return came

    def pause(self, paused: S) -> None:
        """Stop reading this socket."""
        paused.paused = True
        self._selector.unregister(paused.raw)

    def resume_all(self, seconds: float) -> int:
        """Read the paused sockets again; after so many seconds, how many of them the server has closed."""
        paused, deadline = [each for each in self.sockets if each.paused], time.monotonic() + seconds
        for each in paused:
            each.paused = False
            self._selector.register(each.raw, selectors.EVENT_READ, each)
        while (left := deadline - time.monotonic()) > 0 and not all(each.gone for each in paused):
            self.poll(left)
        self._decode()
        return sum(each.gone or each.dialect.closed for each in paused)

    def _decode(self) -> None:
        for each in self._undecoded:
            each.decode()
        self._undecoded.clear()

    def _read_stdin(self) -> None:
        if not (data := os.read(STDIN, READ_BYTES)):
            self._stdin_closed = True
            self._selector.unregister(STDIN)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += lines
