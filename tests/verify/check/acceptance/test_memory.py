"""The memory of the command that judges a recording does not grow with the file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tree import ROOT

RUNS = 1_000
MAX_GROWTH_BYTES = 50_000_000
JUDGE = """
import re, sys
from pathlib import Path
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.property_answers import State
verdict = check_recording(sys.argv[1])
assert not verdict.broken, [each for each in verdict.answers if each.state is State.BROKEN]
print(verdict.runs, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def run_of(number: int, messages: int) -> Iterator[dict[str, Any]]:
    """One AG-UI run: messages of eight deltas, with a call after each."""
    yield {"type": "RUN_STARTED", "threadId": f"t{number}", "runId": f"r{number}"}
    for index in range(messages):
        message, call = f"m{number}-{index}", f"c{number}-{index}"
        yield {"type": "TEXT_MESSAGE_START", "messageId": message, "role": "assistant"}
        for word in range(8):
            yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": message, "delta": f"word {word} of {index} " * 4}
        yield {"type": "TEXT_MESSAGE_END", "messageId": message}
        yield {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": "look_up"}
        yield {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": json.dumps({"query": "x" * 200})}
        yield {"type": "TOOL_CALL_END", "toolCallId": call}
        yield {"type": "TOOL_CALL_RESULT", "messageId": f"r-{call}", "toolCallId": call, "content": "3"}
    yield {"type": "RUN_FINISHED", "threadId": f"t{number}", "runId": f"r{number}"}


def write_interleaved(path: Path, size: int) -> int:
    """Write a thousand runs, one frame of each in turn, in a file of about `size` bytes. Return its size."""
    frames = [len(json.dumps(value)) + 60 for value in run_of(500, 10)]
    messages = max(1, round(size / RUNS / (sum(frames) / 10)))
    runs = [run_of(number, messages) for number in range(RUNS)]
    with path.open("w", encoding="utf-8") as file:
        for values in zip(*runs, strict=True):
            for number, value in enumerate(values):
                line = {"socket": f"s{number}", "user": f"u{number % 50}", "thread": f"t{number}", "frame": value}
                file.write(f"{json.dumps(line)}\n")
    return path.stat().st_size


def peak_bytes(path: Path) -> int:
    """Judge a file in a process of its own, and return the most memory that the process had."""
    done = subprocess.run([sys.executable, "-c", JUDGE, path], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    runs, kilobytes = map(int, done.stdout.split())
    assert runs == RUNS
    return kilobytes * 1024


@pytest.mark.acceptance
@pytest.mark.skipif(
    sys.platform != "linux", reason="the peak of one process is in /proc: `ru_maxrss` is also its parent's"
)
def test_ten_times_the_file_takes_at_most_50_megabytes_more(tmp_path: Path) -> None:
    """The larger file has more messages and calls than the judge remembers."""
    peaks = []
    for size in (10_000_000, 100_000_000):
        path = tmp_path / f"{size}.jsonl"
        assert 0.8 * size < write_interleaved(path, size) < 1.2 * size
        peaks.append(peak_bytes(path))
        path.unlink()
    assert peaks[1] - peaks[0] <= MAX_GROWTH_BYTES
