"""Record what each link of a variant receives, without changing what the link does.

Each class is a subclass of the part that the variant chose, sound or broken. The record shows the difference between
what a link received and what it passed on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.events import Answer, EventType, Payload
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.measure.history import BridgeBinding, Emission, History, key_of
from bridgekit_verify.variants import Variant

__all__ = ["instrument", "instrumented_agent", "wrong_bridge"]


def instrument(variant: Variant, history: History) -> Variant:
    """Return the variant with links 2 to 5 and the adapter recording in `history` what they receive."""
    return replace(
        variant,
        supervisor=_instrumented_supervisor(variant.supervisor, history),
        registry=_instrumented_registry(variant.registry, history),
        engine=_instrumented_engine(variant.engine, history),
        core=_instrumented_core(variant.core, history),
        adapter=_instrumented_adapter(variant.adapter, history),
    )


# The types are Any because the variant chooses the base class at run time.


def _instrumented_supervisor(base: Any, history: History) -> Any:
    class InstrumentedSupervisor(base):  # type: ignore[misc]
        def __init__(self, sessions: Any, model: Any, websocket_bridge: Any, tools: Any, **choices: Any) -> None:
            history.bridge_given[2] = id(websocket_bridge)
            super().__init__(sessions, model, websocket_bridge, tools, **choices)

    return InstrumentedSupervisor


def _instrumented_registry(base: Any, history: History) -> Any:
    class InstrumentedRegistry(base):  # type: ignore[misc]
        def set_websocket_bridge(self, bridge: AgentWebSocketBridge) -> None:
            history.bridge_given[3] = id(bridge)
            super().set_websocket_bridge(bridge)

        def create_bound(self, context: RunContext) -> Any:
            history.received_by.setdefault(context.request, {})[3] = context.thread_id
            return super().create_bound(context)

    return InstrumentedRegistry


def _instrumented_engine(base: Any, history: History) -> Any:
    class InstrumentedEngine(base):  # type: ignore[misc]
        def __init__(self, registry: Any, websocket_bridge: Any, **choices: Any) -> None:
            history.bridge_given[4] = id(websocket_bridge)
            super().__init__(registry, websocket_bridge, **choices)

        async def execute(self, context: RunContext) -> object:
            history.received_by.setdefault(context.request, {})[4] = context.thread_id
            return await super().execute(context)

    return InstrumentedEngine


def _instrumented_core(base: Any, history: History) -> Any:
    class InstrumentedCore(base):  # type: ignore[misc]
        def __init__(self, registry: Any, websocket_bridge: Any) -> None:
            history.bridge_given[5] = id(websocket_bridge)
            super().__init__(registry, websocket_bridge)

        async def execute_agent(self, context: RunContext) -> object:
            history.received_by.setdefault(context.request, {})[5] = context.thread_id
            return await super().execute_agent(context)

    return InstrumentedCore


def instrumented_agent(base: type[BaseAgent], history: History) -> type[BaseAgent]:
    """Return a subclass of the agent that records its own and its adapter's binding with each event."""

    class InstrumentedAgent(base):  # type: ignore[valid-type,misc]
        binding: BridgeBinding | None = None

        def set_websocket_bridge(
            self, bridge: AgentWebSocketBridge, run_id: RunId, *, thread_id: ThreadId | None = None
        ) -> None:
            self.binding = BridgeBinding(id(bridge), run_id, thread_id)
            super().set_websocket_bridge(bridge, run_id, thread_id=thread_id)

        def emit(self, event_type: EventType, payload: Payload) -> Answer:
            if (key := key_of(event_type, payload)) is not None:
                adapter = self._websocket_adapter
                holds = adapter.bridge is not None and adapter.run_id is not None
                history.emissions[key] = Emission(
                    agent_given=self.binding,
                    adapter_given=adapter.binding,
                    adapter_held=BridgeBinding(id(adapter.bridge), adapter.run_id, adapter.thread_id)
                    if holds
                    else None,
                )
            answer: Answer = super().emit(event_type, payload)
            return answer

    return InstrumentedAgent


def _instrumented_adapter(base: type[WebSocketBridgeAdapter], history: History) -> Any:
    class InstrumentedAdapter(base):  # type: ignore[valid-type,misc]
        binding: BridgeBinding | None = None

        def set_websocket_bridge(
            self, bridge: Any, run_id: RunId, agent_name: str, *, thread_id: ThreadId | None = None
        ) -> None:
            self.binding = BridgeBinding(id(bridge), run_id, thread_id)
            super().set_websocket_bridge(bridge, run_id, agent_name, thread_id=thread_id)

        def emit(self, event_type: EventType, payload: Payload) -> Answer:
            if (key := key_of(event_type, payload)) is not None:
                history.emitted.add(key)
            answer: Answer = super().emit(event_type, payload)
            return answer

    return InstrumentedAdapter


def wrong_bridge(application: Application, history: History) -> tuple[int, str] | None:
    """Return the first link that holds or passed on another bridge than it received; None if there is none."""
    supervisor, right = application.supervisor, id(application.bridge)
    holders: tuple[tuple[int, str, int | None, int | None], ...] = (
        (1, "startup gave the supervisor another bridge", history.bridge_given.get(2), right),
        (2, "the supervisor holds another bridge", id(supervisor.websocket_bridge), right),
        (2, "the supervisor gave the engine another bridge", history.bridge_given.get(4), right),
        (4, "the engine holds another bridge", id(supervisor.engine.websocket_bridge), right),
        (4, "the engine gave the core another bridge", history.bridge_given.get(5), right),
        (5, "the core holds another bridge", id(supervisor.engine.agent_core.websocket_bridge), right),
    )
    if history.bound_by_registry:
        holders += ((1, "startup gave the registry no bridge", history.bridge_given.get(3), right),)
    return next(((link, reason) for link, reason, found, expected in holders if found != expected), None)
