"""A server for each module of tests. Whoever hurts one starts one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridgekit.events import new_id
from bridgekit.measure.faults.redis_servers import redis_url
from bridgekit.storage.redis import Servers


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with redis_url() as url:
        yield url


@pytest.fixture
async def servers(url: str) -> AsyncIterator[Servers]:
    """Open, with keys that no other test has."""
    async with Servers(url, prefix=f"test-{new_id()}") as servers:
        yield servers
