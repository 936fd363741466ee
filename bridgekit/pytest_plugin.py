"""The pytest plugin: a running application and a client as fixtures, and one assertion for what a socket read.

pytest loads this module wherever bridgekit is installed, also where nobody uses it. So it imports nothing of the
package before a fixture or the assertion is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from bridgekit.chain.link_1_startup import BridgeConfig
    from bridgekit.events import EventType
    from bridgekit.ids import RunId
    from bridgekit.invariants.recorded import Recorded
    from bridgekit.invariants.reports import RunReport
    from bridgekit.invariants.rules import Signalled
    from bridgekit.testing import CollectingClient, ServedApplication

__all__ = ["assert_delivered", "bridgekit_app", "bridgekit_asgi", "bridgekit_client", "bridgekit_config"]

NO_CONFIG = """\
bridgekit does not know your agents. Give your tests a fixture that does:

    @pytest.fixture
    def bridgekit_config():
        return bridgekit.BridgeConfig(agents={"name": YourAgent})
"""

NOT_ASYNCIO = """\
The client that listens for bridgekit runs on asyncio, and this test runs on {backend}. Give your tests a fixture that
says so:

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""


def assert_delivered(
    events: Iterable[Recorded],
    *,
    runs: Iterable[str] | None = None,
    required: Iterable[EventType] | None = None,
    signalled: Signalled = (),
) -> dict[RunId | None, RunReport]:
    """Fail unless every run of the stream was delivered whole, in order and once; answer the reports by run.

    By the rules of `check_stream` in `bridgekit.invariants.reports`; the message shows each violation and the
    frames that show it. Say in `runs` which runs were asked for: of one that was lost whole, the stream itself knows
    nothing.
    A stream without events fails.
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
    """What your application is put together from. Override this one: bridgekit knows none of your agents."""
    pytest.fail(NO_CONFIG, pytrace=False)


@pytest.fixture
def bridgekit_asgi(bridgekit_config: BridgeConfig) -> Starlette:
    """The ASGI application that is served. Override it with your own, if it has `lifespan(config)` and `routes()`."""
    from bridgekit.chain.link_1_startup import create_app

    return create_app(bridgekit_config)


@pytest.fixture
async def bridgekit_app(anyio_backend_name: str, bridgekit_asgi: Starlette) -> AsyncIterator[ServedApplication]:
    """Your application behind a real server: `.url`, `.application`, and `.run(agent_name, request)`."""
    from bridgekit.testing import serve

    if anyio_backend_name != "asyncio":
        pytest.fail(NOT_ASYNCIO.format(backend=anyio_backend_name), pytrace=False)
    async with serve(bridgekit_asgi) as served:
        yield served


@pytest.fixture
def bridgekit_client(bridgekit_app: ServedApplication) -> Callable[..., AbstractAsyncContextManager[CollectingClient]]:
    """Makes subscribed clients: `async with bridgekit_client(thread_id, user_id) as client` reads into `.events`."""
    return bridgekit_app.subscribed_client
