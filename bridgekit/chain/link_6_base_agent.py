"""Link 6: the agent gets the bridge for one run and passes it to its adapter."""

from __future__ import annotations

import abc

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_7_8_adapter import Emitter, WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.models_tools_and_owners import LLMManager, ToolDispatcher
from bridgekit.events import Answer, EventType, Payload
from bridgekit.ids import RunId, ThreadId

__all__ = ["BaseAgent"]


class BaseAgent(Emitter):
    """Base class of agents. One instance serves one run. Implement `execute` and report progress with `emit_*`.

    The core emits the run's first and last event, so an agent emits only the events in between.
    """

    def __init__(
        self,
        name: str,
        llm_manager: LLMManager,
        tool_dispatcher: ToolDispatcher,
        adapter: WebSocketBridgeAdapter,
    ) -> None:
        self.name = name
        self.llm_manager = llm_manager
        self.tool_dispatcher = tool_dispatcher
        self._websocket_adapter = adapter

    @abc.abstractmethod
    async def execute(self, context: RunContext) -> object:
        """Do the work that the user requests in `context.request`. The return value is sent to the user as the run's
        result."""

    def set_websocket_bridge(
        self, bridge: AgentWebSocketBridge, run_id: RunId, *, thread_id: ThreadId | None = None
    ) -> None:
        """Bind the agent's adapter to the bridge, the run and the thread."""
        self._websocket_adapter.set_websocket_bridge(bridge, run_id, self.name, thread_id=thread_id)

    def has_websocket_bridge(self) -> bool:
        return self._websocket_adapter.has_websocket_bridge()

    def begin_run(self) -> None:
        """Accept only one end event of the run."""
        self._websocket_adapter.begin_run()

    def end_run(self, run_id: RunId) -> bool:
        """Refuse further end events of the run. Return False if this agent has already emitted an end event."""
        return self._websocket_adapter.end_run(run_id)

    def error_text(self, error: BaseException) -> str:
        return self._websocket_adapter.error_text(error)

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        return self._websocket_adapter.emit(event_type, payload)

    async def use_tool(self, tool_name: str, /, **parameters: object) -> object:
        """Run a tool and return its result. The user gets the events `tool_executing` and `tool_completed`.

        Raises the tool's error.
        """
        return await self.tool_dispatcher.dispatch(tool_name, parameters, self)
