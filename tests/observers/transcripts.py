"""What a client read, socket by socket, and where two clients disagree. No I/O."""

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
    """What a witness says, as one line of JSON: a frame that a socket read, or the code it was closed with."""

    socket: int
    text: str | None = None
    closed: int | None = None


@dataclass
class Transcript:
    """One client's account. A text frame is a `str`, whose UTF-8 is the frame's bytes; a binary one is `bytes`."""

    frames: dict[int, list[str | bytes]] = field(default_factory=dict)
    """By the socket's number. The first frame confirms the subscription, each later one is an event."""
    closed: dict[int, int] = field(default_factory=dict)
    """Close codes by the socket's number."""

    def add_frame(self, socket: int, frame: str | bytes) -> None:
        self.frames.setdefault(socket, []).append(frame)

    def add_line(self, line: bytes) -> None:
        said = msgspec.json.decode(line, type=Line)
        if said.text is not None:
            self.add_frame(said.socket, said.text)
        if said.closed is not None:
            self.closed[said.socket] = said.closed


def differences(ours: Transcript, theirs: Transcript) -> list[str]:
    """Every place where the two accounts of one run are not the same, frame by frame."""
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


def seen_by(transcript: Transcript, history: History) -> History:
    """The same history with the arrivals that the transcript tells of, instead of those our client noted."""
    arrivals = [
        arrival_of(socket, event, read_at=event.timestamp.timestamp())
        for socket in history.sockets
        for event in map(decode, transcript.frames.get(socket.number, ())[1:])
    ]
    return replace(history, arrivals=arrivals)


def judged(history: History) -> tuple[Verdict, list[Row]]:
    """Verdict and ledger, without the times: a frame is read twice, and not at the same moment."""
    return check(history), [replace(row, latency_seconds=None) for row in ledger(history)]
