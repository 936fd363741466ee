"""Compares bridgekit's client with the npm package `ws` under Node in the same run. On asyncio."""

from __future__ import annotations

import shutil

import pytest

from tests.observers.independent_clients import program
from tests.observers.scenarios import Scenario, assert_transcripts_agree, every_scenario
from tests.tree import ROOT

INSTALLED = ROOT / "build" / "interop"
PROGRAM = ROOT / "tests" / "interop" / "node_client.cjs"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@every_scenario
async def test_ws_under_node_reads_what_our_client_reads(scenario: Scenario) -> None:
    node = shutil.which("node")
    assert node, "node is not on PATH: install Node.js"
    assert (INSTALLED / "node_modules" / "ws").is_dir(), "the npm package ws is not installed: run make interop"
    await assert_transcripts_agree(scenario, program(node, str(PROGRAM), str(INSTALLED)))
