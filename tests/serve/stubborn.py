"""An application whose run does what the environment names, to delay the end of its server."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import BridgeConfig, lifespan
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.transport.asgi import routes
from tests import served_application
from tests.factories import ALICE, THREAD

FOREVER_SECONDS = 600.0
BEGUN = "begun"


def _report_begun() -> None:
    sys.stdout.write(f"{BEGUN}\n")
    sys.stdout.flush()


def _wait() -> None:
    time.sleep(FOREVER_SECONDS)


def block() -> None:
    _report_begun()
    _wait()


async def block_loop() -> None:
    block()


async def leave_output() -> None:
    """Block the event loop while the output's buffer holds a character."""
    sys.stderr.write(f"{BEGUN}\n")
    sys.stdout.write("x")
    _wait()


async def fill_output() -> None:
    """Block the event loop by writing more than the output's reader reads."""
    sys.stderr.write(f"{BEGUN}\n")
    sys.stdout.write(f"{'x' * 99}\n" * 10_000)


def leave_child() -> None:
    """Fork a child that outlives the server. Print its process id, and the port of the application's own socket."""
    own = socket.create_server(("127.0.0.1", 0))
    if child := os.fork():
        sys.stdout.write(f"{BEGUN} {child} {own.getsockname()[1]}\n")
        sys.stdout.flush()
        return
    time.sleep(FOREVER_SECONDS)
    os._exit(0)


def fork() -> int | None:
    """Return the exit code of a forked child that is terminated."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(FOREVER_SECONDS,))
    child.start()
    child.terminate()
    child.join(10)
    code = child.exitcode
    child.kill()
    child.join()
    return code


class Stubborn(BaseAgent):
    """Calls the tool that the request names, or catches its cancellation."""

    async def execute(self, context: RunContext) -> object:
        if context.request != "swallow":
            return await self.use_tool(context.request)
        _report_begun()
        while True:
            try:
                await anyio.sleep(FOREVER_SECONDS)
            except BaseException:  # noqa: BLE001  # what the test is about
                continue


async def _run(request: Request) -> Response:
    run = await request.app.state.bridgekit.supervisor.run(
        agent_name="stubborn", thread_id=THREAD, user_id=ALICE, request=request.path_params["what"]
    )
    return PlainTextResponse(f"{run.result} {os.getpid()}")


async def _fail(request: Request) -> Response:
    request.app.state.failing.set()
    return PlainTextResponse("")


@asynccontextmanager
async def _failing_later(app: Starlette) -> AsyncIterator[None]:
    app.state.failing = anyio.Event()

    async def fail() -> None:
        await app.state.failing.wait()
        raise ConnectionResetError("no database any more")

    async with anyio.create_task_group() as tasks, lifespan(served_application.config())(app):
        tasks.start_soon(fail)
        yield
        tasks.cancel_scope.cancel()


app = Starlette(
    routes=[*routes(), Route("/runs/{what}", _run, methods=["POST"])],
    lifespan=lifespan(
        BridgeConfig(
            agents={"stubborn": Stubborn},
            tool_dispatcher=PythonTools(
                {tool.__name__: tool for tool in (block, block_loop, leave_output, fill_output, leave_child, fork)}
            ),
            runs_seconds=0.2,
            drain_seconds=0.2,
        )
    ),
)
fails_later = Starlette(routes=[*routes(), Route("/fail", _fail, methods=["POST"])], lifespan=_failing_later)


@asynccontextmanager
async def _starting_forever(_: Starlette) -> AsyncIterator[None]:
    _report_begun()
    await anyio.sleep(FOREVER_SECONDS)
    yield


never_starts = Starlette(routes=routes(), lifespan=_starting_forever)
