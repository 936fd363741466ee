"""The load client process: opens the sockets of one stack, reads what the stack sends, and verifies it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from benchmarks.dialects import DIALECTS
from benchmarks.process_messages import (
    ClosedSockets,
    LoadVerdictReply,
    OpenSubscribers,
    ReadLoad,
    ReadTimes,
    ReadTimesRequest,
    Received,
    ResumeReading,
    StallOne,
    VerdictRequest,
)
from benchmarks.verification import LoadVerdict, judge
from benchmarks.workload import Wave, thread_id
from bridgekit_verify.harness.child_side import Done, Ready, send
from bridgekit_verify.harness.load_client import Clear, ClientSocket, LoadClient

NOTICE_SECONDS: Final = 0.5
"""Time limit for reading the bytes that were queued while the socket did not read."""

Request = OpenSubscribers | Clear | ReadLoad | VerdictRequest | ReadTimesRequest | StallOne | ResumeReading


class ThreadSocket(ClientSocket):
    """The socket of one subscriber of a thread."""

    def __init__(self, request: OpenSubscribers, thread: int) -> None:
        self.thread = thread
        dialect = DIALECTS[request.dialect](thread_id(thread))
        super().__init__(request.port, dialect, receive_buffer_bytes=request.receive_buffer_bytes)


def _open(request: OpenSubscribers) -> Iterator[ThreadSocket]:
    for thread in range(request.first, request.last):
        for _ in range(request.subscribers):
            yield ThreadSocket(request, thread)


def _read(client: LoadClient[ThreadSocket], request: ReadLoad) -> Received:
    report = client.read(request.events * len(client.reading))
    events = [len(event) for each in client.reading for event in each.dialect.events]
    return Received(
        complete=report.complete,
        done_ns=max((each.read_ns[: request.events][-1] for each in client.reading if each.read_ns), default=0),
        busy=report.cpu_share,
        events=len(events),
        event_bytes=sum(events) / max(len(events), 1),
    )


def _judge(client: LoadClient[ThreadSocket], wave: Wave) -> LoadVerdict:
    verdict = LoadVerdict()
    for each in client.reading:
        verdict += judge(wave.of(each.thread), each.dialect.events)
    return verdict


def _reply(client: LoadClient[ThreadSocket], request: Request) -> msgspec.Struct:
    match request:
        case OpenSubscribers():
            client.connect(_open(request))
        case Clear():
            client.clear()
        case ReadLoad():
            return _read(client, request)
        case VerdictRequest(wave):
            return LoadVerdictReply(_judge(client, wave))
        case ReadTimesRequest():
            return ReadTimes([(each.thread, each.read_ns) for each in client.reading])
        case StallOne():
            client.pause(client.sockets[0])
        case ResumeReading():
            return ClosedSockets(client.resume_all(NOTICE_SECONDS))
    return Done()


def main() -> None:
    client = LoadClient[ThreadSocket]()
    send(Ready())
    for request in client.requests(Request):
        send(_reply(client, request))


if __name__ == "__main__":
    main()
