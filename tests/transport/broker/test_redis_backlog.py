"""The backlog: order, bounds, the same parcel again, and how many were refused, without a store."""

from __future__ import annotations

from collections import defaultdict

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridgekit.events import Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.storage.redis_library import Names
from bridgekit.transport.broker.redis_backlog import PARCEL_EVENTS, Backlog, Entry, Lane
from tests.samples import OTHER, THREAD
from tests.transport.broker.redis_workers import said

NAMES = Names("test")


def lane_of(backlog: Backlog, thread: ThreadId = THREAD) -> Lane:
    return backlog.lane(thread, NAMES.thread(thread))


def add(backlog: Backlog, text: object = "hm", *, thread: ThreadId = THREAD) -> Entry | None:
    return backlog.add(lane_of(backlog, thread), said(text, thread_id=thread), 0.0)


def test_parcel_that_did_not_arrive_is_sent_again_as_it_was() -> None:
    backlog = Backlog()
    add(backlog, "a")
    lane = lane_of(backlog)
    parcel = lane.seal(backlog.numbers)
    add(backlog, "b")
    assert lane.seal(backlog.numbers) is parcel
    assert len(parcel.entries) == 1
    assert backlog.arrived(lane)
    later = lane.seal(backlog.numbers)
    assert later.number > parcel.number
    assert not backlog.arrived(lane)


def test_no_two_parcels_of_a_worker_have_one_number() -> None:
    backlog = Backlog()
    for thread in (THREAD, OTHER):
        add(backlog, thread=thread)
    assert len({lane.seal(backlog.numbers).number for lane in backlog}) == 2


def test_parcel_is_bounded_and_one_large_event_goes_alone() -> None:
    backlog = Backlog()
    for _ in range(PARCEL_EVENTS + 1):
        add(backlog)
    add(backlog, "x" * 1_000_000)
    add(backlog)
    lane = lane_of(backlog)
    sizes = []
    while lane.waiting:
        sizes.append(len(lane.seal(backlog.numbers).entries))
        backlog.arrived(lane)
    assert sizes == [PARCEL_EVENTS, 1, 1, 1]


def test_backlog_is_bounded_in_events_and_bytes_and_an_empty_one_takes_any_event() -> None:
    by_events, by_bytes = Backlog(events=2), Backlog(size_bytes=1_000)
    assert [add(by_events) is not None for _ in range(4)] == [True, True, False, False]
    assert [add(by_bytes, "x" * 300) is not None for _ in range(4)] == [True, False, False, False]
    assert add(Backlog(size_bytes=10), "x" * 100) is not None


def test_room_is_free_again_when_events_have_arrived() -> None:
    backlog = Backlog(events=1)
    for _ in range(3):
        assert add(backlog) is not None
        assert add(backlog) is None
        lane = lane_of(backlog)
        while lane.waiting:
            lane.seal(backlog.numbers)
            backlog.arrived(lane)
    assert len(backlog) == 0
    assert list(backlog) == []


async def test_only_the_first_answer_counts() -> None:
    entry = Entry(said(), 0.0)
    answers: list[Receipt] = []

    async def wait() -> None:
        answers.append(await entry.answered())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        for outcome in (Outcome.PENDING, Outcome.RELAYED):
            entry.answer(Receipt(outcome=outcome))
    assert answers == [entry.receipt] == [Receipt(outcome=Outcome.PENDING)]


class AgainstANaiveModel(RuleBasedStateMachine):
    """The backlog beside a list of all that was ever said, where None is what was refused."""

    threads = st.sampled_from([THREAD, OTHER, ThreadId("thread_789")])

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(events=5)
        self.said: dict[ThreadId, list[Entry | None]] = defaultdict(list)
        self.stored: dict[ThreadId, list[Entry | None]] = defaultdict(list)

    def held(self) -> int:
        said = sum(entry is not None for entries in self.said.values() for entry in entries)
        return said - sum(entry is not None for entries in self.stored.values() for entry in entries)

    @rule(thread=threads)
    def add(self, thread: ThreadId) -> None:
        room = self.held() < 5
        entry = add(self.backlog, thread=thread)
        assert (entry is not None) is room
        self.said[thread].append(entry)

    @rule(thread=threads)
    def seal(self, thread: ThreadId) -> None:
        """Sent, and not answered."""
        if thread in {lane.thread_id for lane in self.backlog}:
            lane_of(self.backlog, thread).seal(self.backlog.numbers)

    @rule(thread=threads)
    def arrive(self, thread: ThreadId) -> None:
        if thread not in {lane.thread_id for lane in self.backlog}:
            return
        lane = lane_of(self.backlog, thread)
        parcel = lane.seal(self.backlog.numbers)
        self.stored[thread] += [None] * parcel.skip + list(parcel.entries)
        assert self.backlog.arrived(lane) is (len(self.stored[thread]) < len(self.said[thread]))

    @invariant()
    def what_is_stored_is_the_beginning_of_what_was_said(self) -> None:
        for thread, stored in self.stored.items():
            assert self.said[thread][: len(stored)] == stored

    @invariant()
    def no_more_is_held_than_is_under_way(self) -> None:
        assert len(self.backlog) == self.held()
        under_way = {thread for thread, said in self.said.items() if len(self.stored[thread]) < len(said)}
        assert {lane.thread_id for lane in self.backlog} == under_way


AgainstANaiveModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAgainstANaiveModel = AgainstANaiveModel.TestCase
