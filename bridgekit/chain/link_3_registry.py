"""Link 3: the registry knows the agents by name and makes a fresh one for each run."""

from __future__ import annotations

from collections.abc import Mapping

from bridgekit import ids
from bridgekit.chain.collaborators import LLMManager, ToolDispatcher
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import UnknownName

__all__ = ["AgentRegistry"]


class AgentRegistry:
    """Agent classes by name, and the bridge for the agents that it makes."""

    def __init__(
        self,
        llm_manager: LLMManager,
        tool_dispatcher: ToolDispatcher,
        agents: Mapping[str, type[BaseAgent]],
        *,
        adapter: type[WebSocketBridgeAdapter] = WebSocketBridgeAdapter,
    ) -> None:
        self.agents = {ids.agent_name(name): agent for name, agent in agents.items()}
        self.websocket_bridge: AgentWebSocketBridge | None = None
        self._llm_manager = llm_manager
        self._tool_dispatcher = tool_dispatcher
        self._adapter = adapter

    def set_websocket_bridge(self, bridge: AgentWebSocketBridge) -> None:
        """Keep the bridge for the agents to come. None exists yet, so none can be forgotten."""
        self.websocket_bridge = bridge

    def create(self, name: str) -> BaseAgent:
        """Make a fresh agent, with an adapter of its own and no bridge yet: the core gives it one. Or UnknownName."""
        if name not in self.agents:
            raise UnknownName("agent", name, tuple(self.agents))
        return self.agents[name](name, self._llm_manager, self._tool_dispatcher, self._adapter())

    def create_bound(self, context: RunContext) -> BaseAgent:
        """Make a fresh agent that can be heard in that run, for callers outside the core.

        A webhook or a scheduler that goes on with a run later has no core around it; such an agent gets its
        bridge here. LookupError when the registry was given none.
        """
        if self.websocket_bridge is None:
            raise UnknownName("bridge", "websocket_bridge", ())
        agent = self.create(context.agent_name)
        agent.set_websocket_bridge(self.websocket_bridge, context.run_id, thread_id=context.thread_id)
        return agent
