"""Links 3 to 6: each run gets a new agent, and the agent gets the bridge."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.chain import link_5_execution_core
from bridgekit.chain.context import RunContext
from bridgekit.chain.error_text import ERROR_BYTES
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.models_tools_and_owners import ScriptedModel
from bridgekit.errors import InvalidId, PayloadError, UnknownName
from bridgekit.events import AgentEvent, Answer, EventType, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryRunRegistry
from bridgekit.transport.hub import Hub
from tests.chain.agents import (
    AGENTS,
    TOOLS,
    Broken,
    Researcher,
    context,
    event_types,
    payloads,
    retained_types,
    started,
    subscribe,
    subscribe_crowded,
)
from tests.factories import ALICE, THREAD


def registry_of(application: Application) -> AgentRegistry:
    registry = AgentRegistry(ScriptedModel(), TOOLS, AGENTS)
    registry.set_websocket_bridge(application.bridge)
    return registry


async def test_registry_creates_a_new_agent_and_adapter_when_called_again() -> None:
    registry = registry_of(await started())
    first, second = registry.create("researcher"), registry.create("researcher")
    assert type(first) is type(second) is Researcher
    assert first is not second
    assert first._websocket_adapter is not second._websocket_adapter
    assert not first.has_websocket_bridge()


async def test_registry_refuses_an_agent_in_place_of_its_class() -> None:
    mistake = "agents: 'a' must be a class, not an object: each run gets an agent of its own"
    with pytest.raises(InvalidId, match=re.escape(mistake)):
        AgentRegistry(ScriptedModel(), TOOLS, {"a": object()})  # type: ignore[dict-item]


async def test_registry_names_the_known_agents_when_the_agent_is_unknown() -> None:
    with pytest.raises(UnknownName, match="no agent is called 'oracle'; known: 'researcher', ") as refused:
        registry_of(await started()).create("oracle")
    assert refused.value.known == tuple(AGENTS)


async def test_created_agent_emits_for_its_run_when_the_registry_binds_it() -> None:
    application = await started()
    connection = subscribe(application, context().thread_id)
    agent = registry_of(application).create_bound(context())
    assert await agent.emit_thinking("hm")
    assert connection.frames[0].event.run_id == context().run_id


def test_create_bound_raises_when_the_registry_has_no_bridge() -> None:
    with pytest.raises(UnknownName, match="bridge"):
        AgentRegistry(ScriptedModel(), TOOLS, AGENTS).create_bound(context())


async def test_engine_passes_its_bridge_and_registry_to_the_core() -> None:
    application = await started()
    registry = registry_of(application)
    engine = ExecutionEngine(registry, application.bridge)
    assert engine.agent_core.websocket_bridge is application.bridge
    assert engine.agent_core.registry is registry
    assert await engine.execute(context()) == {"answer": "question 1!"}


async def test_core_emits_the_first_and_the_last_event_when_an_agent_completes() -> None:
    application = await started()
    connection = subscribe(application, context().thread_id)
    core = AgentExecutionCore(registry_of(application), application.bridge)
    assert await core.execute_agent(context()) == {"answer": "question 1!"}
    types = event_types(connection)
    assert (types[0], types[-1], len(types)) == ("agent_started", "agent_completed", 5)


async def test_core_emits_an_error_when_json_cannot_represent_the_result() -> None:
    """Otherwise the user would never get an end event."""
    application = await started()
    connection = subscribe(application, context().thread_id)
    core = AgentExecutionCore(registry_of(application), application.bridge)
    with pytest.raises(PayloadError, match="agent_completed"):
        await core.execute_agent(context(agent_name="answering"))
    assert event_types(connection) == ["agent_started", "agent_error"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("lone \ud800", "Shown: lone ?"),
        ("x" * 2_000_000, ("Shown: " + "x" * 2_000_000)[:ERROR_BYTES]),
        ("é" * 10_000, "Shown: " + "é" * ((ERROR_BYTES - 7) // 2)),
    ],
    ids=["lone surrogate", "2 MB", "cut between characters"],
)
async def test_error_text_is_truncated_when_no_frame_can_carry_it(message: str, expected: str) -> None:
    class Shown(Broken):
        for_users = True

    class Raising(BaseAgent):
        async def execute(self, context: object) -> object:
            raise Shown(message)

    application = await started(agents={"researcher": Raising})
    connection = subscribe(application, context().thread_id)
    with pytest.raises(Broken) as raised:
        await application.supervisor.engine.execute(context())
    assert raised.value.args == (message,)
    assert payloads(connection, EventType.AGENT_ERROR)[0]["error_message"] == expected


async def test_core_shares_no_state_when_two_runs_are_concurrent() -> None:
    """Each of two concurrent runs waits for the other between its first thought and its second."""
    both = {number: anyio.Event() for number in (1, 2)}

    class Meeting(BaseAgent):
        async def execute(self, context: object) -> object:
            number = int(getattr(context, "request", "")[-1])
            await self.emit_thinking(f"first of {number}")
            both[number].set()
            await both[3 - number].wait()
            await self.emit_thinking(f"second of {number}")
            return None

    application = await started(agents={"researcher": Meeting})
    connections = {number: subscribe(application, context(number).thread_id) for number in (1, 2)}
    with anyio.fail_after(60):
        async with anyio.create_task_group() as runs:
            for number in (1, 2):
                runs.start_soon(application.supervisor.engine.execute, context(number))
    for number, connection in connections.items():
        assert [each["reasoning"] for each in payloads(connection, EventType.AGENT_THINKING)] == [
            f"first of {number}",
            f"second of {number}",
        ]


async def test_agent_passes_bridge_run_name_and_thread_to_its_adapter() -> None:
    application = await started()
    adapter = WebSocketBridgeAdapter()
    agent = Researcher("researcher", ScriptedModel(), TOOLS, adapter)
    assert not agent.has_websocket_bridge()
    agent.set_websocket_bridge(application.bridge, context().run_id, thread_id=context().thread_id)
    assert agent.has_websocket_bridge()
    assert (adapter.bridge, adapter.run_id, adapter.agent_name, adapter.thread_id) == (
        application.bridge, "run_1", "researcher", "thread_1"
    )  # fmt: skip


def test_agent_cannot_be_created_when_it_does_not_implement_execute() -> None:
    class Idle(BaseAgent):
        pass

    with pytest.raises(TypeError, match="execute"):
        Idle("idle", ScriptedModel(), TOOLS, WebSocketBridgeAdapter())  # type: ignore[abstract]  # the point


async def test_execution_time_of_a_run_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([10.0, 10.25])
    monkeypatch.setattr(link_5_execution_core, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    application = await started()
    connection = subscribe(application, context().thread_id)
    await AgentExecutionCore(registry_of(application), application.bridge).execute_agent(context())
    assert payloads(connection, EventType.AGENT_COMPLETED)[0]["execution_time_ms"] == 250.0


class SuspendingBridge(AgentWebSocketBridge):
    """Waits before it publishes an `agent_error`, as with a store that takes time to answer."""

    waits_for_ever = False

    def notify(self, event: AgentEvent) -> Answer:
        return self._notify_later(event) if event.type is EventType.AGENT_ERROR else super().notify(event)

    async def _notify_later(self, event: AgentEvent) -> Receipt:
        await (anyio.sleep_forever() if self.waits_for_ever else checkpoint())
        return await super().notify(event)


class BridgeThatNeverAnswers(SuspendingBridge):
    waits_for_ever = True


async def cancelled_run(bridge: type[SuspendingBridge]) -> list[str]:
    """Cancel a run while its agent works, and return the types of the events that its user gets."""
    with anyio.fail_after(60), anyio.CancelScope() as scope:

        class Cancelled(BaseAgent):
            async def execute(self, context: object) -> object:
                scope.cancel()
                await checkpoint()
                return None

        application = await started(agents={"researcher": Cancelled}, bridge=bridge)
        connection = subscribe(application, context().thread_id)
        await application.supervisor.engine.execute(context())
    assert scope.cancelled_caught
    return event_types(connection)


async def test_cancelled_run_gets_its_end_event_when_publishing_has_to_wait() -> None:
    assert await cancelled_run(SuspendingBridge) == ["agent_started", "agent_error"]


async def test_cancelled_run_ends_when_publishing_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_5_execution_core, "END_TIMEOUT_SECONDS", 0.01)
    assert await cancelled_run(BridgeThatNeverAnswers) == ["agent_started"]


async def test_first_and_last_event_name_the_request() -> None:
    """A client that connects during a run matches its events to its request by them."""
    application = await started()
    core = AgentExecutionCore(registry_of(application), application.bridge)
    connection = subscribe(application, context().thread_id)
    await core.execute_agent(context())
    with pytest.raises(Broken):
        await core.execute_agent(context(agent_name="failing"))
    contexts = [each["context"] for each in payloads(connection, EventType.AGENT_STARTED)]
    assert contexts == [{"request": "question 1"}] * 2
    [failed] = payloads(connection, EventType.AGENT_ERROR)
    assert failed["error_context"] == {"request": "question 1"}


class Quick(BaseAgent):
    """Returns at once."""

    async def execute(self, context: object) -> object:
        return "done"


async def test_run_waits_for_room_before_its_first_and_its_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_5_execution_core, "ROOM_TIMEOUT_SECONDS", 60.0)
    application = await started(agents={"quick": Quick})
    box = subscribe_crowded(application)
    published = list[list[str]]()

    async def run() -> None:
        await application.supervisor.run(agent_name="quick", thread_id=THREAD, user_id=ALICE, request="")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            for _ in range(3):
                await anyio.wait_all_tasks_blocked()
                published.append(await retained_types(application))
                box.next_frames()
    thought, start, end = "agent_thinking", "agent_started", "agent_completed"
    assert published == [[thought], [thought, start], [thought, start, end]]


async def test_run_without_a_subscriber_gets_one_end_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its receipt names link 10, as that of an event which the store refused does."""
    monkeypatch.setattr(link_5_execution_core, "RETRY_SECONDS", 0.001)
    application = await started(agents={"researcher": Quick})
    await application.supervisor.engine.execute(context())
    assert await retained_types(application, context().thread_id) == ["agent_started", "agent_completed"]


