"""Each guard runs on every edge, on loops that it can count on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.performance.budgets import EDGES, Edge
from tests.performance.fixture import Stage, staged
from tests.performance.task_switches import StillLoop

# No debug mode: what is counted is what users run.
BACKENDS: dict[str, dict[str, Any]] = {"asyncio": {"loop_factory": StillLoop}, "trio": {}}


@pytest.fixture(scope="module", params=EDGES, ids=lambda edge: edge.name)
def edge(request: pytest.FixtureRequest) -> Edge:
    chosen: Edge = request.param
    return chosen


@pytest.fixture(scope="module")
def anyio_backend(edge: Edge) -> tuple[str, dict[str, Any]]:
    return edge.backend, BACKENDS[edge.backend]


@pytest.fixture(scope="module")
async def stage(edge: Edge) -> AsyncIterator[Stage]:
    """One server for a module; each test takes threads of its own."""
    async with staged(edge) as served:
        yield served
