"""With every store, a run belongs to one thread, and a ticket is accepted once."""

from __future__ import annotations

import anyio
import pytest

from bridgekit.errors import RunAlreadyMapped
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import RunThreadMappingService
from tests.contract.stores import POLL_INTERVAL_SECONDS, WAIT_SECONDS, StoreLocation
from tests.factories import OTHER, RUN, THREAD

ODD = ["run", "run_", "{run}", "run 1", "run:1", "läufer", "\U00010348", 'r"\\', "r" * 2_048]


async def test_every_worker_finds_a_registered_run_and_no_unknown_one(location: StoreLocation) -> None:
    async with location.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)
        await mapping.register_mapping(RUN, THREAD)
        await mapping.register_mapping(RUN, THREAD)
        assert await mapping.get_thread_id(RUN) == THREAD
        assert await mapping.get_thread_id(RunId("run_unknown")) is None


async def test_run_keeps_its_thread_while_live_and_in_its_grace_period(location: StoreLocation) -> None:
    async with location.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)
        await mapping.register_mapping(RUN, THREAD)
        for _ in range(2):
            with pytest.raises(RunAlreadyMapped):
                await mapping.register_mapping(RUN, OTHER)
            assert await mapping.get_thread_id(RUN) == THREAD
            await mapping.cleanup_mapping(RUN)


async def test_concurrent_registrations_of_a_run_all_get_the_same_thread(location: StoreLocation) -> None:
    owners: list[str] = []
    async with location.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)

        async def claim(thread: ThreadId) -> None:
            try:
                await mapping.register_mapping(RUN, thread)
            except RunAlreadyMapped as refused:
                owners.append(refused.thread_id)
            else:
                owners.append(thread)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(claim, ThreadId(f"thread_{number}"))
        assert owners == [await mapping.get_thread_id(RUN)] * 50


async def test_route_of_a_closed_run_expires_after_its_grace_period(location: StoreLocation) -> None:
    async with location.opened() as stores:
        mapping = RunThreadMappingService(stores.routes, grace_seconds=0.2)
        await mapping.register_mapping(RUN, THREAD)
        await mapping.cleanup_mapping(RUN)
        with anyio.fail_after(WAIT_SECONDS):
            while (found := await mapping.get_thread_id(RUN)) is not None:
                assert found == THREAD
                await anyio.sleep(POLL_INTERVAL_SECONDS)
        await mapping.register_mapping(RUN, OTHER)
        assert await mapping.get_thread_id(RUN) == OTHER


async def test_run_registered_again_in_its_grace_period_is_live(location: StoreLocation) -> None:
    async with location.opened() as stores:
        short, other = RunThreadMappingService(stores.routes, grace_seconds=0.2), RunId("run_other")
        for run in (RUN, other):
            await short.register_mapping(run, THREAD)
            await short.cleanup_mapping(run)
        await short.register_mapping(RUN, THREAD)
        with anyio.fail_after(WAIT_SECONDS):
            while await short.get_thread_id(other) is not None:  # noqa: ASYNC110  # no event signals an expiry
                await anyio.sleep(POLL_INTERVAL_SECONDS)
        assert await short.get_thread_id(RUN) == THREAD


async def test_expiring_an_unknown_run_has_no_effect(location: StoreLocation) -> None:
    async with location.opened() as stores:
        mapping = RunThreadMappingService(stores.routes, grace_seconds=0)
        await mapping.cleanup_mapping(RUN)
        await mapping.register_mapping(RUN, THREAD)
        assert await mapping.get_thread_id(RUN) == THREAD


async def test_runs_with_similar_ids_are_separate(location: StoreLocation) -> None:
    async with location.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)
        for number, name in enumerate(ODD):
            await mapping.register_mapping(RunId(name), ThreadId(f"thread {number}"))
        assert [await mapping.get_thread_id(RunId(name)) for name in ODD] == [
            f"thread {number}" for number in range(len(ODD))
        ]


async def test_ticket_is_accepted_once_when_presented_concurrently(location: StoreLocation) -> None:
    answers: dict[str, list[bool]] = {ticket: [] for ticket in ("t", "t ", "a" * 32, "t {1}", "ü")}
    async with location.opened() as stores:

        async def present(ticket: str) -> None:
            answers[ticket].append(await stores.used_tickets.mark_used(ticket, 60.0))

        async with anyio.create_task_group() as tasks:
            for ticket in answers:
                for _ in range(10):
                    tasks.start_soon(present, ticket)
        assert [sorted(each) for each in answers.values()] == [[False] * 9 + [True]] * 5
        assert [await stores.used_tickets.mark_used(ticket, 60.0) for ticket in answers] == [False] * 5


async def test_used_ticket_is_forgotten_when_it_has_expired(location: StoreLocation) -> None:
    async with location.opened() as stores:
        assert await stores.used_tickets.mark_used("ticket", 0.2)
        with anyio.fail_after(WAIT_SECONDS):
            while not await stores.used_tickets.mark_used("ticket", 0.2):  # noqa: ASYNC110  # no event signals an expiry
                await anyio.sleep(POLL_INTERVAL_SECONDS)
