"""The child's side of the protocol: one JSON object a line, on standard input and output; its clocks and its memory."""

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
    """The first message of a process: it serves, at that port."""

    port: int = 0
    """0: it has none."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The request is fulfilled, and there is nothing to report."""


class MemoryRequest(msgspec.Struct, frozen=True, tag=True):
    """Asks for a MemoryReply."""


class MemoryReply(msgspec.Struct, frozen=True, tag=True):
    resident_kib: int


class CpuRequest(msgspec.Struct, frozen=True, tag=True):
    """Asks for a CpuReply."""


class CpuReply(msgspec.Struct, frozen=True, tag=True):
    cpu_ns: int
    """CPU time of the process so far, in user and in system mode."""


async def read_stdin_lines() -> AsyncIterator[bytes]:
    """Yield each line without its end, until there are no more; an incomplete last line is dropped.

    Not read by a thread: a thread that waits for the next line could not be stopped.
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
    """Yield the messages of a kind, or a union of kinds, from standard input."""
    decoder = msgspec.json.Decoder(kind)
    async for line in read_stdin_lines():
        yield decoder.decode(line)


def send(message: msgspec.Struct) -> None:
    """Send a message. It is written past all buffers: a process that is killed afterwards has sent it."""
    line = msgspec.json.encode(message) + b"\n"
    while line:
        line = line[os.write(STDOUT, line) :]


class ProcessTimes(NamedTuple):
    """Three clocks of this process, in seconds."""

    cpu: float
    waited: float
    """How long its main thread was ready to run and had no processor. Linux only; 0 elsewhere."""
    time: float

    @classmethod
    def read(cls) -> ProcessTimes:
        try:
            waited = int(_SCHEDULER.read_text(encoding="ascii").split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            waited = 0.0
        return cls(time.process_time(), waited, time.monotonic())

    def shares_until(self, later: ProcessTimes) -> tuple[float, float]:
        """CPU time, and waiting for a processor, as shares of the time between."""
        seconds = max(later.time - self.time, 1e-9)
        return (later.cpu - self.cpu) / seconds, (later.waited - self.waited) / seconds


def cpu_ns() -> int:
    """CPU time of this process so far, in user and in system mode."""
    return time.process_time_ns()


def raise_file_limit() -> int:
    """Let this process open as many files, and so sockets, as the system permits; return that number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def resident_kib() -> int:
    """Memory of this process after a garbage collection."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_024
    # Elsewhere only the highest value so far is known; macOS reports it in bytes.
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest // 1_024 if sys.platform == "darwin" else highest
