"""A server whose file descriptors run out: it responds to `/healthz`, logs a line, and serves sockets again later."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import anyio
import httpx
import pytest

from tests import served_application
from tests.server_processes import APP, PROCESS_TIMEOUT_SECONDS, Server, started
from tests.transport.raw_client import handshake

FILES = 192
CONNECTIONS = 3 * FILES
ATTEMPTS = 5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The client's backend."""
    return "asyncio"


REQUESTS = {
    "nothing": b"",
    "a part of a request": b"GET /healthz HTTP/1.1\r\n",
    "a complete request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a part of a body": b"POST /runs/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
    "a socket without a ticket": handshake("x", ""),
}


@contextmanager
def held(server: Server, request: bytes) -> Iterator[list[socket.socket]]:
    """Connections on which this was sent, kept open for the length of a block."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(CONNECTIONS):
            here = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            here.sendall(request)
            sockets.append(here)
        yield sockets


@pytest.mark.short_form(3)
@pytest.mark.parametrize("edge", ["native", "asgi"])
@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS)
async def test_health_responds_and_the_log_stays_short_while_descriptors_run_out(
    edge: str, request_bytes: bytes
) -> None:
    command = ("bridgekit", "serve", APP, "--port", "0", "--edge", edge)
    async with started(*command, files=FILES, env={served_application.SHORT_LIMITS: "20"}) as server:
        await server.read_until("is served at ws://")
        with held(server, request_bytes):
            for _ in range(ATTEMPTS):
                assert await health(server) == (200, "ok")
            assert open_files(server) < FILES
        with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
            async with server.followed():
                pass
        server.signal(signal.SIGTERM)
        assert await server.end() == 0
    assert len(server.output) <= 1 + ATTEMPTS, server.output


async def health(server: Server) -> tuple[int, str]:
    """Ask again if the server closed the connection, which has one second to send its request on a busy machine."""
    with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
        while True:
            with suppress(httpx.RemoteProtocolError):
                return await server.health()


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


async def test_socket_over_the_limit_is_asked_to_come_again() -> None:
    async with started("bridgekit", "serve", APP, "--port", "0", files=FILES) as server:
        await server.read_until("is served at ws://")
        with held(server, handshake("x", "")) as sockets:
            statuses = set()
            for each in sockets:
                each.settimeout(PROCESS_TIMEOUT_SECONDS)
                with suppress(ConnectionError):
                    statuses.add(each.recv(len(b"HTTP/1.1 503")))
            assert statuses >= {b"HTTP/1.1 101", b"HTTP/1.1 503"}
