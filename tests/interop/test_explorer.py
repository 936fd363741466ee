"""The explorer of notebook 00 in JupyterLab, used by a browser with the network blocked. On asyncio."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import anyio
import anyio.to_thread
import pytest

from bridgekit.serve.in_process import open_listener
from tests.interop.chromium import found
from tests.observers.independent_clients import child
from tests.tree import NOTEBOOKS, ROOT

INSTALLED: Final = ROOT / "build" / "interop"
PROGRAM: Final = ROOT / "tests" / "interop" / "explorer.cjs"
SETTINGS: Final = ROOT / "etc" / "jupyter"
START_TIMEOUT_SECONDS: Final = 120
BROWSER_TIMEOUT_SECONDS: Final = 600
POLL_INTERVAL_SECONDS: Final = 0.2
UNREACHABLE: Final = "http://127.0.0.1:9"
"""A proxy that does not exist: the server and the kernel reach no other host."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def jupyterlab(folder: Path, home: Path) -> AsyncIterator[str]:
    """Serve JupyterLab for the length of a block; gives the URL of notebook 00."""
    with open_listener("127.0.0.1", 0, keepalive_seconds=1) as listener:
        port = listener.getsockname()[1]
    token = secrets.token_hex(16)
    surroundings = {
        **{name: value for name, value in os.environ.items() if name != "JPY_SESSION_NAME"},
        "HOME": str(home),
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_PATH": str(SETTINGS),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(ROOT),
        "http_proxy": UNREACHABLE,
        "https_proxy": UNREACHABLE,
        "no_proxy": "127.0.0.1",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True", f"--notebook-dir={folder}"]
    async with child(command, env=surroundings):
        address = f"http://127.0.0.1:{port}"
        with anyio.fail_after(START_TIMEOUT_SECONDS):
            # The server sends no signal when it is ready.
            while not await anyio.to_thread.run_sync(_answers, f"{address}/api?token={token}"):  # noqa: ASYNC110
                await anyio.sleep(POLL_INTERVAL_SECONDS)
        yield f"{address}/lab/tree/00_overview.ipynb?token={token}"


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except (URLError, TimeoutError):
        return False


async def use_explorer(url: str, thread_ids: str) -> dict[str, Any]:
    """Type the ids into the explorer; return what it shows before and after, and what it says about invalid ids."""
    node, browser = shutil.which("node"), found()
    assert node, "node is not on PATH: run make interop"
    assert browser, "Chromium is not on PATH: run make interop"
    assert (INSTALLED / "node_modules" / "playwright-core").is_dir(), "playwright-core is missing: run make interop"
    output = b""
    async with child([node, str(PROGRAM), str(INSTALLED), browser, url, thread_ids, str(INSTALLED)]) as process:
        assert process.stdout is not None
        with anyio.fail_after(BROWSER_TIMEOUT_SECONDS):
            async for chunk in process.stdout:
                output += chunk
            assert await process.wait() == 0
    shown: dict[str, Any] = json.loads(output)
    return shown


async def test_typed_thread_ids_change_the_result_in_jupyterlab_without_a_network(tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, folder)
    async with jupyterlab(folder, tmp_path) as url:
        shown = await use_explorer(url, "thread_zoe, thread_zoe_smith")
    assert shown["before"].startswith(
        "as committed: the event agent_thinking of question 1 ends at link 8 (Event emission)"
    )
    assert shown["after"] == (
        "fix 1: the event agent_thinking of question 2 is read by alice-0 and not by its user, bob-1, because"
        " link 9 named thread_zoe instead of thread_zoe_smith."
    )
    assert [row[:6] for row in shown["rates"][1:]] == [
        ["as committed", "10", "0", "10", "100.0", "0"],
        ["fix 1", "10", "5", "5", "50.0", "5"],
        ["sound", "10", "10", "0", "0.0", "0"],
    ]
    assert "'a' occurs twice" in shown["refusal"]
    assert "Allowed: 1 to 16 different thread ids" in shown["refusal"]
    assert shown["blocked"] == []
