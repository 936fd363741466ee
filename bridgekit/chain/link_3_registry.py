"""Link 3: the registry maps names to agent classes and creates a new agent for each run."""

from __future__ import annotations

from collections.abc import Mapping

from bridgekit import ids
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.models_tools_and_owners import LLMManager, ToolDispatcher
from bridgekit.errors import InvalidId, UnknownAgent, UnknownName

__all__ = ["AgentRegistry"]


class AgentRegistry:
    """Agent classes by name, and the bridge for agents that are created outside the core."""

    def __init__(
        self,
        llm_manager: LLMManager,
        tool_dispatcher: ToolDispatcher,
        agents: Mapping[str, type[BaseAgent]],
        *,
        adapter: type[WebSocketBridgeAdapter] = WebSocketBridgeAdapter,
    ) -> None:
        self.agents = {ids.agent_name(name): agent for name, agent in agents.items()}
        for name, agent in self.agents.items():
            if not callable(agent):
                raise InvalidId("agents", f"{name!r} must be a class, not an object: each run gets an agent of its own")
        self.websocket_bridge: AgentWebSocketBridge | None = None
        self._llm_manager = llm_manager
        self._tool_dispatcher = tool_dispatcher
        self._adapter = adapter

    def set_websocket_bridge(self, bridge: AgentWebSocketBridge) -> None:
        """Set the bridge for `create_bound`. No agent needs an update, because the registry stores no agents."""
        self.websocket_bridge = bridge

    def create(self, name: str) -> BaseAgent:
        """Create an agent with its own adapter. The core sets the agent's bridge.

        Raises UnknownAgent if no agent has this name.
        """
        if name not in self.agents:
            raise UnknownAgent("agent", name, tuple(self.agents))
        return self.agents[name](name, self._llm_manager, self._tool_dispatcher, self._adapter())

    def create_bound(self, context: RunContext) -> BaseAgent:
        """Create an agent that can emit events in the run, for callers outside the core.

        For example, a webhook or a scheduler may continue a run later. The method sets the agent's bridge, because the
        core does so only for runs that it executes. Raises UnknownAgent if no agent has this name, and UnknownName if
        `set_websocket_bridge` was not called.
        """
        if self.websocket_bridge is None:
            raise UnknownName("bridge", "websocket_bridge", ())
        agent = self.create(context.agent_name)
        agent.set_websocket_bridge(self.websocket_bridge, context.run_id, thread_id=context.thread_id)
        return agent
