"""An application for real servers in child processes, with HTTP routes for control by a test.

Its store and timeouts come from environment variables, because a server's command line has no options for them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

import anyio
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import BridgeConfig, lifespan
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import ThreadSession
from bridgekit.errors import ShuttingDown
from bridgekit.ids import ThreadId, UserId
from bridgekit.stores import stores_from
from bridgekit.transport.asgi import routes
from bridgekit.transport.tickets import Tickets
from tests.factories import ALICE, THREAD

KEY = b"a key that every worker of the tests knows"
STORE = "SERVED_STORE"
KEYLESS = "SERVED_WITHOUT_KEY"
RUNS_TIMEOUT_SECONDS = "SERVED_RUNS_SECONDS"
SHORT_LIMITS = "SERVED_WITH_SHORT_LIMITS"
"""Divides the lease of runs, and the time until a connection without a request is replaced, by this number. Multiplies
the time limit for a request's head, on which no test with this variable depends."""
FOR_LONG = "600"
"""Longer than any test waits for a server to stop."""

_go = anyio.Event()


def _shorten_limits(divisor: float) -> None:
    from bridgekit.serve import connection_limits
    from bridgekit.stores.redis import active_runs

    for module, name in (
        (connection_limits, "REPLACED_AFTER_SECONDS"),
        (active_runs, "LEASE_SECONDS"),
    ):
        setattr(module, name, getattr(module, name) / divisor)
    connection_limits.HEAD_TIMEOUT_SECONDS *= divisor  # type: ignore[misc]


if SHORT_LIMITS in os.environ:
    _shorten_limits(float(os.environ[SHORT_LIMITS]))


class Patient(BaseAgent):
    """Emits two events; the request selects whether the second one waits for /go, for shutdown, or for nothing."""

    async def execute(self, context: RunContext) -> object:
        await self.emit_thinking("started")
        if context.request == "wait":
            await _go.wait()
        if context.request == "wait_for_shutdown":
            await _shutdown_started()
        await self.emit_thinking("continued")
        return os.getpid()


async def _shutdown_started() -> None:
    while app.state.bridgekit_connections.health == ("ok", HTTPStatus.OK):  # noqa: ASYNC110 - an edge has no event for it
        await anyio.sleep(0.01)


class AliceOwnsAll:
    """A thread store in which Alice owns every thread. Real applications store owners in a shared database."""

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[ThreadSession]:
        yield self

    async def owner_of(self, thread_id: ThreadId) -> UserId:
        return ALICE

    async def claim(self, thread_id: ThreadId, user_id: UserId) -> None:
        """Does nothing: bridgekit asks for the owner."""


def config() -> BridgeConfig:
    return BridgeConfig(
        agents={"patient": Patient},
        db_session_factory=AliceOwnsAll(),
        stores=stores_from(os.environ.get(STORE, "memory:")),
        authorizer=Tickets if KEYLESS in os.environ else partial(Tickets, keys=(KEY,)),
        runs_seconds=float(os.environ.get(RUNS_TIMEOUT_SECONDS, "10")),
    )


async def _run(request: Request) -> Response:
    try:
        result = await request.app.state.bridgekit.supervisor.run(
            agent_name="patient", thread_id=THREAD, user_id=ALICE, request=request.path_params["what"]
        )
    except ShuttingDown as refusal:
        return JSONResponse({"refused": str(refusal)}, status_code=503)
    return JSONResponse({"pid": result.result})


async def _continue(request: Request) -> Response:
    _go.set()
    return JSONResponse({"pid": os.getpid()})


app = Starlette(
    routes=[
        *routes(),
        Route("/runs/{what}", _run, methods=["POST"]),
        Route("/go", _continue, methods=["POST"]),
    ],
    lifespan=lifespan(config()),
)

bare = Starlette()
"""An application without a bridge."""


routeless = Starlette(lifespan=lifespan(config()))
"""An application that starts the bridge and has no route for it."""

wrapped_routeless = CORSMiddleware(routeless)

unstarted = Starlette(routes=[Mount("/api", app=app)])
"""An application that does not run the lifespan of the one that it mounts."""


@asynccontextmanager
async def _failing(app: Starlette) -> AsyncIterator[None]:
    app.state.database = os.environ["NO_SUCH_VARIABLE"]
    yield


failing = Starlette(lifespan=_failing)


async def http_only(scope: Scope, receive: Receive, send: Send) -> None:
    """A plain ASGI application that supports no lifespan."""
    assert scope["type"] == "http"


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """A plain ASGI application that ignores the lifespan."""


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """A plain ASGI application with a lifespan of its own."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


wrapped_bare = CORSMiddleware(bare)


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    """A plain ASGI application that reports a failed startup."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database today"})
