"""The ten attempts, one for each link and the hub. Each answers its evidence, or raises ProbeFailed or ProbeInconclusive with it."""

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
    RecordingAdapter,
    RecordingCore,
    RecordingEngine,
    ProbeFixture,
    expect,
    record_notifications,
    registry,
    thinking,
)
from bridgekit_verify.probes.routing_cases import routing, to_sockets

__all__ = ["PROBE_CASES"]

IN_ORDER: Final = [EventType.AGENT_STARTED, EventType.AGENT_THINKING, EventType.AGENT_COMPLETED]
"""A run of an agent that says one thing."""
SAID: Final = list(EventType)
"""What the adapter's attempt says: one event of each kind."""


async def _startup(fixture: ProbeFixture) -> str:
    expect(
        fixture.app.state.agent_websocket_bridge is fixture.bridge,
        "app.state carries another bridge than was made",
    )
    # Every other link is a sound one here, so whatever is wrong was done by startup.
    sound = BridgeConfig(agents=fixture.agents, self_checks=fixture.application.config.self_checks)
    async with sound.stores() as stores:
        started = await fixture.variant.start(sound, stores)
    for holder, held in (
        ("supervisor", started.supervisor.websocket_bridge),
        ("registry", started.supervisor.registry.websocket_bridge),
    ):
        expect(held is not None, f"startup gives the {holder} no bridge")
        expect(held is started.bridge, f"startup gives the {holder} another bridge than it serves")
    try:
        async with sound.stores() as stores:
            await fixture.variant.start(replace(sound, hub=HubWithoutThreads), stores)
    except DeterministicStartupError as refused:
        return f"the bridge is in app.state, and startup refuses one that reaches nobody ({refused})"
    raise ProbeFailed("startup is content with a bridge that reaches nobody: its self-check cannot fail")


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
        "the engine is given another bridge than the supervisor was",
    )
    wanted = [fixture.context(number) for number in (1, 2)]
    for run in wanted:
        await supervisor.run(
            agent_name=run.agent_name, thread_id=run.thread_id, user_id=run.user_id, request=run.request
        )
    asked = engine.asked if isinstance(engine, RecordingEngine) else []
    expect(
        len(asked) == len(wanted), f"of {len(wanted)} runs that were asked for, the engine is asked for {len(asked)}"
    )
    for run, got in zip(wanted, asked, strict=True):
        expect(got.thread_id == run.thread_id, f"a run of {run.thread_id!r} says that its thread is {got.thread_id!r}")
    return "the engine is given the supervisor's own bridge, and the run knows its thread"


async def _agent_registry(fixture: ProbeFixture) -> str:
    made = registry(fixture, fixture.variant.registry, thinking(BaseAgent))
    made.set_websocket_bridge(fixture.frame_recorder)
    runs = [fixture.context(number) for number in (1, 2)]
    first, second = agents = [made.create_bound(run) for run in runs]
    bound = sum(agent.has_websocket_bridge() for agent in agents)
    expect(bound == 2, f"{bound} of 2 agents can be heard after the registry bound them")
    expect(first is not second, "two runs are given the same agent")
    with record_notifications(fixture.frame_recorder) as heard:
        for agent, run in zip(agents, runs, strict=True):
            await agent.execute(run)
    for run, (event, _) in zip(runs, heard, strict=True):
        expect(event.run_id == run.run_id, f"the agent of {run.run_id} is bound to {event.run_id}")
    return "2 of 2 agents can be heard after the registry bound them, and each run has its own"


async def _engine(fixture: ProbeFixture) -> str:
    source = registry(fixture, AgentRegistry, thinking(BaseAgent))
    engine, run = fixture.variant.engine(source, fixture.frame_recorder, core=RecordingCore), fixture.context(1)
    core = engine.agent_core
    expect(
        isinstance(core, RecordingCore) and core.given is fixture.frame_recorder,
        "the core is given another bridge than the engine was",
    )
    await engine.execute(run)
    expect(
        isinstance(core, RecordingCore) and core.asked == [run], "the core is not asked for the run that the engine was"
    )
    return "the core is given the engine's own bridge"


