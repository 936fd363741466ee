"""What every link from the second on knows of a run."""

from __future__ import annotations

from dataclasses import dataclass

from bridgekit.ids import RunId, ThreadId, UserId

__all__ = ["RunContext", "RunResult"]


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
