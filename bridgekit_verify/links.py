"""The nine links between application startup and the user's socket, in the audit's order and with its names."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Final

from bridgekit.chain.link_1_startup import start_application
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge

__all__ = ["LINKS", "Link"]


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain: the audit's verdict on it, and the class or function of bridgekit that implements it."""

    number: int
    name: str
    """The audit's heading for the link, shortened."""
    part: object
    """The class or function that implements the link."""
    output: str
    """What the link passes to the next link."""
    reported: str = "working"
    """The audit's verdict on the link: "working" or "broken"."""

    @property
    def title(self) -> str:
        return f"Link {self.number} · {self.name}"

    @property
    def module(self) -> ModuleType:
        return import_module(self.part.__module__)


LINKS: Final = (
    Link(1, "App startup", start_application, "one checked bridge"),
    Link(2, "SupervisorAgent", SupervisorAgent, "the bridge, and a run context with the run's thread"),
    Link(3, "AgentRegistry", AgentRegistry, "a new agent for each run"),
    Link(4, "ExecutionEngine", ExecutionEngine, "the bridge"),
    Link(5, "AgentExecutionCore", AgentExecutionCore, "the bridge and the run id"),
    Link(6, "BaseAgent", BaseAgent, "the bridge, the run id and the agent's name"),
    Link(
        7,
        "WebSocketBridgeAdapter",
        WebSocketBridgeAdapter.set_websocket_bridge,
        "an adapter bound to the bridge, run and thread",
    ),
    Link(8, "Event emission", WebSocketBridgeAdapter.emit, "an event"),
    Link(9, "AgentWebSocketBridge routing", AgentWebSocketBridge.notify, "a frame for the thread's sockets", "broken"),
)
