"""Each performance test runs on every edge, with event loops that count task switches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.performance.budgets import EDGES, Edge
from tests.performance.fixture import ServedFixture, serve_fixture
from tests.performance.task_switches import CountingLoop

BACKENDS: dict[str, dict[str, Any]] = {"asyncio": {"loop_factory": CountingLoop}, "trio": {}}


@pytest.fixture(scope="module", params=EDGES, ids=lambda edge: edge.name)
def edge(request: pytest.FixtureRequest) -> Edge:
    chosen: Edge = request.param
    return chosen


@pytest.fixture(scope="module")
def anyio_backend(edge: Edge) -> tuple[str, dict[str, Any]]:
    return edge.backend, BACKENDS[edge.backend]


@pytest.fixture(scope="module")
async def stage(edge: Edge) -> AsyncIterator[ServedFixture]:
    """One server for each test module; each test uses its own threads."""
    async with serve_fixture(edge) as served:
        yield served
