"""Fixtures of all tests: the two async backends, and servers that are slow to start."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from bridgekit_verify.faults.redis_servers import NoRedisServer
from tests import light_imports  # noqa: F401  # before a test imports nbformat
from tests.backends import ASYNCIO, TRIO
from tests.file_order import start_order
from tests.servers import SharedCluster, shared_cluster, shared_server
from tests.short_forms import mark_long_forms
from tests.timeouts import use_long_timeouts

# Tests do not depend on the machine's speed, and every run uses the same examples, so that failures are reproducible.
# `pytest --hypothesis-profile=random` uses new random examples.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("random"), derandomize=True)
settings.load_profile("same")


# Module scope, so that async fixtures can have module scope.
@pytest.fixture(scope="module", params=[pytest.param(ASYNCIO, id="asyncio"), pytest.param(TRIO, id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the stores' timeouts, so that a busy machine does not make a store count as unavailable."""
    use_long_timeouts(monkeypatch)


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[SharedCluster]:
    """A cluster for the session, started for the first test that uses it."""
    with shared_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_cluster_url(redis_cluster: SharedCluster) -> str:
    return redis_cluster.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a shared server, which tests must not stop. Each test uses its own key prefix."""
    with shared_server() as url:
        yield url


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt all imported modules and collected tests from garbage collection.

    They are a million objects, and collections during the tests would traverse them again and again.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 10, 100)
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_long_forms(items)
    items.sort(key=lambda item: start_order(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Create the scheduler of pytest-xdist (`-n`), in the controller process."""
    from tests.xdist_scheduler import FileScheduling

    return FileScheduling(config, log)


def pytest_configure() -> None:
    """Handle SIGINT, which tests send to child processes. A shell in the background lets its commands ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test whose Redis server is missing, with a message that says what to install.

    Captured text may hold lone surrogates, which xdist cannot send: they are escaped.
    """
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    if call.excinfo is not None and isinstance(call.excinfo.value, NoRedisServer):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: {call.excinfo.value}")
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session in continuous integration if a test was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
