"""What tests of the Redis store share. A test that kills, stops or fills a server starts one of its own."""

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
    """The Redis store needs asyncio."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def url(redis_url: str) -> str:
    return redis_url


@pytest.fixture
def prefix() -> str:
    """An application that no other test knows."""
    return f"test-{new_id()}"


@pytest.fixture
async def redis(url: str, prefix: str, long_timeouts: None) -> AsyncIterator[ClusterTopology]:
    """A server, with keys that no other test has."""
    async with ClusterTopology(url, prefix=prefix) as redis:
        yield redis


@pytest.fixture(autouse=True)
def answer_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the patches of tests whose publishers took turns: they were not undone in their order."""
    monkeypatch.setattr(log, "ANSWER_TIMEOUT_SECONDS", ANSWER_TIMEOUT_SECONDS)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short timeouts, for tests in which a server or connection is silent for longer."""
    monkeypatch.setattr(topology, "REPLY_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(subscriptions, "HEARTBEAT_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(subscriptions, "HEARTBEAT_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(log, "CLOSE_TIMEOUT_SECONDS", 0.3)
