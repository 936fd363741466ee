"""Sends the end events of runs whose worker died."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup

from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import StoreUnavailable, WorkerLost, unwrap_single_error
from bridgekit.events import END_EVENTS, Outcome
from bridgekit.mapping import ActiveRun
from bridgekit.transport.cancellation import ends_task

__all__ = ["WORKER_LOST", "lost_runs_ended"]

logger = logging.getLogger(__name__)

WORKER_LOST: Final = "worker lost"
"""The reason that `agent_error` states for a run whose worker died."""
RETRY_SECONDS: Final = 1.0
"""Time between attempts to end a run while the store does not answer."""


@asynccontextmanager
async def lost_runs_ended(bridge: AgentWebSocketBridge) -> AsyncIterator[None]:
    """Send the end events of runs whose worker died, until the block ends."""
    with unwrap_single_error():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_lost_runs, bridge, tasks)
            yield
            tasks.cancel_scope.cancel()


async def _end_lost_runs(bridge: AgentWebSocketBridge, tasks: TaskGroup) -> None:
    while True:
        for run in await bridge.runs.take_lost():
            # The store may refuse the events of a single thread. Other runs must not wait for that thread.
            tasks.start_soon(_end_run, bridge, run)


async def _end_run(bridge: AgentWebSocketBridge, run: ActiveRun) -> None:
    try:
        while not await _try_to_end(bridge, run):  # noqa: ASYNC110 - no anyio.Event signals that the store answers
            await anyio.sleep(RETRY_SECONDS)
    except BaseException as error:
        if ends_task(error):
            raise
        # An uncaught error, for example of the application's payload_hook, would stop the server at every start.
        logger.exception("run %s of a lost worker could not be ended", run.run_id)


async def _try_to_end(bridge: AgentWebSocketBridge, run: ActiveRun) -> bool:
    """Send `agent_error` for a run that this worker took over. Return False if the caller must try again."""
    try:
        # The worker may have died after it sent the end event and before it closed the run.
        retained = await bridge.hub.retained(run.thread_id)
        if not any(frame.run_id == run.run_id and frame.type in END_EVENTS for frame in retained):
            receipt = await bridge.notify_agent_error(
                run.run_id,
                run.agent_name,
                bridge.error_text(WorkerLost()),
                error_context={"reason": WORKER_LOST},
                thread_id=run.thread_id,
            )
            if receipt.outcome is Outcome.REFUSED:
                return False
            logger.warning("run %s of agent %s was ended: its worker was lost", run.run_id, run.agent_name)
        await bridge.runs.close(run.run_id)
        await bridge.mapping.cleanup_mapping(run.run_id)
    except StoreUnavailable as error:
        logger.warning("run %s of a lost worker is not ended yet: %s", run.run_id, error)
        return False
    return True
