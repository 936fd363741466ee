"""Shared fixtures: the two async backends, and servers that are slow to start."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from bridgekit_verify.faults.redis_servers import NoRedisServer
from tests.backends import ASYNCIO, TRIO
from tests.servers import SharedCluster, shared_cluster, shared_server
from tests.timeouts import use_long_timeouts

# No deadline, because results must not depend on the machine's speed. The default profile tries the same examples in
# each run, so that failures are reproducible; `pytest --hypothesis-profile=anew` tries new ones.
settings.register_profile("anew", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("anew"), derandomize=True)
settings.load_profile("same")


# Module scope, so that async fixtures can have module scope.
@pytest.fixture(scope="module", params=[pytest.param(ASYNCIO, id="asyncio"), pytest.param(TRIO, id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevent healthy stores from being marked unavailable on a busy machine."""
    use_long_timeouts(monkeypatch)


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[SharedCluster]:
    """A shared cluster, started by the first test that uses it."""
    with shared_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_cluster_url(redis_cluster: SharedCluster) -> str:
    return redis_cluster.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a shared server, which tests must not disturb. Each test uses its own key prefix."""
    with shared_server() as url:
        yield url


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Use our scheduler with `-n`; runs in the controller process."""
    from tests.xdist_scheduler import FileScheduling

    return FileScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test whose server is not installed, and show what to install. See `pytest_sessionfinish`."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, NoRedisServer):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: {call.excinfo.value}")
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a CI run with skipped tests, because they were not tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
