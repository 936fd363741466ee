"""An application for real servers in processes of their own, and what a test says to it over HTTP.

Its store and its times come from the environment, since a server's command line has no room for them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bridgekit.chain.collaborators import MemoryThreads
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Parts, lifespan
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.errors import ShuttingDown
from bridgekit.ids import ThreadId, UserId
from bridgekit.stores import stores_from
from bridgekit.transport.asgi import routes
from bridgekit.transport.tickets import Tickets
from tests.samples import ALICE, THREAD

KEY = b"a key that every worker of the tests knows"
STORE = "SERVED_STORE"
KEYLESS = "SERVED_WITHOUT_KEY"
RUNS_SECONDS = "SERVED_RUNS_SECONDS"
FOR_LONG = "600"
"""Longer than any test waits for a server to end."""

_go = anyio.Event()


class Patient(BaseAgent):
    """Says that it began, and goes on when it is told to, or when the server is being stopped."""

    async def execute(self, context: RunContext) -> object:
        await self.emit_thinking("begun")
        if context.request == "wait":
            await _go.wait()
        if context.request == "wait_for_the_end":
            await _the_end()
        if context.request == "wait_a_second":
            await anyio.sleep(1)
        await self.emit_thinking("told to go on")
        return os.getpid()


async def _the_end() -> None:
    while True:
        if app.state.bridgekit_edge.health != ("ok", HTTPStatus.OK):
            return
        await anyio.sleep(0.01)


class AliceOwnsAll(MemoryThreads):
    """Whose thread it is stands in a database that all workers share; here it is written into the program."""

    async def owner_of(self, thread_id: ThreadId) -> UserId:
        return ALICE


def parts() -> Parts:
    return Parts(
        agents={"patient": Patient},
        db_session_factory=AliceOwnsAll(),
        stores=stores_from(os.environ.get(STORE, "memory:")),
        admission=Tickets if KEYLESS in os.environ else partial(Tickets, keys=(KEY,)),
        runs_seconds=float(os.environ.get(RUNS_SECONDS, "10")),
    )


async def _run(request: Request) -> Response:
    try:
        result = await request.app.state.bridgekit.supervisor.run(
            agent_name="patient", thread_id=THREAD, user_id=ALICE, request=request.path_params["what"]
        )
    except ShuttingDown as refusal:
        return JSONResponse({"refused": str(refusal)}, status_code=503)
    return JSONResponse({"pid": result.result})


async def _let_go(request: Request) -> Response:
    _go.set()
    return JSONResponse({"pid": os.getpid()})


app = Starlette(
    routes=[
        *routes(),
        Route("/runs/{what}", _run, methods=["POST"]),
        Route("/go", _let_go, methods=["POST"]),
    ],
    lifespan=lifespan(parts()),
)

bare = Starlette()
"""An application without the bridge."""


@asynccontextmanager
async def _failing(app: Starlette) -> AsyncIterator[None]:
    app.state.database = os.environ["NO_SUCH_VARIABLE"]
    yield


failing = Starlette(lifespan=_failing)


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that is not Starlette's, and reports that it cannot start."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database today"})
