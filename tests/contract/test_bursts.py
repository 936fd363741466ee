"""With every store and edge, a client that reads gets every event of a burst, and a streamed text whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.events import POLICIES, EventType, Policy, Receipt, define_event_type
from bridgekit.serve.in_process import serving
from bridgekit.stores import stores_from
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.client import connect
from bridgekit.transport.log import DEFAULT_RETENTION, Retention
from bridgekit.transport.outbox import OutboxLimits
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.contract.conftest import rows
from tests.contract.stores import KINDS, WAIT_SECONDS, StoreLocation
from tests.factories import ALICE, RUN, THREAD

OUTBOX = OutboxLimits(events=64)
BURST = 300
"""Several times the size of an outbox."""
AT_ONCE = 100
"""Events that agents emit at the same time: more than an outbox takes."""

OWN = [define_event_type(f"test_own_{policy.name.lower()}", policy) for policy in Policy]
"""Types of an application's own."""

pytestmark = pytest.mark.parametrize("edge", ["asgi", "native"])


@asynccontextmanager
async def served(
    location: StoreLocation, edge: str, retention: Retention = DEFAULT_RETENTION
) -> AsyncIterator[tuple[Application, str]]:
    config = BridgeConfig(
        agents={},
        stores=stores_from(location.url, retention=retention),
        db_session_factory=DeclaredOwners(),
        authorizer=OwnerAuthorizer,
        outbox=OUTBOX,
    )
    app = create_app(config)
    with anyio.fail_after(WAIT_SECONDS):
        async with serving(app, edge=edge) as url:
            await app.state.bridgekit.open_thread(THREAD, ALICE)
            yield app.state.bridgekit, url


def new_agent(application: Application) -> WebSocketBridgeAdapter:
    agent = WebSocketBridgeAdapter()
    agent.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    return agent


@pytest.mark.short_form(16)
@pytest.mark.parametrize("event_type", [EventType.TOOL_EXECUTING, EventType.AGENT_THINKING, EventType.TEXT_DELTA])
async def test_reading_client_gets_every_event_of_a_burst(
    location: StoreLocation, edge: str, event_type: EventType
) -> None:
    await check_burst(location, edge, event_type)


@pytest.mark.parametrize("location", rows(KINDS[:1]), indirect=True)
@pytest.mark.parametrize("event_type", OWN)
async def test_reading_client_gets_every_event_of_a_burst_of_the_applications_type(
    location: StoreLocation, edge: str, event_type: EventType
) -> None:
    """With one store, because stores do not know the types."""
    await check_burst(location, edge, event_type)


@pytest.mark.short_form(6)
@pytest.mark.parametrize(
    "retention",
    [Retention(events=0), Retention(size_bytes=0), Retention(size_bytes=1), Retention(seconds=0), Retention(threads=0)],
    ids=["no event", "no byte", "one byte", "no time", "no thread"],
)
async def test_reading_client_gets_every_event_of_a_burst_whatever_the_log_retains(
    location: StoreLocation, edge: str, retention: Retention
) -> None:
    await check_burst(location, edge, EventType.TOOL_EXECUTING, retention)


async def check_burst(
    location: StoreLocation, edge: str, event_type: EventType, retention: Retention = DEFAULT_RETENTION
) -> None:
    async with served(location, edge, retention) as (application, url):
        agent, receipts = new_agent(application), list[Receipt]()

        async def emit_all() -> None:
            for number in range(BURST):
                payload = {"message_id": "m", "delta": f"{number} "}
                receipts.append(await agent.emit(event_type, payload))

        async with connect(url, user_id=ALICE, thread_id=THREAD) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(emit_all)
            read = [await client.receive()]
            while read[-1].seq < BURST:
                read.append(await client.receive())
        assert application.counters.lost == {}
    assert client.gaps == []
    assert "".join(str(event.payload["delta"]) for event in read) == "".join(f"{number} " for number in range(BURST))
    assert POLICIES[event_type] is Policy.CONCATENATE or len(read) == BURST
    assert {event.type for event in read} == {event_type}
    assert all(receipt.kept is (retention.events > 0) for receipt in receipts)


async def test_reading_client_gets_every_event_of_many_agents_that_emit_at_once(
    location: StoreLocation, edge: str
) -> None:
    async with served(location, edge) as (application, url):

        async def emit_once(number: int) -> None:
            await new_agent(application).emit_tool_executing("look_up", {"number": number}, tool_call_id="1")

        async with connect(url, user_id=ALICE, thread_id=THREAD) as client, anyio.create_task_group() as tasks:
            for number in range(AT_ONCE):
                tasks.start_soon(emit_once, number)
            read = [await client.receive() for _ in range(AT_ONCE)]
        assert application.counters.lost == {}
    assert client.gaps == []
    assert [event.seq for event in read] == list(range(1, AT_ONCE + 1))
