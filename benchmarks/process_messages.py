"""The messages between a benchmark and the processes of one stack. Each request has one reply.

The interpreters of the other stacks import this module, so it depends only on msgspec.
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
    "OpenSubscribers",
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
    """Creates the threads from `first` up to, but not including, `last`, if the stack needs them. Reply: Done."""

    first: int
    last: int


class FillStack(msgspec.Struct, frozen=True, tag=True):
    """Adds background threads to the measured threads, and active runs to the mapping. Reply: Done."""

    threads: int
    mappings: int


class Emit(msgspec.Struct, frozen=True, tag=True):
    """Emits a wave from all threads' agents concurrently. `kind` is a key of KINDS. Reply: EmitReport."""

    wave: Wave
    kind: str


class EmitReport(msgspec.Struct, frozen=True, tag=True):
    """The start time of a wave, and the CPU time of this process at the start."""

    begun_ns: int
    cpu_ns: int


class EmitPaced(msgspec.Struct, frozen=True, tag=True):
    """Emits a wave from one emitter at a fixed rate, for at most `within` seconds. Reply: PacedReport."""

    wave: Wave
    per_second: float
    within: float


class PacedReport(msgspec.Struct, frozen=True, tag=True):
    emissions: list[tuple[int, int, int]]
    """For each event: its thread, its emission time, and how long the emitter waited. Times are in nanoseconds."""


class OpenSubscribers(msgspec.Struct, frozen=True, tag=True):
    """Opens `subscribers` sockets in each of these threads. Reply: Done."""

    dialect: str
    port: int
    first: int
    last: int
    subscribers: int = 1
    receive_buffer_bytes: int = 0


class ReadLoad(msgspec.Struct, frozen=True, tag=True):
    """Reads until StopReading has arrived, and then until each reading socket has `events` events or no more bytes
    arrive.

    Reply: Received.
    """

    events: int


class Received(msgspec.Struct, frozen=True, tag=True):
    complete: bool
    done_ns: int
    """The time at which the last event was read."""
    busy: float
    """CPU time of the client divided by elapsed time. A value near 1 means that the client may have been the
    bottleneck."""
    events: int
    event_bytes: float


class VerdictRequest(msgspec.Struct, frozen=True, tag=True):
    """Verifies the events of this wave that the sockets read. Reply: LoadVerdictReply."""

    wave: Wave


class LoadVerdictReply(msgspec.Struct, frozen=True, tag=True):
    verdict: LoadVerdict


class ReadTimesRequest(msgspec.Struct, frozen=True, tag=True):
    """Requests ReadTimes."""


class ReadTimes(msgspec.Struct, frozen=True, tag=True):
    sockets: list[tuple[int, list[int]]]
    """For each reading socket: its thread, and the read time of each of its events, in nanoseconds."""


class StallOne(msgspec.Struct, frozen=True, tag=True):
    """Makes the client stop reading from its first socket. Reply: Done."""


class ResumeReading(msgspec.Struct, frozen=True, tag=True):
    """Makes the client read from the stalled sockets again. Reply: ClosedSockets."""


class ClosedSockets(msgspec.Struct, frozen=True, tag=True):
    closed: int
    """Number of stalled sockets that the server has closed."""


class MeasureOwnCost(msgspec.Struct, frozen=True, tag=True):
    runs: int


class CountEncodings(msgspec.Struct, frozen=True, tag=True):
    subscribers: int


class MeasureMapping(msgspec.Struct, frozen=True, tag=True):
    mappings: int


class MeasuredValues(msgspec.Struct, frozen=True, tag=True):
    values: dict[str, float]
