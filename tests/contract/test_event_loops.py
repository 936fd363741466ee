"""Events emitted outside the application's event loop are refused at once, with the right way, on every store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app, publisher, start_application
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import WrongEventLoop
from bridgekit.events import EventType
from bridgekit.ids import RunId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.stores import memory_stores, sqlite_stores, stores_from
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.contract.conftest import rows
from tests.contract.stores import KINDS, WAIT_SECONDS, StoreLocation
from tests.factories import ALICE, RUN, THREAD, emitted

AT_ONCE_SECONDS = WAIT_SECONDS / 2


class Emitting(BaseAgent):
    """Lets the test's function emit in a way of its choice, and returns what it returns."""

    emit_from: Callable[[BaseAgent, RunContext], Any]

    async def execute(self, context: RunContext) -> object:
        with anyio.fail_after(AT_ONCE_SECONDS):
            return await type(self).emit_from(self, context)


def _bridge(agent: BaseAgent) -> AgentWebSocketBridge:
    bridge = agent._websocket_adapter.bridge
    assert bridge is not None
    return bridge


def own_loop(agent: BaseAgent, context: RunContext) -> Any:
    return asyncio.run(_emit(agent))


def own_trio_loop(agent: BaseAgent, context: RunContext) -> Any:
    return anyio.run(_emit, agent, backend="trio")


def without_a_loop(agent: BaseAgent, context: RunContext) -> Any:
    return _bridge(agent).notify(emitted(run_id=context.run_id))


def by_the_bridge(agent: BaseAgent, context: RunContext) -> Any:
    return asyncio.run(_bridge(agent).notify_agent_thinking(context.run_id, "a", "hm"))


def another_type(agent: BaseAgent, context: RunContext) -> Any:
    return asyncio.run(agent.emit_text("token", message_id="m"))


def while_crowded(agent: BaseAgent, context: RunContext) -> Any:
    return _bridge(agent).notify_when_room(emitted(run_id=context.run_id))


async def _emit(agent: BaseAgent) -> Any:
    return await agent.emit_thinking("hm")


ELSEWHERE = (own_loop, own_trio_loop, without_a_loop, by_the_bridge, another_type, while_crowded)


async def in_a_worker_thread(emit: Callable[..., Any], agent: BaseAgent, context: RunContext) -> Any:
    return await anyio.to_thread.run_sync(emit, agent, context)


async def in_a_plain_thread(emit: Callable[..., Any], agent: BaseAgent, context: RunContext) -> Any:
    """A thread that no async library knows."""
    answers: list[Any] = []

    def work() -> None:
        try:
            answers.append(emit(agent, context))
        except Exception as error:  # noqa: BLE001  # raised again in the run
            answers.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    await anyio.to_thread.run_sync(thread.join)
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


@asynccontextmanager
async def started(location: StoreLocation) -> AsyncIterator[Application]:
    config = BridgeConfig(
        agents={"emitting": Emitting},
        stores=stores_from(location.url),
        db_session_factory=DeclaredOwners(),
        authorizer=OwnerAuthorizer,
    )
    app = create_app(config)
    async with app.router.lifespan_context(app):
        yield app.state.bridgekit


async def run(application: Application) -> Any:
    done = await application.supervisor.run(agent_name="emitting", thread_id=THREAD, user_id=ALICE, request="")
    return done.result


@pytest.mark.parametrize("thread", [in_a_worker_thread, in_a_plain_thread])
@pytest.mark.parametrize("emit", ELSEWHERE)
async def test_event_from_elsewhere_is_refused_at_once_and_ends_the_run(
    location: StoreLocation, emit: Callable[..., Any], thread: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Emitting, "emit_from", partial(thread, emit), raising=False)
    async with started(location) as application:
        with pytest.raises(WrongEventLoop, match=r"use anyio\.from_thread\.run"):
            await run(application)
        kinds = [frame.type for frame in await application.bridge.hub.retained(THREAD)]
        assert kinds == [EventType.AGENT_STARTED, EventType.AGENT_ERROR]
        assert application.counters.lost[8, "WrongEventLoop"] == 1


