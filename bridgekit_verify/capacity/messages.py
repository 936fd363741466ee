"""The messages between an experiment and its server and client processes. Each request has one reply."""

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
    """First message to the server process: its configuration."""

    edge: str
    """"asgi" or "native"."""
    store: str
    """Store URL, such as "memory:"."""
    key: bytes
    """Key that signs tickets."""


class OpenThreads(msgspec.Struct, frozen=True, tag=True):
    """Creates the threads from `first` up to, but not including, `last`. Reply: Done."""

    first: int
    last: int


class RunWave(msgspec.Struct, frozen=True, tag=True):
    """Starts each run of a wave at its scheduled time and waits until all runs have ended. Reply: ServerReport."""

    wave: LoadWave


class FillLogs(msgspec.Struct, frozen=True, tag=True):
    """Completes one run without pauses in each thread from `first` up to, but not including, `last`. Reply: Done."""

    first: int
    last: int


class StartWaitingRuns(msgspec.Struct, frozen=True, tag=True):
    """Starts an endless run in each thread from `first` up to, but not including, `last`. Reply: Done."""

    first: int
    last: int


class Connect(msgspec.Struct, frozen=True, tag=True):
    """Opens a socket for each thread from `first` up to, but not including, `last`. Reply: ConnectedSockets."""

    port: int
    key: bytes
    first: int
    last: int


class ConnectedSockets(msgspec.Struct, frozen=True, tag=True):
    """Number of sockets of the client process, each subscribed to its own thread."""

    sockets: int


class ReadWave(msgspec.Struct, frozen=True, tag=True):
    """Reads the events of a wave until the request StopReading. Reply: ClientReport."""

    wave: LoadWave
    within_seconds: float


class ServerReport(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The server process's measurements of a wave."""

    runs: int
    failed: int
    """Runs that ended with an error."""
    taken: int
    """Events that the bridge counted as sent, retained or pending."""
    refused: int
    """Events that the bridge counted as lost."""
    at_once: int
    """Largest number of concurrent runs."""
    seconds: float
    """Duration from the start of the wave to the end of its last run."""
    cpu_seconds: float
    """CPU time of the process during `seconds`."""
    share: float
    """CPU time divided by elapsed time, from the end of the first runs to the start of the last run. A full core is
    1."""
    run_queue_wait: float
    """Time that the process waited for a CPU, divided by the elapsed time that `share` uses, or 0 if unknown."""
    pauses: int
    """Number of garbage collections."""
    longest_pause: float
    """The longest garbage collection, in seconds."""
    pauses_squared: float
    """Sum of the squared durations of the garbage collections, in s² per second of the wave."""


class ClientReport(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The client process's measurements of a wave. Lateness is the time from an event's due time until its read."""

    expected: int
    delivered: int
    within: int
    """Events delivered within `ReadWave.within_seconds` seconds after they were due."""
    lost: int
    signalled: int
    """Events that gaps signalled as missing."""
    misrouted: int
    extra_copies: int
    unexpected: int
    reordered: int
    closed: int
    """Sockets that the server has closed."""
    late_p50: float
    late_p99: float
    late_max: float
    late_mean: float
    late_first: float
    """Lower quartile of lateness in the first third of the events, in the order of their due times."""
    late_last: float
    """Lower quartile of lateness in the last third of the events, in the order of their due times."""
    apart_seconds: float
    """Seconds between the median due times of the first and the last third of the events."""
    emitted_p50: float
    """Median time from an event's due time to its emission: the part of lateness before the emission."""
    emitted_p99: float
    share: float
    """CPU time of the client process divided by elapsed time. With a value near 1, the client cannot keep up."""
    run_queue_wait: float
    """Share of the elapsed time in which the client was ready to read but waited for a CPU."""
