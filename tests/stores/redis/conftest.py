"""Fixtures for tests of the Redis store. A test that kills, stops or fills a server starts its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridgekit.ids import new_id
from bridgekit.stores.redis import log, subscriptions, topology
from bridgekit.stores.redis.log import ANSWER_TIMEOUT_SECONDS
from bridgekit.stores.redis.topology import ClusterTopology
from tests.backends import ASYNCIO


@pytest.fixture(scope="module", params=[pytest.param(ASYNCIO, id="asyncio")])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run on asyncio only, which the Redis store requires."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def url(redis_url: str) -> str:
    return redis_url


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test uses."""
    return f"test-{new_id()}"


@pytest.fixture
async def redis(url: str, prefix: str, long_timeouts: None) -> AsyncIterator[ClusterTopology]:
    """A shared server with a key prefix that no other test uses."""
    async with ClusterTopology(url, prefix=prefix) as redis:
        yield redis


@pytest.fixture(autouse=True)
def answer_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore values that concurrent publishers patched and restored in another order."""
    monkeypatch.setattr(log, "ANSWER_TIMEOUT_SECONDS", ANSWER_TIMEOUT_SECONDS)


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten timeouts, for tests in which a server or connection is silent for longer than the timeout."""
    monkeypatch.setattr(topology, "REPLY_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(subscriptions, "HEARTBEAT_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(subscriptions, "HEARTBEAT_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(log, "CLOSE_TIMEOUT_SECONDS", 0.3)
