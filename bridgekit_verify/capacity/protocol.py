"""The messages between an experiment and its two processes; each request has one reply."""

from __future__ import annotations

import msgspec

from bridgekit_verify.capacity.schedule import LoadWave

__all__ = [
    "ClientReport",
    "Connect",
    "ConnectedSockets",
    "FillLogs",
    "OpenThreads",
    "ReadWave",
    "RunWave",
    "ServerReport",
    "ServerSetup",
    "StartWaitingRuns",
]


class ServerSetup(msgspec.Struct, frozen=True, kw_only=True):
    """How the server process is configured."""

    edge: str
    """"asgi" or "native"."""
    store: str
    """Such as "memory:"."""
    key: bytes
    """Signs tickets."""


class OpenThreads(msgspec.Struct, frozen=True, tag=True):
    """Create the threads from `first` to before `last`."""

    first: int
    last: int


class RunWave(msgspec.Struct, frozen=True, tag=True):
    """Start each run of a wave at its time, and wait until all have ended: ServerReport."""

    wave: LoadWave


class FillLogs(msgspec.Struct, frozen=True, tag=True):
    """Complete one run without pauses in each of the threads from `first` to before `last`."""

    first: int
    last: int


class StartWaitingRuns(msgspec.Struct, frozen=True, tag=True):
    """Start one run in each of these threads that waits for ever, as for a slow model."""

    first: int
    last: int


class Connect(msgspec.Struct, frozen=True, tag=True):
    """Open a socket for each of these threads: ConnectedSockets."""

    port: int
    key: bytes
    first: int
    last: int


class ConnectedSockets(msgspec.Struct, frozen=True, tag=True):
    """All sockets of the client process, each subscribed to its own thread."""

    sockets: int


class ReadWave(msgspec.Struct, frozen=True, tag=True):
    """Read what comes of a wave until StopReading: ClientReport."""

    wave: LoadWave
    within_seconds: float


class ServerReport(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A wave, as the server process saw it."""

    runs: int
    failed: int
    """Runs that raised."""
    taken: int
    """Events that a socket or the log accepted, by the bridge's counters."""
    refused: int
    """Events that it counted as lost."""
    at_once: int
    """Most runs that were under way at a time."""
    seconds: float
    """From the wave's begin to its last run's end."""
    cpu_seconds: float
    """CPU time in these seconds."""
    share: float
    """CPU time over time while the load was whole: 1 is a core."""
    run_queue_wait: float
    """Share of that time in which it had work and other processes had the processors; 0 where that is unknown."""
    pauses: int
    """How often the garbage collector stopped everything else."""
    longest_pause: float
    """The longest time it took, in seconds."""
    pauses_squared: float
    """The sum of the squares of these times, in square seconds for each second of the wave."""


class ClientReport(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A wave, as its sockets read it. Lateness is from the moment an event was due to its read, in seconds."""

    expected: int
    delivered: int
    within: int
    """Delivered no later than so much after they were due."""
    lost: int
    signalled: int
    """How many events were signalled to the sockets as missing."""
    misrouted: int
    extra_copies: int
    unexpected: int
    reordered: int
    closed: int
    """Sockets that are not open any more."""
    late_p50: float
    late_p99: float
    late_max: float
    late_mean: float
    late_first: float
    """Of the first third of the events, by when they were due: so late were a quarter of them at most."""
    late_last: float
    """The same of the last third."""
    apart_seconds: float
    """The time between the middles of these thirds."""
    emitted_p50: float
    """How late events were emitted, by their own timestamps: the part of lateness before the emission."""
    emitted_p99: float
    share: float
    """CPU time of the client process over time: near 1 it is the client that cannot keep up."""
    run_queue_wait: float
    """Share of that time in which it had something to read and other processes had the processors."""
