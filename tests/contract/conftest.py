"""Each store of the table, empty, for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.stores import KINDS, Kind, Place

EACH = [pytest.param(kind, id=kind.name) for kind in KINDS]
SURVIVING = [pytest.param(kind, id=kind.name) for kind in KINDS if kind.survives]


@pytest.fixture(params=EACH)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    kind: Kind = request.param
    async with kind.place(tmp_path) as url:
        yield Place(kind, url)


@pytest.fixture(params=SURVIVING)
async def surviving(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    kind: Kind = request.param
    async with kind.place(tmp_path) as url:
        yield Place(kind, url)
