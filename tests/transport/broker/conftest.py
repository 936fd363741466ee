"""Servers of the Redis protocol for each module of tests. Whoever hurts one starts one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridgekit.events import new_id
from bridgekit.measure.faults.redis_servers import redis_url


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with redis_url() as url:
        yield url


@pytest.fixture
def prefix() -> str:
    """An application that no other test knows of."""
    return f"test-{new_id()}"
