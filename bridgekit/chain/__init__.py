"""The nine links that carry an agent's event from startup to the user's socket, in the audit's order and names."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final

from bridgekit.chain import (
    link_1_startup,
    link_2_supervisor,
    link_3_registry,
    link_4_engine,
    link_5_core,
    link_6_agent,
    link_7_8_adapter,
    link_9_bridge,
)

__all__ = ["LINKS", "Link"]


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain, as the audit has it and as it stands here."""

    number: int
    name: str
    """The audit's heading, shortened."""
    module: ModuleType
    part: object
    """The class or function that is the link."""
    output: str
    """What the next link gets from it."""
    reported: str
    """The audit's verdict: "working" or "broken"."""

    @property
    def title(self) -> str:
        return f"Link {self.number} · {self.name}"


LINKS: Final = (
    Link(1, "App startup", link_1_startup, link_1_startup.start_application, "one bridge, checked", "working"),
    Link(
        2,
        "SupervisorAgent",
        link_2_supervisor,
        link_2_supervisor.SupervisorAgent,
        "the bridge, and a run that knows its thread",
        "working",
    ),
    Link(
        3,
        "AgentRegistry",
        link_3_registry,
        link_3_registry.AgentRegistry,
        "a fresh agent for each run",
        "working",
    ),
    Link(
        4,
        "ExecutionEngine",
        link_4_engine,
        link_4_engine.ExecutionEngine,
        "the bridge, to the core",
        "working",
    ),
    Link(
        5,
        "AgentExecutionCore",
        link_5_core,
        link_5_core.AgentExecutionCore,
        "bridge and run id, to the run's agent",
        "working",
    ),
    Link(
        6,
        "BaseAgent",
        link_6_agent,
        link_6_agent.BaseAgent,
        "bridge, run id and name, to the adapter",
        "working",
    ),
    Link(
        7,
        "WebSocketBridgeAdapter",
        link_7_8_adapter,
        link_7_8_adapter.WebSocketBridgeAdapter.set_websocket_bridge,
        "all that an emission needs, kept",
        "working",
    ),
    Link(
        8,
        "Event emission",
        link_7_8_adapter,
        link_7_8_adapter.WebSocketBridgeAdapter.emit,
        "an event, to the bridge",
        "working",
    ),
    Link(
        9,
        "AgentWebSocketBridge routing",
        link_9_bridge,
        link_9_bridge.AgentWebSocketBridge.notify,
        "a frame, to the thread's sockets",
        "broken",
    ),
)
