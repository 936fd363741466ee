"""The backlog of unconfirmed events: order, limits, repeated batches and refused events; without a server."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridgekit.events import Outcome, Receipt, encode_unnumbered
from bridgekit.ids import ThreadId
from bridgekit.stores.redis.keys_and_functions import KeyNames
from bridgekit.stores.redis.publishing import BATCH_EVENTS, Backlog, Entry, PublishQueue
from tests.factories import OTHER, THREAD
from tests.stores.redis.workers import event_with

LOOP = asyncio.new_event_loop()
ANSWER: asyncio.Future[Receipt] = LOOP.create_future()
LOOP.close()
NAMES = KeyNames("test")


def queue_of(backlog: Backlog, thread: ThreadId = THREAD) -> PublishQueue:
    return backlog.queue(thread, NAMES.thread)


def add(backlog: Backlog, text: object = "hm", *, thread: ThreadId = THREAD) -> Entry | None:
    entry = Entry(encode_unnumbered(event_with(text, thread_id=thread)), 0.0, ANSWER)
    return entry if backlog.add(queue_of(backlog, thread), entry) else None


def test_unconfirmed_batch_is_sent_again_unchanged() -> None:
    backlog = Backlog()
    add(backlog, "a")
    queue = queue_of(backlog)
    batch, number = queue.next_batch(backlog.numbers), queue.number
    add(backlog, "b")
    assert queue.next_batch(backlog.numbers) is batch
    assert (len(batch), queue.number) == (1, number)
    assert backlog.confirm(queue)
    assert queue.next_batch(backlog.numbers) != batch
    assert queue.number > number
    assert not backlog.confirm(queue)


def test_batch_numbers_of_a_worker_are_unique() -> None:
    backlog = Backlog()
    for thread in (THREAD, OTHER):
        add(backlog, thread=thread)
    for queue in backlog:
        queue.next_batch(backlog.numbers)
    assert len({queue.number for queue in backlog}) == 2


def test_batch_is_limited_and_a_large_event_is_a_batch_of_its_own() -> None:
    backlog = Backlog()
    for _ in range(BATCH_EVENTS + 1):
        add(backlog)
    add(backlog, "x" * 1_000_000)
    add(backlog)
    queue = queue_of(backlog)
    sizes = []
    while queue.waiting:
        sizes.append(len(queue.next_batch(backlog.numbers)))
        backlog.confirm(queue)
    assert sizes == [BATCH_EVENTS, 1, 1, 1]


def test_backlog_limits_events_and_bytes_but_accepts_any_event_when_empty() -> None:
    by_events, by_bytes = Backlog(events=2), Backlog(size_bytes=1_000)
    assert [add(by_events) is not None for _ in range(4)] == [True, True, False, False]
    assert [add(by_bytes, "x" * 300) is not None for _ in range(4)] == [True, False, False, False]
    assert add(Backlog(size_bytes=10), "x" * 100) is not None


def test_confirmed_events_free_room_in_the_backlog() -> None:
    backlog = Backlog(events=1)
    for _ in range(3):
        assert add(backlog) is not None
        assert add(backlog) is None
        queue = queue_of(backlog)
        while queue.waiting:
            queue.next_batch(backlog.numbers)
            backlog.confirm(queue)
    assert len(backlog) == 0
    assert list(backlog) == []


async def test_only_the_first_receipt_counts_and_a_cancelled_publisher_gets_none() -> None:
    waiting, cancelled = (Entry(b"", 0.0, asyncio.get_running_loop().create_future()) for _ in range(2))
    cancelled.answer.cancel()
    for outcome in (Outcome.PENDING, Outcome.RELAYED):
        for entry in (waiting, cancelled):
            entry.resolve(Receipt(outcome=outcome))
    assert await waiting.answer == Receipt(outcome=Outcome.PENDING)
    assert cancelled.answer.cancelled()


class AgainstANaiveModel(RuleBasedStateMachine):
    """The backlog, compared with a list of all published events in which None is a refused one."""

    threads = st.sampled_from([THREAD, OTHER, ThreadId("thread_789")])

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(events=5)
        self.published: dict[ThreadId, list[Entry | None]] = defaultdict(list)
        self.stored: dict[ThreadId, list[Entry | None]] = defaultdict(list)

    def held(self) -> int:
        published = sum(entry is not None for entries in self.published.values() for entry in entries)
        return published - sum(entry is not None for entries in self.stored.values() for entry in entries)

    @rule(thread=threads)
    def add(self, thread: ThreadId) -> None:
        room = self.held() < 5
        entry = add(self.backlog, thread=thread)
        assert (entry is not None) is room
        self.published[thread].append(entry)

    @rule(thread=threads)
    def seal(self, thread: ThreadId) -> None:
        """Send a batch without receiving a reply."""
        if thread in {queue.thread_id for queue in self.backlog}:
            queue_of(self.backlog, thread).next_batch(self.backlog.numbers)

    @rule(thread=threads)
    def arrive(self, thread: ThreadId) -> None:
        if thread not in {queue.thread_id for queue in self.backlog}:
            return
        queue = queue_of(self.backlog, thread)
        batch = queue.next_batch(self.backlog.numbers)
        self.stored[thread] += [*[None] * queue.skip, *batch]
        assert self.backlog.confirm(queue) is (len(self.stored[thread]) < len(self.published[thread]))

    @invariant()
    def what_is_stored_is_the_beginning_of_what_was_published(self) -> None:
        for thread, stored in self.stored.items():
            assert self.published[thread][: len(stored)] == stored

    @invariant()
    def no_more_is_held_than_is_under_way(self) -> None:
        assert len(self.backlog) == self.held()
        under_way = {
            thread for thread, published in self.published.items() if len(self.stored[thread]) < len(published)
        }
        assert {queue.thread_id for queue in self.backlog} == under_way


AgainstANaiveModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAgainstANaiveModel = AgainstANaiveModel.TestCase
