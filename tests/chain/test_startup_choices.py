"""Link 1: what the configuration chooses reaches the started application, and what it must not choose is refused."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette

from bridgekit.chain.link_1_startup import create_app, lifespan, publisher, shut_down, start_application
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.models_tools_and_owners import PythonTools, ScriptedModel
from bridgekit.errors import (
    DeterministicStartupError,
    InvalidId,
    ServeError,
    ShuttingDown,
    StoreUnavailable,
    UnknownName,
    WrongEventLoop,
)
from bridgekit.events import AgentEvent, EventType, Receipt
from bridgekit.ids import RunId
from bridgekit.stores import MEMORY, Stores, in_memory, memory_stores
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.graceful_shutdown import start_deadline
from bridgekit.transport.log import MemoryEventLog
from bridgekit.transport.tickets import Tickets
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.chain.agents import AGENTS, config, context, started, subscribe
from tests.factories import ALICE, THREAD, emitted

RUN = RunId("run_1")


def hook(value: object) -> object:
    return f"converted {value}"


@asynccontextmanager
async def shared_by_workers() -> AsyncIterator[Stores]:
    yield replace(in_memory(), shared=True)


async def test_ticket_is_issued_if_the_authorizer_uses_tickets() -> None:
    application = await started()
    ticket = application.ticket(THREAD, ALICE)
    assert isinstance(ticket, str)
    assert ticket != application.ticket(THREAD, ALICE)


async def test_ticket_is_refused_if_the_authorizer_uses_none() -> None:
    application = await started(authorizer=OwnerAuthorizer)
    with pytest.raises(UnknownName) as refused:
        application.ticket(THREAD, ALICE)
    assert (refused.value.kind, refused.value.name, refused.value.known) == (
        "authorizer by ticket",
        "OwnerAuthorizer",
        ("Tickets",),
    )


async def test_payload_hook_converts_the_values_of_events() -> None:
    application = await started(payload_hook=hook)
    connection = subscribe(application)
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    assert await application.bridge.notify_progress_update(RUN, "researcher", {"value": 1j})
    assert [frame.event.payload for frame in connection.frames] == [{"value": "converted 1j"}]


async def test_publisher_needs_stores_that_workers_share() -> None:
    with pytest.raises(
        ServeError, match=r"the memory store.*it belongs to one process; a publisher needs redis_stores$"
    ):
        async with publisher(MEMORY):
            raise AssertionError("opened")


async def test_publisher_finds_the_thread_of_a_run_and_converts_values() -> None:
    async with publisher(shared_by_workers, payload_hook=hook) as bridge:
        await bridge.mapping.register_mapping(RUN, THREAD)
        receipt = await bridge.notify_progress_update(RUN, "researcher", {"value": 1j})
        [frame] = await bridge.hub.retained(THREAD)
    assert (receipt.thread_id, receipt.kept) == (THREAD, True)
    assert frame.event.payload == {"value": "converted 1j"}


async def test_publisher_refuses_an_event_of_another_thread_of_the_process() -> None:
    async with publisher(shared_by_workers) as bridge:
        with pytest.raises(WrongEventLoop):
            await anyio.to_thread.run_sync(bridge.notify, emitted())
        assert (await bridge.notify(emitted())).kept


class UnconfirmedLog(MemoryEventLog):
    """A log whose store confirms no event, as if its server had stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.unconfirmed = 3


async def test_publisher_names_the_store_and_the_number_of_events_that_it_did_not_confirm() -> None:
    @asynccontextmanager
    async def stopped() -> AsyncIterator[Stores]:
        yield replace(in_memory(), name="stopped", log=UnconfirmedLog(), shared=True)

    with pytest.raises(StoreUnavailable, match=r"the stopped store .*: it did not confirm 3 events of the publisher"):
        async with publisher(stopped):
            pass


async def test_error_of_a_start_function_is_an_error_of_link_1() -> None:
    async def start(*_: object) -> Any:
        raise ConnectionError("not today")

    app = Starlette(lifespan=lifespan(config(), start=start))
    with pytest.raises(DeterministicStartupError) as refused:
        async with app.router.lifespan_context(app):
            raise AssertionError("started")
    assert str(refused.value) == "link 1: the application could not be created: ConnectionError: not today"


async def test_durable_store_needs_owners_that_are_stored() -> None:
    with pytest.raises(DeterministicStartupError) as refused:
        await start_application(config(), replace(in_memory(), name="durable"))
    assert refused.value.link == 2
    assert refused.value.reason.startswith("the durable store retains logs after this process has forgotten the owners")
    assert refused.value.reason.endswith("opens sessions of your own database, not a MemoryThreadStore")


