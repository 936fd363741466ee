"""A child process that an experiment kills, pauses, terminates and starts again, and that never outlives its block."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import ByteSendStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from bridgekit.errors import BridgekitError

__all__ = ["EXIT_SECONDS", "LINE_BYTES", "Child", "ProcessGone", "child"]

EXIT_SECONDS: Final = 10.0
"""How long a process may take to exit before it is a TimeoutError."""
LINE_BYTES: Final = 65_536
"""The longest line that is read; a longer one is an `anyio.DelimiterNotFound`."""


class ProcessGone(BridgekitError):
    """The process has ended, and so has what it had to say. `exit_code` is negative for a signal, None if unknown."""

    def __init__(self, pid: int, exit_code: int | None) -> None:
        super().__init__(f"process {pid} has ended" + ("" if exit_code is None else f" with exit code {exit_code}"))
        self.pid = pid
        self.exit_code = exit_code


class Child:
    """A process of ours, with pipes to its standard input and output; its standard error is ours.

    It leads a session of its own, so that what it started itself is killed and paused with it.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None, process: Process) -> None:
        self._command = command
        self._env = env
        self._process = process
        self._input, self._output = _pipes(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.returncode

    async def restart(self) -> None:
        """Start the same command anew, as another process; the one before is killed if it still runs."""
        await self.close()
        self._process = await _open(self._command, self._env)
        self._input, self._output = _pipes(self._process)

    async def pause(self) -> None:
        """Stop it where it is, with SIGSTOP: its sockets stay open, and nobody reads them. ProcessGone."""
        self._signal_living(signal.SIGSTOP)
        # It may run for a moment yet, on another core, and would hear what comes after the signal before it.
        with anyio.fail_after(EXIT_SECONDS):
            await anyio.to_thread.run_sync(_wait_until_stopped, self.pid, abandon_on_cancel=True)

    def resume(self) -> None:
        """Let it go on, with SIGCONT. ProcessGone."""
        self._signal_living(signal.SIGCONT)

    async def kill(self) -> int:
        """End it and what it started with SIGKILL, paused or not; gives its exit code."""
        self._signal_all(signal.SIGKILL)
        return await self.wait()

    async def terminate(self, *, within: float = EXIT_SECONDS) -> int:
        """Ask it to end, with SIGTERM, and give its exit code; TimeoutError where it does not (a paused one cannot)."""
        if self.exit_code is None:
            self._process.terminate()
        return await self.wait(within=within)

    async def wait(self, *, within: float = EXIT_SECONDS) -> int:
        """Wait until it has ended, and give its exit code; TimeoutError."""
        with anyio.fail_after(within):
            return await self._process.wait()

    async def send_line(self, line: str) -> None:
        """Write a line to its standard input; ProcessGone where nobody reads it any more."""
        try:
            await self._input.send(f"{line}\n".encode())
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise ProcessGone(self.pid, self.exit_code) from error

    async def line(self) -> str:
        """The next line of its standard output; ProcessGone when there is none any more.

        Read only when asked: the pipe fills up, and then the process waits. The torn last line of one that was
        killed is not given.
        """
        try:
            line = await self._output.receive_until(b"\n", LINE_BYTES)
        except (anyio.IncompleteRead, anyio.ClosedResourceError) as error:
            raise ProcessGone(self.pid, self.exit_code) from error
        return line.decode(errors="replace").removesuffix("\r")

    async def lines(self) -> AsyncIterator[str]:
        """The lines of its standard output until it ends, as `line` gives them."""
        while True:
            try:
                line = await self.line()
            except ProcessGone:
                return
            yield line

    async def close(self) -> None:
        """Kill it if it runs, and close its pipes; also where the caller is being cancelled."""
        with anyio.CancelScope(shield=True):
            self._signal_all(signal.SIGKILL)
            await self._process.aclose()

    def _signal_living(self, number: signal.Signals) -> None:
        if self.exit_code is not None:
            raise ProcessGone(self.pid, self.exit_code)
        self._signal_all(number)

    def _signal_all(self, number: signal.Signals) -> None:
        # Only while it is ours for sure: once it has been waited for, its number may be somebody else's.
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)


@asynccontextmanager
async def child(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> AsyncIterator[Child]:
    """Run a command for the length of a block; whatever runs of it at the end is killed. OSError if it cannot start.

    `env` is its whole environment, ours if None.
    """
    started = Child(command, env, await _open(command, env))
    try:
        yield started
    finally:
        await started.close()


async def _open(command: Sequence[str], env: Mapping[str, str] | None) -> Process:
    return await anyio.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, env=env, start_new_session=True
    )


def _pipes(process: Process) -> tuple[ByteSendStream, BufferedByteReceiveStream]:
    if process.stdin is None or process.stdout is None:
        raise ProcessGone(process.pid, process.returncode)
    return process.stdin, BufferedByteReceiveStream(process.stdout)


def _wait_until_stopped(pid: int) -> None:
    # Looked at only: to take notice of its end is for those who wait for the process, and they may be first.
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
