"""Compares bridgekit's client with a browser's WebSocket in the same run. On asyncio."""

from __future__ import annotations

import pytest

from tests.interop.chromium import chromium
from tests.observers.scenarios import Scenario, assert_transcripts_agree, every_scenario


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@every_scenario
async def test_chromium_reads_what_our_client_reads(scenario: Scenario) -> None:
    await assert_transcripts_agree(scenario, chromium)