class TakenOver(MemoryRunRegistry):
    """Another worker has ended the runs of this one."""

    async def holds(self, run_id: RunId) -> bool:
        return False


@pytest.mark.parametrize("agent_name", ["researcher", "failing"])
async def test_run_that_another_worker_ended_gets_no_second_end_event(
    agent_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    application = await started()
    connection = subscribe(application, context().thread_id)
    application.bridge.runs = TakenOver()
    with caplog.at_level(logging.WARNING, link_5_execution_core.__name__), suppress(Broken):
        await application.supervisor.engine.execute(context(agent_name=agent_name))
    assert not {"agent_completed", "agent_error"} & {*event_types(connection)}
    failed = ["run run_1 of agent failing failed"] if agent_name == "failing" else []
    assert caplog.messages == ["run run_1 was ended by another worker", *failed]


@pytest.mark.parametrize(
    ("error", "level", "message"),
    [
        (Broken("why"), logging.ERROR, "run run_1 of agent researcher failed"),
        (asyncio.CancelledError(), logging.INFO, "run run_1 of agent researcher was cancelled"),
        (
            BaseExceptionGroup("group", [asyncio.CancelledError(), Broken("why")]),
            logging.ERROR,
            "run run_1 of agent researcher failed",
        ),
        (
            BaseExceptionGroup("group", [asyncio.CancelledError(), asyncio.CancelledError()]),
            logging.INFO,
            "run run_1 of agent researcher was cancelled",
        ),
    ],
    ids=["error", "cancellation", "error beside a cancellation", "cancellations"],
)
async def test_error_of_an_agent_is_raised_unchanged_and_logged_once(
    error: BaseException, level: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Raising(BaseAgent):
        async def execute(self, context: object) -> object:
            raise error

    application = await started(agents={"researcher": Raising})
    with caplog.at_level(logging.INFO, link_5_execution_core.__name__), pytest.raises(type(error)) as raised:
        await application.supervisor.engine.execute(context())
    assert raised.value is error
    assert error.__cause__ is None
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (level, message)
    assert (record.exc_info is not None and record.exc_info[1] is error) == (level == logging.ERROR)


class BridgeThatKeepsAnswers(SuspendingBridge):
    """Keeps the answer to the `agent_error` of a run, which cannot be awaited if the run's coroutine is closed."""

    answers: list[Any]

    def notify(self, event: AgentEvent) -> Answer:
        answer = super().notify(event)
        if event.type is EventType.AGENT_ERROR:
            self.answers.append(answer)
        return answer


class Suspended(BaseAgent):
    """Stays at its first `await`."""

    async def execute(self, context: object) -> object:
        class Forever:
            def __await__(self) -> Any:
                yield

        await Forever()
        return None


async def test_closed_run_leaves_no_coroutine_open_if_its_error_cannot_be_published_without_waiting() -> None:
    application = await started(agents={"researcher": Suspended}, bridge=BridgeThatKeepsAnswers)
    assert isinstance(application.bridge, BridgeThatKeepsAnswers)
    answers = application.bridge.answers = []
    running: Any = application.supervisor.engine.execute(context())
    running.send(None)
    running.close()
    assert [inspect.getcoroutinestate(answer) for answer in answers] == [inspect.CORO_CLOSED]


class HubThatFailsAfterPublishing(Hub):
    """Loses its network after it has published the end of a run."""

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
        receipt = super().publish(event, thread_id)
        if event.type is EventType.AGENT_COMPLETED:
            raise OSError("no network")
        return receipt


async def test_end_event_that_may_have_been_published_is_not_sent_again() -> None:
    application = await started(agents={"researcher": Quick}, hub=HubThatFailsAfterPublishing)
    connection = subscribe(application, context().thread_id)
    with pytest.raises(OSError, match="no network"):
        await application.supervisor.engine.execute(context())
    assert event_types(connection) == ["agent_started", "agent_completed"]


async def test_error_says_how_to_declare_an_agent_whose_execute_is_no_coroutine_function() -> None:
    class Plain(BaseAgent):
        def execute(self, context: object) -> Any:
            return 5

    application = await started(agents={"researcher": Plain})
    with pytest.raises(TypeError, match="`execute` of agent 'researcher' returned int; declare it as `async def`"):
        await application.supervisor.engine.execute(context())


async def streaming(self: BaseAgent, context: RunContext) -> AsyncIterator[str]:
    yield "a token"


def stepping(self: BaseAgent, context: RunContext) -> Iterator[str]:
    yield "a step"


def plain(self: BaseAgent, context: RunContext) -> str:
    return "a result"


@pytest.mark.parametrize(
    ("execute", "advice"),
    [
        (streaming, r"it contains `yield`; use `emit_text` .* return the result$"),
        (stepping, r"it contains `yield`; use `emit_text` .* return the result$"),
        (plain, r"declare it as `async def`, and return its result$"),
    ],
)
async def test_execute_that_returns_nothing_to_await_is_refused_with_what_to_do(execute: Any, advice: str) -> None:
    application = await started(agents={"agent": type("Agent", (BaseAgent,), {"execute": execute})})
    with pytest.raises(TypeError, match=f"^`execute` of agent 'agent' returned .*; {advice}"):
        await application.supervisor.run(agent_name="agent", thread_id=THREAD, user_id=ALICE, request="")