@pytest.mark.parametrize("durable", [False, True])
async def test_event_of_another_thread_of_the_process_is_refused_at_once_only_by_a_durable_store(durable: bool) -> None:
    stores = replace(in_memory(), name="durable" if durable else "memory")
    bridge = (await start_application(config(db_session_factory=DeclaredOwners()), stores)).bridge
    with pytest.raises(WrongEventLoop) if durable else nullcontext():
        await anyio.to_thread.run_sync(bridge.notify, emitted())
    assert (await bridge.notify(emitted())).seq == (1 if durable else 2)


class Asynchronous:
    async def __call__(self, *values: object) -> object:
        return values[0]

    async def method(self, *values: object) -> object:
        return values[0]

    def __repr__(self) -> str:
        return "mine"


@pytest.mark.parametrize("callback", [Asynchronous(), Asynchronous().method, partial(Asynchronous().method)])
@pytest.mark.parametrize("choice", ["observers", "payload_hook", "error_text"])
async def test_asynchronous_callback_is_refused_at_startup(choice: str, callback: Any) -> None:
    with pytest.raises(DeterministicStartupError) as refused:
        await started(**{choice: (print, callback) if choice == "observers" else callback})
    assert refused.value.link == 9
    assert refused.value.reason == (
        f"{callback!r} is asynchronous, and the bridge does not await it; declare it as `def`, and let an observer pass"
        " its events to a task of your own"
    )


async def test_event_of_another_thread_of_the_process_is_refused_once_the_application_serves() -> None:
    app = create_app(config())
    event = AgentEvent(type=EventType.PROGRESS_UPDATE, run_id=RUN, agent_name="a", payload={}, thread_id=THREAD)
    async with app.router.lifespan_context(app):
        bridge = app.state.agent_websocket_bridge
        assert isinstance(bridge.notify(event), Receipt)
        with pytest.raises(WrongEventLoop):
            await anyio.to_thread.run_sync(bridge.notify, event)


async def test_graceful_shutdown_refuses_runs_and_drains_the_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    drained: list[float] = []

    async def drain(*, seconds: float) -> None:
        drained.append(seconds)

    app = create_app(config(drain_seconds=7.0))
    async with app.router.lifespan_context(app):
        application, edge = app.state.bridgekit, app.state.bridgekit_connections
        monkeypatch.setattr(edge, "drain", drain)
        await shut_down(application, edge)
        assert drained == [7.0]
        with pytest.raises(ShuttingDown):
            await application.supervisor.run(agent_name="researcher", thread_id=THREAD, user_id=ALICE, request="why?")


async def test_time_limit_of_the_shutdown_is_that_of_the_runs_plus_that_of_the_clients() -> None:
    limits, ended = list[float](), anyio.Event()
    of_the_server = signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    token = start_deadline.set(lambda seconds, number: limits.append(seconds))
    try:
        app = create_app(config(runs_seconds=50.0, drain_seconds=7.0))
        with anyio.fail_after(60):
            async with app.router.lifespan_context(app):
                signal.raise_signal(signal.SIGTERM)
                await ended.wait()
    finally:
        start_deadline.reset(token)
        signal.signal(signal.SIGTERM, of_the_server)
    assert limits == [57.0]


async def test_engine_holds_the_registry_that_it_was_given() -> None:
    supervisor = (await started()).supervisor
    assert supervisor.engine.registry is supervisor.registry


def test_agent_is_bound_only_by_a_registry_that_has_a_bridge() -> None:
    registry = AgentRegistry(ScriptedModel(), PythonTools({}), AGENTS)
    with pytest.raises(UnknownName) as refused:
        registry.create_bound(context())
    assert str(refused.value) == "no bridge is called 'websocket_bridge'; known: none"


def test_text_of_a_config_shows_no_secret() -> None:
    key = b"a ticket key that nobody may read"
    shown = repr(config(authorizer=partial(Tickets, keys=(key,)), db_session_factory=partial(print, "secret")))
    assert shown == "BridgeConfig(agents=['researcher', 'failing', 'answering', 'waiting'])"


async def later(value: object) -> object:
    return value


async def test_publisher_refuses_an_asynchronous_hook() -> None:
    with pytest.raises(DeterministicStartupError, match=r"link 9: .* is asynchronous, .*; declare it as `def`"):
        async with publisher(memory_stores(), payload_hook=later):
            raise AssertionError("was opened")


@pytest.mark.parametrize("name", ["runs_seconds", "drain_seconds"])
@pytest.mark.parametrize("value", [None, "10", math.nan, -1, 10**400], ids=["none", "text", "nan", "negative", "huge"])
def test_time_limit_that_is_no_duration_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidId, match=rf"^BridgeConfig.{name}: must be .*, not {re.escape(repr(value))}$"):
        config(**{name: value})
