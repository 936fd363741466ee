"""Read many plain sockets in one process: timestamp each read immediately, and decode after the measured time.

The client must not be the bottleneck. The client decodes after the load or in idle moments. The client uses no event
loop, which would delay timestamps. A program that uses LoadClient defines its own messages: which sockets to open, and
how to judge the read events.
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
from bridgekit_verify.harness.child_side import STDIN, ProcessTimes, raise_file_limit
from bridgekit_verify.harness.websocket_protocol import Dialect

__all__ = ["Clear", "ClientSocket", "LoadClient", "NotSubscribed", "ReadReport", "StopReading"]

READ_BYTES: Final = 262_144
MAX_OPENING_SOCKETS: Final = 64
"""Maximum number of sockets that are opened concurrently, below the listen backlog of a server."""
OPEN_TIMEOUT_SECONDS: Final = 20.0
IDLE_SECONDS: Final = 0.02
"""After a load, the client waits until no bytes have arrived for this time, and then decodes."""
LAST_EVENT_SECONDS: Final = 3.0
"""Missing events count as lost if no bytes arrive for this time after the last event was sent."""
PING_REPLY_SECONDS: Final = 5.0
"""In a load that lasts longer than this, the client decodes in idle moments to answer the server's pings."""


class StopReading(msgspec.Struct, frozen=True, tag=True):
    """Signals that every event was sent, so that `LoadClient.read` ends once the last events have arrived."""


class Clear(msgspec.Struct, frozen=True, tag=True):
    """Asks the client to discard what it has read, before the next load."""


class NotSubscribed(BridgekitError):
    """The server closed a socket before it confirmed the subscription, or did not confirm all subscriptions in time."""

    def __init__(self, missing: int) -> None:
        super().__init__(
            f"the server closed a socket, or did not confirm within {OPEN_TIMEOUT_SECONDS:g} s: sockets without a"
            f" subscription: {missing}"
        )
        self.missing = missing


class ReadReport(NamedTuple):
    """The result of one `LoadClient.read`."""

    complete: bool
    """Whether every expected event arrived."""
    cpu_share: float
    """CPU time of this process divided by elapsed time during the load. With a value near 1, the client cannot keep
    up."""
    run_queue_wait: float
    """Share of the load's time in which this process was ready to run, but other processes used the CPUs."""


class ClientSocket:
    """One TCP connection to a server, whose bytes a Dialect decodes."""

    def __init__(self, port: int, dialect: Dialect, *, receive_buffer_bytes: int = 0) -> None:
        self.dialect = dialect
        self.disconnected = False
        """Whether the server has closed the connection."""
        self.paused = False
        """Whether the client has paused reading from this socket."""
        self.read_ns: list[int] = []
        """The time at which the last byte of each event was read, in nanoseconds of the monotonic clock."""
        self._chunks: list[tuple[int, bytes]] = []
        self.raw = socket.socket()
        if receive_buffer_bytes:
            self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.raw.settimeout(OPEN_TIMEOUT_SECONDS)
        self.raw.connect(("127.0.0.1", port))
        self.raw.sendall(dialect.opening())

    def clear(self) -> None:
        """Discard what was read so far."""
        self.decode()
        self.dialect.events.clear()
        self.read_ns.clear()

    def read(self) -> None:
        """Read the available bytes and store them with a timestamp."""
        try:
            data = self.raw.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        self._chunks.append((time.monotonic_ns(), data))
        self.disconnected = not data

    def decode(self) -> None:
        """Decode the stored bytes and send the replies that the protocol requires, such as pongs."""
        chunks, self._chunks = self._chunks, []
        dialect, read_ns, replies = self.dialect, self.read_ns, b""
        for moment, data in chunks:
            replies += dialect.feed(data) or b""
            if new := len(dialect.events) - len(read_ns):
                read_ns += [moment] * new
        if replies and not self.disconnected:
            try:
                self.raw.sendall(replies)
            except OSError:
                self.disconnected = True


S = TypeVar("S", bound=ClientSocket)


class LoadClient(Generic[S]):
    """Reads all sockets of this process and its standard input with one selector."""

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
        """Yield messages of a type or a union of types, until standard input closes. Meanwhile, answer pings."""
        decoder = msgspec.json.Decoder(kind)
        while True:
            while self._lines:
                yield decoder.decode(self._lines.pop(0))
            if self._stdin_closed:
                return
            self.poll(None)
            self._decode()

    def connect(self, sockets: Iterable[S]) -> None:
        """Open the sockets in batches and wait until all are subscribed. Raises NotSubscribed."""
        opening = list[S]()
        for opened in sockets:
            self._selector.register(opened.raw, selectors.EVENT_READ, opened)
            self.sockets.append(opened)
            opening.append(opened)
            if len(opening) == MAX_OPENING_SOCKETS:
                self._wait_subscribed(opening)
                opening.clear()
        self._wait_subscribed(opening)

    def _wait_subscribed(self, opening: Sequence[S]) -> None:
        deadline = time.monotonic() + OPEN_TIMEOUT_SECONDS
        while missing := [each for each in opening if not each.dialect.ready]:
            if time.monotonic() > deadline or any(each.disconnected for each in missing):
                raise NotSubscribed(len(missing))
            self.poll(IDLE_SECONDS)
            self._decode()

    def clear(self) -> None:
        """Discard what was read so far, and collect garbage, because a collection during a load would delay reads."""
        self._decode()
        for each in self.sockets:
            each.clear()
        gc.collect()

    def read(self, expected: int, *, until: float | None = None) -> ReadReport:
        """Read until StopReading has arrived and either `expected` events were read or no more bytes arrive.

        Bytes are decoded after the time `until` or, if it is None, after StopReading. In a load that lasts longer than
        PING_REPLY_SECONDS, bytes are also decoded in idle moments, to answer pings. The wait for missing events ends
        after LAST_EVENT_SECONDS without bytes. The report's shares cover the time before decoding.
        """
        gc.disable()
        began = ProcessTimes.read()
        self._read_load(until)
        cpu_share, run_queue_wait = began.shares_until(ProcessTimes.read())
        stopped, complete, deadline = False, False, time.monotonic() + LAST_EVENT_SECONDS
        while not (self._stdin_closed or (stopped and (complete or time.monotonic() > deadline))):
            if self.poll(IDLE_SECONDS):
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
            idle = not self.poll(IDLE_SECONDS)
            if idle and time.monotonic() > decoded + PING_REPLY_SECONDS:
                self._decode()
                decoded = time.monotonic()

    def poll(self, seconds: float | None) -> bool:
        """Wait at most `seconds` (None: no limit), read every socket with bytes, and return whether any had bytes."""
        received = False
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._read_stdin()
                continue
            received = True
            key.data.read()
            self._undecoded.add(key.data)
            if key.data.disconnected:
                self._selector.unregister(key.fileobj)
        return received

    def pause(self, paused: S) -> None:
        """Stop reading this socket."""
        paused.paused = True
        self._selector.unregister(paused.raw)

    def resume_all(self, seconds: float) -> int:
        """Read the paused sockets again for at most `seconds` seconds, and return how many of them the server has
        closed."""
        paused, deadline = [each for each in self.sockets if each.paused], time.monotonic() + seconds
        for each in paused:
            each.paused = False
            self._selector.register(each.raw, selectors.EVENT_READ, each)
        while (left := deadline - time.monotonic()) > 0 and not all(each.disconnected for each in paused):
            self.poll(left)
        self._decode()
        return sum(each.disconnected or each.dialect.closed for each in paused)

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
