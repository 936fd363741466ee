"""Links 7 and 8: the adapter stores an agent's bridge, run and thread (7), and emits the agent's events (8)."""

from __future__ import annotations

import abc
import logging
from collections.abc import Awaitable, Mapping
from typing import Final

from bridgekit.chain.context import current_run
from bridgekit.chain.error_text import user_error_text
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge, open_bridges
from bridgekit.counters import NO_BRIDGE, RUN_ENDED
from bridgekit.events import AgentEvent, Answer, EventType, Outcome, Payload, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.transport.cancellation import ends_task

__all__ = ["Emitter", "WebSocketBridgeAdapter"]

logger = logging.getLogger(__name__)

# The types are looked up once, because attribute access on an enum class takes as long as the creation of an event.
_AGENT_STARTED: Final = EventType.AGENT_STARTED
_AGENT_THINKING: Final = EventType.AGENT_THINKING
_TOOL_EXECUTING: Final = EventType.TOOL_EXECUTING
_TOOL_COMPLETED: Final = EventType.TOOL_COMPLETED
_AGENT_COMPLETED: Final = EventType.AGENT_COMPLETED
_AGENT_ERROR: Final = EventType.AGENT_ERROR
_PROGRESS_UPDATE: Final = EventType.PROGRESS_UPDATE
_TEXT_DELTA: Final = EventType.TEXT_DELTA


class Emitter(abc.ABC):
    """The events that an agent may emit. Each `emit_*` method returns the bridge's Receipt."""

    @abc.abstractmethod
    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        """Emit one event of this run.

        The type is one of bridgekit's, or the application defined it with `define_event_type`. Await the result to get
        the Receipt.

        If a socket's outbox is filling up, awaiting the result lets the event loop write frames first.
        Raises PayloadError if JSON cannot represent the payload. Raises FrameTooLarge if the frame exceeds the size
        limit. Raises UnknownEventType, WrongEventLoop and StoreUnavailable as `AgentWebSocketBridge.notify` does.
        """

    def error_text(self, error: BaseException) -> str:
        """Return the text of an error for the user."""
        return user_error_text(error)

    async def emit_agent_started(self, message: str | None = None, *, context: Payload | None = None) -> Receipt:
        """Report that the run started. `context` holds the user's request."""
        answer = self.emit(_AGENT_STARTED, {"status": "started", "context": context or {}, "message": message})
        return answer if type(answer) is Receipt else await answer

    async def emit_thinking(
        self, reasoning: str, *, step_number: int | None = None, progress_percentage: float | None = None
    ) -> Receipt:
        """Report one step of the agent's reasoning. `progress_percentage` is from 0 to 100."""
        answer = self.emit(
            _AGENT_THINKING,
            {"reasoning": reasoning, "step_number": step_number, "progress_percentage": progress_percentage},
        )
        return answer if type(answer) is Receipt else await answer

    async def emit_tool_executing(
        self, tool_name: str, parameters: Mapping[str, object] | None = None, *, tool_call_id: str
    ) -> Receipt:
        """Report that a tool is about to run. `tool_call_id` pairs this event with its `tool_completed`."""
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
        """Report that a tool returned or failed. If the tool failed, `status` is "error" and `result` is the error
        text."""
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
        """Report that the run completed. `result` is the run's result for the user."""
        answer = self.emit(
            _AGENT_COMPLETED,
            {"status": "completed", "result": result, "execution_time_ms": execution_time_ms},
        )
        return answer if type(answer) is Receipt else await answer

    async def emit_error(self, error_message: str, *, error_context: Payload | None = None) -> Receipt:
        """Report that the run failed."""
        answer = self.emit(_AGENT_ERROR, {"error_message": error_message, "error_context": error_context or {}})
        return answer if type(answer) is Receipt else await answer

    async def emit_progress(self, progress: Payload) -> Receipt:
        """Report progress that the user may see while the agent runs. A slow client may get only the latest report."""
        answer = self.emit(_PROGRESS_UPDATE, progress)
        return answer if type(answer) is Receipt else await answer

    async def emit_text(self, delta: str, *, message_id: str) -> Receipt:
        """Stream the next piece of a text, such as a token of the model.

        The message's text is the concatenation of its deltas.

        A slow client may get several deltas in one event, but always gets the whole text. `message_id` identifies the
        message in its thread.
        """
        answer = self.emit(_TEXT_DELTA, {"message_id": message_id, "delta": delta})
        return answer if type(answer) is Receipt else await answer


