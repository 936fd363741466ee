"""What probes share: a served application, and sound links that record what the link under test passes to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from bridgekit_verify.measure.families import FAMILIES, Family
from bridgekit_verify.measure.workload import AGENT, RunBarrier
from bridgekit_verify.variants import Variant

__all__ = [
    "ProbeFailed",
    "ProbeFixture",
    "ProbeInconclusive",
    "RecordingAdapter",
    "RecordingCore",
    "RecordingEngine",
    "expect",
    "record_notifications",
    "registry",
    "thinking",
]


class ProbeFailed(Exception):
    """The link under test does not work; the message is the evidence."""


class ProbeInconclusive(Exception):
    """The probe could not test the link; the message is the reason."""


@dataclass(frozen=True)
class ProbeFixture:
    """A started application of the variant under test, and its URL."""

    variant: Variant
    app: Starlette
    url: str
    seed: int
    threads: int
    """How many threads of each family of ids the probe of link 9 uses."""
    families: Mapping[str, Family] = field(default_factory=lambda: FAMILIES)
    """The families of thread ids that the probe of link 9 uses."""

    @property
    def application(self) -> Application:
        application: Application = self.app.state.bridgekit
        return application

    @property
    def bridge(self) -> AgentWebSocketBridge:
        return self.application.bridge

    @cached_property
    def frame_recorder(self) -> AgentWebSocketBridge:
        """A sound bridge for links 2 to 8 to send to.

        A broken bridge of the variant would make these links appear broken.
        """
        mapping = RunThreadMappingService()
        return AgentWebSocketBridge(Hub(), carried_or_mapped(mapping), mapping)

    @property
    def agents(self) -> dict[str, type[BaseAgent]]:
        """Sound agents, for the links that need some."""
        return {AGENT: thinking(BaseAgent)}

    def context(self, number: int) -> RunContext:
        """Return a run that the supervisor did not open, with its own thread, user and request."""
        return RunContext(
            run_id=RunId(f"run_probe{number}"),
            thread_id=ThreadId(f"thread_probe{number}"),
            user_id=UserId(f"user_probe{number}"),
            agent_name=AGENT,
            request=f"probe {number}",
        )


def expect(condition: bool, evidence: str) -> None:
    if not condition:
        raise ProbeFailed(evidence)


@contextmanager
def record_notifications(bridge: AgentWebSocketBridge) -> Iterator[list[tuple[AgentEvent, Receipt]]]:
    """Record every event that reaches the bridge within the block, with its receipt."""
    notifications: list[tuple[AgentEvent, Receipt]] = []

    def on_event(event: AgentEvent, receipt: Receipt) -> None:
        notifications.append((event, receipt))

    bridge.observers.append(on_event)
    try:
        yield notifications
    finally:
        bridge.observers.remove(on_event)


# The neighbours of the link under test: sound links that record what they receive.


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
        self.received: list[RunContext] = []

    async def execute(self, context: RunContext) -> object:
        self.received.append(context)
        return await super().execute(context)


class RecordingCore(AgentExecutionCore):
    def __init__(self, registry: AgentSource, websocket_bridge: AgentWebSocketBridge) -> None:
        super().__init__(registry, websocket_bridge)
        self.given = websocket_bridge
        self.received: list[RunContext] = []

    async def execute_agent(self, context: RunContext) -> object:
        self.received.append(context)
        return await super().execute_agent(context)


class RecordingAdapter(WebSocketBridgeAdapter):
    given: tuple[object, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.received: list[EventType] = []

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        self.received.append(event_type)
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
    """Return an agent class that emits one event: the request that it received."""

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
