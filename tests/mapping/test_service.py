"""The mapping service: a run never changes its thread, and a closed run's route remains for the grace period."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from bridgekit.errors import InvalidId, RunAlreadyMapped
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from tests.factories import OTHER, RUN, THREAD

GRACE = 30.0


class Clock:
    """A clock that a test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def with_clock(grace_seconds: float = GRACE) -> tuple[RunThreadMappingService, MemoryMappingStore, Clock]:
    clock = Clock()
    store = MemoryMappingStore(clock)
    return RunThreadMappingService(store, grace_seconds=grace_seconds), store, clock


async def test_lookup_returns_the_thread_when_the_run_is_registered() -> None:
    mapping = RunThreadMappingService()
    await mapping.register_mapping(RUN, THREAD)
    assert await mapping.get_thread_id(RUN) == THREAD
    assert await mapping.get_thread_id(RunId("run_2")) is None


async def test_registration_has_no_effect_when_it_is_repeated() -> None:
    mapping, store, _ = with_clock()
    await mapping.register_mapping(RUN, THREAD)
    await mapping.register_mapping(RUN, THREAD)
    assert len(store) == 1


async def test_registration_is_refused_when_the_run_has_another_thread() -> None:
    mapping, _, _ = with_clock()
    await mapping.register_mapping(RUN, THREAD)
    with pytest.raises(RunAlreadyMapped) as refused:
        await mapping.register_mapping(RUN, OTHER)
    assert (refused.value.run_id, refused.value.thread_id, refused.value.requested) == (RUN, THREAD, OTHER)
    assert await mapping.get_thread_id(RUN) == THREAD


async def test_registration_is_refused_when_a_closed_run_has_another_thread() -> None:
    mapping, _, clock = with_clock()
    await mapping.register_mapping(RUN, THREAD)
    await mapping.cleanup_mapping(RUN)
    clock.now += GRACE - 1
    with pytest.raises(RunAlreadyMapped):
        await mapping.register_mapping(RUN, OTHER)


@pytest.mark.parametrize(("run_id", "thread_id", "field"), [("", "t", "run_id"), ("r", "\n", "thread_id")])
async def test_registration_is_refused_when_an_id_is_invalid(run_id: str, thread_id: str, field: str) -> None:
    mapping, store, _ = with_clock()
    with pytest.raises(InvalidId) as refused:
        await mapping.register_mapping(RunId(run_id), ThreadId(thread_id))
    assert refused.value.field == field
    assert len(store) == 0


async def test_route_expires_exactly_when_the_grace_period_ends() -> None:
    mapping, _, clock = with_clock()
    await mapping.register_mapping(RUN, THREAD)
    await mapping.cleanup_mapping(RUN)
    clock.now = math.nextafter(1_000 + GRACE, 0)
    assert await mapping.get_thread_id(RUN) == THREAD
    clock.now = 1_000 + GRACE
    assert await mapping.get_thread_id(RUN) is None


async def test_grace_period_is_not_extended_when_a_run_is_closed_twice() -> None:
    mapping, _, clock = with_clock()
    await mapping.register_mapping(RUN, THREAD)
    await mapping.cleanup_mapping(RUN)
    clock.now += GRACE - 1
    await mapping.cleanup_mapping(RUN)
    clock.now += 1
    assert await mapping.get_thread_id(RUN) is None


async def test_cleanup_has_no_effect_when_the_run_is_unknown() -> None:
    mapping, store, _ = with_clock()
    await mapping.cleanup_mapping(RUN)
    await mapping.register_mapping(RUN, THREAD)
    assert await mapping.get_thread_id(RUN) == THREAD
    assert sizes(store) == (1, 0)


async def test_route_never_expires_when_the_run_is_not_closed() -> None:
    mapping, _, clock = with_clock()
    await mapping.register_mapping(RUN, THREAD)
    clock.now += 1e9
    assert await mapping.get_thread_id(RUN) == THREAD


async def test_run_is_live_again_when_it_is_registered_in_its_grace_period() -> None:
    mapping, _, clock = with_clock()
    await mapping.register_mapping(RUN, THREAD)
    await mapping.cleanup_mapping(RUN)
    await mapping.register_mapping(RUN, THREAD)
    clock.now += 2 * GRACE
    assert await mapping.get_thread_id(RUN) == THREAD
    await mapping.cleanup_mapping(RUN)
    clock.now += GRACE
    assert await mapping.get_thread_id(RUN) is None


