"""The workload: runs, expectations, its sizes, and the barrier that the runs share."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.events import CRITICAL
from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.measure.history import ExpectedEvents
from bridgekit_verify.measure.workload import RunBarrier, Workload, own_threads, seeded, thread_ids


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


@pytest.mark.parametrize(
    ("changes", "at_sockets", "without_socket"),
    [
        ({}, 15, 0),
        ({"runs_per_thread": 4, "steps": 2}, 3 * 4 * 8, 0),
        ({"subscribers": 2}, 30, 0),
        ({"subscribers": 0}, 0, 15),
        ({"users_without_socket": 1, "subscribers": 3}, 2 * 5 * 3, 5),
        ({"users_without_socket": 9}, 0, 15),
        ({"outside_core": True, "steps": 3}, 3 * 9, 0),
        ({"runs_per_thread": 0}, 0, 0),
        ({"threads": ()}, 0, 0),
    ],
)
def test_expected_events_follow_from_the_parameters(
    changes: dict[str, Any], at_sockets: int, without_socket: int
) -> None:
    sizes: dict[str, Any] = {"threads": thread_ids("chat_<n>", 3), "at_once": 2}
    workload = Workload(**sizes | changes)
    assert workload.expected_events == ExpectedEvents(at_sockets, without_socket)


@given(
    threads=st.integers(0, 5),
    runs=st.integers(0, 3),
    steps=st.integers(0, 3),
    at_once=st.integers(1, 4),
    subscribers=st.integers(0, 3),
    without=st.integers(0, 6),
    outside_core=st.booleans(),
)
def test_expected_events_equal_those_of_each_run_counted_one_by_one(
    threads: int, runs: int, steps: int, at_once: int, subscribers: int, without: int, outside_core: bool
) -> None:
    workload = Workload(
        threads=thread_ids("chat_<n>", threads),
        runs_per_thread=runs,
        steps=steps,
        at_once=at_once,
        subscribers=subscribers,
        users_without_socket=without,
        outside_core=outside_core,
    )
    entitled = [
        subscribers if workload.threads.index(run.owned) >= without else 0
        for group in workload.groups()
        for run in group
        for _ in workload.expectations(run)
    ]
    assert workload.expected_events == ExpectedEvents(sum(entitled), entitled.count(0))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("at_once", 0, "a whole number of at least 1"),
        ("at_once", 2.0, "a whole number of at least 1"),
        ("at_once", True, "a whole number of at least 1"),
        ("runs_per_thread", -1, "a whole number of at least 0"),
        ("steps", "3", "a whole number of at least 0"),
        ("subscribers", -1, "a whole number of at least 0"),
        ("users_without_socket", None, "a whole number of at least 0"),
    ],
)
def test_size_that_is_not_allowed_raises_an_error_that_states_what_is(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{name} must be {allowed}, not {value!r}$"):
        Workload(**{"threads": thread_ids("chat_<n>", 2), name: value})


def test_two_threads_with_one_id_raise_an_error() -> None:
    with pytest.raises(InvalidParameter, match=r"threads must be threads with different ids, .* not 'support-42'"):
        Workload(threads=own_threads(["support-42"]) * 2)


def test_seeded_digits_depend_on_the_seed_alone() -> None:
    assert [seeded(7)(12) for _ in range(2)] == [seeded(7)(12)] * 2
    assert seeded(7)(12) != seeded(8)(12)
    assert {len(seeded(seed)(8)) for seed in range(500)} == {8}
