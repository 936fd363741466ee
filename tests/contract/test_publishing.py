"""Every store numbers events, keeps their order, and delivers them to the sockets of their thread."""

from __future__ import annotations

from collections import UserDict, defaultdict
from collections.abc import Callable, Iterator

import anyio
import pytest

from bridgekit.cursors_and_gaps import START, Cursor
from bridgekit.events import Answer, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.transport.log import Retention
from tests.contract.stores import WAIT_SECONDS, StoreLocation, event_with_number, number_in, numbers
from tests.factories import OTHER, THREAD

ODD = (
    ("thread_1", "thread_10"),
    ("a", "{a}"),
    ("{a}b", "{a}c"),
    ("a:log", "a:"),
    ("thread alice", "thread  alice"),
    ("größe", "gro\u0308ße"),
    ("\U00010348", "\uffff"),
    ("x" * 1_024, "x" * 1_023),
    ("a_run_b", 'a"\\b'),
    ("Thread", "thread"),
    ("1", "01"),
    ("%s", "%"),
)
SIZES = (0, 1, 10_000, 1_000_000, 1)


async def test_seq_counts_from_1_without_gaps_in_each_thread(location: StoreLocation) -> None:
    async with location.worker() as worker:
        for thread in (THREAD, OTHER, THREAD, THREAD, OTHER):
            await worker.publish(thread)
        first, second = await worker.publish(THREAD), await worker.publish(OTHER)
        assert (first.seq, second.seq) == (4, 3)
        for thread, receipt in ((THREAD, first), (OTHER, second)):
            replay = await worker.join(thread, Cursor(receipt.epoch or "", 0))
            assert numbers(replay.frames) == list(range(1, (receipt.seq or 0) + 1))


