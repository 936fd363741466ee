"""Lines on standard input, however they come in pieces."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import anyio
from bridgekit_verify.harness.messages import read_stdin_lines

async def main():
    async for line in read_stdin_lines():
        print(line.decode(), flush=True)

anyio.run(main, backend={backend!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_line_that_comes_in_pieces_is_told_whole_and_one_without_an_end_is_none(backend: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(backend=backend)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"one\ntw")
        child.stdin.flush()
        # It has read the piece by now: it was written together with the line before it.
        assert child.stdout.readline() == b"one\n"
        child.stdin.write(b"o\nthree\nfou")
        child.stdin.close()
        assert child.stdout.read() == b"two\nthree\n"
        assert child.wait(60) == 0
