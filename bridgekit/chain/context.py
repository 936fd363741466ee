"""The context and the result of a run, which link 2 creates and the later links use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridgekit.ids import RunId, ThreadId, UserId

__all__ = ["ERROR_BYTES", "ERROR_NOTIFY_TIMEOUT_SECONDS", "RunContext", "RunResult", "user_error_text"]

ERROR_NOTIFY_TIMEOUT_SECONDS: Final = 5.0
"""How long a cancelled or failed run may be delayed while its error event is sent to the user."""
ERROR_BYTES: Final = 4_096
"""Size limit of an error text that is sent to a user, in bytes of UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The identity and request of one run. It carries the thread, so that no later link has to look it up."""

    run_id: RunId
    thread_id: ThreadId
    user_id: UserId
    agent_name: str
    request: str
    """The user's request."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The context of a run that completed, with its agent's return value."""

    context: RunContext
    result: object


def user_error_text(error: BaseException) -> str:
    """Return the error's type and message, truncated and re-encoded so that every frame can carry them.

    Otherwise, encoding the error event could fail, and its error would hide the agent's own error.
    """
    return f"{type(error).__name__}: {error}".encode(errors="replace")[:ERROR_BYTES].decode(errors="ignore")
