"""Agents that emit through the adapter, and the background load, for all bridgekit stacks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from benchmarks.workload import AGENT, AgentRun, EventBody, thread_id
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_7_8_adapter import Emitter, WebSocketBridgeAdapter
from bridgekit.events import Receipt
from bridgekit.ids import RunId, ThreadId

__all__ = ["BridgekitStack", "emit"]

USER: Final = "user"


def emit(emitter: Emitter, body: EventBody) -> Awaitable[Receipt]:
    """Emit one event as an agent does, with the `emit_*` method of its type."""
    return _EMITTED[body.type](emitter, body.payload)


class BridgekitStack:
    """A started application in which each run gets its own adapter, as it would from the registry."""

    def __init__(self, application: Application, port: int = 0) -> None:
        self.application = application
        self.port = port

    def agent(self, run: AgentRun) -> Callable[[EventBody], Awaitable[Receipt]]:
        adapter = WebSocketBridgeAdapter()
        adapter.set_websocket_bridge(
            self.application.bridge, RunId(run.run_id), AGENT, thread_id=ThreadId(run.thread_id)
        )
        return partial(emit, adapter)

    async def prepare(self, threads: range) -> None:
        for number in threads:
            await self.application.open_thread(thread_id(number), USER)

    async def fill(self, *, threads: int, mappings: int) -> None:
        """Add threads from number 1,000,000 on, each with the events of one run in its log, and map active runs."""
        for number in range(1_000_000, 1_000_000 + threads):
            run = AgentRun(number, 0)
            emit_event = self.agent(run)
            for body in run.bodies():
                await emit_event(body)
        mapping = self.application.bridge.mapping
        for number in range(mappings):
            thread = thread_id(1_000_000 + number % max(threads, 1_000))
            await mapping.register_mapping(RunId(f"run_of_{thread}_{number:08x}"), ThreadId(thread))


def _started(emitter: Emitter, payload: dict[str, Any]) -> Awaitable[Receipt]:
    return emitter.emit_agent_started(payload["message"], context=payload["context"])


def _thinking(emitter: Emitter, payload: dict[str, Any]) -> Awaitable[Receipt]:
    return emitter.emit_thinking(payload["reasoning"], step_number=payload["step_number"])


def _executing(emitter: Emitter, payload: dict[str, Any]) -> Awaitable[Receipt]:
    return emitter.emit_tool_executing(
        payload["tool_name"], payload["parameters"], tool_call_id=payload["tool_call_id"]
    )


def _executed(emitter: Emitter, payload: dict[str, Any]) -> Awaitable[Receipt]:
    return emitter.emit_tool_completed(
        payload["tool_name"],
        payload["result"],
        tool_call_id=payload["tool_call_id"],
        execution_time_ms=payload["execution_time_ms"],
    )


def _completed(emitter: Emitter, payload: dict[str, Any]) -> Awaitable[Receipt]:
    return emitter.emit_agent_completed(payload["result"], execution_time_ms=payload["execution_time_ms"])


_EMITTED: Final[Mapping[str, Callable[[Emitter, dict[str, Any]], Awaitable[Receipt]]]] = {
    "agent_started": _started,
    "agent_thinking": _thinking,
    "tool_executing": _executing,
    "tool_completed": _executed,
    "agent_completed": _completed,
}
