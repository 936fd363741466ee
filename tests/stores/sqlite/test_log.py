"""The SQLite event log commits before it delivers, commits many events at a time, and answers in bounded time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from bridgekit.cursors_and_gaps import Cursor, GapReason
from bridgekit.errors import FrameTooLarge, PayloadError, StoreUnavailable
from bridgekit.events import Frame, Outcome, Receipt, decode
from bridgekit.ids import ThreadId
from bridgekit.stores.sqlite.file import Synchronous
from bridgekit.stores.sqlite.group_commit import open_database
from bridgekit.stores.sqlite.log import SqliteEventLog
from bridgekit.transport.authorization import Subscription
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import Retention
from bridgekit.transport.outbox import OutboxLimits, Subscriber
from tests.contract.stores import WAIT_SECONDS, Worker, event_with_number, merged, number_in, numbers
from tests.factories import ALICE, OTHER, THREAD, emitted
from tests.stores.sqlite.disks import POISON, create_store, slow_for, worker
from tests.stores.sqlite.files import Clock, query, snapshot
from tests.transport.outboxes import Schedule

PATIENCE = 0.2


class Ticking(Clock):
    """A clock that gives each transaction a different time."""

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_event_is_in_the_file_before_it_is_delivered(path: Path) -> None:
    found: list[Any] = []

    class Witness(Worker):
        def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
            found.append(query(snapshot(path), f"SELECT data FROM events WHERE seq = {frame.seq}") == [(frame.data,)])
            return super().deliver(thread_id, frame)

    async with open_database(path, Synchronous.OFF) as database:
        witness = Witness(await SqliteEventLog(database).load())
        await witness.join(THREAD)
        for number in range(3):
            await witness.publish(THREAD, number)
    assert found == [True] * 3


async def test_waiting_events_are_committed_together(path: Path) -> None:
    async with worker(path, clock=Ticking()) as busy, anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(busy.publish, ThreadId(f"thread_{number % 10}"), number)
    ((groups, events),) = query(path, "SELECT count(DISTINCT at), count(*) FROM events")
    assert events == 100
    assert groups <= 3


@pytest.mark.slow
async def test_every_call_is_answered_while_the_disk_is_slow_and_nothing_is_lost(path: Path) -> None:
    await create_store(path, slow_for(10 * PATIENCE))
    answers: list[Outcome | str] = []
    async with worker(path, answer_seconds=PATIENCE) as stuck:

        async def publish(number: int) -> None:
            answers.append((await stuck.publish(THREAD, number)).outcome)

        async def resume() -> None:
            with pytest.raises(StoreUnavailable):
                await stuck.log.replay(THREAD, begun.cursor)
            answers.append("unavailable")

        begun = await stuck.join(THREAD)
        assert await stuck.publish(THREAD, 0)
        began = time.monotonic()
        async with anyio.create_task_group() as asking:
            asking.start_soon(publish, POISON)
            await anyio.wait_all_tasks_blocked()
            asking.start_soon(publish, 1)
            asking.start_soon(resume)
        assert time.monotonic() - began >= PATIENCE
        assert [number_in(frame) for frame in stuck.received[THREAD]] == [0], "the disk is still writing"
        assert set(answers) == {Outcome.PENDING, "unavailable"}
        assert not stuck.log.healthy
        at_once = await stuck.publish(THREAD, 2)
        assert (at_once.outcome, bool(at_once), at_once.kept) == (Outcome.PENDING, False, False)
        with anyio.fail_after(60):
            while len(stuck.received[THREAD]) < 4:
                await stuck._changed.wait()
        assert [number_in(frame) for frame in stuck.received[THREAD]] == [0, POISON, 1, 2]
        assert await stuck.publish(THREAD, 3)
        assert stuck.log.healthy


@pytest.mark.parametrize(("events", "size_bytes"), [(10, 10**9), (10**9, 5_500)])
async def test_backlog_is_bounded_and_refused_events_take_numbers(path: Path, events: int, size_bytes: int) -> None:
    receipts: dict[int, Receipt] = {}
    async with open_database(path, Synchronous.OFF) as database:
        broker = SqliteEventLog(database, backlog_events=events, backlog_bytes=size_bytes)
        busy = Worker(await broker.load())
        begun = await busy.join(THREAD)

        async def publish(number: int) -> None:
            receipts[number] = await broker.publish(event_with_number(THREAD, number, padding=300))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(publish, number)
    refused = {receipt.seq: receipt.reason for receipt in receipts.values() if receipt.outcome is Outcome.REFUSED}
    assert set(refused.values()) == {"the SQLite store: its queue of unwritten events is full"}
    assert numbers(busy.received[THREAD]) == [seq for seq in range(1, 21) if seq not in refused]
    assert len(busy.received[THREAD]) >= 9
    async with worker(path) as back:
        last = busy.received[THREAD][-1].seq
        lost = (await back.join(THREAD, Cursor(begun.cursor.epoch, last))).gap
        assert lost is not None
        assert (lost.first, lost.last, lost.reason) == (last + 1, 20, GapReason.LOST)
        assert (await back.publish(THREAD, 99)).seq == 21
        replay = await back.join(THREAD, begun.cursor)
        assert list(replay.frames) == [*busy.received[THREAD], *back.received[THREAD]]


async def test_closing_writes_waiting_events_and_refuses_later_ones(path: Path) -> None:
    receipts = []
    async with anyio.create_task_group() as tasks:
        async with worker(path) as closing_:

            async def publish(number: int) -> None:
                receipts.append(await closing_.publish(THREAD, number))

            for number in range(10):
                tasks.start_soon(publish, number)
            await anyio.wait_all_tasks_blocked()
        late = await closing_.publish(THREAD, 99)
        with pytest.raises(StoreUnavailable, match="closed"):
            await closing_.log.replay(THREAD, Cursor(late.epoch or "", 1))
    assert {receipt.outcome for receipt in receipts} == {Outcome.NO_SUBSCRIBER}
    assert (late.outcome, late.reason) == (Outcome.REFUSED, "the SQLite store: it is closed")
    assert query(path, "SELECT count(*), max(seq) FROM events") == [(10, 10)]


async def test_cancelled_application_leaves_a_complete_file_with_all_accepted_events(path: Path) -> None:
    await create_store(path, slow_for(2 * PATIENCE))
    with anyio.CancelScope() as application:
        async with worker(path) as cancelled, anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled.publish, THREAD, POISON)
            await anyio.wait_all_tasks_blocked()
            for number in range(9):
                tasks.start_soon(cancelled.publish, THREAD, number)
            await anyio.wait_all_tasks_blocked()
            application.cancel()
    assert query(path, "SELECT count(*), max(seq) FROM events") == [(10, 10)]
    assert query(path, "SELECT boot FROM store") == [(None,)]


async def test_thread_is_not_evicted_while_one_of_its_events_is_in_progress(path: Path) -> None:
    receipts: list[Receipt] = []
    async with worker(path, Retention(threads=1)) as busy:

        async def publish(thread: ThreadId) -> None:
            receipts.append(await busy.publish(thread))

        async with anyio.create_task_group() as tasks:
            for thread in (THREAD, OTHER):
                tasks.start_soon(publish, thread)
        assert [(receipt.seq, receipt.kept) for receipt in receipts] == [(1, True)] * 2


async def test_delivery_and_order_do_not_depend_on_awaiting_answers(path: Path) -> None:
    async with worker(path) as busy:
        await busy.join(THREAD)
        for number in range(2_000):
            busy.log.publish(event_with_number(THREAD, number))
        last = await busy.log.publish(event_with_number(THREAD, 2_000))
        assert (last.outcome, last.seq, last.kept) == (Outcome.SENT, 2_001, True)
    assert [number_in(frame) for frame in busy.received[THREAD]] == list(range(2_001))
    assert numbers(busy.received[THREAD]) == list(range(1, 2_002))


async def test_receipt_can_be_awaited_repeatedly_and_concurrently(path: Path) -> None:
    receipts: list[Receipt] = []
    async with worker(path) as busy:
        answer = busy.log.publish(event_with_number(THREAD))

        async def wait() -> None:
            receipts.append(await answer)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
        assert receipts == [await answer] * 3


async def test_unencodable_event_takes_no_number(path: Path) -> None:
    async with worker(path) as busy:
        busy.log.bind(busy, frame_bytes=1_000)
        assert (await busy.publish(THREAD)).seq == 1
        with pytest.raises(FrameTooLarge):
            busy.log.publish(event_with_number(THREAD, padding=1_000))
        with pytest.raises(PayloadError):
            busy.log.publish(emitted(payload={"result": object()}))
        assert (await busy.publish(THREAD)).seq == 2


class Bounded(Worker):
    """A worker whose outboxes are small, and whose clients read when the event loop runs."""

    LIMIT = 2
    unread = 0

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        self.unread += 1
        assert self.unread <= self.LIMIT
        return super().deliver(thread_id, frame)

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        if self.unread == self.LIMIT:
            await checkpoint()
            self.unread = 0


async def test_large_commit_overflows_no_outbox_of_a_reading_client(path: Path) -> None:
    async with open_database(path, Synchronous.OFF) as database:
        bounded = Bounded(await SqliteEventLog(database).load())
        await bounded.join(THREAD)
        answers = [bounded.log.publish(event_with_number(THREAD, number)) for number in range(1_500)]
        assert {(await answer).outcome for answer in answers} == {Outcome.SENT}
    assert numbers(bounded.received[THREAD]) == list(range(1, 1_501))


class Crowded(Worker):
    """A worker in which one thread's outboxes are full after one frame, until the test makes room."""

    def __init__(self, log: SqliteEventLog) -> None:
        super().__init__(log)
        self.room = anyio.Event()

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        if thread_id == THREAD:
            await self.room.wait()


