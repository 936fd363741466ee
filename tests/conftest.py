"""What every test shares: the two async backends, and servers that take a while to start."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from bridgekit_verify.faults.redis_servers import NoRedisServer
from tests.backends import ASYNCIO, TRIO
from tests.servers import SharedCluster, shared_cluster, shared_server
from tests.timeouts import with_patience

# How fast a machine is decides nothing, and every run tries the same examples: what fails once fails again.
# Others are tried by `pytest --hypothesis-profile=anew`.
settings.register_profile("anew", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("anew"), derandomize=True)
settings.load_profile("same")


# Module scope, so that an async fixture may serve a whole module.
@pytest.fixture(scope="module", params=[pytest.param(ASYNCIO, id="asyncio"), pytest.param(TRIO, id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that are well are not given up because the machine is busy."""
    with_patience(monkeypatch)


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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, in the process that hands out the tests."""
    from tests.xdist_scheduler import ByFile

    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test without the server that it needs is skipped, with what to install. See `pytest_sessionfinish`."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, NoRedisServer):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: {call.excinfo.value}")
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """What was skipped was not tried: in continuous integration that is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
