"""Starts, signals and restarts child processes, and exchanges JSON lines with them.

Every wait (for a start, a reply, an exit or a command) has a timeout. A process is killed with its child processes, at
the latest at the end of the block that started it. An error about a process ends with the process's last output on
standard error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from bridgekit.errors import BridgekitError

__all__ = [
    "DISCARD",
    "LINE_BYTES",
    "REPLY_TIMEOUT_SECONDS",
    "START_TIMEOUT_SECONDS",
    "ChildProcess",
    "ProcessExited",
    "ProcessFailed",
    "ProcessTimeout",
    "command_output",
    "start_module",
    "start_process",
]

DISCARD: Final = subprocess.DEVNULL
"""If another library starts a process, this value of `stdout` or `stderr` discards the output."""
START_TIMEOUT_SECONDS: Final = 60.0
"""Timeout for the first message of a process, which may import many modules on a busy machine."""
REPLY_TIMEOUT_SECONDS: Final = 60.0
EXIT_TIMEOUT_SECONDS: Final = 10.0
COMMAND_TIMEOUT_SECONDS: Final = 60.0
LINE_BYTES: Final = 67_108_864
"""The maximum length of a line: the arrival times of a million events fit into one line. A longer line raises
`DelimiterNotFound`."""
ERROR_OUTPUT_BYTES: Final = 2_000
"""An error message shows this many bytes from the end of a process's standard error."""

T = TypeVar("T")


class ProcessFailed(BridgekitError):
    """A child process failed or sent an unexpected message."""

    def __init__(self, problem: str, error_output: str = "") -> None:
        super().__init__(f"{problem}; its standard error ends with:\n{error_output}" if error_output else problem)
        self.problem = problem
        self.error_output = error_output


class ProcessExited(ProcessFailed):
    """Raised if the process has ended. `exit_code` is negative if a signal ended it, and None if unknown."""

    def __init__(self, name: str, pid: int, exit_code: int | None, error_output: str = "") -> None:
        code = "" if exit_code is None else f" with exit code {exit_code}"
        super().__init__(f"{name}: process {pid} has ended{code}", error_output)
        self.pid = pid
        self.exit_code = exit_code


class ProcessTimeout(ProcessFailed, TimeoutError):
    """Raised if the process did not reply or exit within its timeout."""

    def __init__(self, name: str, wanted: str, seconds: float, error_output: str = "") -> None:
        super().__init__(f"{name} did not {wanted} within {seconds:g} s", error_output)
        self.wanted = wanted


