"""What every link from the second on knows of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridgekit.ids import RunId, ThreadId, UserId

__all__ = ["ERROR_BYTES", "ERROR_NOTIFY_TIMEOUT_SECONDS", "RunContext", "RunResult", "user_error_text"]

ERROR_NOTIFY_TIMEOUT_SECONDS: Final = 5.0
"""How long a run that was cancelled may be held up by telling its user."""
ERROR_BYTES: Final = 4_096
"""Longest error text that a user is user_error_text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """One run, from its acceptance to its end. The thread is carried here, so that no link has to find it out."""

    run_id: RunId
    thread_id: ThreadId
    user_id: UserId
    agent_name: str
    request: str
    """What the user asked for."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run that ended well, and what its agent returned."""

    context: RunContext
    result: object


def user_error_text(error: BaseException) -> str:
    """The error as a text that every frame can carry: one that cannot be user_error_text would hide the agent's own."""
    return f"{type(error).__name__}: {error}".encode(errors="replace")[:ERROR_BYTES].decode(errors="ignore")
