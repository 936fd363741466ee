"""How a child process is told what to do, and answers: one JSON object a line, on its standard input and output."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["LINE_BYTES", "answer", "commands", "cpu_ns", "open_files_at_most", "resident_kib"]

LINE_BYTES: Final = 67_108_864
"""Longest line: the moments of a million events."""

Message = dict[str, Any]


async def commands() -> AsyncIterator[Message]:
    """What the parent asks, until it has no more to ask or is gone."""
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield msgspec.json.decode(line, type=Message)


def open_files_at_most() -> int:
    """How many files, and so sockets, a process may have open. From now on this one may have as many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def answer(**message: object) -> None:
    """Answer the command under way, or say at the start that all is ready."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def cpu_ns() -> int:
    """CPU time of this process so far, in user and in system mode, as the scheduler accounts for it."""
    return time.process_time_ns()


def resident_kib() -> int:
    """Memory of this process now, after the collector has been through."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_024
    # Elsewhere only the highest that it ever was is to be had.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
