"""Each defect of the audited code fails where the sound link works."""

from __future__ import annotations

import logging

import anyio
import pytest

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.models_tools_and_owners import ScriptedModel
from bridgekit.chain.self_check import ProbeConnection
from bridgekit.errors import RunAlreadyMapped
from bridgekit.events import CRITICAL, EventType, Outcome
from bridgekit.mapping import RunThreadMappingService
from bridgekit.thread_resolvers import MappingLookup, NoRoute
from bridgekit.transport.hub import Hub
from bridgekit_verify import as_committed
from tests.chain.agents import AGENTS, TOOLS, Researcher, context, event_types, payloads, started, subscribe
from tests.factories import ALICE, OTHER, RUN, THREAD, emitted

DEFECT = pytest.mark.parametrize("sound", [True, False], ids=["sound", "as committed"])


@DEFECT
async def test_d3_registry_that_binds_at_startup_leaves_agents_without_a_bridge(
    sound: bool, caplog: pytest.LogCaptureFixture
) -> None:
    application = await started()
    kind = AgentRegistry if sound else as_committed.RegistryThatBindsAtStartup
    registry = kind(ScriptedModel(), TOOLS, AGENTS)
    with caplog.at_level(logging.INFO, "bridgekit_verify"):
        registry.set_websocket_bridge(application.bridge)
    first, second = registry.create_bound(context(1)), registry.create_bound(context(2))
    assert first.has_websocket_bridge() is sound
    assert (first is not second) is sound
    messages = [record.getMessage() for record in caplog.records]
    assert (messages == []) is sound
    if not sound:
        assert "missing 1 required positional argument: 'run_id'" in messages[0]
        assert messages[-1] == f"bridge set for 0/{len(AGENTS)} agents"
        assert [record.levelname for record in caplog.records][-1] == "INFO"


