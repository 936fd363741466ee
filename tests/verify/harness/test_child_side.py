"""Lines of standard input in chunks of any size, and the CPU times and memory of a process."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bridgekit_verify.harness.child_side import ProcessTimes, raise_file_limit, resident_kib

MEBIBYTE = 1_048_576

PROGRAM = """
import anyio
from bridgekit_verify.harness.child_side import read_stdin_lines

async def main():
    async for line in read_stdin_lines():
        print(line.decode(), flush=True)

anyio.run(main, backend={backend!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_split_line_is_joined_and_an_incomplete_last_line_is_dropped(backend: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(backend=backend)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"one\ntw")
        child.stdin.flush()
        # The child has read this piece, because it was written together with the previous line.
        assert child.stdout.readline() == b"one\n"
        child.stdin.write(b"o\nthree\nfou")
        child.stdin.close()
        assert child.stdout.read() == b"two\nthree\n"
        assert child.wait(60) == 0


def test_shares_relate_to_the_time_between_two_readings() -> None:
    first, last = ProcessTimes(cpu=1.0, waited=0.0, time=10.0), ProcessTimes(cpu=2.0, waited=1.0, time=14.0)
    assert first.shares_until(last) == (0.25, 0.25)


def test_cpu_time_increases_with_work() -> None:
    before = ProcessTimes.read()
    while (after := ProcessTimes.read()).cpu < before.cpu + 0.05:
        pass
    share, run_queue_wait = before.shares_until(after)
    assert 0 < share <= 1.01
    assert 0 <= run_queue_wait <= 1.01


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="other systems report only the peak memory")
def test_resident_memory_follows_allocation_and_release() -> None:
    before = resident_kib()
    taken = bytearray(os.urandom(MEBIBYTE)) * 64
    assert resident_kib() >= before + len(taken) // 1_024 * 0.9
    del taken
    assert resident_kib() < before + 32 * 1_024


def test_file_limit_is_raised_to_the_hard_limit() -> None:
    assert raise_file_limit() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
