"""The registry of active runs: a worker finds the runs of dead workers in the registry, and ends them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import anyio

from bridgekit.ids import RunId, ThreadId

__all__ = ["ActiveRun", "MemoryRunRegistry", "RunRegistry"]


class ActiveRun(NamedTuple):
    """A run that a worker executes, with the fields that its end event needs."""

    run_id: RunId
    thread_id: ThreadId
    agent_name: str


class RunRegistry(Protocol):
    """Records which worker executes which run. At most one worker takes over a run."""

    async def open(self, run: ActiveRun) -> None:
        """Record that this worker executes the run. Raises StoreUnavailable if the store did not answer in time."""

    async def holds(self, run_id: RunId) -> bool:
        """Return whether this worker may send the run's end event now.

        Return False if another worker took the run over because this worker did not renew its lease in time.
        """

    async def close(self, run_id: RunId) -> None:
        """Record that the run has ended and its end event was sent.

        If the store does not answer, the registry tries again later.
        """

    async def take_lost(self) -> list[ActiveRun]:
        """Wait until there are runs whose worker died, take them over, and return them."""


class MemoryRunRegistry:
    """Records no runs, because runs in memory end with their process. Clients detect the end of the process by a new
    epoch."""

    async def open(self, run: ActiveRun) -> None:
        """Does nothing."""

    async def holds(self, run_id: RunId) -> bool:
        return True

    async def close(self, run_id: RunId) -> None:
        """Does nothing."""

    async def take_lost(self) -> list[ActiveRun]:
        await anyio.sleep_forever()
        return []
