"""The probe cases of links 1 to 8, and the table of all ten: one for each link and one for the hub.

Each returns its evidence as a sentence, or raises ProbeFailed or ProbeInconclusive with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import anyio

from bridgekit.chain.link_1_startup import BridgeConfig
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.errors import DeterministicStartupError
from bridgekit.events import EventType
from bridgekit_verify.as_committed import HubWithoutThreads
from bridgekit_verify.measure.workload import AGENT, RunBarrier
from bridgekit_verify.probes.probe_fixture import (
    ProbeFailed,
    ProbeFixture,
    RecordingAdapter,
    RecordingCore,
    RecordingEngine,
    expect,
    record_notifications,
    registry,
    thinking,
)
from bridgekit_verify.probes.routing_cases import routing, to_sockets

__all__ = ["PROBE_CASES"]

IN_ORDER: Final = [EventType.AGENT_STARTED, EventType.AGENT_THINKING, EventType.AGENT_COMPLETED]
"""The events of a run whose agent emits one event."""
EMITTED: Final = list(EventType)
"""What the case of link 8 emits: one event of each type."""


async def _startup(fixture: ProbeFixture) -> str:
    expect(
        fixture.app.state.agent_websocket_bridge is fixture.bridge,
        "app.state holds another bridge than startup created",
    )
    # All other links are sound here, so that any error comes from startup.
    sound = BridgeConfig(agents=fixture.agents, self_checks=fixture.application.config.self_checks)
    async with sound.stores() as stores:
        started = await fixture.variant.start(sound, stores)
    for holder, held in (
        ("supervisor", started.supervisor.websocket_bridge),
        ("registry", started.supervisor.registry.websocket_bridge),
    ):
        expect(held is not None, f"startup gives the {holder} no bridge")
        expect(held is started.bridge, f"startup gives the {holder} another bridge than the one it serves")
    try:
        async with sound.stores() as stores:
            await fixture.variant.start(replace(sound, hub=HubWithoutThreads), stores)
    except DeterministicStartupError as refused:
        return f"the bridge is in app.state, and startup refuses a bridge that cannot reach any user ({refused})"
    raise ProbeFailed("startup accepts a bridge that cannot reach any user: its self-check cannot fail")


async def _supervisor(fixture: ProbeFixture) -> str:
    config = fixture.application.config
    supervisor = config.supervisor(
        config.db_session_factory,
        config.llm_manager,
        fixture.frame_recorder,
        config.tool_dispatcher,
        agents=fixture.agents,
        engine=RecordingEngine,
    )
    engine = supervisor.engine
    expect(
        isinstance(engine, RecordingEngine) and engine.given is fixture.frame_recorder,
        "the engine receives another bridge than the supervisor did",
    )
    wanted = [fixture.context(number) for number in (1, 2)]
    for run in wanted:
        await supervisor.run(
            agent_name=run.agent_name, thread_id=run.thread_id, user_id=run.user_id, request=run.request
        )
    received = engine.received if isinstance(engine, RecordingEngine) else []
    expect(len(received) == len(wanted), f"of {len(wanted)} requested runs, the engine receives {len(received)}")
    for run, got in zip(wanted, received, strict=True):
        expect(got.thread_id == run.thread_id, f"a run of {run.thread_id!r} names {got.thread_id!r} as its thread")
    return "the engine receives the supervisor's own bridge, and the run names its own thread"


async def _agent_registry(fixture: ProbeFixture) -> str:
    made = registry(fixture, fixture.variant.registry, thinking(BaseAgent))
    made.set_websocket_bridge(fixture.frame_recorder)
    runs = [fixture.context(number) for number in (1, 2)]
    first, second = agents = [made.create_bound(run) for run in runs]
    bound = sum(agent.has_websocket_bridge() for agent in agents)
    expect(bound == 2, f"{bound} of 2 agents have a bridge after the registry bound them")
    expect(first is not second, "two runs receive the same agent")
    with record_notifications(fixture.frame_recorder) as notifications:
        for agent, run in zip(agents, runs, strict=True):
            await agent.execute(run)
    for run, (event, _) in zip(runs, notifications, strict=True):
        expect(event.run_id == run.run_id, f"the agent of {run.run_id} is bound to {event.run_id}")
    return "2 of 2 agents have a bridge after the registry bound them, and each run has its own agent"


async def _engine(fixture: ProbeFixture) -> str:
    source = registry(fixture, AgentRegistry, thinking(BaseAgent))
    engine, run = fixture.variant.engine(source, fixture.frame_recorder, core=RecordingCore), fixture.context(1)
    core = engine.agent_core
    expect(
        isinstance(core, RecordingCore) and core.given is fixture.frame_recorder,
        "the core receives another bridge than the engine did",
    )
    await engine.execute(run)
    expect(
        isinstance(core, RecordingCore) and core.received == [run],
        "the core does not receive the run that the engine received",
    )
    return "the core receives the engine's own bridge"


async def _core(fixture: ProbeFixture) -> str:
    runs = [fixture.context(number) for number in (1, 2)]
    source = registry(fixture, AgentRegistry, thinking(BaseAgent, RunBarrier(len(runs))))
    core = fixture.variant.core(source, fixture.frame_recorder)
    with record_notifications(fixture.frame_recorder) as notifications:
        async with anyio.create_task_group() as tasks:
            for run in runs:
                tasks.start_soon(core.execute_agent, run)
    emitted = [
        (event.payload["reasoning"], event.run_id)
        for event, _ in notifications
        if event.type is EventType.AGENT_THINKING
    ]
    expect(len(emitted) == len(runs), f"events of {len(emitted)} of {len(runs)} agents reach the bridge")
    for run in runs:
        expect(
            (run.request, run.run_id) in emitted,
            f"of two concurrent runs, the agent of {run.run_id} emits under {dict(emitted)[run.request]}",
        )
    ends = Counter(event.type for event, _ in notifications)
    expect(
        ends[EventType.AGENT_STARTED] == ends[EventType.AGENT_COMPLETED] == len(runs),
        f"{len(runs)} runs, but {ends[EventType.AGENT_STARTED]} starts and {ends[EventType.AGENT_COMPLETED]} ends",
    )
    for run in runs:
        order = [event.type for event, _ in notifications if event.run_id == run.run_id]
        expect(order == IN_ORDER, f"the user of {run.run_id} receives {', '.join(order)}, in that order")
    return "of two concurrent runs, each agent emits under its own run id, and both runs start and complete"


async def _agent(fixture: ProbeFixture) -> str:
    config, run, adapter = fixture.application.config, fixture.context(1), RecordingAdapter()
    agent = thinking(fixture.variant.agent)(AGENT, config.llm_manager, config.tool_dispatcher, adapter)
    agent.set_websocket_bridge(fixture.frame_recorder, run.run_id, thread_id=run.thread_id)
    expect(bool(adapter.given), "the agent received the bridge and did not bind its adapter")
    expect(
        adapter.given == (fixture.frame_recorder, run.run_id, AGENT, run.thread_id),
        "the agent bound its adapter to something else",
    )
    await agent.emit_thinking("hm")
    expect(adapter.received == [EventType.AGENT_THINKING], "the agent does not pass its event to its adapter")
    return "the adapter receives bridge, run id, name and thread as the agent received them"


async def _adapter_binding(fixture: ProbeFixture) -> str:
    run, adapter = fixture.context(1), fixture.variant.adapter()
    expect(not adapter.has_websocket_bridge(), "an adapter that received nothing reports that it has a bridge")
    adapter.set_websocket_bridge(fixture.frame_recorder, run.run_id, AGENT, thread_id=run.thread_id)
    stored = (adapter.bridge, adapter.run_id, adapter.agent_name, adapter.thread_id)
    for what, held, given in zip(
        ("bridge", "run id", "agent name", "thread"),
        stored,
        (fixture.frame_recorder, run.run_id, AGENT, run.thread_id),
        strict=True,
    ):
        expect(held == given, f"the adapter does not store the {what}")
    expect(adapter.has_websocket_bridge(), "the adapter reports that it has no bridge")
    return "the adapter stores bridge, run id, agent name and thread"


async def _adapter_emission(fixture: ProbeFixture) -> str:
    run, adapter = fixture.context(1), fixture.variant.adapter()
    # Set directly, so that an adapter that does not store them (link 7) can still be tested.
    adapter.bridge, adapter.run_id, adapter.agent_name, adapter.thread_id = (
        fixture.frame_recorder,
        run.run_id,
        AGENT,
        run.thread_id,
    )
    with record_notifications(fixture.frame_recorder) as notifications:
        await adapter.emit_agent_started("hello")
        await adapter.emit_thinking("hm", step_number=1)
        await adapter.emit_tool_executing("look_up", {}, tool_call_id="1")
        await adapter.emit_tool_completed("look_up", {}, tool_call_id="1")
        await adapter.emit_agent_completed({})
        await adapter.emit_error("no")
        await adapter.emit_progress({})
        await adapter.emit_text("hm", message_id="1")
    emitted = [event.type for event, _ in notifications if event.run_id == run.run_id and event.agent_name == AGENT]
    expect(
        sorted(emitted) == sorted(EventType),
        f"of {len(EventType)} kinds of event, {len(emitted)} reached the bridge"
        + (f" ({', '.join(sorted(emitted))})" if emitted else ""),
    )
    expect(emitted == EMITTED, f"emitted in another order than requested: {', '.join(emitted)}")
    other_threads = {event.thread_id for event, _ in notifications} - {run.thread_id}
    expect(
        not other_threads, f"an event of {run.thread_id!r} names {', '.join(repr(thread) for thread in other_threads)}"
    )
    return f"all {len(emitted)} kinds of event reach the bridge under the right run id and name"


PROBE_CASES: Final[dict[int, Callable[[ProbeFixture], Awaitable[str]]]] = {
    1: _startup,
    2: _supervisor,
    3: _agent_registry,
    4: _engine,
    5: _core,
    6: _agent,
    7: _adapter_binding,
    8: _adapter_emission,
    9: routing,
    10: to_sockets,
}
