"""No log, metric or URL contains a ticket: a real server and a real client at their most verbose log level."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from uvicorn.logging import TRACE_LOG_LEVEL, AccessFormatter
from websockets.asyncio.client import connect as open_socket
from websockets.typing import Subprotocol

from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.errors import SubscriptionRefused
from bridgekit.serve.in_process import serving
from bridgekit.transport.authorization import PROTOCOL, TICKET_PROTOCOL
from bridgekit.transport.client import connect
from bridgekit.transport.tickets import Tickets
from tests.factories import ALICE, OTHER, THREAD
from tests.server_processes import APP, new_ticket, started

TIMEOUT_SECONDS = 60.0
UVICORN_LOGGERS = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")
"""The loggers whose level `uvicorn.Config` sets."""

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All log records."""
    with caplog.at_level(TRACE_LOG_LEVEL):
        yield caplog


@contextmanager
def restored_levels() -> Iterator[None]:
    """Restore the levels of uvicorn's loggers, so that other tests in this process do not log at the verbose level."""
    levels = {name: logging.getLogger(name).level for name in UVICORN_LOGGERS}
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@asynccontextmanager
async def verbose(app: Starlette) -> AsyncIterator[str]:
    """Run uvicorn as a user does, with its access log and at the most verbose level."""
    with restored_levels():
        async with _verbose(app) as url:
            yield url


@asynccontextmanager
async def _verbose(app: Starlette) -> AsyncIterator[str]:
    config = uvicorn.Config(app, ws="websockets-sansio", access_log=True, log_config=None, log_level=TRACE_LOG_LEVEL)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener, anyio.fail_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            while not server.started:
                await checkpoint()
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True


async def opened(app: Starlette) -> Application:
    application: Application = app.state.bridgekit
    await application.open_thread(THREAD, ALICE)
    return application


def parts_of(ticket: str) -> list[str]:
    """Return the parts of a ticket that must not be logged: claims and signature, and the start and end of each."""
    _, claims, proof = ticket.split(".")
    return [part for text in (claims, proof) for part in (text[:12], text[-12:])]


def assert_hidden(written: pytest.LogCaptureFixture, *tickets: str) -> None:
    text = "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in written.records)
    assert "(hidden)" in text
    assert [part for ticket in tickets for part in parts_of(ticket) if part in text] == []


@on_asyncio
async def test_server_logs_no_ticket_from_a_subprotocol_or_first_message(
    written: pytest.LogCaptureFixture,
) -> None:
    app = create_app(BridgeConfig(agents={}))
    async with verbose(app) as url:
        application = await opened(app)
        tickets = [application.ticket(THREAD, ALICE) for _ in range(3)]
        offered = [[Subprotocol(PROTOCOL), Subprotocol(TICKET_PROTOCOL + each)] for each in tickets[:2]]
        async with open_socket(f"{url}/ws", subprotocols=offered[0], logger=silence()) as one:
            assert json.loads(await one.recv())["type"] == "subscribed"
            # Refused, because the ticket was used before.
            async with open_socket(f"{url}/ws", subprotocols=offered[0], logger=silence()) as again:
                await again.wait_closed()
                assert again.close_code == 4505
        async with open_socket(f"{url}/ws?thread_id={OTHER}", subprotocols=offered[1], logger=silence()) as swapped:
            await swapped.wait_closed()
            assert swapped.close_code == 4503
        async with open_socket(f"{url}/ws", logger=silence()) as two:
            await two.send(json.dumps({"type": "authorise", "ticket": tickets[2]}))
            assert json.loads(await two.recv())["type"] == "subscribed"
        metrics = await metrics_of(url)
    assert_hidden(written, *tickets)
    assert f'bridgekit_refused_total{{code="4505",worker="{os.getpid()}"}} 1.0' in metrics
    assert [part for part in (*map(str, tickets), ALICE, THREAD) if part in metrics] == []


