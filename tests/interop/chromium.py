"""A page in headless Chromium as a witness: it fetches its seats over loopback, and posts what its sockets read."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import Process
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridgekit.serve.in_process import serving
from tests.observers.attendance import child

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PAGE: Final = Path(__file__).with_name("page.html")

FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # it cannot make one for root, and it reads one page, which is ours
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--enable-logging=stderr",  # so that an error of the page is seen when a test fails
)


def found() -> str | None:
    """The first browser on the path."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@asynccontextmanager
async def chromium(seats: bytes, note: Callable[[bytes], None]) -> AsyncIterator[None]:
    """A witness of its own process; it is ended when the block ends, and what it wrote to disk goes with it."""
    browser = found()
    assert browser, f"none of {', '.join(NAMES)} is on the path"
    # The browser's last helpers may still write while the folder is taken away.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        async with serving(_site(seats, note)) as url:
            page = url.replace("ws", "http", 1) + "/"
            command = [browser, *FLAGS, f"--user-data-dir={home}/profile", page]
            surroundings = {**os.environ, "HOME": home, "TMPDIR": home}
            async with (
                child(command, stdout=subprocess.DEVNULL, env=surroundings) as process,
                anyio.create_task_group() as watching,
            ):
                watching.start_soon(_must_stay, process)
                yield
                watching.cancel_scope.cancel()


def _site(seats: bytes, note: Callable[[bytes], None]) -> Starlette:
    async def page(request: Request) -> Response:
        return Response(PAGE.read_bytes(), media_type="text/html")

    async def give_seats(request: Request) -> Response:
        return Response(seats, media_type="application/json")

    async def take_lines(request: Request) -> Response:
        for line in (await request.body()).splitlines():
            note(line)
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/seats", give_seats),
            Route("/lines", take_lines, methods=["POST"]),
        ]
    )


async def _must_stay(process: Process) -> None:
    raise ChildProcessError(f"the browser ended by itself, with {await process.wait()}")
