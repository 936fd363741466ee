"""Link 1: the parts of a running application get what the configuration and the stores contain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from bridgekit.chain import link_1_startup
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import create_app, shut_down, start_application
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.lost_runs import WORKER_LOST
from bridgekit.chain.models_tools_and_owners import PythonTools, ScriptedModel, ThreadSession
from bridgekit.counters import NO_BRIDGE
from bridgekit.errors import DeterministicStartupError, InvalidId, ShuttingDown, StoreUnavailable, SubscriptionRefused
from bridgekit.events import AgentEvent, EventType
from bridgekit.ids import ThreadId
from bridgekit.mapping import ActiveRun, MemoryRunRegistry
from bridgekit.stores import Stores, in_memory
from bridgekit.transport.authorization import Handshake, OwnerAuthorizer, ThreadOwners
from bridgekit.transport.connections import ConnectionRegistry
from bridgekit.transport.metrics import FOLDER_VARIABLE
from bridgekit.transport.outbox import OutboxLimits
from bridgekit.transport.used_tickets import UsedTickets
from tests.chain.agents import config, started, subscribe
from tests.factories import ALICE, RUN, THREAD


def page_of(origin: str) -> Handshake:
    return Handshake(query={}, origin=origin, host="example.org", secure=True)


async def test_socket_of_a_page_is_accepted_only_from_a_configured_origin() -> None:
    app = create_app(config(origins=("https://app.example.net",)))
    async with app.router.lifespan_context(app):
        edge: ConnectionRegistry = app.state.bridgekit_connections
        assert edge.check_origin_and_cursor(page_of("https://app.example.net")) is None
        with pytest.raises(SubscriptionRefused):
            edge.check_origin_and_cursor(page_of("https://other.example.net"))


async def test_outboxes_have_the_configured_limits_and_sockets_are_written_while_the_application_runs() -> None:
    limits, before = OutboxLimits(events=17, size_bytes=1_700), ConnectionRegistry.running
    app = create_app(config(outbox=limits))
    async with app.router.lifespan_context(app):
        assert app.state.bridgekit_connections.scheduler.limits == limits
        assert ConnectionRegistry.running == before + 1
    assert ConnectionRegistry.running == before


def workers_in(folder: Path) -> list[str]:
    return [file.name.partition("-")[2] for file in folder.iterdir()]


async def test_counters_are_shared_with_other_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    app = create_app(config())
    async with app.router.lifespan_context(app):
        counters = app.state.bridgekit.counters
    assert workers_in(tmp_path) == [counters.instance]


class RunOfAnotherWorker(MemoryRunRegistry):
    """Returns one run whose worker died."""

    taken = False

    async def take_lost(self) -> list[ActiveRun]:
        if self.taken:
            await anyio.sleep_forever()
        self.taken = True
        return [ActiveRun(RUN, THREAD, "researcher")]


async def test_run_of_a_dead_worker_is_ended_while_the_application_runs() -> None:
    ended, errors = anyio.Event(), list[Any]()

    def observe(event: AgentEvent, receipt: object) -> None:
        if event.type is EventType.AGENT_ERROR:
            errors.append((event.run_id, event.thread_id, event.payload["error_context"]))
            ended.set()

    @asynccontextmanager
    async def stores() -> AsyncIterator[Stores]:
        yield replace(in_memory(), runs=RunOfAnotherWorker())

    app = create_app(config(stores=stores, observers=(observe,)))
    with anyio.fail_after(60):
        async with app.router.lifespan_context(app):
            await ended.wait()
    assert errors == [(RUN, THREAD, {"reason": WORKER_LOST})]


async def test_bridge_and_authorizer_use_the_stores_of_the_application() -> None:
    given = list[tuple[object, object]]()

    def authorizer(owners: ThreadOwners, used: UsedTickets) -> OwnerAuthorizer:
        given.append((owners, used))
        return OwnerAuthorizer(owners, used)

    stores = in_memory()
    application = await start_application(config(authorizer=authorizer), stores)
    assert application.bridge.runs is stores.runs
    assert application.authorizer is application.authorizer
    assert given == [(application, stores.used_tickets)]


async def test_agent_gets_the_configured_model_tools_and_adapter() -> None:
    class Adapter(WebSocketBridgeAdapter):
        """The application's own."""

    class Showing(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            shown.append((self.llm_manager, self.tool_dispatcher, type(self._websocket_adapter)))
            return None

    shown, model, tools = list[tuple[object, object, type]](), ScriptedModel(), PythonTools({})
    application = await started(agents={"showing": Showing}, llm_manager=model, tool_dispatcher=tools, adapter=Adapter)
    await application.supervisor.run(agent_name="showing", thread_id=THREAD, user_id=ALICE, request="why?")
    assert shown == [(model, tools, Adapter)]


async def test_sockets_are_drained_when_the_runs_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    drained, goes_on = list[float](), anyio.Event()

    class Continuing(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            await goes_on.wait()
            return None

    async def drain(*, seconds: float) -> None:
        drained.append(seconds)

    async def run() -> None:
        await application.supervisor.run(agent_name="continuing", thread_id=THREAD, user_id=ALICE, request="why?")

    app = create_app(config(agents={"continuing": Continuing}, runs_seconds=60.0))
    async with app.router.lifespan_context(app):
        application, edge = app.state.bridgekit, app.state.bridgekit_connections
        subscribe(application)
        monkeypatch.setattr(edge, "drain", drain)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(shut_down, application, edge)
                await anyio.wait_all_tasks_blocked()
                assert drained == []
                goes_on.set()
        assert drained == [application.config.drain_seconds]


@pytest.mark.parametrize(("thread_id", "user_id", "field"), [("", ALICE, "thread_id"), (THREAD, "", "user_id")])
async def test_thread_is_not_opened_with_an_id_that_is_not_valid(thread_id: str, user_id: str, field: str) -> None:
    application = await started()
    with pytest.raises(InvalidId, match=f"^{field}: must not be empty"):
        await application.open_thread(thread_id, user_id)
    assert await application.owner_of(ThreadId(thread_id)) is None


async def test_error_of_the_stores_is_shown_without_its_traceback() -> None:
    def unavailable() -> AbstractAsyncContextManager[Stores]:
        raise StoreUnavailable("test", "no answer")

    app = create_app(config(stores=unavailable))
    with pytest.raises(DeterministicStartupError) as refused:
        async with app.router.lifespan_context(app):
            raise AssertionError("started")
    assert (refused.value.link, refused.value.reason) == (1, str(StoreUnavailable("test", "no answer")))
    assert (refused.value.__cause__, refused.value.__suppress_context__) == (None, True)


@pytest.mark.parametrize(
    ("mistaken", "reason"),
    [
        ({"observers": print}, r"observers: must be a sequence of functions, such as \(observer,\), not <built-in"),
        ({"observers": ("log",)}, "'log' is not a function"),
        ({"payload_hook": "hook"}, "callback: 'hook' is not a function"),
        ({"agents": {"a": object()}}, "agents: 'a' must be a class, not an object"),
        ({"origins": "https://a.org"}, "origins: must be a sequence of origins"),
        ({"origins": None}, "TypeError: "),
        ({"outbox": (1, 2)}, "AttributeError: "),
    ],
)
async def test_mistake_in_the_config_is_one_error_at_startup(mistaken: dict[str, Any], reason: str) -> None:
    app = create_app(config(**mistaken))
    with pytest.raises(DeterministicStartupError, match=reason):
        async with app.router.lifespan_context(app):
            raise AssertionError("started")


RUNS_ALREADY = (
    "the application runs already, and a second bridge would take over its sockets; run its lifespan once: not in"
    " another server or test client at the same time, and not in a router that it includes as well"
)


async def test_run_is_refused_after_the_lifespan_has_failed() -> None:
    app = create_app(config())
    with pytest.raises(ExceptionGroup):
        async with app.router.lifespan_context(app):
            raise ZeroDivisionError
    with pytest.raises(ShuttingDown):
        await app.state.bridgekit.supervisor.run(
            agent_name="researcher", thread_id=THREAD, user_id=ALICE, request="why?"
        )


async def test_application_that_runs_is_not_started_again_until_it_has_ended() -> None:
    app = create_app(config())
    for _ in range(2):
        async with app.router.lifespan_context(app):
            bridge = app.state.agent_websocket_bridge
            with pytest.raises(DeterministicStartupError) as refused:
                async with app.router.lifespan_context(app):
                    raise AssertionError("started")
            assert (refused.value.link, refused.value.reason) == (1, RUNS_ALREADY)
            assert app.state.agent_websocket_bridge is bridge


async def test_startup_succeeds_while_the_database_of_the_owners_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent(AbstractAsyncContextManager[ThreadSession]):
        async def __aenter__(self) -> ThreadSession:
            await anyio.sleep_forever()
            raise AssertionError

        async def __aexit__(self, *_: object) -> None:
            """Does nothing."""

    monkeypatch.setattr(link_1_startup, "SESSION_TIMEOUT_SECONDS", 0.01)
    with anyio.fail_after(60):
        await start_application(config(db_session_factory=Silent), replace(in_memory(), name="sqlite"))


async def test_application_counts_events_without_a_bridge_only_while_it_runs() -> None:
    app = create_app(config())
    async with app.router.lifespan_context(app):
        await WebSocketBridgeAdapter().emit_thinking("lost")
        counters = app.state.bridgekit.counters
        assert counters.lost == {(7, NO_BRIDGE): 1}
    await WebSocketBridgeAdapter().emit_thinking("lost after the end")
    assert counters.lost == {(7, NO_BRIDGE): 1}
