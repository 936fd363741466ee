"""A worker process reports completely, stops, restarts, and reports why it cannot start."""

from __future__ import annotations

import secrets

import anyio
import pytest

from bridgekit_verify.faults.trials.deployment import RESUME, deployed, start_worker
from bridgekit_verify.faults.trials.worker_process import (
    Acknowledged,
    Attempted,
    Ended,
    RunReport,
    RunRequest,
    WorkerSetup,
)
from bridgekit_verify.harness.processes import ProcessExited
from bridgekit_verify.measure.thread_id_families import thread_ids

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

OWNED = thread_ids("chat_<n>", 1)
ORDER = RunRequest(
    request="test:one", thread_id=OWNED[0].thread_id, user_id=OWNED[0].user_id, steps=2, pace_seconds=0.01
)


async def test_each_event_is_reported_as_attempted_and_then_acknowledged() -> None:
    reports = list[RunReport]()
    async with deployed(RESUME, OWNED) as deployment:
        deployment.agents.observers["test"] = reports.append
        await deployment.agents.start_run(ORDER)
        with anyio.fail_after(60):
            while not any(isinstance(each, Ended) for each in reports):
                await anyio.lowlevel.checkpoint()
    assert [type(each) for each in reports[:-1]] == [Attempted, Acknowledged] * 8
    assert reports[-1] == Ended("test:one")


async def test_stopped_worker_exits_cleanly_and_serves_after_a_restart() -> None:
    async with deployed(RESUME, OWNED) as deployment:
        worker = deployment.sockets
        assert await worker.stop() == 0
        with pytest.raises(ProcessExited):
            await worker.start_run(ORDER)
        await worker.restart()
        await worker.start_run(ORDER)


async def test_worker_that_cannot_start_raises_with_its_error_output() -> None:
    setup = WorkerSetup(store="nothing:", keep_events=1, outbox_bytes=1, port=0, key=secrets.token_bytes(32), owned=[])
    with (
        pytest.raises(ProcessExited, match=r"(?s)worker with the store 'nothing:'.*no store is called"),
        anyio.fail_after(60),
    ):
        async with start_worker(setup):
            raise AssertionError("it serves")