class WebSocketBridgeAdapter(Emitter):
    """Emits the events of one agent in one run. Each run gets a new adapter, which stores that run's state only."""

    def __init__(self) -> None:
        self.bridge: AgentWebSocketBridge | None = None
        self.run_id: RunId | None = None
        self.agent_name = ""
        self.thread_id: ThreadId | None = None
        self.guarded = False
        """True if the core executes the run, which then has exactly one end event. In a run outside the core, the
        caller emits the end event."""
        self.ended: RunId | None = None
        """The run whose end event was emitted. The adapter refuses a second end event of this run."""

    def set_websocket_bridge(
        self,
        bridge: AgentWebSocketBridge,
        run_id: RunId,
        agent_name: str,
        *,
        thread_id: ThreadId | None = None,
    ) -> None:
        """Link 7: store the bridge, the run, the agent's name and the thread for later events."""
        self.guarded = self.guarded and run_id == self.run_id
        self.bridge = bridge
        self.run_id = run_id
        self.agent_name = agent_name
        self.thread_id = thread_id

    def begin_run(self) -> None:
        """Refuse every end event of the run after the first."""
        self.guarded = True

    def end_run(self, run_id: RunId) -> bool:
        """Refuse further end events of the run. Return False if the agent has already emitted an end event."""
        ended, self.ended = self.ended, run_id
        return ended != run_id

    def error_text(self, error: BaseException) -> str:
        return super().error_text(error) if self.bridge is None else self.bridge.error_text(error)

    def has_websocket_bridge(self) -> bool:
        return self.bridge is not None and self.run_id is not None

    async def _unless_refused(self, answer: Awaitable[Receipt]) -> Receipt:
        """Return the receipt of an end event. If the event was not published, accept another end event of the run."""
        try:
            receipt = await answer
        except BaseException as error:
            if not ends_task(error):
                self.ended = None
            raise
        if receipt.outcome is Outcome.REFUSED:
            self.ended = None
        return receipt

    def _refuse_without_bridge(self, event_type: EventType, payload: Payload) -> Receipt:
        logger.warning(
            "%s is lost: the adapter has no bridge or no run id; call set_websocket_bridge first", event_type
        )
        run = current_run()
        run_id = self.run_id or (RunId("") if run is None else run.run_id)
        event = AgentEvent(type=event_type, run_id=run_id, agent_name=self.agent_name, payload=payload)
        refused = Receipt(outcome=Outcome.REFUSED, link=7, reason=NO_BRIDGE)
        for bridge in tuple(open_bridges) if self.bridge is None else (self.bridge,):
            bridge.record(event, refused)
        return refused

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        """Link 8: create the event and pass it to the bridge."""
        if self.bridge is None or self.run_id is None:
            return self._refuse_without_bridge(event_type, payload)
        event = AgentEvent(
            type=event_type,
            run_id=self.run_id,
            agent_name=self.agent_name,
            payload=payload,
            thread_id=self.thread_id,
        )
        if self.guarded and (event_type is _AGENT_COMPLETED or event_type is _AGENT_ERROR):
            if self.ended == self.run_id:
                refused = Receipt(outcome=Outcome.REFUSED, link=8, reason=RUN_ENDED)
                self.bridge.record(event, refused)
                return refused
            answer = self.bridge.notify(event)
            if isinstance(answer, Receipt):
                self.ended = None if answer.outcome is Outcome.REFUSED else self.run_id
                return answer
            self.ended = self.run_id
            return self._unless_refused(answer)
        if self.bridge.crowded:
            return self.bridge.notify_when_room(event)
        return self.bridge.notify(event)
