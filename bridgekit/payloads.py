"""What each event type carries: one function a type, so that the wire format is written down once."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "Payload",
    "agent_completed",
    "agent_error",
    "agent_started",
    "agent_thinking",
    "progress_update",
    "tool_completed",
    "tool_executing",
]

Payload = Mapping[str, object]
"""A JSON object. Values are what JSON can carry; anything else is refused when the event is encoded."""


def agent_started(*, context: Payload | None = None, message: str | None = None) -> Payload:
    """The agent took the run up. `context` says what it was asked."""
    return {"status": "started", "context": context or {}, "message": message}


def agent_thinking(
    reasoning: str, *, step_number: int | None = None, progress_percentage: float | None = None
) -> Payload:
    """One step of the agent's reasoning; `progress_percentage` is 0 to 100."""
    return {"reasoning": reasoning, "step_number": step_number, "progress_percentage": progress_percentage}


def tool_executing(tool_call_id: str, tool_name: str, *, parameters: Payload | None = None) -> Payload:
    """A tool is about to run. `tool_call_id` pairs it with its completion."""
    return {"tool_call_id": tool_call_id, "tool_name": tool_name, "parameters": parameters or {}}


def tool_completed(
    tool_call_id: str,
    tool_name: str,
    *,
    result: object = None,
    execution_time_ms: float | None = None,
    status: str = "success",
) -> Payload:
    """The tool returned, or failed: then `status` is "error" and `result` says how."""
    return {
        "tool_call_id": tool_call_id,
        "tool_name": tool_name,
        "result": result,
        "execution_time_ms": execution_time_ms,
        "status": status,
    }


def agent_completed(*, result: object = None, execution_time_ms: float | None = None) -> Payload:
    """The run ended well; `result` is what the user was waiting for."""
    return {"status": "completed", "result": result, "execution_time_ms": execution_time_ms}


def agent_error(error_message: str, *, error_context: Payload | None = None) -> Payload:
    """The run ended badly."""
    return {"error_message": error_message, "error_context": error_context or {}}


def progress_update(progress: Payload) -> Payload:
    """Anything an agent wants shown in passing."""
    return dict(progress)
