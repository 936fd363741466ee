"""A worker process, held from outside: what it says is known whatever becomes of it."""

from __future__ import annotations

import secrets

import anyio
import pytest

from bridgekit_verify.faults.processes import ProcessGone
from bridgekit_verify.faults.trials.deployment import RESUME, deployed
from bridgekit_verify.faults.trials.hands import WorkerSilent, hand
from bridgekit_verify.faults.trials.worker import Answered, Attempted, Ended, Order, Said, Setup
from bridgekit_verify.measure.families import family

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

OWNED = family("chat_<n>", 1)
ORDER = Order(request="test:one", thread_id=OWNED[0].thread_id, user_id=OWNED[0].user_id, steps=2, pace_seconds=0.01)


async def test_run_is_told_event_by_event_first_asked_for_then_answered() -> None:
    said = list[Said]()
    async with deployed(RESUME, OWNED) as deployment:
        deployment.agents.listeners["test"] = said.append
        await deployment.agents.carry(ORDER)
        with anyio.fail_after(60):
            while not any(isinstance(each, Ended) for each in said):
                await anyio.lowlevel.checkpoint()
    assert [type(each) for each in said[:-1]] == [Attempted, Answered] * 8
    assert said[-1] == Ended("test:one")


async def test_worker_that_is_told_to_stop_exits_cleanly_and_one_that_is_started_again_serves() -> None:
    async with deployed(RESUME, OWNED) as deployment:
        worker = deployment.sockets
        assert await worker.stop() == 0
        with pytest.raises(ProcessGone):
            await worker.carry(ORDER)
        await worker.again()
        await worker.carry(ORDER)


async def test_worker_that_cannot_start_is_told_at_once() -> None:
    setup = Setup(store="nothing:", keep_events=1, outbox_bytes=1, port=0, key=secrets.token_bytes(32), owned=[])
    with pytest.raises(WorkerSilent, match="'nothing:'"), anyio.fail_after(60):
        async with hand(setup):
            raise AssertionError("it came up")
