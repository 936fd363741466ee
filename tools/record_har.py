"""Record the tests' HAR file with a real browser: one run over a WebSocket, and one in a streamed response.

`bash tests/interop/install` installs the browser and the packages.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from bridgekit.serve.in_process import serving
from tests.interop.chromium import found
from tests.tree import ROOT
from tests.verify.check.samples import RECORDINGS, ag_ui

TARGET: Final = RECORDINGS / "chromium.har"
TIMEOUT_SECONDS: Final = 120
PRIVATE: Final = re.compile(r"127\.0\.0\.1:\d+")
PAGE: Final = """<!doctype html><script>
const socket = new WebSocket(`ws://${location.host}/socket?user=ann`);
const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
socket.addEventListener("open", () => socket.send("hello"));
const streamed = fetch("/run", { method: "POST" }).then((response) => response.text());
Promise.all([closed, streamed]).then(() => { window.received = true; });
</script>"""


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def send_run(socket: WebSocket) -> None:
    await socket.accept()
    await socket.receive_text()
    for value in ag_ui("run-socket", "t1"):
        await socket.send_text(json.dumps(value))
    await socket.close()


async def stream_run(request: Request) -> StreamingResponse:
    async def body() -> AsyncIterator[str]:
        for value in ag_ui("run-response", "t2"):
            yield f"data: {json.dumps(value)}\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


async def record() -> None:
    """Record both runs, and replace the server's address, which differs each time."""
    node, browser = shutil.which("node"), found()
    if not node or not browser:
        sys.exit("Node or Chromium is missing: run tests/interop/install")
    routes = [Route("/", page), WebSocketRoute("/socket", send_run), Route("/run", stream_run, methods=["POST"])]
    script, packages = ROOT / "tools" / "record_har.cjs", ROOT / "build" / "interop"
    async with serving(Starlette(routes=routes)) as url:
        address = url.replace("ws", "http", 1) + "/"
        with anyio.fail_after(TIMEOUT_SECONDS):
            await anyio.run_process([node, str(script), str(packages), browser, address, str(TARGET)], stderr=None)
    har = json.loads(PRIVATE.sub("example.test", TARGET.read_text(encoding="utf-8")))
    await anyio.Path(TARGET).write_text(json.dumps(har, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {Path(TARGET).relative_to(ROOT)}")


if __name__ == "__main__":
    anyio.run(record)
