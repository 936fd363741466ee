"""A site for each test of the edge."""

from __future__ import annotations

import pytest

from tests.transport.browser import Site


@pytest.fixture
async def site() -> Site:
    made = Site()
    await made.open_threads()
    return made
