"""One probe for each link: hand it what the chain hands it, and look at what it hands on.

A probe judges its own link alone, whatever the links before it do, so that a broken link is named and its
neighbours are not. Where a link cannot be tried because the one before it fails, the answer is *unknown*.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

import anyio
from starlette.applications import Starlette

from bridgekit.chain import LINKS, Link
from bridgekit.chain.as_audited import HubWithoutThreads
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, create_app, start_application
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_core import AgentExecutionCore, AgentSource
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import DeterministicStartupError, first_error
from bridgekit.events import AgentEvent, EventType, Outcome, Receipt, RoutedEvent
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.measure.workload import AGENT, FAMILIES, Lockstep, Owned, family, seeded, tools
from bridgekit.transport.client import EventClient, connect
from bridgekit.transport.server import serving
from bridgekit.variants import Variant

__all__ = ["Answer", "Probe", "probe", "probe_all"]

PROBE_SECONDS: Final = 20.0
THREADS_A_FAMILY: Final = 3


class Answer(enum.StrEnum):
    """What a probe may answer."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Probe:
    """One link, tried."""

    link: Link
    answer: Answer
    evidence: str
    """What was seen, in one sentence."""


class _Broken(Exception):
    """What a probe saw that should not be."""


class _Untried(Exception):
    """Why a probe could not be made."""


@dataclass(frozen=True)
class _Bench:
    """A started application of the variant under test, and where it is served."""

    variant: Variant
    app: Starlette
    url: str

    @property
    def application(self) -> Application:
        application: Application = self.app.state.bridgekit
        return application

    @property
    def bridge(self) -> AgentWebSocketBridge:
        return self.application.bridge

    def context(self, number: int) -> RunContext:
        """A run that nobody has opened: its own thread, user and request."""
        return RunContext(
            run_id=RunId(f"run_probe{number}"),
            thread_id=ThreadId(f"thread_probe{number}"),
            user_id=UserId(f"user_probe{number}"),
            agent_name=AGENT,
            request=f"probe {number}",
        )


async def probe(link: int, variant: Variant) -> Probe:
    """Try one link of a variant."""
    return (await probe_all(variant))[link - 1]


async def probe_all(variant: Variant) -> list[Probe]:
    """Try the nine links of a variant, over a real server, and answer in the order of the chain."""
    agents = {AGENT: _thinking(variant.agent)}
    app = create_app(variant.parts(agents, hexadecimal=seeded(0), tools=tools()))
    try:
        async with serving(app) as url:
            bench = _Bench(variant, app, url)
            return [await _try(link, _ATTEMPTS[link.number], bench) for link in LINKS]
    except DeterministicStartupError as refused:
        return [_after_refusal(link, refused) for link in LINKS]


async def _try(link: Link, attempt: Callable[[_Bench], Awaitable[str]], bench: _Bench) -> Probe:
    try:
        with first_error(), anyio.fail_after(PROBE_SECONDS):
            return Probe(link, Answer.HOLDS, await attempt(bench))
    except _Untried as untried:
        return Probe(link, Answer.UNKNOWN, str(untried))
    except _Broken as broken:
        return Probe(link, Answer.DOES_NOT_HOLD, str(broken))


def _after_refusal(link: Link, refused: DeterministicStartupError) -> Probe:
    if link.number == min(refused.link, len(LINKS)):
        return Probe(link, Answer.DOES_NOT_HOLD, f"startup refused: {refused}")
    return Probe(link, Answer.UNKNOWN, "the application did not start")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _Broken(otherwise)


@contextmanager
def _overheard(bridge: AgentWebSocketBridge) -> Iterator[list[tuple[AgentEvent, Receipt]]]:
    """Everything that reaches the bridge inside the block, with its answer."""
    heard: list[tuple[AgentEvent, Receipt]] = []

    def hear(event: AgentEvent, receipt: Receipt) -> None:
        heard.append((event, receipt))

    bridge.observers.append(hear)
    try:
        yield heard
    finally:
        bridge.observers.remove(hear)


# What stands next to the link under test: the sound link, noting what it is given.


class _NotingEngine(ExecutionEngine):
    def __init__(
        self,
        registry: AgentSource,
        websocket_bridge: AgentWebSocketBridge,
        *,
        core: type[AgentExecutionCore] = AgentExecutionCore,
    ) -> None:
        super().__init__(registry, websocket_bridge, core=core)
        self.given = websocket_bridge


