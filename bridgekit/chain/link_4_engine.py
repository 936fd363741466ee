"""Link 4: the engine runs agents through one core, which it gives the bridge."""

from __future__ import annotations

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_5_core import AgentExecutionCore, AgentSource
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import DeterministicStartupError

__all__ = ["ExecutionEngine"]


class ExecutionEngine:
    """Any number of runs at a time, each through the same core, which keeps nothing of them."""

    def __init__(
        self,
        registry: AgentSource,
        websocket_bridge: AgentWebSocketBridge,
        *,
        core: type[AgentExecutionCore] = AgentExecutionCore,
    ) -> None:
        self.registry = registry
        self.websocket_bridge = websocket_bridge
        with DeterministicStartupError.at(5, "the execution core"):
            self.agent_core = core(registry, websocket_bridge)

    async def execute(self, context: RunContext) -> object:
        """Run the agent that the context names and answer its result; raises what the agent raises."""
        return await self.agent_core.execute_agent(context)
