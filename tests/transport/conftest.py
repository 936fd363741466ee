"""A Site for each test of the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.transport.fake_browser import Site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    await made.open_threads()
    async with made.edge:
        yield made
