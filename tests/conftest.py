"""What every test shares: the two async backends, as one table."""

from __future__ import annotations

from typing import Any

import pytest

# A backend is a row. asyncio's debug mode reports calls from a wrong thread, and where a coroutine was lost.
BACKENDS = [
    pytest.param(("asyncio", {"debug": True}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]


# Module scope, so that an async fixture may serve a whole module.
@pytest.fixture(scope="module", params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend
