"""Fixtures that open each store of the table, empty, for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.stores import KINDS, Kind, StoreLocation


def rows(kinds: Iterable[Kind]) -> list[Any]:
    """Parameter sets of these stores. `make unit` deselects those that need servers."""
    return [pytest.param(kind, id=kind.name, marks=[pytest.mark.slow] * bool(kind.server)) for kind in kinds]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deselect tests of asyncio-only stores and edges on trio."""
    items[:] = [item for item in items if not _needs_asyncio_on_trio(getattr(item, "callspec", None))]


def _needs_asyncio_on_trio(call: Any) -> bool:
    parameters = call.params if call is not None else {}
    kinds = [value for value in parameters.values() if isinstance(value, Kind)]
    asyncio_only = any(not kind.trio for kind in kinds) or parameters.get("edge") == "native"
    return asyncio_only and parameters.get("anyio_backend", ("",))[0] == "trio"


@pytest.fixture(autouse=True)
def healthy_stores(long_timeouts: None) -> None:
    """These stores are healthy. Failures are tested next to each store."""


EACH = rows(KINDS)
SURVIVING = rows(kind for kind in KINDS if kind.survives)


@pytest.fixture(params=EACH)
async def location(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreLocation]:
    async with open_location(request, request.param, tmp_path) as location:
        yield location


@pytest.fixture(params=SURVIVING)
async def surviving(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreLocation]:
    async with open_location(request, request.param, tmp_path) as location:
        yield location


@asynccontextmanager
async def open_location(request: pytest.FixtureRequest, kind: Kind, folder: Path) -> AsyncIterator[StoreLocation]:
    server = request.getfixturevalue(kind.server) if kind.server else ""
    async with kind.create(folder, server) as url:
        yield StoreLocation(kind, url)
