"""`bridgekit serve`: its arguments, and real processes that are started, used and stopped with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import httpx
import pytest
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed

from bridgekit.__main__ import main
from bridgekit.errors import Disconnected
from bridgekit.events import EventType
from bridgekit.serve.server import WORKER_START_TIMEOUT_SECONDS
from bridgekit.transport.authorization import CLOSE_DRAINED, CLOSE_WRONG_ORIGIN
from bridgekit.transport.client import EventClient, connect
from bridgekit.transport.graceful_shutdown import DUPLICATE_SIGNAL_SECONDS
from bridgekit_verify.harness.processes import start_process
from tests.factories import THREAD
from tests.served_application import FOR_LONG, KEY, KEYLESS, RUNS_TIMEOUT_SECONDS
from tests.server_processes import APP, PROCESS_TIMEOUT_SECONDS, Server, new_ticket, reserve_port, started

PARTS = "tests.served_application:config"
SERVE = ("bridgekit", "serve")
UP = "is served at ws://"
CLOSE_FORCED = 1_012
"""The close code of a server that was forced to stop."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The client's backend."""
    return "asyncio"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere:app"], "nowhere:app: there is no module 'nowhere'"),
        ([APP, "--store", "memory:"], "leave out --store"),
        ([PARTS, "--store", "mongo:"], "no store is called 'mongo'"),
        ([PARTS, "--store", "memory:?retention=1"], "no store is called 'memory'; known: 'memory:', "),
        ([PARTS, "--store", "sqlite:///x?synchronous=no"], "no synchronous setting is called 'no'; known: 'off', "),
        *[
            ([PARTS, "--store", url], "url: must be redis://, rediss:// or unix://, with a host and a port")
            for url in ("redis://[bad", "redis://host:99999", "redis://[::1:6379", "redis://:secret@[bad")
        ],
        *[([PARTS, "--host", host], "cannot listen there: ") for host in ("a" * 64, "999.1.1.1", "[::1]")],
        pytest.param(
            [PARTS, "--host", "é..x"],
            "cannot listen there: ",
            # Python's `create_server` leaves its socket open after an error that is no OSError.
            marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        ),
        ([PARTS, "--store", "memory:", "--workers", "2"], "its memory store serves one worker, not 2"),
        (
            [PARTS, "--store", "redis://:secret@127.0.0.1:1"],
            "other users can read the password on the command line; give the URL in",
        ),
        (
            ["tests.serve.test_native_handoff:wrapped", "--edge", "native"],
            "it is of type CORSMiddleware, and the native edge",
        ),
        ([PARTS, "--origin", "example.org"], "'example.org' must be a scheme and a host"),
        ([PARTS, "--ticket-key-file", "no/such/file"], "no/such/file"),
    ],
)
def test_arguments_that_cannot_be_served_are_one_line_and_exit_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--port", "0", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bridgekit: ")
    assert expected in error
    assert "secret" not in error
    assert len(error.splitlines()) == 1


def test_address_in_use_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", APP, "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert (
        error
        == f"bridgekit: 127.0.0.1:{port}: cannot listen there: Address already in use; choose another address or port\n"
    )


def test_missing_application_is_an_error_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve"])
    assert left.value.code == 2
    assert "give MODULE:ATTRIBUTE, which names a BridgeConfig, a function that" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--port", "65536"],
        ["--port", "-1"],
        ["--workers", "0"],
        ["--keepalive", "0"],
        ["--keepalive", "soon"],
        ["--runs-seconds", "inf"],
        ["--incoming-bytes", "0"],
        ["--edge", "fast"],
    ],
)
def test_unusable_argument_is_refused_with_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve", APP, *words])
    assert left.value.code == 2
    assert "usage: bridgekit serve" in capsys.readouterr().err


def test_help_describes_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve", "--help"])
    assert left.value.code == 0
    assert "Serve an application until a signal arrives." in " ".join(capsys.readouterr().out.split())


