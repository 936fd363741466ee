"""A child process is killed, paused, terminated, restarted, read and written, and never outlives its block."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridgekit_verify.harness import processes
from bridgekit_verify.harness.child_side import CpuReply, CpuRequest, Done
from bridgekit_verify.harness.processes import (
    ChildProcess,
    ProcessExited,
    ProcessFailed,
    ProcessTimeout,
    command_output,
    start_process,
)
from tests.verify.faults.peers import IDLE_SECONDS, TIMEOUT_SECONDS, open_files

pytestmark = pytest.mark.slow

ECHO = """
import os, sys
print("up", os.getpid(), flush=True)
for line in sys.stdin:
    print(line, end="", flush=True)
sys.exit(7)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(1000)
"""
PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid, flush=True)
time.sleep(1000)
"""
ANSWERING = """
import sys
for line in sys.stdin:
    print('{"type": "CpuReply", "cpu_ns": 12}', flush=True)
"""
BROKEN = """
import sys
sys.stderr.write("x" * 5_000)
raise SystemExit("the port is taken")
"""
CHATTY = """
for number in range(1_000_000):
    print(number, flush=True)
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", program]


async def up(process: ChildProcess) -> None:
    with anyio.fail_after(TIMEOUT_SECONDS):
        assert await process.line() == f"up {process.pid}"


async def test_process_is_read_and_written_line_by_line_and_ends_with_its_own_exit_code() -> None:
    async with start_process(
        python("print('a\\r'); print('é'); print(); print('no newline', end=''); raise SystemExit(3)")
    ) as one:
        assert [line async for line in one.lines()] == ["a", "é", ""]
        assert await one.wait() == one.exit_code == 3
        with pytest.raises(ProcessExited, match=f"process {one.pid} has ended with exit code 3") as error:
            await one.line()
        assert (error.value.pid, error.value.exit_code) == (one.pid, 3)


async def test_process_gets_only_the_given_environment() -> None:
    async with start_process(
        python("import os; print(sorted(os.environ))"), env={"BRIDGE": "1", "LC_CTYPE": "C.UTF-8"}
    ) as one:
        assert await one.line() == "['BRIDGE', 'LC_CTYPE']"


async def test_killed_process_ends_with_its_children() -> None:
    async with start_process(python(PARENT)) as one:
        grandchild = int(await one.line())
        assert await one.kill() == -signal.SIGKILL
        await wait_ended(grandchild)
        assert await one.kill() == -signal.SIGKILL
        with pytest.raises(ProcessExited):
            await one.pause()
        with pytest.raises(ProcessExited):
            one.resume()
        with pytest.raises(ProcessExited):
            await one.send_line("anybody?")


async def wait_ended(pid: int) -> None:
    """Wait until the process with this pid has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with anyio.fail_after(TIMEOUT_SECONDS):
            await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_paused_process_sends_nothing_until_it_is_resumed() -> None:
    async with start_process(python(ECHO)) as one:
        await up(one)
        await one.pause()
        await one.send_line("ping")
        with anyio.move_on_after(IDLE_SECONDS) as silence:
            await one.line()
        assert silence.cancelled_caught
        one.resume()
        assert await one.line() == "ping"


async def test_paused_process_ignores_sigterm_but_can_be_killed() -> None:
    async with start_process(python(ECHO)) as one:
        await up(one)
        await one.pause()
        with pytest.raises(TimeoutError):
            await one.terminate(within=IDLE_SECONDS)
        assert one.exit_code is None
        assert await one.kill() == -signal.SIGKILL


async def test_terminate_returns_the_exit_code() -> None:
    async with start_process(python(ECHO)) as one:
        await up(one)
        assert await one.terminate() == -signal.SIGTERM
        assert await one.terminate() == -signal.SIGTERM


async def test_restart_runs_the_same_command_in_a_new_process() -> None:
    async with start_process(python(ECHO)) as one:
        await up(one)
        first = one.pid
        await one.kill()
        await one.restart()
        assert one.pid != first
        await up(one)
        await one.restart()
        await up(one)
        await one.send_line("still here")
        assert await one.line() == "still here"


@pytest.mark.parametrize("program", [ECHO, STUBBORN], ids=["willing", "stubborn"])
@pytest.mark.parametrize("paused", [False, True])
async def test_process_does_not_outlive_its_block_even_when_it_is_cancelled(program: str, paused: bool) -> None:
    before = open_files()
    with anyio.CancelScope() as scope:
        async with start_process(python(program)) as one:
            await one.line()
            if paused:
                await one.pause()
            scope.cancel()
            await checkpoint()
    assert scope.cancelled_caught
    assert one.exit_code == -signal.SIGKILL
    assert not runs(one.pid)
    await anyio.wait_all_tasks_blocked()
    assert open_files() == before


async def test_process_with_a_full_pipe_blocks_and_loses_no_line() -> None:
    async with start_process(python(CHATTY)) as one:
        with pytest.raises(TimeoutError):
            await one.wait(within=0.3)
        assert [await one.line() for _ in range(20_000)] == [str(number) for number in range(20_000)]


async def test_too_long_line_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LINE_BYTES", 65_536)
    async with start_process(python(f"print('x' * {2 * 65_536})")) as one:
        with pytest.raises(anyio.DelimiterNotFound):
            await one.line()


async def test_missing_command_raises() -> None:
    with pytest.raises(FileNotFoundError):
        async with start_process(["/no/such/command"]):
            pass


async def test_request_returns_a_reply_of_the_expected_kind() -> None:
    async with start_process(python(ANSWERING)) as one:
        assert await one.request(CpuRequest(), CpuReply) == CpuReply(12)
        with pytest.raises(ProcessFailed, match=r"sent no Done but b'{\"type\": \"CpuReply\"") as wrong:
            await one.request(CpuRequest(), Done)
        assert not isinstance(wrong.value, ProcessExited)


async def test_reply_timeout_names_the_request() -> None:
    async with start_process(python(STUBBORN), name="the mute process") as one:
        assert await one.line() == "up"
        with pytest.raises(ProcessTimeout, match=r"the mute process did not answer CpuRequest within 0.05 s"):
            await one.request(CpuRequest(), CpuReply, within=IDLE_SECONDS)


async def test_error_of_a_process_that_ended_shows_the_end_of_its_error_output() -> None:
    async with start_process(python(BROKEN), name="the server") as one:
        with pytest.raises(
            ProcessExited, match=r"(?s)the server: process \d+ has ended.*exit code 1.*port is taken"
        ) as error:
            await one.receive(CpuReply)
        assert len(str(error.value)) < 2_200
        await one.restart()
        with pytest.raises(ProcessExited, match="port is taken"):
            await one.receive(CpuReply)


async def test_process_that_was_not_started_raises() -> None:
    with pytest.raises(ProcessFailed, match="was not started"):
        await ChildProcess(["true"]).wait()


def test_command_returns_its_output_and_a_failing_one_raises() -> None:
    assert command_output(sys.executable, "-c", "print(1)") == "1\n"
    with pytest.raises(ProcessFailed, match=r"(?s)exit code 1.*no such luck"):
        command_output(sys.executable, "-c", "raise SystemExit('no such luck')")
