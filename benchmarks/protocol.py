"""The messages between a benchmark and the processes of one stack; each request has one reply.

The stacks' own interpreters import this module: it needs msgspec only.
"""

from __future__ import annotations

import msgspec

from benchmarks.verification import LoadVerdict
from benchmarks.workload import Wave

__all__ = [
    "ClosedSockets",
    "CountEncodings",
    "Emit",
    "EmitPaced",
    "EmitReport",
    "FillStack",
    "LoadVerdictReply",
    "MeasureMapping",
    "MeasureOwnCost",
    "MeasuredValues",
    "OpenSockets",
    "PacedReport",
    "PrepareThreads",
    "ReadLoad",
    "ReadTimes",
    "ReadTimesRequest",
    "Received",
    "ResumeReading",
    "StallOne",
    "VerdictRequest",
]


class PrepareThreads(msgspec.Struct, frozen=True, tag=True):
    """Create the threads from `first` to before `last`, where the stack must know them: Done."""

    first: int
    last: int


class FillStack(msgspec.Struct, frozen=True, tag=True):
    """Hold so many live threads beside those that are measured, and so many runs in the mapping: Done."""

    threads: int
    mappings: int


class Emit(msgspec.Struct, frozen=True, tag=True):
    """Let all threads' agents emit a wave at once, as a kind of agents does: EmitReport."""

    wave: Wave
    kind: str


class EmitReport(msgspec.Struct, frozen=True, tag=True):
    """When a wave began, and the CPU time of this process at that moment."""

    begun_ns: int
    cpu_ns: int


class EmitPaced(msgspec.Struct, frozen=True, tag=True):
    """Let one emitter for all threads emit a wave at a fixed rate, for so many seconds at most: PacedReport."""

    wave: Wave
    per_second: float
    within: float


class PacedReport(msgspec.Struct, frozen=True, tag=True):
    emissions: list[tuple[int, int, int]]
    """For each event its thread, when it was emitted, and for how long the emitter waited, in nanoseconds."""


class OpenSockets(msgspec.Struct, frozen=True, tag=True):
    """Open so many sockets in each of these threads: Done."""

    dialect: str
    port: int
    first: int
    last: int
    subscribers: int = 1
    receive_buffer_bytes: int = 0


class ReadLoad(msgspec.Struct, frozen=True, tag=True):
    """Read until StopReading, and until every socket that reads has so many events: Received."""

    events: int


class Received(msgspec.Struct, frozen=True, tag=True):
    complete: bool
    done_ns: int
    """When the last socket had read its last event."""
    busy: float
    """CPU time of the client over time: near 1 it is the client that was measured."""
    events: int
    event_bytes: float


class VerdictRequest(msgspec.Struct, frozen=True, tag=True):
    """Judge the events of this wave that were read: LoadVerdictReply."""

    wave: Wave


class LoadVerdictReply(msgspec.Struct, frozen=True, tag=True):
    verdict: LoadVerdict


class ReadTimesRequest(msgspec.Struct, frozen=True, tag=True):
    """Asks for ReadTimes."""


class ReadTimes(msgspec.Struct, frozen=True, tag=True):
    sockets: list[tuple[int, list[int]]]
    """For each socket that reads: its thread, and when each of its events was read, in nanoseconds."""


class StallOne(msgspec.Struct, frozen=True, tag=True):
    """Stop reading the first socket: Done."""


class ResumeReading(msgspec.Struct, frozen=True, tag=True):
    """Read the stalled sockets again: ClosedSockets."""


class ClosedSockets(msgspec.Struct, frozen=True, tag=True):
    closed: int
    """How many of the stalled sockets the server has closed."""


class MeasureOwnCost(msgspec.Struct, frozen=True, tag=True):
    runs: int


class CountEncodings(msgspec.Struct, frozen=True, tag=True):
    subscribers: int


class MeasureMapping(msgspec.Struct, frozen=True, tag=True):
    mappings: int


class MeasuredValues(msgspec.Struct, frozen=True, tag=True):
    values: dict[str, float]
