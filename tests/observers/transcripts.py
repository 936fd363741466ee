"""Transcripts of what a client read, by socket, and the differences of two transcripts. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import msgspec

from bridgekit.events import decode
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.experiment import arrival_of
from bridgekit_verify.measure.history import History
from bridgekit_verify.measure.ledger import Row, ledger


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of an independent client's output: a frame that a socket read, or its close code."""

    socket: int
    text: str | None = None
    closed: int | None = None


@dataclass
class Transcript:
    """What one client read. A text frame is a `str`, and a binary frame is `bytes`."""

    frames: dict[int, list[str | bytes]] = field(default_factory=dict)
    """Frames by socket number. The first frame confirms the subscription, and each later one is an event."""
    closed: dict[int, int] = field(default_factory=dict)
    """Close codes by socket number."""

    def add_frame(self, socket: int, frame: str | bytes) -> None:
        self.frames.setdefault(socket, []).append(frame)

    def add_line(self, line: bytes) -> None:
        line_read = msgspec.json.decode(line, type=Line)
        if line_read.text is not None:
            self.add_frame(line_read.socket, line_read.text)
        if line_read.closed is not None:
            self.closed[line_read.socket] = line_read.closed


def differences(ours: Transcript, theirs: Transcript) -> list[str]:
    """Return all differences of two transcripts of one run, frame by frame."""
    return [*_frames(ours, theirs), *_codes(ours, theirs)]


def _frames(ours: Transcript, theirs: Transcript) -> Iterator[str]:
    for socket in _either(ours.frames, theirs.frames):
        pairs = zip_longest(ours.frames.get(socket, ()), theirs.frames.get(socket, ()))
        for number, (our_frame, their_frame) in enumerate(pairs):
            if our_frame != their_frame:
                yield f"socket {socket}, frame {number}: ours {our_frame!r}, theirs {their_frame!r}"


def _codes(ours: Transcript, theirs: Transcript) -> Iterator[str]:
    for socket in _either(ours.closed, theirs.closed):
        our_code, their_code = ours.closed.get(socket), theirs.closed.get(socket)
        if our_code != their_code:
            yield f"socket {socket}: ours closed with {our_code}, theirs with {their_code}"


def _either(ours: Iterable[int], theirs: Iterable[int]) -> list[int]:
    return sorted({*ours, *theirs})


def history_from(transcript: Transcript, history: History) -> History:
    """Return the history with its arrivals replaced by those of the transcript."""
    arrivals = [
        arrival_of(socket, event, read_at=event.timestamp.timestamp())
        for socket in history.sockets
        for event in map(decode, transcript.frames.get(socket.number, ())[1:])
    ]
    return replace(history, arrivals=arrivals)


def verdict_and_rows(history: History) -> tuple[Verdict, list[Row]]:
    """Return verdict and ledger without latencies, because the two clients read a frame at different times."""
    return check(history), [row._replace(latency_seconds=None) for row in ledger(history)]
