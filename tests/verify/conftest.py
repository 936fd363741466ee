"""The suite's tests run without asyncio's debug mode, because they measure the package's code, and many events."""

from __future__ import annotations

from typing import Any

import pytest

from tests.backends import ASYNCIO_WITHOUT_DEBUG, TRIO


@pytest.fixture(scope="module", params=[ASYNCIO_WITHOUT_DEBUG, TRIO], ids=lambda backend: backend[0])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend
