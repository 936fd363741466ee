"""Borders of the chain, watched from outside: each link of a variant notes what it is handed, and does what it did.

A subclass of whatever the variant chose, sound or broken, so that what was handed on can be told from what was kept.
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
from bridgekit_verify.measure.history import Bound, Emission, History, key_of
from bridgekit_verify.variants import Variant

__all__ = ["misplaced", "noted", "noting_agent"]


def noted(variant: Variant, history: History) -> Variant:
    """The variant, with links 2 to 5 and the adapter telling the history what they are handed."""
    return replace(
        variant,
        supervisor=_noting_supervisor(variant.supervisor, history),
        registry=_noting_registry(variant.registry, history),
        engine=_noting_engine(variant.engine, history),
        core=_noting_core(variant.core, history),
        adapter=_noting_adapter(variant.adapter, history),
    )


# Any: the base of each class below is the variant's choice, which no type checker knows.


def _noting_supervisor(base: Any, history: History) -> Any:
    class NotingSupervisor(base):  # type: ignore[misc]
        def __init__(self, sessions: Any, model: Any, websocket_bridge: Any, tools: Any, **choices: Any) -> None:
            history.handed[2] = id(websocket_bridge)
            super().__init__(sessions, model, websocket_bridge, tools, **choices)

    return NotingSupervisor


def _noting_registry(base: Any, history: History) -> Any:
    class NotingRegistry(base):  # type: ignore[misc]
        def set_websocket_bridge(self, bridge: AgentWebSocketBridge) -> None:
            history.handed[3] = id(bridge)
            super().set_websocket_bridge(bridge)

        def create_bound(self, context: RunContext) -> Any:
            history.asked.setdefault(context.request, {})[3] = context.thread_id
            return super().create_bound(context)

    return NotingRegistry


def _noting_engine(base: Any, history: History) -> Any:
    class NotingEngine(base):  # type: ignore[misc]
        def __init__(self, registry: Any, websocket_bridge: Any, **choices: Any) -> None:
            history.handed[4] = id(websocket_bridge)
            super().__init__(registry, websocket_bridge, **choices)

        async def execute(self, context: RunContext) -> object:
            history.asked.setdefault(context.request, {})[4] = context.thread_id
            return await super().execute(context)

    return NotingEngine


def _noting_core(base: Any, history: History) -> Any:
    class NotingCore(base):  # type: ignore[misc]
        def __init__(self, registry: Any, websocket_bridge: Any) -> None:
            history.handed[5] = id(websocket_bridge)
            super().__init__(registry, websocket_bridge)

        async def execute_agent(self, context: RunContext) -> object:
            history.asked.setdefault(context.request, {})[5] = context.thread_id
            return await super().execute_agent(context)

    return NotingCore


def noting_agent(base: type[BaseAgent], history: History) -> type[BaseAgent]:
    """That agent, telling the history with each event what it and its adapter hold."""

    class NotingAgent(base):  # type: ignore[valid-type,misc]
        bound: Bound | None = None

        def set_websocket_bridge(
            self, bridge: AgentWebSocketBridge, run_id: RunId, *, thread_id: ThreadId | None = None
        ) -> None:
            self.bound = Bound(id(bridge), run_id, thread_id)
            super().set_websocket_bridge(bridge, run_id, thread_id=thread_id)

        def emit(self, event_type: EventType, payload: Payload) -> Answer:
            if (key := key_of(event_type, payload)) is not None:
                adapter = self._websocket_adapter
                holds = adapter.bridge is not None and adapter.run_id is not None
                history.emissions[key] = Emission(
                    given=self.bound,
                    told=adapter.told,
                    held=Bound(id(adapter.bridge), adapter.run_id, adapter.thread_id) if holds else None,
                )
            answer: Answer = super().emit(event_type, payload)
            return answer

    return NotingAgent


def _noting_adapter(base: type[WebSocketBridgeAdapter], history: History) -> Any:
    class NotingAdapter(base):  # type: ignore[valid-type,misc]
        told: Bound | None = None

        def set_websocket_bridge(
            self, bridge: Any, run_id: RunId, agent_name: str, *, thread_id: ThreadId | None = None
        ) -> None:
            self.told = Bound(id(bridge), run_id, thread_id)
            super().set_websocket_bridge(bridge, run_id, agent_name, thread_id=thread_id)

        def emit(self, event_type: EventType, payload: Payload) -> Answer:
            if (key := key_of(event_type, payload)) is not None:
                history.emitted.add(key)
            answer: Answer = super().emit(event_type, payload)
            return answer

    return NotingAdapter


def misplaced(application: Application, history: History) -> tuple[int, str] | None:
    """The first link that holds, or handed on, another bridge than it was given itself; None when all have one."""
    supervisor, right = application.supervisor, id(application.bridge)
    holders: tuple[tuple[int, str, int | None, int | None], ...] = (
        (1, "startup gave the supervisor another bridge", history.handed.get(2), right),
        (2, "the supervisor speaks to another bridge", id(supervisor.websocket_bridge), right),
        (2, "the supervisor gave the engine another bridge", history.handed.get(4), right),
        (4, "the engine speaks to another bridge", id(supervisor.engine.websocket_bridge), right),
        (4, "the engine gave the core another bridge", history.handed.get(5), right),
        (5, "the core speaks to another bridge", id(supervisor.engine.agent_core.websocket_bridge), right),
    )
    if history.bound_by_registry:
        holders += ((1, "startup gave the registry no bridge", history.handed.get(3), right),)
    return next(((link, reason) for link, reason, found, expected in holders if found != expected), None)
