"""The same run as the WebSocket of a browser sees it, the client that agents' events are for. On asyncio."""

from __future__ import annotations

import pytest

from tests.interop.chromium import chromium
from tests.observers.scenes import Scene, assert_accounts_agree, every_scene


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@every_scene
async def test_chromium_reads_what_our_client_reads(scene: Scene) -> None:
    await assert_accounts_agree(scene, chromium)
