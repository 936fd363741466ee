"""A server for all. Whoever hurts one starts one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridgekit.ids import new_id
from bridgekit.storage.redis import Servers


@pytest.fixture
def url(redis_url: str) -> str:
    return redis_url


@pytest.fixture
async def servers(url: str, patient: None) -> AsyncIterator[Servers]:
    """Open, with keys that no other test has."""
    async with Servers(url, prefix=f"test-{new_id()}") as servers:
        yield servers
