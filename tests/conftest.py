"""What every test shares: the two async backends, as one table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import SharedCluster, shared_cluster, shared_server

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


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[SharedCluster]:
    """Started by the first test that asks for it."""
    with shared_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_cluster_url(redis_cluster: SharedCluster) -> str:
    return redis_cluster.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Of a server that nobody may hurt. Every test takes a prefix of its own."""
    with shared_server() as url:
        yield url


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """What was skipped was not tried: in continuous integration that is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