@on_asyncio
async def test_server_logs_no_ticket_from_the_query(
    written: pytest.LogCaptureFixture,
) -> None:
    app = create_app(BridgeConfig(agents={}, authorizer=partial(Tickets, in_query=True)))
    async with verbose(app) as url:
        ticket = (await opened(app)).ticket(THREAD, ALICE)
        for query in (f"ticket={ticket}", f"thread_id={THREAD}&ticket={ticket}&seq=x"):
            async with open_socket(f"{url}/ws?{query}", logger=silence()) as one:
                await one.wait_closed() if "seq" in query else await one.recv()
    assert_hidden(written, ticket)
    assert any("[accepted]" in record.getMessage() for record in written.records)


async def test_our_client_logs_no_ticket_and_puts_none_into_the_url(
    written: pytest.LogCaptureFixture,
) -> None:
    app = create_app(BridgeConfig(agents={}))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            ticket = (await opened(app)).ticket(THREAD, ALICE)
            async with connect(url, thread_id=THREAD, ticket=ticket):
                pass
            with pytest.raises(SubscriptionRefused) as refused:
                async with connect(url, thread_id=THREAD, ticket=ticket):
                    raise AssertionError("was let in twice")
    assert ticket not in f"{refused.value!r} {refused.value.__cause__!r}"
    assert_hidden(written, ticket)
    asked = [record.getMessage() for record in written.records if record.getMessage().startswith("> GET ")]
    assert asked == [f"> GET /ws?thread_id={THREAD} HTTP/1.1"] * 2


@on_asyncio
@pytest.mark.parametrize("edge", ["asgi", "native"])
async def test_edges_log_no_ticket_also_percent_encoded(edge: str, written: pytest.LogCaptureFixture) -> None:
    app = create_app(BridgeConfig(agents={}, authorizer=partial(Tickets, in_query=True)))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, edge=edge) as url:
            application = await opened(app)
            tickets = [application.ticket(THREAD, ALICE) for _ in range(3)]
            encoded = "".join(f"%{ord(character):02x}" for character in tickets[0])
            async with open_socket(f"{url}/ws?%74icket={encoded}", logger=silence()) as one:
                assert json.loads(await one.recv())["type"] == "subscribed"
            offered = [Subprotocol(PROTOCOL), Subprotocol(TICKET_PROTOCOL + tickets[1])]
            async with open_socket(f"{url}/ws", subprotocols=offered, logger=silence()) as two:
                assert json.loads(await two.recv())["type"] == "subscribed"
            async with open_socket(f"{url}/ws", logger=silence()) as three:
                await three.send(json.dumps({"type": "authorise", "ticket": tickets[2]}))
                assert json.loads(await three.recv())["type"] == "subscribed"
            async with httpx.AsyncClient(trust_env=False, base_url=f"http{url[2:]}") as http:
                assert (await http.get("/nowhere", params={"ticket": tickets[0]})).status_code == 404
    ours = [record for record in written.records if not record.name.startswith("http")]  # the client's
    shown = "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in ours)
    assert [part for ticket in (*tickets, encoded) for part in (ticket[-24:], ticket[30:54]) if part in shown] == []


def test_formatter_of_the_access_log_gets_its_arguments(written: pytest.LogCaptureFixture) -> None:
    """uvicorn's formatter reads the arguments instead of the message."""
    create_app(BridgeConfig(agents={}))
    arguments = ("127.0.0.1:1", "GET", "/ws?ticket=eyJhbGciOiJI.eyJzdWIi.c_d", "1.1", 404)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *arguments)
    [record] = written.records
    assert AccessFormatter("%(request_line)s", use_colors=False).format(record) == "GET /ws?ticket=(hidden) HTTP/1.1"


@on_asyncio
@pytest.mark.slow
@pytest.mark.parametrize("edge", ["asgi", "native"])
async def test_served_application_prints_no_ticket_at_any_level(edge: str) -> None:
    async with started("bridgekit", "serve", APP, "--port", "0", "--edge", edge, "--log-level", "debug") as server:
        await server.read_until("is served at ws://")
        ticket = await new_ticket()
        for _ in range(2):
            with suppress(SubscriptionRefused):
                async with connect(server.url, thread_id=THREAD, ticket=ticket):
                    pass
        assert (await server.post(f"/nowhere?ticket={ticket}")).status_code == 404
        server.signal(signal.SIGTERM)
        assert await server.end() == 0
    assert [line for line in server.output for part in parts_of(ticket) if part in line] == []


