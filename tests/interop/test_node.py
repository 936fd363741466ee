"""The same run as the npm package `ws` sees it, the client of most servers and tools written for Node. On asyncio."""

from __future__ import annotations

import shutil

import pytest

from tests.observers.attendance import program
from tests.observers.scenes import Scene, assert_accounts_agree, every_scene
from tests.tree import ROOT

INSTALLED = ROOT / "build" / "interop"
PROGRAM = ROOT / "tests" / "interop" / "node_client.cjs"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@every_scene
async def test_ws_under_node_reads_what_our_client_reads(scene: Scene) -> None:
    node = shutil.which("node")
    assert node, "node is not on the path"
    assert (INSTALLED / "node_modules" / "ws").is_dir(), "ws is not installed: make interop does it"
    await assert_accounts_agree(scene, program(node, str(PROGRAM), str(INSTALLED)))
