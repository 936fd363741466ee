"""Headless Chromium as an independent client: a page fetches the subscriptions and posts what it reads."""

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
from tests.observers.independent_clients import child

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PAGE: Final = Path(__file__).with_name("page.html")

FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # Chromium has no sandbox for root, and it loads only this page
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--enable-logging=stderr",  # shows errors of the page when a test fails
)


def found() -> str | None:
    """Return the path of the first browser on PATH; None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@asynccontextmanager
async def chromium(subscriptions: bytes, on_line: Callable[[bytes], None]) -> AsyncIterator[None]:
    """Run the browser for the length of a block; then end it and delete its files."""
    browser = found()
    assert browser, f"none of {', '.join(NAMES)} is on PATH: install Chromium"
    # Helper processes of the browser may still write while the folder is deleted.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        async with serving(_site(subscriptions, on_line)) as url:
            page = url.replace("ws", "http", 1) + "/"
            command = [browser, *FLAGS, f"--user-data-dir={home}/profile", page]
            surroundings = {**os.environ, "HOME": home, "TMPDIR": home}
            async with (
                child(command, stdout=subprocess.DEVNULL, env=surroundings) as process,
                anyio.create_task_group() as watching,
            ):
                watching.start_soon(_raise_on_exit, process)
                yield
                watching.cancel_scope.cancel()


def _site(subscriptions: bytes, on_line: Callable[[bytes], None]) -> Starlette:
    async def page(request: Request) -> Response:
        return Response(PAGE.read_bytes(), media_type="text/html")

    async def send_subscriptions(request: Request) -> Response:
        return Response(subscriptions, media_type="application/json")

    async def receive_lines(request: Request) -> Response:
        for line in (await request.body()).splitlines():
            on_line(line)
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/subscriptions", send_subscriptions),
            Route("/lines", receive_lines, methods=["POST"]),
        ]
    )


async def _raise_on_exit(process: Process) -> None:
    raise ChildProcessError(f"the browser ended unexpectedly with exit code {await process.wait()}")