@pytest.mark.parametrize("logger", ["uvicorn.error", "asyncio", "websockets.server"])
def test_traceback_shows_no_ticket(logger: str, written: pytest.LogCaptureFixture) -> None:
    create_app(BridgeConfig(agents={}))
    try:
        raise ValueError("invalid: bridgekit.ticket.eyJhbGciOiJI.eyJzdWIi.c_d")
    except ValueError:
        logging.getLogger(logger).exception("failed")
    assert "eyJ" not in written.text
    assert "ValueError: invalid: bridgekit.ticket.(hidden)" in written.text


def silence() -> logging.Logger:
    """Silence the logs of the clients in these tests that are not ours."""
    logger = logging.getLogger("tests.silence")
    logger.disabled = True
    return logger


async def metrics_of(url: str) -> str:
    async with httpx.AsyncClient(trust_env=False, base_url=f"http{url[2:]}") as http:
        return (await http.get("/metrics")).text


@pytest.mark.parametrize(
    ("message", "arguments", "shown"),
    [
        ("< %s: %s", ("Sec-WebSocket-Protocol", "bridgekit.v1, bridgekit.ticket.a-b_c.d.e"), None),
        ("subprotocols=['bridgekit.v1', 'bridgekit.ticket.a.b.c'], more", (), "bridgekit.ticket.(hidden)'], more"),
        ('"WebSocket /ws?ticket=a.b.c&seq=1" [accepted]', (), '/ws?ticket=(hidden)&seq=1" [accepted]'),
        ('"WebSocket /ws?seq=1&ticket=a.b.c" 403', (), '/ws?seq=1&ticket=(hidden)" 403'),
        ('< TEXT \'{"type":"authorise","ticket" : "a.b...c"}\' [9 bytes]', (), '"ticket" : "(hidden)"}\' [9 bytes]'),
        ("GET /ws?ticket%3Da.b.c&seq=1", (), "/ws?ticket=(hidden)&seq=1"),
        ("GET /ws?%74icke%74=%61.b.c&seq=1", (), "/ws?ticket=(hidden)&seq=1"),
        ("bridgekit%2Eticket%2Ea.b.c", (), "bridgekit.ticket.(hidden)"),
        ("ignored %r", ("eyJhbGciOiJI.eyJzdWIi.c_d",), "ignored '(hidden)'"),
        ("< %s: %s", ("Cookie", "session=abc; theme=dark"), "< Cookie: (hidden)"),
        ("> %s: %s", ("Authorization", "Bearer abc"), "> Authorization: (hidden)"),
        ("KeyError in %s", ({"cookie": "a=b; c=d", "host": "x"},), "KeyError in {'cookie': (hidden)"),
        ("< %s: %s", ("Set-Cookie", "session=abc; Path=/"), "< Set-Cookie: (hidden)"),
        (
            "KeyError in %s",
            ([(b"host", b"x"), (b"cookie", b"a=b")],),
            "KeyError in [(b'host', b'x'), (b'cookie', (hidden)",
        ),
        ("authorization: connect again", (), "authorization: connect again"),
        ("GET /a%20b?c=%C3%BC", (), "GET /a%20b?c=%C3%BC"),
        ("a theatre sells tickets=%d", (2,), "tickets=2"),
        ("100 % of it", (), "100 % of it"),
    ],
)
def test_redaction_hides_only_the_ticket(
    message: str, arguments: tuple[Any, ...], shown: str | None, written: pytest.LogCaptureFixture
) -> None:
    create_app(BridgeConfig(agents={}))
    logging.getLogger("uvicorn.error").info(message, *arguments)
    [record] = written.records
    assert record.getMessage().endswith(shown or "bridgekit.v1, bridgekit.ticket.(hidden)")
