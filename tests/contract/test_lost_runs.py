"""A run whose worker died is taken over by exactly one other worker, or by the next process."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bridgekit.chain.link_1_startup import Application, BridgeConfig, start_application
from bridgekit.chain.lost_runs import WORKER_LOST, lost_runs_ended
from bridgekit.errors import StoreUnavailable
from bridgekit.events import END_EVENTS, EventType
from bridgekit.ids import RunId
from bridgekit.mapping import ActiveRun
from bridgekit.stores import Stores
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.contract.stores import POLL_INTERVAL_SECONDS, WAIT_SECONDS, StoreLocation
from tests.factories import THREAD, emitted

LEASE_SECONDS = 0.5
RUNS = [ActiveRun(RunId(f"run {number}"), THREAD, "researcher") for number in range(5)]


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgekit.stores.redis.active_runs.LEASE_SECONDS", LEASE_SECONDS)


async def started(stores: Stores) -> Application:
    config = BridgeConfig(agents={}, db_session_factory=DeclaredOwners(), authorizer=OwnerAuthorizer)
    return await start_application(config, stores)


async def ends_of(application: Application) -> dict[RunId, list[str]]:
    """Return the end events of each run: the reasons of errors, and the types of others."""
    ends = dict[RunId, list[str]]()
    for frame in await application.bridge.hub.retained(THREAD):
        if frame.type in END_EVENTS:
            context: Any = frame.event.payload.get("error_context", {})
            ends.setdefault(frame.run_id, []).append(context.get("reason", str(frame.type)))
    return ends


async def test_runs_of_a_dead_worker_are_ended_once(surviving: StoreLocation) -> None:
    """It had sent the end event of one run, and closed another one."""
    async with surviving.opened() as stores:
        first = await started(stores)
        for run in RUNS:
            await stores.runs.open(run)
        await first.bridge.notify(emitted(EventType.AGENT_COMPLETED, run_id=RUNS[0].run_id))
        await stores.runs.close(RUNS[1].run_id)
    ended = {RUNS[0].run_id: ["agent_completed"], **{run.run_id: [WORKER_LOST] for run in RUNS[2:]}}
    with anyio.fail_after(WAIT_SECONDS):
        async with surviving.opened() as stores:
            second = await started(stores)
            async with lost_runs_ended(second.bridge):
                while await ends_of(second) != ended:  # noqa: ASYNC110 - another process may write the log
                    await anyio.sleep(POLL_INTERVAL_SECONDS)
    async with surviving.opened() as stores:
        third = await started(stores)
        async with lost_runs_ended(third.bridge):
            with anyio.move_on_after(2 * LEASE_SECONDS) as waiting:
                assert await stores.runs.take_lost() == []
            assert waiting.cancelled_caught
            assert await ends_of(third) == ended


async def test_run_id_may_be_opened_again(surviving: StoreLocation) -> None:
    """The application's own scheme of run ids may give a repeated job the same id."""
    async with surviving.opened() as stores:
        for _ in range(2):
            await stores.runs.open(RUNS[0])
        await stores.runs.close(RUNS[0].run_id)


async def test_live_workers_keep_their_runs_and_share_those_of_a_dead_one(surviving: StoreLocation) -> None:
    if surviving.kind.workers == 1:
        return
    taken = list[ActiveRun]()

    async def collect(stores: Stores) -> None:
        while True:
            taken.extend(await stores.runs.take_lost())

    with anyio.fail_after(WAIT_SECONDS):
        async with (
            surviving.opened() as alive,
            surviving.opened() as another,
            surviving.opened() as third,
            anyio.create_task_group() as tasks,
        ):
            await alive.runs.open(RUNS[0])
            async with surviving.opened() as dying:
                for run in RUNS[1:]:
                    await dying.runs.open(run)
            for stores in (alive, another, third):
                tasks.start_soon(collect, stores)
            while len(taken) < len(RUNS) - 1:  # noqa: ASYNC110 - no event exists
                await anyio.sleep(POLL_INTERVAL_SECONDS)
            assert await alive.runs.holds(RUNS[0].run_id)
            tasks.cancel_scope.cancel()
    assert sorted(taken) == sorted(RUNS[1:])


async def test_runs_that_were_taken_over_are_returned_again_when_the_reply_is_lost(surviving: StoreLocation) -> None:
    if surviving.kind.workers == 1:
        return
    with anyio.fail_after(WAIT_SECONDS):
        async with surviving.opened() as stores:
            registry: Any = stores.runs
            call, lost_replies = registry._call, list[Any]()

            async def lose_first_reply(*arguments: Any) -> Any:
                reply = await call(*arguments)
                if not isinstance(reply, list) or len(reply) == 1 or lost_replies:
                    return reply
                lost_replies.append(reply)
                raise StoreUnavailable("redis", "the reply was lost")

            registry._call = lose_first_reply
            async with surviving.opened() as dying:
                await dying.runs.open(RUNS[0])
            assert await stores.runs.take_lost() == [RUNS[0]]
            assert lost_replies
