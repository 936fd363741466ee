"""One suite for every edge: `serving` uses the edge of the current test, and each backend has its edges.

A test module that imports both names from here runs on all edges.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any

import pytest
from starlette.applications import Starlette

from bridgekit.serve import in_process
from tests.backends import ASYNCIO, TRIO

__all__ = ["anyio_backend", "edge", "serving"]

edge = ContextVar("edge", default="asgi")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((ASYNCIO, "asgi"), id="asyncio-asgi"),
        pytest.param((ASYNCIO, "native"), id="asyncio-native"),
        pytest.param((TRIO, "asgi"), id="trio-asgi"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend, chosen = request.param
    edge.set(chosen)
    return backend  # type: ignore[no-any-return]  # a fixture's parameter has no type


def serving(app: Starlette, **choices: Any) -> AbstractAsyncContextManager[str]:
    """Serve the application's sockets on the edge of this test."""
    return in_process.serving(app, edge=edge.get(), **choices)