class _NotingCore(AgentExecutionCore):
    def __init__(self, registry: AgentSource, websocket_bridge: AgentWebSocketBridge) -> None:
        super().__init__(registry, websocket_bridge)
        self.given = websocket_bridge


class _NotingAdapter(WebSocketBridgeAdapter):
    given: tuple[object, ...] = ()

    def set_websocket_bridge(
        self,
        bridge: AgentWebSocketBridge,
        run_id: RunId,
        agent_name: str,
        *,
        thread_id: ThreadId | None = None,
    ) -> None:
        super().set_websocket_bridge(bridge, run_id, agent_name, thread_id=thread_id)
        self.given = (bridge, run_id, agent_name, thread_id)


def _thinking(base: type[BaseAgent], lockstep: Lockstep | None = None) -> type[BaseAgent]:
    """An agent that says one thing: the request that it was given."""

    class ThinkingAgent(base):  # type: ignore[valid-type,misc]  # the base is the variant's choice of link 6
        async def execute(self, context: RunContext) -> object:
            if lockstep is not None:
                await lockstep.step()
            await self.emit_thinking(context.request)
            return None

    return ThinkingAgent


def _registry(bench: _Bench, kind: type[AgentRegistry], agent: type[BaseAgent]) -> AgentRegistry:
    parts = bench.application.parts
    return kind(parts.llm_manager, parts.tool_dispatcher, {AGENT: agent})


# The nine attempts. Each answers its evidence, or raises _Broken with it.


async def _startup(bench: _Bench) -> str:
    _expect(
        bench.app.state.agent_websocket_bridge is bench.bridge,
        "app.state carries another bridge than was made",
    )
    try:
        await start_application(replace(bench.application.parts, hub=HubWithoutThreads))
    except DeterministicStartupError as refused:
        return f"the bridge is in app.state, and startup refuses one that reaches nobody ({refused})"
    raise _Broken("startup is content with a bridge that reaches nobody: its self-check cannot fail")


async def _supervisor(bench: _Bench) -> str:
    parts = bench.application.parts
    supervisor = parts.supervisor(
        parts.db_session_factory,
        parts.llm_manager,
        bench.bridge,
        parts.tool_dispatcher,
        agents=parts.agents,
        engine=_NotingEngine,
    )
    engine = supervisor.engine
    _expect(
        isinstance(engine, _NotingEngine) and engine.given is bench.bridge,
        "the engine is given another bridge than the supervisor was",
    )
    run = await supervisor.open_run(
        agent_name=AGENT, thread_id="thread_probe", user_id="user_probe", request="probe"
    )
    _expect(run.thread_id == "thread_probe", f"the run says that its thread is {run.thread_id!r}")
    await supervisor.close_run(run)
    return "the engine is given the supervisor's own bridge, and the run knows its thread"


async def _agent_registry(bench: _Bench) -> str:
    registry = _registry(bench, bench.variant.registry, _thinking(BaseAgent))
    registry.set_websocket_bridge(bench.bridge)
    first, second = (registry.create_bound(bench.context(number)) for number in (1, 2))
    bound = sum(agent.has_websocket_bridge() for agent in (first, second))
    _expect(bound == 2, f"{bound} of 2 agents can be heard after the registry bound them")
    _expect(first is not second, "two runs are given the same agent")
    return "2 of 2 agents can be heard after the registry bound them, each run has its own"


async def _engine(bench: _Bench) -> str:
    registry = _registry(bench, AgentRegistry, _thinking(BaseAgent))
    core = bench.variant.engine(registry, bench.bridge, core=_NotingCore).agent_core
    _expect(
        isinstance(core, _NotingCore) and core.given is bench.bridge,
        "the core is given another bridge than the engine was",
    )
    return "the core is given the engine's own bridge"


async def _core(bench: _Bench) -> str:
    runs = [bench.context(number) for number in (1, 2)]
    registry = _registry(bench, AgentRegistry, _thinking(BaseAgent, Lockstep(len(runs))))
    core = bench.variant.core(registry, bench.bridge)
    with _overheard(bench.bridge) as heard:
        async with anyio.create_task_group() as tasks:
            for run in runs:
                tasks.start_soon(core.execute_agent, run)
    said = [
        (event.payload["reasoning"], event.run_id)
        for event, _ in heard
        if event.type is EventType.AGENT_THINKING
    ]
    _expect(len(said) == len(runs), f"of {len(runs)} agents, {len(said)} were heard")
    for run in runs:
        _expect(
            (run.request, run.run_id) in said,
            f"of two runs at once, one spoke under the other's run id: {said}",
        )
    ends = Counter(event.type for event, _ in heard)
    _expect(
        ends[EventType.AGENT_STARTED] == ends[EventType.AGENT_COMPLETED] == len(runs),
        f"{len(runs)} runs, but {ends[EventType.AGENT_STARTED]} starts and {ends[EventType.AGENT_COMPLETED]} ends",
    )
    return "two runs at once, and each agent speaks under its own run id; both runs begin and end"