async def test_thread_waiting_for_its_clients_delays_no_other_thread_and_no_commit(path: Path) -> None:
    async with open_database(path, Synchronous.OFF) as database:
        crowded = Crowded(await SqliteEventLog(database).load())
        await crowded.join(THREAD)
        await crowded.join(OTHER)
        waiting = [crowded.log.publish(event_with_number(THREAD, number)) for number in range(3)]
        assert await crowded.publish(OTHER, 0)
        waiting.append(crowded.log.publish(event_with_number(THREAD, 3)))
        assert [(await crowded.publish(OTHER, number)).seq for number in range(1, 3)] == [2, 3]
        assert query(snapshot(path), "SELECT count(*) FROM events") == [(7,)], "committed, also what is not delivered"
        assert numbers(crowded.received[THREAD]) == [1]
        crowded.room.set()
        assert [(await answer).seq for answer in waiting] == [1, 2, 3, 4]
        assert numbers(crowded.received[THREAD]) == [1, 2, 3, 4]


async def test_socket_that_joins_between_commit_and_delivery_gets_each_event_once(path: Path) -> None:
    async with open_database(path, Synchronous.OFF) as database:
        crowded = Crowded(await SqliteEventLog(database).load())
        begun = await crowded.join(THREAD)
        answers = [crowded.log.publish(event_with_number(THREAD, number)) for number in range(5)]
        await crowded.wait_for_frames(THREAD, 1)
        replay = await crowded.join(THREAD, begun.cursor)
        assert numbers(replay.frames) == [1, 2, 3, 4, 5]
        assert (await crowded.join(THREAD)).cursor.seq == 5
        crowded.room.set()
        assert [(await answer).seq for answer in answers] == [1, 2, 3, 4, 5]
        assert numbers(merged(replay, crowded.received[THREAD])) == [1, 2, 3, 4, 5]


