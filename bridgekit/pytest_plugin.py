"""pytest plugin: fixtures for a running application and its clients, and `assert_delivered` for received events.

A test that uses `bridgekit_app` fails if an event was lost, was emitted by another run, or followed the end of its run.

pytest loads this module wherever bridgekit is installed, even if no test uses it. To load fast, the module imports the
rest of the package only in the fixtures and in `assert_delivered`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from bridgekit.chain.link_1_startup import BridgeConfig
    from bridgekit.events import EventType
    from bridgekit.ids import RunId
    from bridgekit.invariants.frame_parsing import Recorded
    from bridgekit.invariants.reports import RunReport
    from bridgekit.invariants.rules import Signalled
    from bridgekit.testing import CollectingClient, ServedApplication

__all__ = [
    "assert_delivered",
    "bridgekit_app",
    "bridgekit_asgi",
    "bridgekit_check",
    "bridgekit_client",
    "bridgekit_config",
]

SERVED = pytest.StashKey["ServedApplication"]()
"""The served application of a test that has not passed yet."""

PROBLEMS = """\
not every event reached its user as it should. A test that expects this calls `bridgekit_app.problems.clear()`:
  """

NO_CONFIG = """\
bridgekit does not know your agents. Define this fixture in your tests:

    @pytest.fixture
    def bridgekit_config():
        return bridgekit.BridgeConfig(agents={"name": YourAgent})
"""

NOT_ASYNCIO = """\
bridgekit's test client needs asyncio, but this test runs on {backend}. Define this fixture in your tests:

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""

TWO_PLUGINS = """\
bridgekit's fixtures run on anyio's pytest plugin, and pytest-asyncio in its auto mode runs them in another event loop.
Set asyncio_mode = "strict" in pytest's settings, and mark your tests for pytest-asyncio with pytest.mark.asyncio.
"""

OTHER_LOOP = """\
bridgekit's server runs only while anyio's pytest plugin runs the test, so that {test} would wait for it forever.
Declare the test as `async def`, outside of unittest's classes, and mark it with pytest.mark.anyio only.
"""


def assert_delivered(
    events: Iterable[Recorded],
    *,
    runs: Iterable[str] | None = None,
    required: Iterable[EventType] | None = None,
    signalled: Signalled = (),
) -> dict[RunId | None, RunReport]:
    """Fail unless every run in the stream was delivered completely, in order and once. Return the reports by run id.

    The arguments and rules are those of `check_stream` in `bridgekit.invariants.reports`. The failure message lists
    each violation with the frames that show it. Pass the expected run ids as `runs`, because a run whose events were
    all lost leaves no trace in the stream. A stream without events fails.
    """
    __tracebackhide__ = True
    from bridgekit.events import CRITICAL
    from bridgekit.invariants.reports import check_stream, format_report

    recorded = list(events)
    reports = check_stream(
        recorded, runs=runs, required=CRITICAL if required is None else required, signalled=signalled
    )
    if not all(report.holds for report in reports.values()):
        raise AssertionError(format_report(recorded, reports))
    return reports


@pytest.fixture
def bridgekit_config() -> BridgeConfig:
    """The configuration of your application. Override this fixture, because bridgekit does not know your agents."""
    pytest.fail(NO_CONFIG, pytrace=False)


@pytest.fixture
def bridgekit_asgi(bridgekit_config: BridgeConfig) -> Starlette:
    """The ASGI application to serve.

    Override this fixture with your own application, which must use `lifespan(config)` and `routes()`.
    """
    from bridgekit.chain.link_1_startup import create_app

    return create_app(bridgekit_config)


@pytest.fixture
async def bridgekit_app(
    request: pytest.FixtureRequest, anyio_backend_name: str, bridgekit_asgi: Starlette
) -> AsyncIterator[ServedApplication]:
    """Your application on a real loopback server, with `.url`, `.application` and `.run(agent_name, request)`."""
    import asyncio

    from bridgekit.testing import end_of_tasks, serve

    _require_anyio(request)
    if anyio_backend_name != "asyncio":
        pytest.fail(NOT_ASYNCIO.format(backend=anyio_backend_name), pytrace=False)
    before = asyncio.all_tasks()
    async with serve(bridgekit_asgi) as served:
        served.application.bridge.observers.append(served.check_emission)
        request.node.stash[SERVED] = served
        yield served
    await end_of_tasks(before)
    if SERVED not in request.node.stash:
        _fail_with_problems(served)
    elif served.problems:
        request.node.add_report_section("teardown", "bridgekit", "\n".join(served.problems))


def _require_anyio(request: pytest.FixtureRequest) -> None:
    """Fail a test that anyio's plugin does not run."""
    from inspect import iscoroutinefunction
    from unittest import TestCase

    config, test = request.config, request.node
    has_asyncio = config.pluginmanager.hasplugin("asyncio")
    if has_asyncio and "auto" in (config.getoption("asyncio_mode"), config.getini("asyncio_mode")):
        pytest.fail(TWO_PLUGINS, pytrace=False)
    hypothesis = getattr(test.obj, "hypothesis", None)
    is_coroutine = iscoroutinefunction(test.obj if hypothesis is None else hypothesis.inner_test)
    is_asyncios = has_asyncio and test.get_closest_marker("asyncio") is not None
    if not is_coroutine or is_asyncios or isinstance(request.instance, TestCase):
        pytest.fail(OTHER_LOOP.format(test=test.name), pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test that passed although `bridgekit_app` has problems. pytest calls this after a test that passed."""
    if (served := item.stash.get(SERVED, None)) is not None:
        del item.stash[SERVED]
        _fail_with_problems(served)


def _fail_with_problems(served: ServedApplication) -> None:
    if served.problems:
        found = "\n  ".join(served.problems)
        served.problems.clear()
        pytest.fail(PROBLEMS + found, pytrace=False)


@pytest.fixture
def bridgekit_client(bridgekit_app: ServedApplication) -> Callable[..., AbstractAsyncContextManager[CollectingClient]]:
    """`async with bridgekit_client(thread_id, user_id) as client` subscribes a client, which collects
    `client.events`."""
    return bridgekit_app.subscribed_client


@pytest.fixture
def bridgekit_check(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`result = bridgekit_check("backend.toml", app)` checks any backend. Then `assert result.passed, result.text`.

    The path of the TOML file is relative to the folder of the test. Without `app`, the fixture starts the backend with
    the command in the file. The `options` are those of `drive_backend` in `bridgekit_verify.check.live.backend_check`.
    """
    check_app = import_module("bridgekit_verify.check.live.backend_check").check_app

    def check(path: str, app: Any = None, **options: Any) -> Any:
        return check_app(request.path.parent / path, app, **options)

    return check
