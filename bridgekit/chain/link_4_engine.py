"""Link 4: the engine creates the core with the bridge, and executes every run through it."""

from __future__ import annotations

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_5_execution_core import AgentExecutionCore, AgentSource
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import DeterministicStartupError

__all__ = ["ExecutionEngine"]


class ExecutionEngine:
    """Executes any number of concurrent runs. All runs share one core, which stores no state of a run."""

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
        """Run the agent that the context names and return its result. Raises the errors of
        `AgentExecutionCore.execute_agent`."""
        return await self.agent_core.execute_agent(context)
