"""Links 7 and 8: the adapter holds what one run's agent needs to be heard (7), and emits for it (8)."""

from __future__ import annotations

import abc
import logging
from collections.abc import Mapping
from typing import Final

from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.events import AgentEvent, Answer, EventType, Outcome, Payload, Receipt
from bridgekit.ids import RunId, ThreadId

__all__ = ["Emitter", "WebSocketBridgeAdapter"]

logger = logging.getLogger(__name__)

# Looking a member up in its enumeration takes as long as making an event.
_AGENT_STARTED: Final = EventType.AGENT_STARTED
_AGENT_THINKING: Final = EventType.AGENT_THINKING
_TOOL_EXECUTING: Final = EventType.TOOL_EXECUTING
_TOOL_COMPLETED: Final = EventType.TOOL_COMPLETED
_AGENT_COMPLETED: Final = EventType.AGENT_COMPLETED
_AGENT_ERROR: Final = EventType.AGENT_ERROR
_PROGRESS_UPDATE: Final = EventType.PROGRESS_UPDATE


class Emitter(abc.ABC):
    """The seven events that an agent may emit. Each method returns the bridge's Receipt."""

    @abc.abstractmethod
    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        """Emit one event of this run. PayloadError or FrameTooLarge where the wire cannot carry it.

        Await the answer: it is the Receipt, or gives it, and while a socket is slow the event loop runs meanwhile.
        """

    async def emit_agent_started(self, message: str | None = None, *, context: Payload | None = None) -> Receipt:
        """The agent took the run up. `context` is what it was asked."""
        answer = self.emit(_AGENT_STARTED, {"status": "started", "context": context or {}, "message": message})
        return answer if type(answer) is Receipt else await answer

    async def emit_thinking(
        self, reasoning: str, *, step_number: int | None = None, progress_percentage: float | None = None
    ) -> Receipt:
        """One step of the agent's reasoning; `progress_percentage` is 0 to 100."""
        answer = self.emit(
            _AGENT_THINKING,
            {"reasoning": reasoning, "step_number": step_number, "progress_percentage": progress_percentage},
        )
        return answer if type(answer) is Receipt else await answer

    async def emit_tool_executing(
        self, tool_name: str, parameters: Mapping[str, object] | None = None, *, tool_call_id: str
    ) -> Receipt:
        """A tool is about to run. `tool_call_id` pairs it with its completion."""
        answer = self.emit(
            _TOOL_EXECUTING,
            {"tool_call_id": tool_call_id, "tool_name": tool_name, "parameters": parameters or {}},
        )
        return answer if type(answer) is Receipt else await answer

    async def emit_tool_completed(
        self,
        tool_name: str,
        result: object = None,
        *,
        tool_call_id: str,
        execution_time_ms: float | None = None,
        status: str = "success",
    ) -> Receipt:
        """The tool returned, or failed: then `status` is "error" and `result` says how."""
        answer = self.emit(
            _TOOL_COMPLETED,
            {
                "tool_call_id": tool_call_id,
                "tool_name": tool_name,
                "result": result,
                "execution_time_ms": execution_time_ms,
                "status": status,
            },
        )
        return answer if type(answer) is Receipt else await answer

    async def emit_agent_completed(self, result: object = None, *, execution_time_ms: float | None = None) -> Receipt:
        """The run ended well; `result` is what the user was waiting for."""
        answer = self.emit(
            _AGENT_COMPLETED,
            {"status": "completed", "result": result, "execution_time_ms": execution_time_ms},
        )
        return answer if type(answer) is Receipt else await answer

    async def emit_error(self, error_message: str, *, error_context: Payload | None = None) -> Receipt:
        """The run ended badly."""
        answer = self.emit(_AGENT_ERROR, {"error_message": error_message, "error_context": error_context or {}})
        return answer if type(answer) is Receipt else await answer

    async def emit_progress(self, progress: Payload) -> Receipt:
        """Anything that an agent wants shown in passing."""
        answer = self.emit(_PROGRESS_UPDATE, dict(progress))
        return answer if type(answer) is Receipt else await answer


class WebSocketBridgeAdapter(Emitter):
    """Speaks for one agent in one run. Made anew for each run, because what it holds is that run's."""

    def __init__(self) -> None:
        self.bridge: AgentWebSocketBridge | None = None
        self.run_id: RunId | None = None
        self.agent_name = ""
        self.thread_id: ThreadId | None = None

    def set_websocket_bridge(
        self,
        bridge: AgentWebSocketBridge,
        run_id: RunId,
        agent_name: str,
        *,
        thread_id: ThreadId | None = None,
    ) -> None:
        """Link 7: remember whom to speak to, for which run, under which name, and in which thread."""
        self.bridge = bridge
        self.run_id = run_id
        self.agent_name = agent_name
        self.thread_id = thread_id

    def has_websocket_bridge(self) -> bool:
        return self.bridge is not None and self.run_id is not None

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        """Link 8: make the event and hand it to the bridge."""
        if self.bridge is None or self.run_id is None:
            # There is no bridge to count this loss, so it is told to the log and to the caller.
            logger.warning("%s was emitted by an agent that was given no bridge", event_type)
            return Receipt(outcome=Outcome.REFUSED, link=7, reason="the adapter holds no bridge")
        event = AgentEvent(
            type=event_type,
            run_id=self.run_id,
            agent_name=self.agent_name,
            payload=payload,
            thread_id=self.thread_id,
        )
        if self.bridge.crowded:
            return self.bridge.notify_when_room(event)
        return self.bridge.notify(event)
