"""Verify that the received events are exactly the emitted events. If the received events differ, the measurement has no
result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from datetime import datetime
from typing import Final

import msgspec

from benchmarks.workload import AGENT, AgentRun

__all__ = ["LoadVerdict", "WrongAnswer", "judge"]

MEASURED_FIELD: Final = "execution_time_ms"
"""A field of the last event. bridgekit measures the field's value, so it is not known in advance."""


class WrongAnswer(Exception):
    """Raised if a stack delivered wrong events, so that the measurement has no result."""


@dataclass(frozen=True, slots=True)
class LoadVerdict:
    """Counts of the expected events of one or more sockets, by outcome."""

    expected: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    """Events that arrived after an event that was emitted later."""
    corrupted: int = 0
    """Events that cannot be decoded, or whose text or envelope differs from the emitted event."""
    misrouted: int = 0
    """Events of another thread that the socket received."""

    @property
    def sound(self) -> bool:
        return self.expected > 0 and not any(astuple(self)[1:])

    def __add__(self, other: LoadVerdict) -> LoadVerdict:
        return LoadVerdict(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in asdict(self).items())

    @classmethod
    def of(cls, counts: dict[str, int]) -> LoadVerdict:
        """Build a verdict from its field values."""
        return cls(**{each.name: counts[each.name] for each in fields(cls)})


class _Arrived(msgspec.Struct, forbid_unknown_fields=True):
    """The envelope of a received event. Unknown fields are an error."""

    type: str
    thread_id: str
    run_id: str
    agent_name: str
    seq: int
    event_id: str
    timestamp: datetime
    payload: dict[str, object]


_decoder: Final = msgspec.json.Decoder(_Arrived)
_encoder: Final = msgspec.json.Encoder(order="deterministic")


@dataclass(slots=True)
class _SocketJudge:
    """Judges the events of one socket, one event after another."""

    positions: dict[bytes, int]
    """The position of each expected event, by its content."""
    copies: list[int]
    first_seq: int | None = None
    """The `seq` of the first expected event, inferred from the first received event."""
    latest: int = -1
    reordered: int = 0
    corrupted: int = 0
    misrouted: int = 0
    ids: set[str] = field(default_factory=set)

    def add(self, event: _Arrived) -> None:
        position = self.positions.get(_content(event.type, event.payload))
        if position is None:
            self.corrupted += 1
            return
        self.copies[position] += 1
        if self.copies[position] > 1:
            return
        if self.first_seq is None:
            self.first_seq = event.seq - position
        sound = event.agent_name == AGENT and event.seq == self.first_seq + position and event.event_id not in self.ids
        self.ids.add(event.event_id)
        self.corrupted += not sound
        self.reordered += position < self.latest
        self.latest = max(self.latest, position)


def judge(runs: Sequence[AgentRun], arrived: Iterable[bytes]) -> LoadVerdict:
    """Verify what one socket of the runs' thread read, in the order of arrival."""
    bodies = [each for run in runs for each in run.bodies()]
    socket = _SocketJudge(
        {_content(each.type, each.payload): position for position, each in enumerate(bodies)}, [0] * len(bodies)
    )
    for data in arrived:
        try:
            event = _decoder.decode(data)
        except msgspec.MsgspecError:
            socket.corrupted += 1
            continue
        if event.thread_id != runs[0].thread_id:
            socket.misrouted += 1
        else:
            socket.add(event)
    return LoadVerdict(
        expected=len(bodies),
        lost=sum(copies == 0 for copies in socket.copies),
        duplicated=sum(max(copies - 1, 0) for copies in socket.copies),
        reordered=socket.reordered,
        corrupted=socket.corrupted,
        misrouted=socket.misrouted,
    )


def _content(kind: str, payload: dict[str, object]) -> bytes:
    if kind == "agent_completed":
        payload = {**payload, MEASURED_FIELD: None}
    return _encoder.encode((kind, payload))