async def test_event_reaches_its_threads_sockets_in_order_and_unchanged(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        begun = await holder.join(THREAD)
        await holder.join(OTHER)
        for number in range(20):
            receipt = await sender.publish(THREAD, number)
            assert receipt
            assert receipt.outcome in {Outcome.SENT, Outcome.RELAYED}
            assert (receipt.seq, receipt.epoch, receipt.thread_id) == (number + 1, begun.cursor.epoch, THREAD)
        received = await holder.wait_for_frames(THREAD, 20)
        assert numbers(received) == list(range(1, 21))
        assert [number_in(frame) for frame in received] == list(range(20))
        assert {(frame.type, frame.run_id) == (frame.event.type, frame.event.run_id) for frame in received} == {True}
        assert holder.received[OTHER] == []


class Logging(UserDict[str, object]):
    """A value whose own code publishes an event, like a value that logs to a handler that emits."""

    def __init__(self, publish: Callable[[], object]) -> None:
        super().__init__(number=0)
        self.publish = publish

    def __iter__(self) -> Iterator[str]:
        self.publish()
        return super().__iter__()


async def test_event_whose_value_publishes_another_event_has_its_own_number(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        begun = await holder.join(THREAD)
        answers: list[Answer] = []
        for number in (-1, -2):
            value = Logging(lambda: answers.append(sender.log.publish(event_with_number(THREAD))))
            outer = event_with_number(THREAD, number)
            outer.payload = {"value": value, "number": number}
            answers.append(sender.log.publish(outer))
        receipts = [await answer for answer in answers]
        assert {receipt.kept for receipt in receipts} == {True}
        received = await holder.wait_for_frames(THREAD, len(receipts))
        assert numbers(received) == list(range(1, len(receipts) + 1))
        assert [number_in(frame) for frame in received if number_in(frame)] == [-1, -2]
        assert {receipt.seq for receipt in receipts} == set(numbers(received))
        assert (await sender.log.replay(THREAD, begun.cursor)).frames == tuple(received)


async def test_event_is_unconfirmed_only_until_its_receipt(location: StoreLocation) -> None:
    async with location.worker() as worker:
        answers = [worker.log.publish(event_with_number(THREAD, number)) for number in range(3)]
        assert worker.log.unconfirmed == sum(not isinstance(answer, Receipt) for answer in answers)
        for answer in answers:
            assert (await answer).kept
        assert worker.log.unconfirmed == 0


async def test_replayed_frames_equal_delivered_frames(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        begun = await holder.join(THREAD)
        for number in range(10):
            await sender.publish(THREAD, number, run_id=RunId(f"run {number}"))
        received = await holder.wait_for_frames(THREAD, 10)
        assert list((await holder.join(THREAD, begun.cursor)).frames) == received


async def test_event_without_sockets_is_retained_and_not_reported_as_sent(location: StoreLocation) -> None:
    async with location.worker() as worker:
        receipt = await worker.publish(THREAD)
        assert not receipt
        assert (receipt.outcome, receipt.kept, receipt.link) == (Outcome.NO_SUBSCRIBER, True, 10)
        assert receipt.reason
        replay = await worker.join(THREAD, Cursor(receipt.epoch or "", 0))
        assert numbers(replay.frames) == [1]


async def test_event_is_delivered_and_not_retained_when_retention_is_zero(location: StoreLocation) -> None:
    async with location.workers(Retention(events=0)) as (sender, holder):
        begun = await holder.join(THREAD)
        first = await sender.publish(THREAD)
        assert first
        assert not first.kept
        await holder.wait_for_frames(THREAD, 1)
        replay = await holder.join(THREAD, begun.cursor)
        assert replay.frames == ()
        assert replay.gap is not None
        assert (replay.gap.first, replay.gap.last) == (1, 1)
        assert replay.cursor == Cursor(begun.cursor.epoch, 1)


@pytest.mark.parametrize("size_bytes", [0, 1])
async def test_latest_event_is_retained_whatever_its_size(location: StoreLocation, size_bytes: int) -> None:
    async with location.worker(Retention(size_bytes=size_bytes)) as worker:
        for number in range(3):
            assert (await worker.publish(THREAD, number)).kept
        assert numbers((await worker.log.replay(THREAD, START)).frames) == [3]


async def test_receipt_counts_current_sockets_only(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        await holder.join(THREAD)
        await holder.join(THREAD)
        assert await sender.publish(THREAD)
        holder.leave(THREAD)
        assert await sender.publish(THREAD)
        await holder.wait_for_frames(THREAD, 2)
        holder.leave(THREAD)
        with anyio.fail_after(WAIT_SECONDS):
            # With a shared store, the other worker may learn of it slightly later.
            while await sender.publish(THREAD):
                pass
        again = await holder.join(THREAD, Cursor((await holder.join(THREAD)).cursor.epoch, 2))
        assert numbers(again.frames)[0] == 3


async def test_100_concurrent_publishers_get_unique_numbers_and_keep_their_order(location: StoreLocation) -> None:
    threads = [ThreadId(f"thread_{number}") for number in range(10)]
    returned: defaultdict[ThreadId, list[int]] = defaultdict(list)
    async with location.workers() as (sender, holder):
        for thread in threads:
            await holder.join(thread)

        async def publish(publisher: int) -> None:
            thread = threads[publisher % 10]
            for number in range(5):
                receipt = await sender.publish(thread, number, run_id=RunId(f"run_{publisher}"))
                assert receipt.seq is not None
                returned[thread].append(receipt.seq)

        async with anyio.create_task_group() as tasks:
            for publisher in range(100):
                tasks.start_soon(publish, publisher)
        for thread in threads:
            received = await holder.wait_for_frames(thread, 50)
            assert sorted(returned[thread]) == list(range(1, 51))
            assert numbers(received) == list(range(1, 51))
            by_run: defaultdict[str, list[object]] = defaultdict(list)
            for frame in received:
                by_run[frame.run_id].append(number_in(frame))
            assert list(by_run.values()) == [[0, 1, 2, 3, 4]] * 10


async def test_cancelled_publisher_does_not_affect_others(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        begun = await holder.join(THREAD)
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(sender.publish, THREAD, number)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        after = [await sender.publish(THREAD, number) for number in range(100, 105)]
        last = after[-1].seq or 0
        assert [receipt.seq for receipt in after] == list(range(last - 4, last + 1))
        received = await holder.wait_for_frames(THREAD, last)
        assert numbers(received) == list(range(1, last + 1))
        assert [number_in(frame) for frame in received[-5:]] == list(range(100, 105))
        assert list((await holder.join(THREAD, begun.cursor)).frames) == received


async def test_threads_with_similar_ids_are_separate(location: StoreLocation) -> None:
    threads = [ThreadId(name) for pair in ODD for name in pair]
    async with location.workers() as (sender, holder):
        epochs = [(await holder.join(thread)).cursor.epoch for thread in threads]
        assert len(set(epochs)) == len(threads)
        for number, thread in enumerate(threads):
            for _ in range(1 + number % 2):
                await sender.publish(thread, number)
        for number, (thread, epoch) in enumerate(zip(threads, epochs, strict=True)):
            received = await holder.wait_for_frames(thread, 1 + number % 2)
            assert [number_in(frame) for frame in received] == [number] * (1 + number % 2)
            assert {frame.event.thread_id for frame in received} == {thread}
            assert list((await holder.join(thread, Cursor(epoch, 0))).frames) == received


async def test_frame_of_any_size_is_delivered_and_retained(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        begun = await holder.join(THREAD)
        for number, size_bytes in enumerate(SIZES):
            await sender.log.publish(event_with_number(THREAD, number, padding=size_bytes))
        received = await holder.wait_for_frames(THREAD, len(SIZES))
        assert [len(str(frame.event.payload["padding"])) for frame in received] == list(SIZES)
        assert list((await holder.join(THREAD, begun.cursor)).frames) == received