async def types(server: Server, number: signal.Signals) -> list[EventType]:
    """The types of the events that a client receives from a run that continues while its server stops."""
    async with server.subscribed() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(server.post, "/runs/wait_for_shutdown")
        with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
            received = [(await client.receive()).type for _ in range(2)]
            server.signal(number)
            received += [(await client.receive()).type for _ in range(2)]
            with pytest.raises(Disconnected) as gone:
                await client.receive()
    assert gone.value.code == CLOSE_DRAINED
    return received


@pytest.mark.slow
@pytest.mark.parametrize(("edge", "number"), [("native", signal.SIGTERM), ("asgi", signal.SIGINT)])
async def test_server_drains_on_a_signal_and_exits_with_0(edge: str, number: signal.Signals) -> None:
    async with started(*SERVE, APP, "--port", "0", "--edge", edge) as server:
        assert (await server.read_until(UP)).startswith(f"{APP} {UP}127.0.0.1:")
        assert await types(server, number) == [
            EventType.AGENT_STARTED,
            EventType.AGENT_THINKING,
            EventType.AGENT_THINKING,
            EventType.AGENT_COMPLETED,
        ]
        assert await server.end() == 0
        assert len(server.output) == 1


@pytest.mark.slow
async def test_second_signal_stops_it_at_once_and_the_exit_code_names_the_signal() -> None:
    async def run() -> None:
        with suppress(httpx.RemoteProtocolError):
            assert (await server.post("/runs/wait")).status_code == 500

    async with started(*SERVE, APP, "--port", "0", env={RUNS_TIMEOUT_SECONDS: FOR_LONG}) as server:
        await server.read_until(UP)
        async with server.subscribed() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await client.receive()
            server.signal(signal.SIGTERM)
            assert await server.end_at_once(signal.SIGTERM) == 128 + signal.SIGTERM
            with anyio.fail_after(PROCESS_TIMEOUT_SECONDS), pytest.raises(Disconnected) as gone:
                await read_out(client)
        assert gone.value.code == CLOSE_FORCED
        assert len(server.output) == 1


async def read_out(client: EventClient) -> None:
    while True:
        await client.receive()


@pytest.mark.slow
@pytest.mark.parametrize(("choice", "edge"), [((), "native"), (("--edge", "asgi"), "asgi")], ids=["native", "asgi"])
async def test_config_is_served_with_all_options_and_the_address_is_json(
    choice: tuple[str, ...], edge: str, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_bytes(KEY)
    file.chmod(0o600)
    words = ("--port", "0", "--json", "--store", "memory:", "--ticket-key-file", str(file))
    limits = ("--origin", "https://app.example", "--keepalive", "2", "--incoming-bytes", "2000")
    async with started(*SERVE, PARTS, *words, *limits, *choice, env={KEYLESS: "yes"}) as server:
        printed = json.loads(await server.read_until("address"))
        assert printed == {
            "address": server.url,
            "host": "127.0.0.1",
            "port": server.port,
            "pid": server.process.pid,
            "workers": 1,
            "edge": edge,
            "monitoring_port": None,
        }
        assert await server.health() == (200, "ok")
        async with connect(server.url, thread_id=THREAD, ticket=await new_ticket()):
            pass
        assert await closed_for(server, "https://evil.example", b"") == CLOSE_WRONG_ORIGIN
        assert await closed_for(server, "https://app.example", b"x" * 3_000) == 1_009
        assert await pinged(server)


async def closed_for(server: Server, site: str, message: bytes) -> int | None:
    """Return the close code for a page of this origin that sends this as its first message."""
    async with open_socket(f"{server.url}/ws", origin=site, proxy=None) as page:  # type: ignore[arg-type]
        with anyio.fail_after(PROCESS_TIMEOUT_SECONDS), suppress(ConnectionClosed):
            if message:
                await page.send(message)
            await page.recv()
    return page.close_code


async def pinged(server: Server) -> bool:
    """Whether a client that sends nothing receives a ping."""
    request = (
        f"GET /ws HTTP/1.1\r\nHost: {server.address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        await stream.send(request.encode())
        with anyio.fail_after(15):  # less than the default time between pings
            received = b""
            while not received.partition(b"\r\n\r\n")[2]:
                received += await stream.receive()
    return received.partition(b"\r\n\r\n")[2][0] == 0x89


@pytest.mark.short_form(3)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            (PARTS, "--store", "sqlite:////dev/null/events"),
            "link 1: the SQLite store cannot use /dev/null/events",
        ),
        (
            ("tests.served_application:bare",),
            "the application: it has no bridgekit routes; add routes=",
        ),
        (
            ("tests.served_application:wrapped_routeless",),
            "the application: it has no bridgekit routes; add routes=",
        ),
        (
            ("tests.served_application:routeless",),
            "the application: it has no bridgekit routes; add routes=",
        ),
        (
            ("tests.served_application:http_only",),
            "the application: it has no bridgekit routes; add routes=[*routes(), …] and lifespan=lifespan(config)",
        ),
        (
            ("tests.served_application:silent",),
            "the application: it has no bridgekit routes; add routes=",
        ),
        (
            ("tests.served_application:plain",),
            "the application: it has no bridgekit routes; add routes=",
        ),
        (
            ("tests.served_application:wrapped_bare",),
            "the application: it has no bridgekit routes; add routes=",
        ),
        (
            ("tests.served_application:unstarted",),
            "the application at /api: bridgekit's lifespan does not run",
        ),
    ],
)
async def test_application_that_does_not_start_is_one_line_and_exit_2(words: tuple[str, ...], expected: str) -> None:
    async with started(*SERVE, *words, "--port", "0") as server:
        assert await server.end() == 2
    assert [line.startswith(f"bridgekit: {expected}") for line in server.output] == [True]


