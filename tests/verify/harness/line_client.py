"""A program that uses LoadClient, as the suite and the benchmarks do, with lines of text instead of WebSockets."""

from __future__ import annotations

import sys

import msgspec

from bridgekit_verify.harness import load_client
from bridgekit_verify.harness.child_side import Done, Ready, send
from bridgekit_verify.harness.load_client import Clear, ClientSocket, LoadClient

LAST_EVENT_SECONDS = 0.3


class Open(msgspec.Struct, frozen=True, tag=True):
    sockets: int


class Pause(msgspec.Struct, frozen=True, tag=True):
    """Stops reading the first socket."""


class Resume(msgspec.Struct, frozen=True, tag=True):
    """Resumes reading; the reply is the number of paused sockets that the server has closed."""


class Read(msgspec.Struct, frozen=True, tag=True):
    expected: int


class Count(msgspec.Struct, frozen=True, tag=True):
    count: int


class Lines(msgspec.Struct, frozen=True, tag=True):
    complete: bool
    events: list[list[bytes]]
    read_ns: list[list[int]]


class LineDialect:
    """Events are lines. The first line confirms the subscription, and the client replies to a line "?" with "!"."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.ready = False
        self.closed = False
        self._rest = b""

    def opening(self) -> bytes:
        return b"hello\n"

    def feed(self, data: bytes) -> bytes | None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines and not self.ready:
            self.ready = True
            del lines[0]
        self.events += [line for line in lines if line != b"?"]
        return b"!\n" * lines.count(b"?") or None


def main() -> None:
    port = int(sys.argv[1])
    load_client.OPEN_TIMEOUT_SECONDS = float(sys.argv[2])  # type: ignore[misc]
    load_client.LAST_EVENT_SECONDS = LAST_EVENT_SECONDS  # type: ignore[misc]
    client = LoadClient[ClientSocket]()
    send(Ready())
    for request in client.requests(Open | Clear | Pause | Resume | Read):
        match request:
            case Open(sockets):
                client.connect(ClientSocket(port, LineDialect()) for _ in range(sockets))
                send(Done())
            case Clear():
                client.clear()
                send(Done())
            case Pause():
                client.pause(client.sockets[0])
                send(Done())
            case Resume():
                send(Count(client.resume_all(LAST_EVENT_SECONDS)))
            case Read(expected):
                report = client.read(expected)
                reading = client.reading
                events = [each.dialect.events for each in reading]
                send(Lines(report.complete, events, [each.read_ns for each in reading]))


if __name__ == "__main__":
    main()
