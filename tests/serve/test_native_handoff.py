"""Which edge serves an application, and one port for both: bridge sockets on the native edge, the rest on uvicorn."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect as open_socket

from bridgekit.chain.link_1_startup import BridgeConfig, create_app, lifespan
from bridgekit.cursors_and_gaps import START, Gap
from bridgekit.errors import Disconnected, ServeError, UnknownName
from bridgekit.serve.in_process import serving
from bridgekit.serve.native_handoff import bridge_applications, bridge_paths, choose_edge
from bridgekit.testing import serve
from bridgekit.transport.asgi import routes
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.client import connect
from bridgekit.transport.resuming_client import subscribe
from tests.factories import ALICE, THREAD, emitted

TIMEOUT_SECONDS = 20.0
PARTS = BridgeConfig(agents={}, authorizer=OwnerAuthorizer)
[ENDPOINT] = [route.endpoint for route in routes() if isinstance(route, WebSocketRoute)]
ASKED = f"/ws?user_id={ALICE}&thread_id={THREAD}"

on_trio = pytest.mark.parametrize("anyio_backend", ["trio"])


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The native edge needs asyncio."""
    return "asyncio"


class Recording:
    """Middleware that records the paths it receives."""

    def __init__(self, app: ASGIApp, seen: list[str]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "path" in scope:
            self._seen.append(scope["path"])
        await self._app(scope, receive, send)


async def hello(request: Request) -> Response:
    return JSONResponse({"hello": await request.json()})


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close(4_321)


@asynccontextmanager
async def served(edge: str, seen: list[str] | None = None) -> AsyncIterator[tuple[Starlette, str]]:
    """An application with other routes than the bridge's."""
    app = Starlette(
        routes=[*routes(), Route("/hello", hello, methods=["POST"]), WebSocketRoute("/echo", echo)],
        middleware=[Middleware(Recording, seen=[] if seen is None else seen)],
        lifespan=lifespan(PARTS),
    )
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, edge=edge) as url:
            await app.state.bridgekit.open_thread(THREAD, ALICE)
            yield app, url


@pytest.mark.parametrize(("edge", "websockets_seen"), [("asgi", ["/ws"]), ("native", [])])
async def test_middleware_receives_every_request_that_is_not_handed_off(edge: str, websockets_seen: list[str]) -> None:
    seen: list[str] = []
    async with served(edge, seen) as (app, url), httpx.AsyncClient(trust_env=False, base_url=f"http{url[2:]}") as http:
        async with connect(url, user_id=ALICE, thread_id=THREAD) as client:
            await app.state.bridgekit.bridge.notify(emitted())
            assert (await client.receive()).seq == 1
            assert (await http.get("/healthz")).json()["connections"] == 1
        assert (await http.post("/hello", json="Zürich" * 20_000)).json() == {"hello": "Zürich" * 20_000}
        async with open_socket(f"{url}/echo") as socket:
            await socket.send("hello?")
            assert await socket.recv() == "hello?"
            await socket.wait_closed()
        assert socket.close_code == 4_321
        assert (await http.get("/ws")).status_code == 404
    assert seen == [*websockets_seen, "/healthz", "/hello", "/echo", "/ws"]