@pytest.mark.short_form(2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "error"),
    [("failing", "KeyError: 'NO_SUCH_VARIABLE'"), ("refusing", "bridgekit: the application: no database today")],
)
@pytest.mark.parametrize("workers", ["1", "3"])
async def test_error_of_the_applications_own_startup_is_printed_once_and_exit_2(
    name: str, error: str, workers: str
) -> None:
    words = (f"tests.served_application:{name}", "--port", "0", "--workers", workers)
    async with started(*SERVE, *words) as server:
        assert await server.end() == 2
    assert server.output.count(error) == 1
    assert len(server.output) == 1 or server.output[-1] == error


@pytest.mark.slow
async def test_worker_that_ends_without_an_answer_at_startup_ends_the_server_at_once() -> None:
    """The parent must see that the worker's end of the pipe is closed. It waits 30 s for a worker that is busy."""
    async with started(*SERVE, "tests.serve.unanswering:app", "--port", "0", "--workers", "2") as server:
        with anyio.fail_after(WORKER_START_TIMEOUT_SECONDS):
            assert await server.end() == 2


@pytest.mark.short_form(1)
@pytest.mark.slow
@pytest.mark.parametrize("workers", ["2", "4"])
async def test_workers_with_a_single_worker_store_exit_with_2_and_one_line(workers: str) -> None:
    """The store of an application that the program created is unknown until the application starts."""
    async with started(*SERVE, APP, "--port", "0", "--workers", workers) as server:
        assert await server.end() == 2
    refused = "bridgekit: link 1: the memory store serves a single process, and another process serves 127.0.0.1:"
    assert [line.startswith(refused) for line in server.output] == [True]


@pytest.mark.slow
@pytest.mark.parametrize(("ends_process", "code", "last"), [("", 0, ["continues"]), ("yes", 0, [])])
async def test_only_the_command_ends_its_process(ends_process: str, code: int, last: list[str]) -> None:
    async with started("tests.serve.in_program", ends_process) as server:
        await server.read_until("served")
        server.signal(signal.SIGTERM)
        assert await server.end() == code
    assert server.output[1:] == last


STUBBORN = "tests.serve.stubborn:app"


@pytest.mark.short_form(3)
@pytest.mark.slow
@pytest.mark.parametrize("edge", ["native", "asgi"])
async def test_server_ends_with_1_when_the_lifespan_of_the_application_fails(edge: str) -> None:
    async with started(*SERVE, "tests.serve.stubborn:fails_later", "--port", "0", "--edge", edge) as server:
        await server.read_until(UP)
        async with server.subscribed() as client:
            await server.post("/fail")
            with anyio.fail_after(PROCESS_TIMEOUT_SECONDS), pytest.raises(Disconnected) as closed:
                await client.receive()
        assert (closed.value.code, await server.end()) == (CLOSE_DRAINED, 1)
    assert len([line for line in server.output if "ConnectionResetError: no database any more" in line]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("what", "code"), [("block", 0), ("swallow", 0), ("block_loop", 128 + signal.SIGTERM)])
