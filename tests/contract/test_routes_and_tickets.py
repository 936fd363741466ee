"""Whatever the store: a run belongs to one thread, and a ticket is good once."""

from __future__ import annotations

import anyio
import pytest

from bridgekit.errors import RunAlreadyMapped
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import RunThreadMappingService
from tests.contract.stores import LOOK_SECONDS, WAIT_SECONDS, Place
from tests.factories import OTHER, RUN, THREAD

ODD = ["run", "run_", "{run}", "run 1", "run:1", "läufer", "\U00010348", 'r"\\', "r" * 2_048]


async def test_registered_run_is_found_by_every_worker_and_an_unknown_one_by_none(place: Place) -> None:
    async with place.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)
        await mapping.register_mapping(RUN, THREAD)
        await mapping.register_mapping(RUN, THREAD)
        assert await mapping.get_thread_id(RUN) == THREAD
        assert await mapping.get_thread_id(RunId("run_unknown")) is None


async def test_run_is_not_moved_to_another_thread_live_or_lingering(place: Place) -> None:
    async with place.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)
        await mapping.register_mapping(RUN, THREAD)
        for _ in range(2):
            with pytest.raises(RunAlreadyMapped):
                await mapping.register_mapping(RUN, OTHER)
            assert await mapping.get_thread_id(RUN) == THREAD
            await mapping.cleanup_mapping(RUN)


async def test_of_many_who_claim_a_run_at_once_one_gets_it_and_all_others_are_told_who(place: Place) -> None:
    told: list[str] = []
    async with place.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)

        async def claim(thread: ThreadId) -> None:
            try:
                await mapping.register_mapping(RUN, thread)
            except RunAlreadyMapped as refused:
                told.append(refused.thread_id)
            else:
                told.append(thread)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(claim, ThreadId(f"thread_{number}"))
        assert told == [await mapping.get_thread_id(RUN)] * 50


async def test_route_of_a_closed_run_lingers_and_lapses(place: Place) -> None:
    async with place.opened() as stores:
        mapping = RunThreadMappingService(stores.routes, grace_seconds=0.2)
        await mapping.register_mapping(RUN, THREAD)
        await mapping.cleanup_mapping(RUN)
        with anyio.fail_after(WAIT_SECONDS):
            while (found := await mapping.get_thread_id(RUN)) is not None:
                assert found == THREAD
                await anyio.sleep(LOOK_SECONDS)
        await mapping.register_mapping(RUN, OTHER)
        assert await mapping.get_thread_id(RUN) == OTHER


async def test_run_that_goes_on_in_its_grace_period_is_live_again(place: Place) -> None:
    async with place.opened() as stores:
        short, other = RunThreadMappingService(stores.routes, grace_seconds=0.2), RunId("run_other")
        for run in (RUN, other):
            await short.register_mapping(run, THREAD)
            await short.cleanup_mapping(run)
        await short.register_mapping(RUN, THREAD)
        with anyio.fail_after(WAIT_SECONDS):
            while await short.get_thread_id(other) is not None:  # noqa: ASYNC110  # what lapses rings nobody
                await anyio.sleep(LOOK_SECONDS)
        assert await short.get_thread_id(RUN) == THREAD


async def test_cleanup_of_an_unknown_run_is_no_error_and_closes_nothing(place: Place) -> None:
    async with place.opened() as stores:
        mapping = RunThreadMappingService(stores.routes, grace_seconds=0)
        await mapping.cleanup_mapping(RUN)
        await mapping.register_mapping(RUN, THREAD)
        assert await mapping.get_thread_id(RUN) == THREAD


async def test_runs_whose_ids_look_alike_are_told_apart(place: Place) -> None:
    async with place.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)
        for number, name in enumerate(ODD):
            await mapping.register_mapping(RunId(name), ThreadId(f"thread {number}"))
        assert [await mapping.get_thread_id(RunId(name)) for name in ODD] == [
            f"thread {number}" for number in range(len(ODD))
        ]


async def test_ticket_is_good_once_however_many_present_it_at_once(place: Place) -> None:
    answers: dict[str, list[bool]] = {ticket: [] for ticket in ("t", "t ", "a" * 32, "t {1}", "ü")}
    async with place.opened() as stores:

        async def present(ticket: str) -> None:
            answers[ticket].append(await stores.used_tickets.spend(ticket, 60.0))

        async with anyio.create_task_group() as tasks:
            for ticket in answers:
                for _ in range(10):
                    tasks.start_soon(present, ticket)
        assert [sorted(each) for each in answers.values()] == [[False] * 9 + [True]] * 5
        assert [await stores.used_tickets.spend(ticket, 60.0) for ticket in answers] == [False] * 5


async def test_ticket_is_forgotten_when_it_would_not_be_valid_any_more(place: Place) -> None:
    async with place.opened() as stores:
        assert await stores.used_tickets.spend("ticket", 0.2)
        with anyio.fail_after(WAIT_SECONDS):
            while not await stores.used_tickets.spend("ticket", 0.2):  # noqa: ASYNC110  # what lapses rings nobody
                await anyio.sleep(LOOK_SECONDS)
