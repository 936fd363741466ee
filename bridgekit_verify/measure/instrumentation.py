"""Record what each link of a variant receives, without changing what the link does.

The instrumentation observes the calls between the links, whether the links are sound or broken. The history gets the
facts that the ledger needs. A trace also gets the calls, including those of the bridge and the hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, start_application
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.events import AgentEvent, EventType
from bridgekit.transport.hub import Hub
from bridgekit_verify.measure.calls import LinkCall, Listener, observe_instance, observed, watched
from bridgekit_verify.measure.history import BridgeBinding, Emission, EventKey, History, key_of
from bridgekit_verify.variants import Variant

__all__ = ["instrument", "instrumented_agent", "recording", "recording_calls", "wrong_bridge"]

SUPERVISOR: Final = {"__init__": 2, "open_run": 2, "run": 2}
REGISTRY: Final = {"set_websocket_bridge": 3, "create": 3, "create_bound": 3}
ENGINE: Final = {"__init__": 4, "execute": 4}
CORE: Final = {"__init__": 5, "execute_agent": 5}
AGENT_METHODS: Final = {"set_websocket_bridge": 6, "execute": 6, "emit": 6}
ADAPTER: Final = {"set_websocket_bridge": 7, "emit": 8}
NOTIFY: Final = ("notify", "notify_when_room", *(f"notify_{event_type}" for event_type in EventType))
BRIDGE: Final = dict.fromkeys(("__init__", *NOTIFY), 9)
HUB: Final = {"publish": 10, "deliver": 10}


def instrument(variant: Variant, listen: Listener, *, to_the_hub: bool = False) -> Variant:
    """Return the variant with links 2 to 5 and an adapter that report their calls. Agents need `instrumented_agent`.

    With `to_the_hub`, startup, the bridge and its hub also report their calls, as `recording_calls` needs.
    """
    row = replace(
        variant,
        supervisor=observed(variant.supervisor, SupervisorAgent, SUPERVISOR, listen),
        registry=observed(variant.registry, AgentRegistry, REGISTRY, listen),
        engine=observed(variant.engine, ExecutionEngine, ENGINE, listen),
        core=observed(variant.core, AgentExecutionCore, CORE, listen),
        adapter=observed(variant.adapter, WebSocketBridgeAdapter, ADAPTER, listen),
    )
    if not to_the_hub:
        return row
    return replace(
        row,
        start=watched(variant.start, start_application, 1, listen),
        bridge=observed(variant.bridge, AgentWebSocketBridge, BRIDGE, listen),
    )


def instrumented_agent(base: type[BaseAgent], listen: Listener) -> Any:
    """Return a subclass of the agent that reports its calls."""
    return observed(base, BaseAgent, AGENT_METHODS, listen)


def recording(history: History) -> Listener:
    """Return a listener that writes to the history what each link received and what each agent emitted."""

    def record(call: LinkCall) -> None:
        match call.link, call.method, call.given:
            case 2 | 4 | 5, "__init__", {"websocket_bridge": bridge}:
                history.bridge_given[call.link] = id(bridge)
            case 3, "set_websocket_bridge", {"bridge": bridge}:
                history.bridge_given[3] = id(bridge)
            case 3 | 4 | 5, "create_bound" | "execute" | "execute_agent", {"context": RunContext() as context}:
                history.received_by.setdefault(context.request, {})[call.link] = context.thread_id
            case 6 | 7, "set_websocket_bridge", {"bridge": bridge, "run_id": run_id, **others}:
                call.part.binding = BridgeBinding(id(bridge), run_id, others.get("thread_id"))
            case 6 | 8, "emit", _ if (key := _key(call.given)) is not None:
                _record_emission(history, call, key)

    return record


def _record_emission(history: History, call: LinkCall, key: EventKey) -> None:
    if call.link == 6:
        history.emissions[key] = _emission(call.part)
    else:
        history.emitted.add(key)


def _emission(agent: Any) -> Emission:
    adapter = agent._websocket_adapter
    return Emission(getattr(agent, "binding", None), getattr(adapter, "binding", None), _held(adapter))


def _held(adapter: WebSocketBridgeAdapter) -> BridgeBinding | None:
    if adapter.bridge is None or adapter.run_id is None:
        return None
    return BridgeBinding(id(adapter.bridge), adapter.run_id, adapter.thread_id)


def recording_calls(calls: list[LinkCall], history: History) -> Listener:
    """Return a listener that does what `recording` does and stores each call with its event, request and binding."""
    record = recording(history)

    def keep(call: LinkCall) -> None:
        record(call)
        calls.append(call)
        if call.method == "__init__" and isinstance(hub := call.given.get("hub"), Hub):
            # A broken link may create another bridge and hub, so observe each hub when its bridge is created.
            observe_instance(hub, Hub, HUB, keep)
        call.key = _key(call.given) or (None if call.caller is None else call.caller.key)
        call.request = _request(call)
        if (call.link, call.method) == (8, "emit"):
            call.held = _held(call.part)

    return keep


def _key(given: Mapping[str, Any]) -> EventKey | None:
    match given:
        case {"event_type": event_type, "payload": payload}:
            return key_of(event_type, payload)
        case {"event": AgentEvent() as event}:
            return key_of(event.type, event.payload)
    return None


def _request(call: LinkCall) -> str | None:
    match call.given:
        case {"context": RunContext() as context}:
            return context.request
        case {"request": str(request)}:
            return request
    if call.key is not None:
        return call.key.request
    return None if call.caller is None else call.caller.request


def wrong_bridge(application: Application, history: History) -> tuple[int, str] | None:
    """Return the first link that holds or passed on a bridge other than the application's bridge, or None."""
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
