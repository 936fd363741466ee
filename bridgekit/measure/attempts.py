"""The nine attempts, one for each link. Each answers its evidence, or raises Broken or Untried with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

import anyio

from bridgekit.chain.as_audited import HubWithoutThreads
from bridgekit.chain.link_1_startup import start_application
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.errors import DeterministicStartupError
from bridgekit.events import EventType, Outcome, Receipt, RoutedEvent
from bridgekit.ids import RunId
from bridgekit.measure.bench import (
    Bench,
    Broken,
    NotingAdapter,
    NotingCore,
    NotingEngine,
    Untried,
    expect,
    overheard,
    registry,
    thinking,
)
from bridgekit.measure.workload import AGENT, FAMILIES, Lockstep, Owned, family
from bridgekit.transport.client import EventClient, connect

__all__ = ["ATTEMPTS", "THREADS_A_FAMILY"]

THREADS_A_FAMILY: Final = 3


async def _startup(bench: Bench) -> str:
    expect(
        bench.app.state.agent_websocket_bridge is bench.bridge,
        "app.state carries another bridge than was made",
    )
    try:
        await start_application(replace(bench.application.parts, hub=HubWithoutThreads))
    except DeterministicStartupError as refused:
        return f"the bridge is in app.state, and startup refuses one that reaches nobody ({refused})"
    raise Broken("startup is content with a bridge that reaches nobody: its self-check cannot fail")


async def _supervisor(bench: Bench) -> str:
    parts = bench.application.parts
    supervisor = parts.supervisor(
        parts.db_session_factory,
        parts.llm_manager,
        bench.bridge,
        parts.tool_dispatcher,
        agents=parts.agents,
        engine=NotingEngine,
    )
    engine = supervisor.engine
    expect(
        isinstance(engine, NotingEngine) and engine.given is bench.bridge,
        "the engine is given another bridge than the supervisor was",
    )
    run = await supervisor.open_run(agent_name=AGENT, thread_id="thread_probe", user_id="user_probe", request="probe")
    expect(run.thread_id == "thread_probe", f"the run says that its thread is {run.thread_id!r}")
    await supervisor.close_run(run)
    return "the engine is given the supervisor's own bridge, and the run knows its thread"


async def _agent_registry(bench: Bench) -> str:
    made = registry(bench, bench.variant.registry, thinking(BaseAgent))
    made.set_websocket_bridge(bench.bridge)
    first, second = (made.create_bound(bench.context(number)) for number in (1, 2))
    bound = sum(agent.has_websocket_bridge() for agent in (first, second))
    expect(bound == 2, f"{bound} of 2 agents can be heard after the registry bound them")
    expect(first is not second, "two runs are given the same agent")
    return "2 of 2 agents can be heard after the registry bound them, and each run has its own"


async def _engine(bench: Bench) -> str:
    source = registry(bench, AgentRegistry, thinking(BaseAgent))
    core = bench.variant.engine(source, bench.bridge, core=NotingCore).agent_core
    expect(
        isinstance(core, NotingCore) and core.given is bench.bridge,
        "the core is given another bridge than the engine was",
    )
    return "the core is given the engine's own bridge"


async def _core(bench: Bench) -> str:
    runs = [bench.context(number) for number in (1, 2)]
    source = registry(bench, AgentRegistry, thinking(BaseAgent, Lockstep(len(runs))))
    core = bench.variant.core(source, bench.bridge)
    with overheard(bench.bridge) as heard:
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
    return "two runs at once, and each agent speaks under its own run id; both runs begin and end"


async def _agent(bench: Bench) -> str:
    parts, run, adapter = bench.application.parts, bench.context(1), NotingAdapter()
    agent = thinking(bench.variant.agent)(AGENT, parts.llm_manager, parts.tool_dispatcher, adapter)
    agent.set_websocket_bridge(bench.bridge, run.run_id, thread_id=run.thread_id)
    expect(bool(adapter.given), "the agent was given the bridge, and its adapter was told nothing")
    expect(
        adapter.given == (bench.bridge, run.run_id, AGENT, run.thread_id),
        "the adapter was told something else",
    )
    return "the adapter is told bridge, run, name and thread, as the agent was given them"


async def _adapter_keeps(bench: Bench) -> str:
    run, adapter = bench.context(1), bench.variant.adapter()
    expect(not adapter.has_websocket_bridge(), "an adapter that was given nothing says that it has a bridge")
    adapter.set_websocket_bridge(bench.bridge, run.run_id, AGENT, thread_id=run.thread_id)
    kept = (adapter.bridge, adapter.run_id, adapter.agent_name, adapter.thread_id)
    for what, is_kept, given in zip(
        ("bridge", "run id", "agent name", "thread"),
        kept,
        (bench.bridge, run.run_id, AGENT, run.thread_id),
        strict=True,
    ):
        expect(is_kept == given, f"the adapter does not keep the {what}")
    expect(adapter.has_websocket_bridge(), "the adapter says that it has no bridge")
    return "bridge, run id, agent name and thread are kept"


async def _adapter_emits(bench: Bench) -> str:
    run, adapter = bench.context(1), bench.variant.adapter()
    # Put in place by hand, so that an adapter which forgets them (link 7) can still be tried.
    adapter.bridge, adapter.run_id, adapter.agent_name = bench.bridge, run.run_id, AGENT
    with overheard(bench.bridge) as heard:
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
    return f"all {len(said)} kinds of event reach the bridge under the right run id and name"


async def _routing(bench: Bench) -> str:
    silent = await bench.bridge.notify_agent_started(RunId("run_nobody"), AGENT)
    expect(not silent, "an event of an unknown run is called sent")
    owned = {name: family(name, bench.threads, seed=bench.seed) for name in FAMILIES}
    receipts, read = await _one_event_each(bench, [thread for threads in owned.values() for thread in threads])
    lost = [name for name, threads in owned.items() if any(not _routed(receipts, thread) for thread in threads)]
    astray = [
        (thread.thread_id, event.payload["message"])
        for thread, events in read.items()
        for event in events
        if event.payload["message"] != thread.thread_id
    ]
    expect(
        not astray,
        f"{len(astray)} events reached another user's socket"
        + (f", such as one of {astray[0][1]!r} that went to {astray[0][0]!r}" if astray else ""),
    )
    expect(not lost, f"no route in {len(lost)} of {len(owned)} families of thread ids ({_reason(receipts)})")
    if not all(read.values()):
        raise Untried("each event finds its thread, but no socket of it: link 10 is broken")
    return f"in {len(owned)} families of thread ids, each event reached its own thread's socket and no other"


def _routed(receipts: dict[Owned, Receipt], thread: Owned) -> bool:
    return receipts[thread].thread_id == thread.thread_id


def _reason(receipts: dict[Owned, Receipt]) -> str:
    reasons = Counter(
        receipt.reason or f"sent to {receipt.thread_id!r}"
        for thread, receipt in receipts.items()
        if receipt.outcome is Outcome.UNROUTABLE or not _routed(receipts, thread)
    )
    return reasons.most_common(1)[0][0] if reasons else ""


async def _one_event_each(
    bench: Bench, threads: list[Owned]
) -> tuple[dict[Owned, Receipt], dict[Owned, list[RoutedEvent]]]:
    """A socket and a run for each thread, and one event for each run, which names its thread in its message."""
    receipts: dict[Owned, Receipt] = {}
    read: dict[Owned, list[RoutedEvent]] = {thread: [] for thread in threads}

    async def listen(client: EventClient, events: list[RoutedEvent]) -> None:
        events += [event async for event in client]

    async with AsyncExitStack() as stack, anyio.create_task_group() as listeners:
        for thread in threads:
            await bench.application.open_thread(thread.thread_id, thread.user_id)
            client = await stack.enter_async_context(
                connect(bench.url, user_id=thread.user_id, thread_id=thread.thread_id)
            )
            listeners.start_soon(listen, client, read[thread])
        for thread in threads:
            run_id = bench.application.parts.run_ids.new(thread.thread_id)
            await bench.bridge.mapping.register_mapping(run_id, thread.thread_id)
            receipts[thread] = await bench.bridge.notify_agent_started(
                run_id, AGENT, message=thread.thread_id, thread_id=thread.thread_id
            )
        await bench.app.state.bridgekit_edge.drain()
    return receipts, read


ATTEMPTS: Final[dict[int, Callable[[Bench], Awaitable[str]]]] = {
    1: _startup,
    2: _supervisor,
    3: _agent_registry,
    4: _engine,
    5: _core,
    6: _agent,
    7: _adapter_keeps,
    8: _adapter_emits,
    9: _routing,
}