async def _core(fixture: ProbeFixture) -> str:
    runs = [fixture.context(number) for number in (1, 2)]
    source = registry(fixture, AgentRegistry, thinking(BaseAgent, RunBarrier(len(runs))))
    core = fixture.variant.core(source, fixture.frame_recorder)
    with record_notifications(fixture.frame_recorder) as heard:
        async with anyio.create_task_group() as tasks:
            for run in runs:
                tasks.start_soon(core.execute_agent, run)
    said = [(event.payload["reasoning"], event.run_id) for event, _ in heard if event.type is EventType.AGENT_THINKING]
    expect(len(said) == len(runs), f"of {len(runs)} agents, {len(said)} were heard")
    for run in runs:
        expect(
            (run.request, run.run_id) in said,
            f"of two runs at once, the agent of {run.run_id} spoke as {dict(said)[run.request]}",
        )
    ends = Counter(event.type for event, _ in heard)
    expect(
        ends[EventType.AGENT_STARTED] == ends[EventType.AGENT_COMPLETED] == len(runs),
        f"{len(runs)} runs, but {ends[EventType.AGENT_STARTED]} starts and {ends[EventType.AGENT_COMPLETED]} ends",
    )
    for run in runs:
        order = [event.type for event, _ in heard if event.run_id == run.run_id]
        expect(order == IN_ORDER, f"the user of {run.run_id} is told {', '.join(order)}, in that order")
    return "two runs at once, and each agent speaks under its own run id; both runs begin and end"


async def _agent(fixture: ProbeFixture) -> str:
    config, run, adapter = fixture.application.config, fixture.context(1), RecordingAdapter()
    agent = thinking(fixture.variant.agent)(AGENT, config.llm_manager, config.tool_dispatcher, adapter)
    agent.set_websocket_bridge(fixture.frame_recorder, run.run_id, thread_id=run.thread_id)
    expect(bool(adapter.given), "the agent was given the bridge, and its adapter was told nothing")
    expect(
        adapter.given == (fixture.frame_recorder, run.run_id, AGENT, run.thread_id),
        "the adapter was told something else",
    )
    await agent.emit_thinking("hm")
    expect(adapter.asked == [EventType.AGENT_THINKING], "what the agent says, its adapter is not asked to emit")
    return "the adapter is told bridge, run, name and thread, as the agent was given them"


async def _adapter_keeps(fixture: ProbeFixture) -> str:
    run, adapter = fixture.context(1), fixture.variant.adapter()
    expect(not adapter.has_websocket_bridge(), "an adapter that was given nothing says that it has a bridge")
    adapter.set_websocket_bridge(fixture.frame_recorder, run.run_id, AGENT, thread_id=run.thread_id)
    kept = (adapter.bridge, adapter.run_id, adapter.agent_name, adapter.thread_id)
    for what, is_kept, given in zip(
        ("bridge", "run id", "agent name", "thread"),
        kept,
        (fixture.frame_recorder, run.run_id, AGENT, run.thread_id),
        strict=True,
    ):
        expect(is_kept == given, f"the adapter does not keep the {what}")
    expect(adapter.has_websocket_bridge(), "the adapter says that it has no bridge")
    return "bridge, run id, agent name and thread are kept"


async def _adapter_emits(fixture: ProbeFixture) -> str:
    run, adapter = fixture.context(1), fixture.variant.adapter()
    # Put in place by hand, so that an adapter which forgets them (link 7) can still be tried.
    adapter.bridge, adapter.run_id, adapter.agent_name, adapter.thread_id = fixture.frame_recorder, run.run_id, AGENT, run.thread_id
    with record_notifications(fixture.frame_recorder) as heard:
        await adapter.emit_agent_started("hello")
        await adapter.emit_thinking("hm", step_number=1)
        await adapter.emit_tool_executing("look_up", {}, tool_call_id="1")
        await adapter.emit_tool_completed("look_up", {}, tool_call_id="1")
        await adapter.emit_agent_completed({})
        await adapter.emit_error("no")
        await adapter.emit_progress({})
    said = [event.type for event, _ in heard if event.run_id == run.run_id and event.agent_name == AGENT]
    expect(
        sorted(said) == sorted(EventType),
        f"of {len(EventType)} kinds of event, {len(said)} reached the bridge"
        + (f" ({', '.join(sorted(said))})" if said else ""),
    )
    expect(said == SAID, f"emitted in another order than said: {', '.join(said)}")
    astray = {event.thread_id for event, _ in heard} - {run.thread_id}
    expect(not astray, f"an event of {run.thread_id!r} names {', '.join(repr(thread) for thread in astray)}")
    return f"all {len(said)} kinds of event reach the bridge under the right run id and name"


PROBE_CASES: Final[dict[int, Callable[[ProbeFixture], Awaitable[str]]]] = {
    1: _startup,
    2: _supervisor,
    3: _agent_registry,
    4: _engine,
    5: _core,
    6: _agent,
    7: _adapter_keeps,
    8: _adapter_emits,
    9: routing,
    10: to_sockets,
}