class ChildProcess:
    """A process with pipes to its standard input and output. Use `start_process` to create a ChildProcess.

    The process leads its own session, so that `send_signal` and `kill` also reach its child processes.
    """

    def __init__(
        self, command: Sequence[str], *, name: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.name = name or Path(command[0]).name
        self._command = command
        self._env = env
        self._cwd = cwd
        self._errors: IO[bytes] | None = None
        self._process: Process | None = None
        self._output: BufferedByteReceiveStream | None = None
        self._request_lock = anyio.Lock()

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def exit_code(self) -> int | None:
        """The process's exit code, negative if a signal ended the process, or None while the process runs."""
        return self._started.returncode

    @property
    def error_output(self) -> str:
        """The last ERROR_OUTPUT_BYTES of the process's standard error, including output before restarts."""
        if self._errors is None:
            return ""
        size = os.fstat(self._errors.fileno()).st_size
        # The child shares the offset of this file, so seeking would corrupt its output.
        tail = os.pread(self._errors.fileno(), ERROR_OUTPUT_BYTES, max(size - ERROR_OUTPUT_BYTES, 0))
        return tail.decode(errors="replace").strip()

    @property
    def _started(self) -> Process:
        if self._process is None:
            raise ProcessFailed(f"{self.name} was not started: call start() first")
        return self._process

    async def start(self) -> None:
        """Start the process. Raises OSError if the system cannot run the command."""
        if self._errors is None:
            self._errors = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # close() closes it
        self._process = await anyio.open_process(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = BufferedByteReceiveStream(self._process.stdout)

    async def restart(self) -> None:
        """Run the same command in a new process. A process that still runs is killed first."""
        await self._end()
        await self.start()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children. Raises ProcessExited if the process has ended."""
        if self.exit_code is not None:
            raise ProcessExited(self.name, self.pid, self.exit_code, self.error_output)
        self._signal_session(number)

    async def pause(self) -> None:
        """Send SIGSTOP and wait until the process is stopped. Its sockets stay open.

        Raises ProcessExited if the process has ended.
        """
        self.send_signal(signal.SIGSTOP)
        # The process may still run briefly on another core and read data that is sent after the signal.
        with anyio.fail_after(EXIT_TIMEOUT_SECONDS):
            await anyio.to_thread.run_sync(_wait_until_stopped, self.pid, abandon_on_cancel=True)

    def resume(self) -> None:
        """Send SIGCONT, so that the process continues. Raises ProcessExited if the process has ended."""
        self.send_signal(signal.SIGCONT)

    async def kill(self) -> int:
        """Send SIGKILL to the process and its children, even if they are paused. Return the exit code."""
        self._signal_session(signal.SIGKILL)
        return await self.wait()

    async def terminate(self, *, within: float = EXIT_TIMEOUT_SECONDS) -> int:
        """Send SIGTERM and return the exit code. Raises ProcessTimeout if the process does not exit in time."""
        if self.exit_code is None:
            self._started.terminate()
        return await self.wait(within=within)

    async def wait(self, *, within: float = EXIT_TIMEOUT_SECONDS) -> int:
        """Wait until the process has ended and return the exit code. Raises ProcessTimeout after `within` seconds."""
        with anyio.move_on_after(within):
            return await self._started.wait()
        raise ProcessTimeout(self.name, "exit", within, self.error_output)

    async def send_line(self, line: str) -> None:
        """Write a line to the process's standard input. Raises ProcessExited if the pipe is closed."""
        await self._write(line.encode())

    async def line(self) -> str:
        """Return the next line of the process's standard output. Raises ProcessExited after the last line.

        Lines are read on demand, so a process blocks while its pipe is full. An incomplete last line is dropped.
        """
        return (await self._read_line()).decode(errors="replace").removesuffix("\r")

    async def lines(self) -> AsyncIterator[str]:
        """Yield the lines of the process's standard output until the process ends."""
        with suppress(ProcessExited):
            while True:
                yield await self.line()

    async def send(self, message: msgspec.Struct) -> None:
        """Send a message as a line of JSON. Raises ProcessExited if the pipe is closed."""
        await self._write(msgspec.json.encode(message))

    async def receive(self, kind: type[T], *, within: float = REPLY_TIMEOUT_SECONDS, wanted: str = "") -> T:
        """Return the next message as `kind`.

        Raises ProcessExited, ProcessTimeout, or ProcessFailed for another message.
        """
        line = b""
        with anyio.move_on_after(within) as waiting:
            line = await self._read_line()
        if waiting.cancelled_caught:
            raise ProcessTimeout(self.name, wanted or f"send {_kind_name(kind)}", within, self.error_output)
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.DecodeError as error:
            raise ProcessFailed(f"{self.name} sent no {_kind_name(kind)} but {line[:200]!r}: {error}") from error

    async def request(self, message: msgspec.Struct, kind: type[T], *, within: float = REPLY_TIMEOUT_SECONDS) -> T:
        """Send a message and return the reply. Concurrent requests are serialized."""
        async with self._request_lock:
            await self.send(message)
            return await self.receive(kind, within=within, wanted=f"answer {type(message).__name__}")

    async def messages(self, kind: Any) -> AsyncIterator[Any]:
        """Yield the process's messages, of a type or a union of types, until the process ends."""
        decoder = msgspec.json.Decoder(kind)
        with suppress(ProcessExited):
            while True:
                yield decoder.decode(await self._read_line())

    async def close(self) -> None:
        """Kill the process if it still runs, and close its pipes, even if the caller is being cancelled."""
        await self._end()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    async def _end(self) -> None:
        if self._process is not None:
            with anyio.CancelScope(shield=True):
                self._signal_session(signal.SIGKILL)
                await self._process.aclose()

    async def _write(self, line: bytes) -> None:
        stdin = self._started.stdin
        assert stdin is not None
        try:
            await stdin.send(line + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise await self._exited() from error

    async def _read_line(self) -> bytes:
        assert self._output is not None
        try:
            return await self._output.receive_until(b"\n", LINE_BYTES)
        except (anyio.IncompleteRead, anyio.ClosedResourceError) as error:
            raise await self._exited() from error

    async def _exited(self) -> ProcessExited:
        # A pipe closes shortly before the exit code of its process is available.
        with anyio.move_on_after(1):
            await self._started.wait()
        return ProcessExited(self.name, self.pid, self.exit_code, self.error_output)

    def _signal_session(self, number: signal.Signals) -> None:
        # After the exit code was read, the system may assign the pid to another process.
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)


@asynccontextmanager
async def start_process(
    command: Sequence[str], *, name: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> AsyncIterator[ChildProcess]:
    """Run a command until the `with` block ends, and then kill the process. Raises OSError if the command cannot start.

    `env` is the complete environment of the process; with None, the process gets the environment of this process.
    """
    process = ChildProcess(command, name=name, env=env, cwd=cwd)
    try:
        await process.start()
        yield process
    finally:
        await process.close()


def start_module(
    module: str, *arguments: str, name: str, python: str = sys.executable
) -> AbstractAsyncContextManager[ChildProcess]:
    """Run a Python module with `start_process`, by default in this interpreter."""
    return start_process([python, "-m", module, *arguments], name=name)


def command_output(*command: str) -> str:
    """Run a command to its end and return its standard output.

    Raises ProcessFailed if the command fails or takes too long, and OSError if it cannot start.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ProcessTimeout(command[0], "exit", COMMAND_TIMEOUT_SECONDS) from error
    if done.returncode:
        raise ProcessFailed(f"{command[0]} ended with exit code {done.returncode}", done.stderr[-ERROR_OUTPUT_BYTES:])
    return done.stdout


def _kind_name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def _wait_until_stopped(pid: int) -> None:
    # WNOWAIT leaves the exit status for the event loop to collect.
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
