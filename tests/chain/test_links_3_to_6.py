"""Links 3 to 6: a fresh agent for each run, and the bridge in its hands."""

from __future__ import annotations

import anyio
import pytest

from bridgekit.chain.collaborators import ScriptedModel
from bridgekit.chain.context import ERROR_BYTES
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_core import AgentExecutionCore
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.errors import PayloadError, UnknownName
from bridgekit.events import EventType
from tests.chain.agents import (
    AGENTS,
    TOOLS,
    Broken,
    Researcher,
    context,
    listener,
    payloads,
    said,
    started,
)


def registry_of(application: Application) -> AgentRegistry:
    made = AgentRegistry(ScriptedModel(), TOOLS, AGENTS)
    made.set_websocket_bridge(application.bridge)
    return made


async def test_registry_makes_a_fresh_agent_and_adapter_each_time() -> None:
    registry = registry_of(await started())
    first, second = registry.create("researcher"), registry.create("researcher")
    assert type(first) is type(second) is Researcher
    assert first is not second
    assert first._websocket_adapter is not second._websocket_adapter
    assert not first.has_websocket_bridge()


async def test_registry_names_what_it_knows_when_it_knows_no_such_agent() -> None:
    with pytest.raises(UnknownName, match="no agent is called 'oracle'; known: 'researcher', ") as refused:
        registry_of(await started()).create("oracle")
    assert refused.value.known == tuple(AGENTS)


async def test_registry_binds_an_agent_to_one_run_for_callers_outside_the_core() -> None:
    application = await started()
    inbox = listener(application, context().thread_id)
    agent = registry_of(application).create_bound(context())
    assert await agent.emit_thinking("hm")
    assert inbox.frames[0].event.run_id == context().run_id


def test_registry_without_a_bridge_binds_nothing() -> None:
    with pytest.raises(UnknownName, match="bridge"):
        AgentRegistry(ScriptedModel(), TOOLS, AGENTS).create_bound(context())


async def test_engine_gives_its_core_the_very_bridge_and_registry() -> None:
    application = await started()
    registry = registry_of(application)
    engine = ExecutionEngine(registry, application.bridge)
    assert engine.agent_core.websocket_bridge is application.bridge
    assert engine.agent_core.registry is registry
    assert await engine.execute(context()) == {"answer": "question 1!"}


async def test_core_tells_the_beginning_before_the_agent_speaks_and_the_end_after_it() -> None:
    application = await started()
    inbox = listener(application, context().thread_id)
    core = AgentExecutionCore(registry_of(application), application.bridge)
    assert await core.execute_agent(context()) == {"answer": "question 1!"}
    assert (said(inbox)[0], said(inbox)[-1], len(inbox.frames)) == ("agent_started", "agent_completed", 5)


async def test_result_that_json_cannot_carry_is_told_as_an_error_and_raised() -> None:
    """Otherwise the user would wait for an end that never comes."""
    application = await started()
    inbox = listener(application, context().thread_id)
    core = AgentExecutionCore(registry_of(application), application.bridge)
    with pytest.raises(PayloadError, match="agent_completed"):
        await core.execute_agent(context(agent_name="answering"))
    assert said(inbox) == ["agent_started", "agent_error"]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("lone \ud800", "Broken: lone ?"),
        ("x" * 2_000_000, ("Broken: " + "x" * 2_000_000)[:ERROR_BYTES]),
        ("é" * 10_000, "Broken: " + "é" * ((ERROR_BYTES - 8) // 2)),
    ],
    ids=["lone surrogate", "2 MB", "cut between characters"],
)
async def test_error_that_no_frame_can_carry_is_told_in_part_and_raised_whole(message: str, told: str) -> None:
    class Raising(BaseAgent):
        async def execute(self, context: object) -> object:
            raise Broken(message)

    application = await started(agents={"researcher": Raising})
    inbox = listener(application, context().thread_id)
    with pytest.raises(Broken) as raised:
        await application.supervisor.engine.execute(context())
    assert raised.value.args == (message,)
    assert payloads(inbox, EventType.AGENT_ERROR)[0]["error_message"] == told


async def test_core_keeps_nothing_of_a_run_that_another_could_meet() -> None:
    """Two runs at once, each waiting for the other between its first word and its second."""
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
    inboxes = {number: listener(application, context(number).thread_id) for number in (1, 2)}
    with anyio.fail_after(60):
        async with anyio.create_task_group() as runs:
            for number in (1, 2):
                runs.start_soon(application.supervisor.engine.execute, context(number))
    for number, inbox in inboxes.items():
        assert [each["reasoning"] for each in payloads(inbox, EventType.AGENT_THINKING)] == [
            f"first of {number}",
            f"second of {number}",
        ]


async def test_agent_tells_its_adapter_bridge_run_name_and_thread() -> None:
    application = await started()
    adapter = WebSocketBridgeAdapter()
    agent = Researcher("researcher", ScriptedModel(), TOOLS, adapter)
    assert not agent.has_websocket_bridge()
    agent.set_websocket_bridge(application.bridge, context().run_id, thread_id=context().thread_id)
    assert agent.has_websocket_bridge()
    assert (adapter.bridge, adapter.run_id, adapter.agent_name, adapter.thread_id) == (
        application.bridge, "run_1", "researcher", "thread_1"
    )  # fmt: skip


def test_agent_without_execute_cannot_be_made() -> None:
    class Idle(BaseAgent):
        pass

    with pytest.raises(TypeError, match="execute"):
        Idle("idle", ScriptedModel(), TOOLS, WebSocketBridgeAdapter())  # type: ignore[abstract]  # the point
