"""What a probe works with: a served application, and sound links that note what the link under test hands them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from starlette.applications import Starlette

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, carried_or_mapped
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_core import AgentExecutionCore, AgentSource
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.events import AgentEvent, Answer, EventType, Payload, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.transport.hub import Hub
from bridgekit_verify.measure.workload import AGENT, RunBarrier
from bridgekit_verify.variants import Variant

__all__ = [
    "ProbeFailed",
    "RecordingAdapter",
    "RecordingCore",
    "RecordingEngine",
    "ProbeFixture",
    "ProbeInconclusive",
    "expect",
    "record_notifications",
    "registry",
    "thinking",
]


class ProbeFailed(Exception):
    """What a probe saw that should not be."""


class ProbeInconclusive(Exception):
    """Why a probe could not be made."""


@dataclass(frozen=True)
class ProbeFixture:
    """A started application of the variant under test, and where it is served."""

    variant: Variant
    app: Starlette
    url: str
    seed: int
    threads: int
    """How many threads of each family of ids link 9 is tried with."""

    @property
    def application(self) -> Application:
        application: Application = self.app.state.bridgekit
        return application

    @property
    def bridge(self) -> AgentWebSocketBridge:
        return self.application.bridge

    @cached_property
    def frame_recorder(self) -> AgentWebSocketBridge:
        """A sound bridge for links 2 to 8 to speak to: one that is broken itself would make them look broken."""
        mapping = RunThreadMappingService()
        return AgentWebSocketBridge(Hub(), carried_or_mapped(mapping), mapping)

    @property
    def agents(self) -> dict[str, type[BaseAgent]]:
        """Sound agents, for the links that need some."""
        return {AGENT: thinking(BaseAgent)}

    def context(self, number: int) -> RunContext:
        """A run that nobody has opened: its own thread, user and request."""
        return RunContext(
            run_id=RunId(f"run_probe{number}"),
            thread_id=ThreadId(f"thread_probe{number}"),
            user_id=UserId(f"user_probe{number}"),
            agent_name=AGENT,
            request=f"probe {number}",
        )


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ProbeFailed(otherwise)


@contextmanager
def record_notifications(bridge: AgentWebSocketBridge) -> Iterator[list[tuple[AgentEvent, Receipt]]]:
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


class RecordingEngine(ExecutionEngine):
    def __init__(
        self,
        registry: AgentSource,
        websocket_bridge: AgentWebSocketBridge,
        *,
        core: type[AgentExecutionCore] = AgentExecutionCore,
    ) -> None:
        super().__init__(registry, websocket_bridge, core=core)
        self.given = websocket_bridge
        self.asked: list[RunContext] = []

    async def execute(self, context: RunContext) -> object:
        self.asked.append(context)
        return await super().execute(context)


class RecordingCore(AgentExecutionCore):
    def __init__(self, registry: AgentSource, websocket_bridge: AgentWebSocketBridge) -> None:
        super().__init__(registry, websocket_bridge)
        self.given = websocket_bridge
        self.asked: list[RunContext] = []

    async def execute_agent(self, context: RunContext) -> object:
        self.asked.append(context)
        return await super().execute_agent(context)


class RecordingAdapter(WebSocketBridgeAdapter):
    given: tuple[object, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[EventType] = []

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        self.asked.append(event_type)
        return super().emit(event_type, payload)

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


def thinking(base: type[BaseAgent], barrier: RunBarrier | None = None) -> type[BaseAgent]:
    """An agent that says one thing: the request that it was given."""

    class ThinkingAgent(base):  # type: ignore[valid-type,misc]  # the base is the variant's choice of link 6
        async def execute(self, context: RunContext) -> object:
            if barrier is not None:
                await barrier.step()
            await self.emit_thinking(context.request)
            return None

    return ThinkingAgent


def registry(fixture: ProbeFixture, kind: type[AgentRegistry], agent: type[BaseAgent]) -> AgentRegistry:
    parts = fixture.application.config
    return kind(parts.llm_manager, parts.tool_dispatcher, {AGENT: agent})