async def test_connection_used_for_a_page_before_is_handed_off() -> None:
    """A proxy with persistent connections does this."""
    seen: list[str] = []
    async with served("native", seen) as (_, url), await anyio.connect_tcp("127.0.0.1", port_of(url)) as stream:
        await stream.send(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert b'"connections":0' in await until(stream, b"}")
        await stream.send(upgrade(ASKED))
        assert b'"type":"subscribed"' in await until(stream, b"}")
    assert seen == ["/healthz"]


@pytest.mark.parametrize("edge", ["asgi", "native"])
@pytest.mark.parametrize(("scheme", "refused"), [("https", True), ("wss", True), ("http", False)])
async def test_proxy_that_terminates_tls_is_trusted_and_a_page_without_tls_refused(
    edge: str, scheme: str, refused: bool
) -> None:
    async with served(edge) as (_, url):
        headers = {"X-Forwarded-Proto": scheme, "Origin": f"http{url[2:]}"}
        async with open_socket(f"{url}{ASKED}", additional_headers=headers) as page:
            first = None if refused else json.loads(await page.recv())["type"]
            if refused:
                await page.wait_closed()
    assert (first, page.close_code) == ((None, 4504) if refused else ("subscribed", 1000))


async def test_socket_that_was_not_drained_is_closed_with_service_restart() -> None:
    async with anyio.create_task_group() as tasks:
        stop = anyio.Event()
        tasks.start_soon(serve_until, stop, urls := list[str]())
        while not urls:
            await anyio.lowlevel.checkpoint()
        async with connect(urls[0], user_id=ALICE, thread_id=THREAD) as client:
            stop.set()
            with pytest.raises(Disconnected) as gone:
                await client.receive()
    assert gone.value.code == 1_012


async def serve_until(stop: anyio.Event, urls: list[str]) -> None:
    async with served("native") as (_, url):
        urls.append(url)
        await stop.wait()


async def test_upgrade_to_another_protocol_is_refused_by_either_edge() -> None:
    for edge in ("asgi", "native"):
        async with served(edge) as (_, url), await anyio.connect_tcp("127.0.0.1", port_of(url)) as stream:
            await stream.send(upgrade(ASKED).replace(b"Sec-WebSocket-Key", b"X-Nothing"))
            assert (await until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def upgrade(target: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


async def until(stream: ByteStream, end: bytes) -> bytes:
    read = b""
    while end not in read:
        read += await stream.receive()
    return read


@pytest.mark.parametrize(
    ("has", "paths"),
    [
        (routes(), {"/ws"}),
        ([WebSocketRoute("/events", ENDPOINT)], {"/events"}),
        ([Mount("/bridge", routes=routes())], set()),
        ([WebSocketRoute("/ws", ENDPOINT, middleware=[Middleware(Recording, seen=[])])], set()),
        ([WebSocketRoute("/ws", echo), *routes()], set()),
        ([WebSocketRoute("/echo", echo)], set()),
    ],
    ids=["as they come", "under another name", "mounted", "behind middleware", "behind another of the name", "none"],
)
def test_paths_of_the_bridge_are_those_of_its_endpoint(has: list[Any], paths: set[str]) -> None:
    assert bridge_paths(Starlette(routes=has)) == paths


async def test_application_without_bridge_routes_is_not_served_natively() -> None:
    app = Starlette(lifespan=lifespan(PARTS))
    with pytest.raises(ServeError, match="it has no bridgekit routes for the native edge"):
        async with serving(app, edge="native"):
            raise AssertionError("was served")


async def test_unknown_edge_is_refused() -> None:
    with pytest.raises(UnknownName, match="no edge is called 'fast'; known: 'asgi', 'native'"):
        async with serving(create_app(PARTS), edge="fast"):
            raise AssertionError("was served")


@on_trio
async def test_native_edge_is_refused_on_trio() -> None:
    with pytest.raises(ServeError, match="it needs asyncio; on trio use the asgi edge"):
        async with serving(create_app(PARTS), edge="native"):
            raise AssertionError("was served")


class Mine(BaseHTTPMiddleware):
    """Middleware that receives no WebSocket connections, like every subclass of BaseHTTPMiddleware."""


class MoreThanCORS(CORSMiddleware):
    """Middleware that drops WebSocket connections."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await super().__call__(scope, receive, send)


def behind(*kinds: Callable[[ASGIApp], ASGIApp]) -> FastAPI:
    return FastAPI(routes=routes(), middleware=[Middleware(kind) for kind in kinds])


def wrapped() -> ASGIApp:
    return CORSMiddleware(behind())


class Guarded(FastAPI):
    """Acts on every connection, like middleware."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


class GuardedStarlette(Starlette):
    __call__ = wraps(Starlette.__call__)(Guarded.__call__)  # type: ignore[assignment]  # the point


class GuardedStack(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        return CORSMiddleware(super().build_middleware_stack())


class GuardedRouter(APIRouter):
    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().app(scope, receive, send)


def guarded(**attributes: Any) -> FastAPI:
    app = behind()
    for name, value in attributes.items():
        setattr(app, name, value)
    return app


def guarded_router() -> FastAPI:
    app = behind()
    app.router.middleware_stack = wrapped()  # type: ignore[assignment]  # as applications do
    return app


def own_router() -> FastAPI:
    app = behind()
    app.router = GuardedRouter(routes=routes())
    return app


class Named(FastAPI):
    """A subclass that runs no code in front of the routes."""


@pytest.mark.parametrize(
    ("app", "edge"),
    [
        (Named(routes=routes()), "native"),
        (Guarded(routes=routes()), "asgi"),
        (GuardedStarlette(routes=routes()), "asgi"),
        (GuardedStack(routes=routes()), "asgi"),
        (guarded(build_middleware_stack=wrapped), "asgi"),
        (guarded(middleware_stack=wrapped()), "asgi"),
        (guarded(middleware_stack=behind().build_middleware_stack()), "native"),
        (guarded_router(), "asgi"),
        (own_router(), "asgi"),
    ],
)
def test_native_edge_is_not_chosen_if_own_code_is_in_front_of_the_routes(app: ASGIApp, edge: str) -> None:
    assert choose_edge("here:app", app, None) == edge
    assert choose_edge("here:app", app, "native") == "native"


@pytest.mark.parametrize(
    ("app", "edge"),
    [
        (create_app(BridgeConfig(agents={})), "native"),
        (behind(), "native"),
        (behind(CORSMiddleware, Mine), "native"),
        (behind(CORSMiddleware, HTTPSRedirectMiddleware), "asgi"),
        (behind(TrustedHostMiddleware), "asgi"),
        (behind(MoreThanCORS), "asgi"),
        (Starlette(), "asgi"),
        (wrapped(), "asgi"),
    ],
    ids=["parts", "alone", "lets by", "one of two", "trusted hosts", "derived", "no routes", "wrapped"],
)
def test_native_edge_is_chosen_unless_middleware_could_see_the_difference(app: ASGIApp, edge: str) -> None:
    assert choose_edge("here:app", app, None) == edge
    assert choose_edge("here:app", app, "asgi") == "asgi"


def test_requested_native_edge_bypasses_middleware() -> None:
    assert choose_edge("here:app", behind(HTTPSRedirectMiddleware), "native") == "native"


def test_native_edge_for_another_kind_of_application_is_refused() -> None:
    with pytest.raises(ServeError, match=r"^here:app: it is of type CORSMiddleware, .*; use --edge asgi$"):
        choose_edge("here:app", wrapped(), "native")


def prefixed(*prefixes: str) -> FastAPI:
    """An application whose bridge routes are in routers, included in one another with these prefixes."""
    router = APIRouter()
    router.routes.extend(routes())
    for prefix in prefixes[1:]:
        outer = APIRouter()
        outer.include_router(router, prefix=prefix)
        router = outer
    app = FastAPI(lifespan=lifespan(PARTS))
    app.include_router(router, prefix=prefixes[0])
    return app


@pytest.mark.parametrize("edge", ["asgi", "native"])
@pytest.mark.parametrize("prefixes", [("",), ("/api/v1",), ("/api", "/v1")])
async def test_routes_in_a_router_are_served_under_its_prefix_on_either_edge(
    edge: str, prefixes: tuple[str, ...]
) -> None:
    app = prefixed(*prefixes)
    assert bridge_paths(app) == {f"{''.join(prefixes)}/ws"}
    async with serving(app, edge=edge) as url:
        await app.state.bridgekit.open_thread(THREAD, ALICE)
        async with connect(url + "".join(prefixes), user_id=ALICE, thread_id=THREAD) as client:
            await app.state.bridgekit.bridge.notify(emitted())
            assert (await client.receive()).seq == 1


@pytest.mark.parametrize("edge", ["asgi", "native"])
@pytest.mark.parametrize(("after", "first"), [("after=start", "1"), ("after=end", None), ("after=start&seq=1", None)])
async def test_page_opened_in_mid_run_gets_the_retained_events(edge: str, after: str, first: str | None) -> None:
    async with served(edge) as (app, url):
        await app.state.bridgekit.bridge.notify(emitted())
        async with open_socket(f"{url}{ASKED}&{after}") as page:
            if first is None:
                await page.wait_closed()
            else:
                assert [json.loads(await page.recv())["seq"] for _ in range(2)] == [0, 1]
                async with connect(url, user_id=ALICE, thread_id=THREAD, after=START) as client:
                    assert (await client.receive()).seq == 1
                async with subscribe(url, user_id=ALICE, thread_id=THREAD, after=START) as events:
                    event = await anext(events)
                    assert (isinstance(event, Gap), events.cursor and events.cursor.seq) == (False, 1)
    assert page.close_code == (4500 if first is None else 1000)


def mounting(inner: Starlette, *, nested: bool, depth: int) -> Starlette:
    """An application that mounts another one under `/api`, with or without running its lifespan."""

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    mounted: Starlette = inner
    for _ in range(depth - 1):
        mounted = Starlette(routes=[Mount("/api", app=mounted)])
    return Starlette(routes=[Mount("/api", app=mounted)], lifespan=running if nested else None)


@pytest.mark.parametrize("depth", [1, 2])
async def test_mounted_application_without_its_lifespan_is_refused_at_startup(depth: int) -> None:
    with pytest.raises(ServeError, match="lifespan"):
        async with serving(mounting(create_app(PARTS), nested=False, depth=depth)):
            raise AssertionError("was served")


def cors() -> Middleware:
    return Middleware(CORSMiddleware, allow_origins=["*"])


def including(router_lifespan: Any = None) -> FastAPI:
    router, app = APIRouter(lifespan=router_lifespan), FastAPI()
    router.routes.extend(routes())
    app.include_router(router, prefix="/api")
    return app


WITHOUT_LIFESPAN: dict[str, tuple[Callable[[], Any], str]] = {
    "application": (lambda: Starlette(routes=routes()), "the application: it does not start"),
    "router": (including, "the application: it does not start"),
    "mounted routes": (lambda: Starlette(routes=[Mount("/api", routes=routes())]), "the application: it does not"),
    "mounted router": (lambda: Starlette(routes=[Mount("/api", app=Router(routes()))]), "the application: it does not"),
    "mounted, with middleware of the mount": (
        lambda: Starlette(routes=[Mount("/api", app=create_app(PARTS), middleware=[cors()])]),
        "the application at /api: bridgekit's lifespan does not run",
    ),
    "mounted behind middleware": (
        lambda: Starlette(routes=[Mount("/api", app=CORSMiddleware(create_app(PARTS)))]),
        "the application at /api: bridgekit's lifespan does not run",
    ),
    "host": (
        lambda: Starlette(routes=[Host("127.0.0.1", app=create_app(PARTS))]),
        "the application at /: bridgekit's lifespan does not run",
    ),
}


@pytest.mark.parametrize(("build", "expected"), WITHOUT_LIFESPAN.values(), ids=WITHOUT_LIFESPAN)
@pytest.mark.parametrize("edge", ["asgi", "native"])
async def test_routes_without_a_lifespan_are_refused_at_startup(
    edge: str, build: Callable[[], Starlette], expected: str
) -> None:
    with pytest.raises(ServeError) as refused:
        async with serving(build(), edge=edge):
            raise AssertionError("was served")
    assert str(refused.value).startswith(expected)


WITH_LIFESPAN: dict[str, tuple[Callable[[], Starlette], str]] = {
    "mounted routes": (lambda: Starlette(routes=[Mount("/api", routes=routes())], lifespan=lifespan(PARTS)), "/api"),
    "with middleware of the mount": (
        lambda: Starlette(routes=[Mount("/api", routes=routes(), middleware=[cors()])], lifespan=lifespan(PARTS)),
        "/api",
    ),
    "host": (lambda: Starlette(routes=[Host("127.0.0.1", app=Router(routes()))], lifespan=lifespan(PARTS)), ""),
    "router with its own lifespan": (lambda: including(lifespan(PARTS)), "/api"),
    "included": (lambda: prefixed("/a", "/b"), "/a/b"),
    "mounted application": (lambda: mounting(create_app(PARTS), nested=True, depth=2), "/api/api"),
}


@pytest.mark.parametrize(("build", "prefix"), WITH_LIFESPAN.values(), ids=WITH_LIFESPAN)
async def test_routes_are_found_wherever_they_are(build: Callable[[], Starlette], prefix: str) -> None:
    app = build()
    [(path, owner)] = bridge_applications(app)
    assert path == f"{prefix}/ws"
    async with serve(app) as served_application:
        assert served_application.application is owner.state.bridgekit
        async with served_application.subscribed_client(THREAD, ALICE) as client:
            await served_application.application.bridge.notify(emitted())
            assert await client.wait_until_seq(1)


@pytest.mark.parametrize("depth", [1, 2])
async def test_mounted_application_with_its_lifespan_is_served(depth: int) -> None:
    inner = create_app(PARTS)
    async with serving(mounting(inner, nested=True, depth=depth)) as url:
        await inner.state.bridgekit.open_thread(THREAD, ALICE)
        async with connect(url + "/api" * depth, user_id=ALICE, thread_id=THREAD) as client:
            await inner.state.bridgekit.bridge.notify(emitted())
            assert (await client.receive()).seq == 1