@pytest.mark.parametrize("edge", ["native", "asgi"])
async def test_run_that_cannot_be_cancelled_does_not_keep_the_server(edge: str, what: str, code: int) -> None:
    async def run() -> None:
        with suppress(httpx.TransportError):
            await server.post(f"/runs/{what}")

    async with started(*SERVE, STUBBORN, "--port", "0", "--edge", edge) as server, anyio.create_task_group() as tasks:
        await server.read_until(UP)
        tasks.start_soon(run)
        await server.read_until("begun")
        server.signal(signal.SIGTERM)
        assert await server.end() == code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "output"),
    [("leave_output", "2>&1 > >(head -n 1)"), ("fill_output", "2>&1")],
    ids=["ended", "does not read"],
)
async def test_output_whose_reader_ended_or_does_not_read_does_not_keep_the_server(what: str, output: str) -> None:
    async def run() -> None:
        with suppress(httpx.TransportError):
            await server.post(f"/runs/{what}")

    words = ["bash", "-c", f'exec "$@" {output}', "bash", sys.executable, "-m", *SERVE, STUBBORN, "--port", "0"]
    async with (
        start_process(words, env=os.environ | {"PYTHONUNBUFFERED": ""}) as process,
        anyio.create_task_group() as tasks,
    ):
        server = Server(process)
        await server.read_until(UP)
        tasks.start_soon(run)
        await server.read_until("begun")
        with anyio.fail_after(PROCESS_TIMEOUT_SECONDS), suppress(ProcessLookupError):
            while True:  # a signal that arrives just before the write does not interrupt it
                server.signal(signal.SIGTERM)
                await anyio.sleep(1.2 * DUPLICATE_SIGNAL_SECONDS)
        assert await server.end() == 128 + signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_a_server_whose_application_does_not_start(number: signal.Signals) -> None:
    async with started(*SERVE, "tests.serve.stubborn:never_starts", "--port", "0") as server:
        await server.read_until("begun")
        server.signal(number)
        assert await server.end() == 128 + number


@pytest.mark.slow
async def test_forked_child_has_no_signal_handler_of_the_server() -> None:
    async with started(*SERVE, STUBBORN, "--port", "0") as server:
        await server.read_until(UP)
        assert (await server.post("/runs/fork")).text == f"-15 {server.process.pid}"
        server.signal(signal.SIGTERM)
        assert await server.end() == 0


@pytest.mark.slow
async def test_forked_child_that_outlives_the_server_does_not_keep_its_port() -> None:
    async with started(*SERVE, STUBBORN, "--port", "0") as server:
        await server.read_until(UP)
        await server.post("/runs/leave_child")
        child, own_port = map(int, (await server.read_until("begun")).split()[-2:])
        try:
            server.signal(signal.SIGTERM)
            with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
                await server.process.wait()
            socket.create_server(("127.0.0.1", server.port)).close()
            socket.create_connection(("127.0.0.1", own_port)).close()  # the child has the application's own socket
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.short_form(3)
@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full", "<&-"])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_server_serves_without_an_output(closed: str, workers: str) -> None:
    words = [sys.executable, "-m", *SERVE, "tests.serve.workers:app", "--workers", workers, "--port"]
    with reserve_port() as port, anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
        async with start_process(["sh", "-c", f'exec "$@" {closed}', "sh", *words, str(port)]) as process:
            server = Server(process)
            server.address = f"127.0.0.1:{port}"
            while not await is_healthy(server):  # noqa: ASYNC110 - it prints nothing
                await anyio.sleep(0.05)
            server.signal(signal.SIGTERM)
            assert await process.wait() == 0


async def is_healthy(server: Server) -> bool:
    with suppress(httpx.TransportError):
        return await server.health() == (200, "ok")
    return False
