"""The child's side of the JSON-lines protocol, and the CPU times and memory of the process."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import msgspec

__all__ = [
    "CpuReply",
    "CpuRequest",
    "Done",
    "MemoryReply",
    "MemoryRequest",
    "ProcessTimes",
    "Ready",
    "cpu_ns",
    "raise_file_limit",
    "read_requests",
    "read_stdin_lines",
    "resident_kib",
    "send",
]

STDIN: Final = 0
STDOUT: Final = 1
CHUNK_BYTES: Final = 65_536
_SCHEDULER: Final = Path("/proc/self/schedstat")


class Ready(msgspec.Struct, frozen=True, tag=True):
    """First message of a process: the process is ready and serves at this port."""

    port: int = 0
    """The port, or 0 if the process has no port."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """Reply to a completed request that returns no data."""


class MemoryRequest(msgspec.Struct, frozen=True, tag=True):
    """Requests a MemoryReply."""


class MemoryReply(msgspec.Struct, frozen=True, tag=True):
    resident_kib: int


class CpuRequest(msgspec.Struct, frozen=True, tag=True):
    """Requests a CpuReply."""


class CpuReply(msgspec.Struct, frozen=True, tag=True):
    cpu_ns: int
    """CPU time of the process so far, in user and in system mode."""


async def read_stdin_lines() -> AsyncIterator[bytes]:
    """Yield each line of standard input without its line end. An incomplete last line is dropped.

    No thread is used, because a thread that blocks in a read cannot be cancelled.
    """
    rest = b""
    while True:
        await anyio.wait_readable(STDIN)
        if not (data := os.read(STDIN, CHUNK_BYTES)):
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line


async def read_requests(kind: Any) -> AsyncIterator[Any]:
    """Yield the messages of a type, or a union of types, from standard input."""
    decoder = msgspec.json.Decoder(kind)
    async for line in read_stdin_lines():
        yield decoder.decode(line)


def send(message: msgspec.Struct) -> None:
    """Write a message directly to the file descriptor, so that a later kill of the process cannot lose the message."""
    line = msgspec.json.encode(message) + b"\n"
    while line:
        line = line[os.write(STDOUT, line) :]


class ProcessTimes(NamedTuple):
    """CPU time, run-queue time and monotonic time of this process, in seconds."""

    cpu: float
    waited: float
    """Time in which the main thread was ready to run but waited for a CPU, or 0 on systems other than Linux."""
    time: float

    @classmethod
    def read(cls) -> ProcessTimes:
        try:
            waited = int(_SCHEDULER.read_text(encoding="ascii").split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            waited = 0.0
        return cls(time.process_time(), waited, time.monotonic())

    def shares_until(self, later: ProcessTimes) -> tuple[float, float]:
        """Return CPU time and run-queue time, each as a share of the time between this reading and `later`."""
        seconds = max(later.time - self.time, 1e-9)
        return (later.cpu - self.cpu) / seconds, (later.waited - self.waited) / seconds


def cpu_ns() -> int:
    """Return the CPU time of this process so far, user and system mode, in nanoseconds."""
    return time.process_time_ns()


def raise_file_limit() -> int:
    """Raise the soft limit of open files (and so sockets) to the hard limit. Return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def resident_kib() -> int:
    """Collect garbage and return the resident memory of this process in KiB."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_024
    # Systems other than Linux report only the peak value, and macOS reports it in bytes.
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest // 1_024 if sys.platform == "darwin" else highest
