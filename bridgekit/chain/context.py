"""The context of a run, which link 2 creates for the later links, and the result of a run."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from bridgekit.ids import RunId, ThreadId, UserId

__all__ = ["END_TIMEOUT_SECONDS", "RunContext", "RunResult", "current_run", "enclosing_runs"]

END_TIMEOUT_SECONDS: Final = 5.0
"""How long a run or a tool call waits for its last event to be sent, even if the run was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The identity and request of one run. The context carries the thread, so no later link needs a lookup."""

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


enclosing_runs: ContextVar[tuple[RunContext, ...]] = ContextVar("enclosing_runs", default=())
"""The runs that the current task is part of. The last run is the innermost. Each run in the tuple started the next one
as a sub-agent."""


def current_run() -> RunContext | None:
    """Return the run that the calling code is part of, for example to add its ids to a log record. None outside a
    run."""
    runs = enclosing_runs.get()
    return runs[-1] if runs else None
