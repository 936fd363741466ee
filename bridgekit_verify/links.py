"""The nine links between application startup and the user's socket, in the audit's order and under its names."""

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
    """One link of the chain: what the audit says about it, and where it is implemented here."""

    number: int
    name: str
    """The audit's heading for the link, shortened."""
    module: ModuleType
    part: object
    """The class or function that implements the link."""
    output: str
    """What this link passes to the next one."""
    reported: str
    """The audit's verdict on the link: "working" or "broken"."""

    @property
    def title(self) -> str:
        return f"Link {self.number} · {self.name}"


LINKS: Final = (
    Link(1, "App startup", link_1_startup, link_1_startup.start_application, "one checked bridge", "working"),
    Link(
        2,
        "SupervisorAgent",
        link_2_supervisor,
        link_2_supervisor.SupervisorAgent,
        "the bridge, and a run context with its thread",
        "working",
    ),
    Link(
        3,
        "AgentRegistry",
        link_3_registry,
        link_3_registry.AgentRegistry,
        "a new agent for each run",
        "working",
    ),
    Link(
        4,
        "ExecutionEngine",
        link_4_engine,
        link_4_engine.ExecutionEngine,
        "the bridge",
        "working",
    ),
    Link(
        5,
        "AgentExecutionCore",
        link_5_core,
        link_5_core.AgentExecutionCore,
        "the bridge and the run id",
        "working",
    ),
    Link(
        6,
        "BaseAgent",
        link_6_agent,
        link_6_agent.BaseAgent,
        "the bridge, the run id and the agent's name",
        "working",
    ),
    Link(
        7,
        "WebSocketBridgeAdapter",
        link_7_8_adapter,
        link_7_8_adapter.WebSocketBridgeAdapter.set_websocket_bridge,
        "an adapter bound to the bridge, run and thread",
        "working",
    ),
    Link(
        8,
        "Event emission",
        link_7_8_adapter,
        link_7_8_adapter.WebSocketBridgeAdapter.emit,
        "an event",
        "working",
    ),
    Link(
        9,
        "AgentWebSocketBridge routing",
        link_9_bridge,
        link_9_bridge.AgentWebSocketBridge.notify,
        "a frame for the thread's sockets",
        "broken",
    ),
)