async def test_memory_is_freed_when_every_route_has_expired() -> None:
    """A lookup is enough to free it; no later registration is needed."""
    mapping, store, clock = with_clock()
    for number in range(1_000):
        await mapping.register_mapping(RunId(f"run_{number}"), THREAD)
        await mapping.cleanup_mapping(RunId(f"run_{number}"))
    assert sizes(store) == (1_000, 1_000)
    clock.now += GRACE
    await mapping.get_thread_id(RUN)
    assert sizes(store) == (0, 0)


async def test_run_stays_registered_when_it_is_registered_again_after_expiry() -> None:
    """The expiry time that is still queued for the old registration does not apply to the new one."""
    clock = Clock()
    store = MemoryMappingStore(clock)
    long, short = RunThreadMappingService(store, grace_seconds=100), RunThreadMappingService(store, grace_seconds=1)
    await long.register_mapping(RunId("run_long"), THREAD)
    await long.cleanup_mapping(RunId("run_long"))
    await short.register_mapping(RUN, THREAD)
    await short.cleanup_mapping(RUN)
    clock.now += 1
    await short.register_mapping(RUN, OTHER)
    clock.now += 100
    assert await short.get_thread_id(RUN) == OTHER
    assert sizes(store) == (1, 0)


async def test_route_expires_on_time_when_an_earlier_one_has_a_longer_grace_period() -> None:
    store, clock = MemoryMappingStore(clock := Clock()), clock
    for name, seconds in (("run_long", 100.0), ("run_short", 1.0)):
        await store.add(RunId(name), THREAD)
        await store.expire(RunId(name), seconds)
    clock.now += 1
    assert await store.get(RunId("run_short")) is None
    assert await store.get(RunId("run_long")) == THREAD


def sizes(store: MemoryMappingStore) -> tuple[int, int]:
    """Return the number of stored routes, and of stored expiry times."""
    return len(store), len(store._due)


def done(operation: object) -> object:
    """Run a coroutine that never suspends to its end, without an async backend."""
    try:
        operation.send(None)  # type: ignore[attr-defined]  # a coroutine; a precise type would add nothing
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the memory store waited")


class AgainstANaiveModel(RuleBasedStateMachine):
    """Compares the store with a list of all registrations."""

    runs = st.sampled_from([RunId(f"run_{number}") for number in range(4)])

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryMappingStore(self.clock)
        self.registrations: list[tuple[float, RunId, ThreadId, float]] = []
        """The time of registration, the run, its thread, and the time of expiry."""

    def expected_thread(self, run: RunId) -> ThreadId | None:
        held = [thread for _, name, thread, until in self.registrations if name == run and until > self.clock.now]
        return held[-1] if held else None

    @rule(run=runs, thread=st.sampled_from([THREAD, OTHER]))
    def add(self, run: RunId, thread: ThreadId) -> None:
        if self.expected_thread(run) is None:
            self.registrations.append((self.clock.now, run, thread, math.inf))
        elif self.expected_thread(run) == thread:
            # A run that continues within its grace period is live again.
            self.registrations = [
                (since, name, held, math.inf if name == run and until > self.clock.now else until)
                for since, name, held, until in self.registrations
            ]
        assert done(self.store.add(run, thread)) == self.expected_thread(run)

    @rule(run=runs, seconds=st.sampled_from([0.0, 1.0, 2.0, 5.0]))
    def expire(self, run: RunId, seconds: float) -> None:
        done(self.store.expire(run, seconds))
        for position, (since, name, thread, until) in enumerate(self.registrations):
            if name == run and until == math.inf:
                self.registrations[position] = (since, name, thread, self.clock.now + seconds)

    @rule(run=runs)
    def get(self, run: RunId) -> None:
        assert done(self.store.get(run)) == self.expected_thread(run)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def longest_grace_is_over(self) -> None:
        self.clock.now += 5
        done(self.store.get(RunId("run_unknown")))
        alive = sum(until == math.inf for *_, until in self.registrations)
        assert sizes(self.store) == (alive, 0)


AgainstANaiveModel.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAgainstANaiveModel = AgainstANaiveModel.TestCase
