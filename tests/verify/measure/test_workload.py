"""The workload: runs, expectations, thread ids, and the barrier that the runs share."""

from __future__ import annotations

import anyio
import pytest

from bridgekit import ids
from bridgekit.errors import UnknownName
from bridgekit.events import CRITICAL
from bridgekit_verify.measure.workload import FAMILIES, RunBarrier, Workload, seeded, thread_ids


async def test_no_party_takes_a_step_before_all_have_arrived() -> None:
    barrier, taken = RunBarrier(3), list[str]()

    async def walk(name: str) -> None:
        for _ in range(2):
            await barrier.step()
            taken.append(name)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(walk, "a")
            tasks.start_soon(walk, "b")
            await anyio.wait_all_tasks_blocked()
            assert taken == []
            tasks.start_soon(walk, "c")
    assert (sorted(taken[:3]), sorted(taken[3:])) == (["a", "b", "c"], ["a", "b", "c"])


async def test_arrivals_can_be_awaited_one_by_one() -> None:
    """A party has arrived when it reaches its first step or leaves."""
    barrier, seen = RunBarrier(3), list[str]()

    async def walk(name: str) -> None:
        seen.append(name)
        await barrier.step()

    async def await_arrivals() -> None:
        for count in range(3):
            await barrier.arrived(count)
            seen.append(f"{count} arrived")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(await_arrivals)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(walk, "a")
            await anyio.wait_all_tasks_blocked()
            barrier.leave()
            await anyio.wait_all_tasks_blocked()
            assert seen == ["0 arrived", "a", "1 arrived", "2 arrived"]
            tasks.start_soon(walk, "c")


async def test_barrier_does_not_wait_for_a_party_that_left() -> None:
    barrier, taken = RunBarrier(3), list[str]()

    async def walk(name: str, steps: int) -> None:
        for step in range(steps):
            await barrier.step()
            taken.append(f"{name}{step}")
        barrier.leave()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for name, steps in (("a", 3), ("b", 1), ("c", 2)):
                tasks.start_soon(walk, name, steps)
    assert [sorted(taken[:3]), sorted(taken[3:5]), taken[5:]] == [["a0", "b0", "c0"], ["a1", "c1"], ["a2"]]


async def test_leaving_releases_parties_that_wait_only_for_the_leaver() -> None:
    barrier, through = RunBarrier(2), anyio.Event()

    async def walk() -> None:
        await barrier.step()
        through.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(walk)
        await anyio.wait_all_tasks_blocked()
        assert not through.is_set()
        barrier.leave()
        with anyio.fail_after(60):
            await through.wait()


async def test_single_party_never_waits() -> None:
    with anyio.fail_after(60):
        barrier = RunBarrier(1)
        for _ in range(3):
            await barrier.step()
        barrier.leave()


@pytest.mark.parametrize("name", FAMILIES)
def test_thread_ids_are_distinct_have_their_own_users_and_depend_on_the_seed(name: str) -> None:
    threads = thread_ids(name, 40, seed=1)
    assert len({owned.thread_id for owned in threads}) == len({owned.user_id for owned in threads}) == 40 or (
        name == "thread_<user>_<name>" and len({owned.thread_id for owned in threads}) == 32
    )
    assert all(ids.thread_id(owned.thread_id) and ids.user_id(owned.user_id) for owned in threads)
    assert threads == thread_ids(name, 40, seed=1)
    assert threads[:5] == thread_ids(name, 5, seed=1)


def test_families_match_their_names() -> None:
    assert [owned.thread_id for owned in thread_ids("thread_123", 2)] == ["thread_123", "thread_124"]
    assert len(thread_ids("1 kB", 1)[0].thread_id) == 1_024
    prefixes = [owned.thread_id for owned in thread_ids("prefixes of one another", 3)]
    assert prefixes == ["thread_team0", "thread_team0_red", "thread_team0_red_lead"]


def test_unknown_family_raises_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="no family of thread ids is called 'cats'") as refused:
        thread_ids("cats", 1)
    assert refused.value.known == tuple(FAMILIES)


def test_run_of_one_step_is_the_five_critical_events_in_order() -> None:
    workload = Workload(threads=thread_ids("chat_<n>", 1))
    [[run]] = workload.groups()
    assert [each.key.type for each in workload.expectations(run)] == list(CRITICAL)


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("outside_core", [True, False])
def test_run_has_the_documented_number_of_distinct_events(steps: int, outside_core: bool) -> None:
    workload = Workload(
        threads=thread_ids("chat_<n>", 3), runs_per_thread=2, steps=steps, at_once=4, outside_core=outside_core
    )
    groups = list(workload.groups())
    assert [len(group) for group in groups] == [4, 2]
    keys = [each.key for group in groups for run in group for each in workload.expectations(run)]
    assert len(keys) == len(set(keys)) == 6 * (3 * steps + 2 * (not outside_core))


def test_seeded_digits_depend_on_the_seed_alone() -> None:
    assert [seeded(7)(12) for _ in range(2)] == [seeded(7)(12)] * 2
    assert seeded(7)(12) != seeded(8)(12)
    assert {len(seeded(seed)(8)) for seed in range(500)} == {8}
