"""What the experiment and its two processes say to each other: one JSON object a line, one answer to each question."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bridgekit_verify.capacity.schedule import Wave

__all__ = [
    "Ask",
    "Carry",
    "Clocks",
    "Connect",
    "Connected",
    "Done",
    "Enough",
    "Fill",
    "Heard",
    "Hold",
    "Look",
    "Looked",
    "Open",
    "Read",
    "Ready",
    "Said",
    "Setup",
    "Spoke",
    "files_at_most",
    "resident_kib",
    "say",
]

_OUT: Final = 1
_SCHEDULER: Final = Path("/proc/self/schedstat")


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the measured process is made of."""

    edge: str
    """"asgi" or "native"."""
    store: str
    """Such as "memory:"."""
    key: bytes
    """Signs tickets."""


class Open(msgspec.Struct, frozen=True, tag=True):
    """Make the threads from one number to before another."""

    first: int
    last: int


class Carry(msgspec.Struct, frozen=True, tag=True):
    """Let the runs of a wave begin, each in its time, and wait for their ends."""

    wave: Wave


class Fill(msgspec.Struct, frozen=True, tag=True):
    """Let one run without pauses come to its end in each of these threads, from one number to before another."""

    first: int
    last: int


class Hold(msgspec.Struct, frozen=True, tag=True):
    """Let one run begin in each of these threads, and wait for what it will not get: an agent whose model thinks."""

    first: int
    last: int


class Look(msgspec.Struct, frozen=True, tag=True):
    """Say how much memory you have."""


class Connect(msgspec.Struct, frozen=True, tag=True):
    """Open a socket for each of these threads."""

    port: int
    key: bytes
    first: int
    last: int


class Read(msgspec.Struct, frozen=True, tag=True):
    """Read what comes of a wave, until all of it is there and `Enough` was said."""

    wave: Wave
    within_seconds: float


class Enough(msgspec.Struct, frozen=True, tag=True):
    """All of the wave was said: what is not there soon will not come."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """It is up."""

    port: int = 0
    """0: it has none."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """What was asked for is there."""


class Looked(msgspec.Struct, frozen=True, tag=True):
    """How much memory a process has."""

    resident_kib: int


class Connected(msgspec.Struct, frozen=True, tag=True):
    """The sockets are subscribed, each to its own thread."""

    sockets: int


class Spoke(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A wave, as the process that carried it saw it."""

    runs: int
    failed: int
    """Runs that raised."""
    taken: int
    """Events that the bridge said a socket or the log took."""
    refused: int
    """Events that it said nobody got."""
    at_once: int
    """Most runs that were under way at a time."""
    seconds: float
    """From the wave's begin to its last run's end."""
    cpu_seconds: float
    """CPU time in these seconds."""
    share: float
    """CPU time over time while the load was whole: 1 is a core."""
    kept_waiting: float
    """Share of that time in which it had work and others had the processors; 0 where the system does not say."""
    pauses: int
    """How often the collector went through the process's memory, while everything else waited."""
    longest_pause: float
    """The longest time it took, in seconds."""
    pauses_squared: float
    """The sum of the squares of these times, in square seconds for each second of the wave."""


class Heard(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A wave, as the sockets heard it. Lateness is from the moment an event was due to its read, in seconds."""

    expected: int
    delivered: int
    within: int
    """Delivered no later than so much after they were due."""
    lost: int
    told: int
    """How many events the sockets were told that they will not get."""
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
    """How far these thirds are apart, from middle to middle."""
    said_p50: float
    """How late events were said, by their own timestamps: the part of it that is the process's."""
    said_p99: float
    share: float
    """CPU time of this process over time: near 1 it is the reader who cannot keep up."""
    kept_waiting: float
    """Share of that time in which it had something to read and others had the processors."""


Ask = Open | Fill | Hold | Carry | Look | Connect | Read | Enough
Said = Ready | Done | Looked | Connected | Spoke | Heard


class Clocks(NamedTuple):
    """Three clocks of a process, in seconds."""

    cpu: float
    waited: float
    """How long it had work and no processor."""
    time: float

    @classmethod
    def read(cls) -> Clocks:
        return cls(time.process_time(), _waited(), time.monotonic())

    def shares_until(self, later: Clocks) -> tuple[float, float]:
        """CPU time, and waiting for a processor, over time."""
        seconds = max(later.time - self.time, 1e-9)
        return (later.cpu - self.cpu) / seconds, (later.waited - self.waited) / seconds


def _waited() -> float:
    """Linux accounts for it, for the main thread; 0 elsewhere."""
    try:
        return int(_SCHEDULER.read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def say(said: Said) -> None:
    """Answer the question that was asked."""
    line = msgspec.json.encode(said) + b"\n"
    while line:
        line = line[os.write(_OUT, line) :]


def files_at_most() -> int:
    """How many files, and so sockets, a process may have open. From now on this one may have as many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def resident_kib() -> int:
    """Memory of this process now, when the collector has been through."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_024
    # Elsewhere only the highest that it ever was is to be had, and macOS says it in bytes.
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest // 1_024 if sys.platform == "darwin" else highest