async def test_event_that_is_passed_to_the_event_loop_arrives(
    location: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def emit(agent: BaseAgent, context: RunContext) -> object:
        return anyio.from_thread.run(agent.emit_thinking, "hm").kept

    monkeypatch.setattr(Emitting, "emit_from", partial(in_a_worker_thread, emit), raising=False)
    async with started(location) as application:
        assert await run(application) is True
        kinds = [frame.type for frame in await application.bridge.hub.retained(THREAD)]
        assert kinds == [EventType.AGENT_STARTED, EventType.AGENT_THINKING, EventType.AGENT_COMPLETED]


async def test_run_started_in_another_thread_is_refused_at_once(location: StoreLocation) -> None:
    async with started(location) as application:
        with anyio.fail_after(AT_ONCE_SECONDS), pytest.raises(WrongEventLoop, match="a run"):
            await anyio.to_thread.run_sync(lambda: asyncio.run(run(application)))
        assert await application.bridge.hub.retained(THREAD) == ()


def configured() -> BridgeConfig:
    return BridgeConfig(agents={}, db_session_factory=DeclaredOwners(), authorizer=OwnerAuthorizer)


MAPPING_CALLS: dict[str, Callable[[RunThreadMappingService], Any]] = {
    "register a known run": lambda mapping: mapping.register_mapping(RUN, THREAD),
    "register": lambda mapping: mapping.register_mapping(RunId("run_new"), THREAD),
    "clean up": lambda mapping: mapping.cleanup_mapping(RUN),
}


@pytest.mark.parametrize("call", MAPPING_CALLS)
async def test_mapping_in_another_thread_is_refused_at_once(surviving: StoreLocation, call: str) -> None:
    async with surviving.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)
        await mapping.register_mapping(RUN, THREAD)
        with anyio.fail_after(AT_ONCE_SECONDS), pytest.raises(WrongEventLoop, match=r"a method of the .* store"):
            await in_another_thread(lambda: MAPPING_CALLS[call](mapping))
        assert dict(mapping.known) == {RUN: THREAD}


async def in_another_thread(call: Callable[[], Any]) -> Any:
    """Await the result on an event loop of another thread, which is cancelled if the call hangs."""

    async def limited() -> Any:
        with anyio.fail_after(AT_ONCE_SECONDS / 2):
            return await call()

    return await anyio.to_thread.run_sync(lambda: asyncio.run(limited()))


async def test_application_without_a_server_refuses_events_from_elsewhere(surviving: StoreLocation) -> None:
    async with surviving.opened() as stores:
        application = await start_application(configured(), stores)
        await application.bridge.mapping.register_mapping(RUN, THREAD)
        with anyio.fail_after(AT_ONCE_SECONDS), pytest.raises(WrongEventLoop, match="agent_thinking of run"):
            await in_another_thread(lambda: application.bridge.notify_agent_thinking(RUN, "a", "hm"))
        assert (await application.bridge.notify_agent_thinking(RUN, "a", "hm")).kept


@pytest.mark.parametrize("location", rows(kind for kind in KINDS if kind.workers > 1), indirect=True)
@pytest.mark.parametrize("thread_id", [THREAD, None])
async def test_publisher_refuses_events_from_elsewhere(location: StoreLocation, thread_id: Any) -> None:
    async with publisher(stores_from(location.url)) as bridge:
        await bridge.mapping.register_mapping(RUN, THREAD)
        with anyio.fail_after(AT_ONCE_SECONDS), pytest.raises(WrongEventLoop, match="agent_thinking of run"):
            await in_another_thread(lambda: bridge.notify_agent_thinking(RUN, "a", "hm", thread_id=thread_id))
        assert (await bridge.notify_agent_thinking(RUN, "a", "hm", thread_id=thread_id)).kept


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_event_from_another_loop_of_the_same_thread_is_refused(store: str, tmp_path: Path) -> None:
    """For example, from a test function whose fixtures run on a loop of their own."""
    stores = memory_stores() if store == "memory" else sqlite_stores(tmp_path / "store.db")
    app = create_app(BridgeConfig(agents={}, stores=stores, db_session_factory=DeclaredOwners()))
    serving, stopped = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            serving.set()
            await stopped.wait()

    async def start() -> asyncio.Task[None]:
        task = asyncio.create_task(serve())
        await serving.wait()
        return task

    async def stop(task: asyncio.Task[None]) -> None:
        stopped.set()
        await task

    with asyncio.Runner() as runner:
        task = runner.run(start())
        with pytest.raises(WrongEventLoop):
            asyncio.run(app.state.agent_websocket_bridge.notify_agent_thinking("run", "agent", "hm", thread_id=THREAD))
        runner.run(stop(task))