async def test_burst_larger_than_an_outbox_reaches_a_reading_client(path: Path) -> None:
    sent: list[bytes] = []

    async def read(subscriber: Subscriber) -> None:
        while True:
            sent.extend(subscriber.next_frames())
            await checkpoint()

    async with open_database(path, Synchronous.OFF) as database:
        hub = Hub(await SqliteEventLog(database).load())
        scheduler = Schedule(OutboxLimits(events=8))
        scheduler.crowded = hub.crowded
        subscriber = Subscriber(Subscription(ALICE, THREAD), scheduler)
        async with hub.joined(subscriber) as replay, anyio.create_task_group() as tasks:
            subscriber.start(replay)
            tasks.start_soon(read, subscriber)
            answers = [hub.publish(event_with_number(THREAD, number), THREAD) for number in range(1_000)]
            assert {(await answer).outcome for answer in answers} == {Outcome.SENT}
            await subscriber.wait_for_room()
            tasks.cancel_scope.cancel()
        sent.extend(subscriber.next_frames(1_000))
    assert subscriber.code is None
    assert [decode(data).payload["number"] for data in sent] == list(range(1_000))


async def test_error_in_the_sink_ends_the_store_and_leaves_no_caller_waiting(path: Path) -> None:
    class Broken(Worker):
        def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
            raise ArithmeticError

    receipts: list[Receipt] = []

    async def publish(broker: SqliteEventLog) -> None:
        receipts.append(await broker.publish(event_with_number(THREAD)))

    async def serve(tasks: TaskGroup) -> None:
        async with open_database(path, Synchronous.OFF, answer_timeout_seconds=PATIENCE) as database:
            broker = SqliteEventLog(database)
            Broken(broker)
            tasks.start_soon(publish, broker)
            await anyio.sleep_forever()

    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as tasks:
            with pytest.raises(ArithmeticError):
                await serve(tasks)
    assert [receipt.outcome for receipt in receipts] == [Outcome.PENDING]