async def _agent(bench: _Bench) -> str:
    parts, run, adapter = bench.application.parts, bench.context(1), _NotingAdapter()
    agent = _thinking(bench.variant.agent)(AGENT, parts.llm_manager, parts.tool_dispatcher, adapter)
    agent.set_websocket_bridge(bench.bridge, run.run_id, thread_id=run.thread_id)
    _expect(bool(adapter.given), "the agent was given the bridge, and its adapter was told nothing")
    _expect(
        adapter.given == (bench.bridge, run.run_id, AGENT, run.thread_id),
        "the adapter was told something else",
    )
    return "the adapter is told bridge, run, name and thread, as the agent was given them"


async def _adapter_keeps(bench: _Bench) -> str:
    run, adapter = bench.context(1), bench.variant.adapter()
    _expect(not adapter.has_websocket_bridge(), "an adapter that was given nothing says that it has a bridge")
    adapter.set_websocket_bridge(bench.bridge, run.run_id, AGENT, thread_id=run.thread_id)
    kept = (adapter.bridge, adapter.run_id, adapter.agent_name, adapter.thread_id)
    for what, is_kept, given in zip(
        ("bridge", "run id", "agent name", "thread"),
        kept,
        (bench.bridge, run.run_id, AGENT, run.thread_id),
        strict=True,
    ):
        _expect(is_kept == given, f"the adapter does not keep the {what}")
    _expect(adapter.has_websocket_bridge(), "the adapter says that it has no bridge")
    return "bridge, run id, agent name and thread are kept"


async def _adapter_emits(bench: _Bench) -> str:
    run, adapter = bench.context(1), bench.variant.adapter()
    # Put in place by hand, so that an adapter which forgets them (link 7) can still be tried.
    adapter.bridge, adapter.run_id, adapter.agent_name = bench.bridge, run.run_id, AGENT
    with _overheard(bench.bridge) as heard:
        await adapter.emit_agent_started("hello")
        await adapter.emit_thinking("hm", step_number=1)
        await adapter.emit_tool_executing("look_up", {}, tool_call_id="1")
        await adapter.emit_tool_completed("look_up", {}, tool_call_id="1")
        await adapter.emit_agent_completed({})
        await adapter.emit_error("no")
        await adapter.emit_progress({})
    said = [event.type for event, _ in heard if event.run_id == run.run_id and event.agent_name == AGENT]
    _expect(
        sorted(said) == sorted(EventType),
        f"of {len(EventType)} kinds of event, {len(said)} reached the bridge"
        + (f" ({', '.join(sorted(said))})" if said else ""),
    )
    return f"all {len(said)} kinds of event reach the bridge under the right run id and name"


async def _routing(bench: _Bench) -> str:
    silent = await bench.bridge.notify_agent_started(RunId("run_nobody"), AGENT)
    _expect(not silent, "an event of an unknown run is called sent")
    owned = {name: family(name, THREADS_A_FAMILY) for name in FAMILIES}
    receipts, read = await _one_event_each(
        bench, [thread for threads in owned.values() for thread in threads]
    )
    lost = [
        name for name, threads in owned.items() if any(not _routed(receipts, thread) for thread in threads)
    ]
    astray = [
        (thread.thread_id, event.payload["message"])
        for thread, events in read.items()
        for event in events
        if event.payload["message"] != thread.thread_id
    ]
    _expect(
        not astray,
        f"{len(astray)} events reached another user's socket"
        + (f", such as one of {astray[0][1]!r} that went to {astray[0][0]!r}" if astray else ""),
    )
    _expect(not lost, f"no route in {len(lost)} of {len(owned)} families of thread ids ({_reason(receipts)})")
    if not all(read.values()):
        raise _Untried("each event finds its thread, but no socket of it: link 10 is broken")
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
    bench: _Bench, threads: list[Owned]
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


_ATTEMPTS: Final[dict[int, Callable[[_Bench], Awaitable[str]]]] = {
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