@DEFECT
async def test_d5_shared_agent_emits_for_the_run_that_started_last(sound: bool) -> None:
    barrier = [anyio.Event(), anyio.Event()]

    class BarrierAgent(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            index = int(context.request[-1]) - 1
            barrier[index].set()
            await barrier[1 - index].wait()
            await self.emit_thinking(context.request)
            return None

    core = AgentExecutionCore if sound else as_committed.CoreThatSharesAgents
    application = await started(agents={"researcher": BarrierAgent}, core=core)
    inboxes = [subscribe(application, context(number).thread_id) for number in (1, 2)]
    async with anyio.create_task_group() as runs:
        for number in (1, 2):
            runs.start_soon(application.supervisor.engine.execute, context(number))
    received = [sorted(each["reasoning"] for each in payloads(inbox, EventType.AGENT_THINKING)) for inbox in inboxes]
    both = [["question 1", "question 2"], []]
    assert (received == [["question 1"], ["question 2"]]) is sound
    assert (sorted(received, key=len, reverse=True) == both) is not sound


@DEFECT
async def test_d8_metadata_is_an_argument_that_no_notify_method_accepts(
    sound: bool, caplog: pytest.LogCaptureFixture
) -> None:
    application = await started()
    inbox = subscribe(application)
    adapter = WebSocketBridgeAdapter() if sound else as_committed.AdapterThatPassesMetadata()
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    with caplog.at_level(logging.INFO, "bridgekit_verify"):
        receipts = [
            await adapter.emit_agent_started(),
            await adapter.emit_thinking("hm"),
            await adapter.emit_tool_executing("look_up", tool_call_id="1"),
            await adapter.emit_tool_completed("look_up", tool_call_id="1"),
            await adapter.emit_agent_completed(),
        ]
    assert [bool(receipt) for receipt in receipts] == [sound] * 5
    assert len(inbox.frames) == (5 if sound else 0)
    assert caplog.records == []


@pytest.mark.parametrize("event_type", CRITICAL)
async def test_d8_swallows_the_type_error_of_notify_and_no_other_error(
    event_type: EventType, caplog: pytest.LogCaptureFixture
) -> None:
    """A renamed method would also deliver nothing, but for another reason."""
    application = await started()
    adapter = as_committed.AdapterThatPassesMetadata()
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    with caplog.at_level(logging.DEBUG, "bridgekit_verify"):
        receipt = await adapter.emit(event_type, {})
    assert (receipt.outcome, receipt.link) == (Outcome.REFUSED, 8)
    [record] = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == (
        f"could not emit {event_type}: AgentWebSocketBridge.notify_{event_type}()"
        " got an unexpected keyword argument 'metadata'"
    )


@DEFECT
async def test_d9b_orchestrator_lookup_fails_without_the_method(sound: bool, caplog: pytest.LogCaptureFixture) -> None:
    mapping = RunThreadMappingService()
    await mapping.register_mapping(RUN, THREAD)
    resolver = MappingLookup(mapping) if sound else as_committed.OrchestratorLookup(as_committed.Orchestrator())
    with caplog.at_level(logging.DEBUG, "bridgekit_verify"):
        found = await resolver.resolve(emitted())
    assert found == (THREAD if sound else NoRoute("the orchestrator call failed"))
    assert ("no attribute 'get_thread_id_for_run'" in caplog.text) is not sound


async def test_fix_2_with_its_method_finds_a_run_only_if_the_mapping_has_it() -> None:
    mapping = RunThreadMappingService()
    lookup = as_committed.OrchestratorLookup(as_committed.OrchestratorThatQueriesTheMapping(mapping))
    assert await lookup.resolve(emitted()) == NoRoute("the orchestrator has no thread for the run")
    await mapping.register_mapping(RUN, THREAD)
    assert await lookup.resolve(emitted()) == THREAD


@DEFECT
async def test_d9e_second_registration_moves_a_run(sound: bool) -> None:
    mapping = RunThreadMappingService() if sound else as_committed.DictMapping()
    await mapping.register_mapping(RUN, THREAD)
    if sound:
        with pytest.raises(RunAlreadyMapped):
            await mapping.register_mapping(RUN, OTHER)
    else:
        await mapping.register_mapping(RUN, OTHER)
    assert await mapping.get_thread_id(RUN) == (THREAD if sound else OTHER)


@DEFECT
async def test_d9e_cleanup_loses_the_late_events(sound: bool) -> None:
    mapping = RunThreadMappingService() if sound else as_committed.DictMapping()
    await mapping.register_mapping(RUN, THREAD)
    await mapping.cleanup_mapping(RUN)
    assert await mapping.get_thread_id(RUN) == (THREAD if sound else None)


async def test_d9e_dict_accepts_a_run_again_after_its_cleanup() -> None:
    mapping = as_committed.DictMapping()
    await mapping.register_mapping(RUN, THREAD)
    await mapping.cleanup_mapping(RUN)
    await mapping.register_mapping(RUN, OTHER)
    assert await mapping.get_thread_id(RUN) == OTHER
    await mapping.cleanup_mapping(RUN)
    assert await mapping.get_thread_id(RUN) is None


@pytest.mark.parametrize(
    ("kind", "reached", "without_subscriber", "with_subscriber"),
    [
        (Hub, 1, Outcome.NO_SUBSCRIBER, Outcome.SENT),
        (as_committed.HubWithoutThreads, 0, Outcome.NO_SUBSCRIBER, Outcome.NO_SUBSCRIBER),
        (as_committed.HubThatAlwaysSaysSent, 1, Outcome.SENT, Outcome.SENT),
        (as_committed.HubAsCommitted, 0, Outcome.SENT, Outcome.SENT),
    ],
)
async def test_d10_hub_reaches_no_socket_or_reports_sent_without_one(
    kind: type[Hub], reached: int, without_subscriber: Outcome, with_subscriber: Outcome
) -> None:
    hub, inbox = kind(), ProbeConnection(THREAD, ALICE)
    assert (await hub.publish(emitted(), THREAD)).outcome is without_subscriber
    hub.attach(inbox)
    assert (await hub.publish(emitted(), THREAD)).outcome is with_subscriber
    assert (len(inbox.frames), len(hub)) == (reached, 1)
    hub.detach(inbox)
    assert len(hub) == 0


@DEFECT
async def test_link_2_broken_passes_on_another_bridge(sound: bool) -> None:
    application = await started()
    kind = SupervisorAgent if sound else as_committed.SupervisorWithItsOwnBridge
    supervisor = kind(application.config.db_session_factory, ScriptedModel(), application.bridge, TOOLS, agents=AGENTS)
    assert (supervisor.engine.websocket_bridge is application.bridge) is sound
    inbox = subscribe(application)
    answer = await supervisor.run(agent_name="researcher", thread_id=THREAD, user_id=ALICE, request="why?")
    assert answer.result == {"answer": "why?!"}
    assert len(inbox.frames) == (5 if sound else 0)


@DEFECT
async def test_link_4_broken_passes_on_another_bridge(sound: bool) -> None:
    application = await started()
    inbox = subscribe(application, context().thread_id)
    kind = ExecutionEngine if sound else as_committed.EngineWithItsOwnBridge
    engine = kind(application.supervisor.registry, application.bridge, core=AgentExecutionCore)
    await engine.execute(context())
    assert (engine.agent_core.websocket_bridge is application.bridge) is sound
    assert len(inbox.frames) == (5 if sound else 0)


@DEFECT
async def test_link_6_broken_does_not_bind_its_adapter(sound: bool) -> None:
    class UnboundAdapterAgent(as_committed.AgentThatKeepsTheBridge, Researcher):
        pass

    application = await started(agents={"researcher": Researcher if sound else UnboundAdapterAgent})
    assert agent_events_received(await run_one(application)) == (3 if sound else 0)


@DEFECT
async def test_link_7_broken_does_not_store_the_run(sound: bool) -> None:
    kind = WebSocketBridgeAdapter if sound else as_committed.AdapterThatForgetsTheRun
    adapter = kind()
    application = await started(adapter=kind)
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    assert adapter.has_websocket_bridge() is sound
    assert adapter.bridge is application.bridge
    assert agent_events_received(await run_one(application)) == (3 if sound else 0)


async def run_one(application: Application) -> ProbeConnection:
    inbox = subscribe(application, context().thread_id)
    await application.supervisor.engine.execute(context())
    return inbox


def agent_events_received(inbox: ProbeConnection) -> int:
    """Return how many events the user received from the agent itself; the two of the core always arrive."""
    assert (event_types(inbox)[0], event_types(inbox)[-1]) == ("agent_started", "agent_completed")
    return len(inbox.frames) - 2
