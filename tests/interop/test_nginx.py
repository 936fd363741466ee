"""The recipe "nginx" in docs/recipes.md: checked by the real nginx, and used as the proxy in front of a server."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from starlette.applications import Starlette

from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.errors import SubscriptionRefused
from bridgekit.serve.in_process import serving
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.client import connect
from bridgekit_verify.harness.processes import start_process
from tests.factories import ALICE, THREAD, emitted
from tests.server_processes import reserve_port
from tests.tree import ROOT

TIMEOUT_SECONDS = 60.0
BURST = 2_000
INSTALLED = ROOT / "build" / "interop" / "nginx" / "usr" / "sbin"
[RECIPE] = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"), re.DOTALL)

MAIN = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def command(folder: Path, *, listen: int, upstream: int) -> list[str]:
    """Write the recipe with these ports, and return the command that runs nginx with it."""
    nginx = shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", str(INSTALLED)]))
    assert nginx, "nginx is not installed: run make interop, or install it (Debian: apt-get install nginx)"
    site = RECIPE.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}").replace(
        "listen 8080", f"listen 127.0.0.1:{listen}"
    )
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    return [nginx, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


@asynccontextmanager
async def behind_nginx(edge: str, folder: Path) -> AsyncIterator[tuple[Starlette, str]]:
    """An application, and its address behind nginx."""
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, edge=edge) as url:
            await app.state.bridgekit.open_thread(THREAD, ALICE)
            with reserve_port() as port:
                words = command(folder, listen=port, upstream=urlsplit(url).port or 0)
                async with start_process(words, name="nginx"):
                    await until_ready(f"http://127.0.0.1:{port}/healthz")
                    yield app, f"ws://127.0.0.1:{port}"


async def until_ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                assert (await client.get(url)).status_code == 200
            except httpx.TransportError:
                await anyio.sleep(0.02)
            else:
                return


async def test_nginx_accepts_the_recipe_without_a_warning(tmp_path: Path) -> None:
    with reserve_port() as port:
        checked = await anyio.run_process([*command(tmp_path, listen=port, upstream=1), "-t"], check=False)
    assert checked.returncode == 0, checked.stderr.decode()
    assert b"[warn]" not in checked.stderr


@pytest.mark.parametrize("edge", ["asgi", "native"])
async def test_socket_behind_nginx_gets_every_event_and_the_close_code(edge: str, tmp_path: Path) -> None:
    async with behind_nginx(edge, tmp_path) as (app, url):
        origin = {"Origin": url.replace("ws", "http", 1)}
        async with (
            connect(url, thread_id=THREAD, user_id=ALICE, headers=origin) as client,
            anyio.create_task_group() as tasks,
        ):

            async def emit_all() -> None:
                for _ in range(BURST):
                    await app.state.bridgekit.bridge.notify(emitted(payload={"text": "x" * 100}))

            tasks.start_soon(emit_all)
            assert [(await client.receive()).seq for _ in range(BURST)] == list(range(1, BURST + 1))
            app.state.bridgekit_connections.end_access(user_id=ALICE)
            with pytest.raises(SubscriptionRefused, match="4506"):
                await client.receive()
        assert client.gaps == []


@pytest.mark.parametrize("edge", ["asgi", "native"])
async def test_nginx_hides_the_metrics_and_does_not_weaken_the_check_of_origins(edge: str, tmp_path: Path) -> None:
    async with behind_nginx(edge, tmp_path) as (_, url):
        async with httpx.AsyncClient(trust_env=False) as browser:
            assert (await browser.get(url.replace("ws", "http", 1) + "/metrics")).status_code == 403
        for origin in ("http://evil.example", "https://127.0.0.1:1", "null"):
            with pytest.raises(SubscriptionRefused, match="4504"):
                async with connect(url, thread_id=THREAD, user_id=ALICE, headers={"Origin": origin}):
                    raise AssertionError("was subscribed")
