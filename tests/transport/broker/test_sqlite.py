"""The SQLite broker: writes ahead, in groups, tells of what it could not write, and keeps its file small."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from bridgekit.errors import StoreAway
from bridgekit.events import Frame, Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, GapReason
from bridgekit.storage import sqlite
from bridgekit.storage.sqlite import ANSWER_SECONDS, RETRY_SECONDS
from bridgekit.storage.sqlite_file import Synchronous
from bridgekit.transport.broker import HISTORY, Keep, Replay
from bridgekit.transport.broker.sqlite import SqliteBroker
from tests.contract.stores import WAIT_SECONDS, Worker, drafted, number_in, numbers
from tests.samples import OTHER, THREAD

POISON = 666
PATIENCE = 0.4
FULL = "SELECT RAISE(ABORT, 'database or disk is full')"
REFUSING = f"""
CREATE TRIGGER refuse BEFORE INSERT ON events WHEN instr(CAST(NEW.data AS TEXT), '"number":{POISON}')
BEGIN {FULL}; END;
"""
"""Of an event with that number the disk is full."""
FULL_FOR_A_WHILE = f"""
CREATE TABLE disk (full_until REAL);
CREATE TRIGGER full_for_events BEFORE INSERT ON events
WHEN (julianday('now') - 2440587.5) * 86400 < (SELECT full_until FROM disk) BEGIN {FULL}; END;
CREATE TRIGGER full_for_heads BEFORE INSERT ON threads
WHEN (julianday('now') - 2440587.5) * 86400 < (SELECT full_until FROM disk) BEGIN {FULL}; END;
CREATE TRIGGER full_for_all BEFORE UPDATE OF synchronous ON store WHEN NEW.boot = OLD.boot AND
  (julianday('now') - 2440587.5) * 86400 < (SELECT full_until FROM disk) BEGIN {FULL}; END;
INSERT INTO disk VALUES (0);
"""
SLOW = """
CREATE TRIGGER slow BEFORE INSERT ON events WHEN instr(CAST(NEW.data AS TEXT), '"number":{number}') BEGIN
  SELECT count(*) FROM ({work});
END;
"""
"""For an event with that number the disk takes its time."""
WORK = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {steps}) SELECT n FROM n"


def slow(seconds: float) -> str:
    """Make the disk slow for about so long, whatever the machine."""
    steps = 300_000
    with closing(sqlite3.connect(":memory:")) as connection:
        began = time.perf_counter()
        connection.execute(f"SELECT count(*) FROM ({WORK.format(steps=steps)})").fetchall()
        took = time.perf_counter() - began
    return SLOW.format(number=POISON, work=WORK.format(steps=int(steps * seconds / took)))


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Ticking(Clock):
    """A time for each group."""

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def asked(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def image(path: Path) -> Path:
    """What the disk has of an open file."""
    copy = path.with_name("image.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


@asynccontextmanager
async def worker(
    path: Path, keep: Keep = HISTORY, clock: Clock | None = None, answer_seconds: float = ANSWER_SECONDS
) -> AsyncIterator[Worker]:
    async with sqlite.opened(path, Synchronous.OFF, clock or time.time, answer_seconds) as database:
        yield Worker(await SqliteBroker(database, keep).load())


def is_well(worker: Worker) -> bool:
    return worker.broker.healthy


async def changed(path: Path, script: str) -> None:
    """Make a store whose disk has a will of its own."""
    async with worker(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


async def test_event_is_in_the_file_before_anybody_hears_of_it(path: Path) -> None:
    found: list[Any] = []

    class Witness(Worker):
        def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
            found.append(asked(image(path), f"SELECT data FROM events WHERE seq = {frame.seq}") == [(frame.data,)])
            return super().deliver(thread_id, frame)

    async with sqlite.opened(path, Synchronous.OFF) as database:
        witness = Witness(await SqliteBroker(database).load())
        await witness.join(THREAD)
        for number in range(3):
            await witness.publish(THREAD, number)
    assert found == [True] * 3


async def test_what_waits_is_committed_together(path: Path) -> None:
    async with worker(path, clock=Ticking()) as busy, anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(busy.publish, ThreadId(f"thread_{number % 10}"), number)
    ((groups, events),) = asked(path, "SELECT count(DISTINCT at), count(*) FROM events")
    assert events == 100
    assert groups <= 3


async def test_refused_event_is_heard_by_nobody_and_the_next_one_tells_of_it(path: Path) -> None:
    await changed(path, REFUSING)
    async with worker(path) as ill:
        begun = await ill.join(THREAD)
        await ill.publish(THREAD, 1)
        for number in (POISON, POISON):
            refused = await ill.publish(THREAD, number)
            assert (refused.outcome, refused.link, refused.kept) == (Outcome.REFUSED, 10, False)
            assert refused.reason == "the SQLite store: database or disk is full"
        lost = await ill.join(THREAD, Cursor(begun.cursor.epoch, 1))
        assert lost.gap is not None
        assert (lost.gap.first, lost.gap.last, lost.gap.reason) == (2, 3, GapReason.LOST)
        assert await ill.publish(THREAD, 4)
        assert numbers(ill.heard[THREAD]) == [1, 4]
        whole = await ill.join(THREAD, begun.cursor)
        assert (numbers(whole.frames), whole.gap) == ([1, 4], None), "the socket sees from the numbers what is lost"
        after_the_first = await ill.join(THREAD, Cursor(begun.cursor.epoch, 1))
        assert (numbers(after_the_first.frames), after_the_first.gap) == ([4], None)


async def test_who_resumes_does_not_wait_for_a_disk_that_takes_no_more(path: Path) -> None:
    await changed(path, REFUSING)
    async with worker(path) as ill:
        begun = await ill.join(THREAD)
        await ill.publish(THREAD, 1)
        await ill.publish(THREAD, POISON)
        answers: list[Replay] = []

        async def resume() -> None:
            answers.append(await ill.join(THREAD, begun.cursor))

        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(resume)
        assert time.monotonic() - began < RETRY_SECONDS
        assert [numbers(replay.frames) for replay in answers] == [[1]] * 5


async def test_refusal_that_nothing_followed_is_still_told_when_the_process_is_back(path: Path) -> None:
    await changed(path, REFUSING)
    async with worker(path) as ill:
        first = await ill.publish(THREAD, 1)
        await ill.publish(THREAD, POISON)
        await ill.publish(OTHER, POISON)
    async with worker(path) as back:
        replay = await back.join(THREAD, Cursor(first.epoch or "", 1))
        assert replay.gap is not None
        assert (replay.gap.first, replay.gap.last, replay.gap.reason) == (2, 2, GapReason.LOST)
        assert [(await back.publish(thread, 3)).seq for thread in (THREAD, OTHER)] == [3, 2]


async def test_refusal_takes_the_events_of_its_group_and_no_others(path: Path) -> None:
    await changed(path, REFUSING)
    async with worker(path) as ill:
        await ill.join(THREAD)
        outcomes: dict[int, Outcome] = {}

        async def publish(number: int) -> None:
            outcomes[number] = (await ill.publish(THREAD, number)).outcome

        for round_ in range(5):
            async with anyio.create_task_group() as tasks:
                for number in range(round_ * 10, round_ * 10 + 10):
                    tasks.start_soon(publish, POISON if number == 25 else number)
        heard = {number_in(frame): frame.seq for frame in ill.heard[THREAD]}
        assert outcomes[POISON] is Outcome.REFUSED
        assert {number for number, outcome in outcomes.items() if outcome is Outcome.SENT} == set(heard)
        assert set(range(20)) | set(range(30, 50)) <= set(heard)
        assert max(heard.values()) == 50


async def test_store_recovers_when_the_disk_does_whether_or_not_anybody_publishes(path: Path) -> None:
    await changed(path, FULL_FOR_A_WHILE)
    full_until = time.time() + 0.8
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE disk SET full_until = ?", (full_until,))
        connection.commit()
    async with worker(path) as ill:
        begun = await ill.join(THREAD)
        assert (await ill.publish(THREAD, 1)).outcome is Outcome.REFUSED
        assert not is_well(ill)
        with anyio.fail_after(WAIT_SECONDS):
            while not is_well(ill):
                await anyio.lowlevel.checkpoint()
        assert time.time() >= full_until - 0.01
        assert (await ill.publish(THREAD, 2)).outcome is Outcome.SENT
        assert numbers((await ill.join(THREAD, begun.cursor)).frames) == [2]


async def test_everybody_is_answered_while_the_disk_is_slow_and_nothing_is_lost(path: Path) -> None:
    await changed(path, slow(seconds=5 * PATIENCE))
    answers: list[Outcome | str] = []
    async with worker(path, answer_seconds=PATIENCE) as stuck:

        async def publish(number: int) -> None:
            answers.append((await stuck.publish(THREAD, number)).outcome)

        async def resume() -> None:
            with pytest.raises(StoreAway):
                await stuck.broker.replay(THREAD, begun.cursor)
            answers.append("away")

        begun = await stuck.join(THREAD)
        assert await stuck.publish(THREAD, 0)
        began = time.monotonic()
        async with anyio.create_task_group() as asking:
            asking.start_soon(publish, POISON)
            await anyio.wait_all_tasks_blocked()
            asking.start_soon(publish, 1)
            asking.start_soon(resume)
        assert PATIENCE <= time.monotonic() - began < 3 * PATIENCE
        assert set(answers) == {Outcome.PENDING, "away"}
        assert not stuck.broker.healthy
        at_once = await stuck.publish(THREAD, 2)
        assert (at_once.outcome, bool(at_once), at_once.kept) == (Outcome.PENDING, False, False)
        with anyio.fail_after(60):
            while len(stuck.heard[THREAD]) < 4:
                await stuck._changed.wait()
        assert [number_in(frame) for frame in stuck.heard[THREAD]] == [0, POISON, 1, 2]
        assert await stuck.publish(THREAD, 3)
        assert stuck.broker.healthy


@pytest.mark.parametrize(("events", "size_bytes"), [(10, 10**9), (10**9, 5_500)])
async def test_backlog_is_bounded_and_what_it_refuses_takes_a_number(path: Path, events: int, size_bytes: int) -> None:
    receipts: dict[int, Receipt] = {}
    async with sqlite.opened(path, Synchronous.OFF) as database:
        broker = SqliteBroker(database, backlog_events=events, backlog_bytes=size_bytes)
        busy = Worker(await broker.load())
        begun = await busy.join(THREAD)

        async def publish(number: int) -> None:
            receipts[number] = await broker.publish(drafted(THREAD, number, padding=300))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(publish, number)
    refused = {receipt.seq: receipt.reason for receipt in receipts.values() if receipt.outcome is Outcome.REFUSED}
    assert set(refused.values()) == {"the SQLite store: it is behind"}
    assert numbers(busy.heard[THREAD]) == [seq for seq in range(1, 21) if seq not in refused]
    assert len(busy.heard[THREAD]) >= 9
    async with worker(path) as back:
        last = busy.heard[THREAD][-1].seq
        lost = (await back.join(THREAD, Cursor(begun.cursor.epoch, last))).gap
        assert lost is not None
        assert (lost.first, lost.last, lost.reason) == (last + 1, 20, GapReason.LOST)
        assert (await back.publish(THREAD, 99)).seq == 21
        replay = await back.join(THREAD, begun.cursor)
        assert list(replay.frames) == [*busy.heard[THREAD], *back.heard[THREAD]]


async def test_what_waits_when_the_store_is_closed_is_written_and_what_comes_later_is_refused(path: Path) -> None:
    receipts = []
    async with anyio.create_task_group() as tasks:
        async with worker(path) as closing_:

            async def publish(number: int) -> None:
                receipts.append(await closing_.publish(THREAD, number))

            for number in range(10):
                tasks.start_soon(publish, number)
            await anyio.wait_all_tasks_blocked()
        late = await closing_.publish(THREAD, 99)
    assert {receipt.outcome for receipt in receipts} == {Outcome.NOBODY_LISTENING}
    assert (late.outcome, late.reason) == (Outcome.REFUSED, "the SQLite store: it is closed")
    assert asked(path, "SELECT count(*), max(seq) FROM events") == [(10, 10)]


@pytest.mark.parametrize(
    ("keep", "rows"),
    [
        pytest.param(Keep(events=16), 18, id="events"),
        pytest.param(Keep(size_bytes=4_000), 22, id="bytes"),
        pytest.param(Keep(seconds=16), 20, id="age"),
    ],
)
async def test_file_keeps_little_more_than_the_log(path: Path, keep: Keep, rows: int) -> None:
    clock = Clock()
    async with worker(path, keep, clock) as busy:
        for number in range(100):
            await busy.publish(THREAD, number)
            clock.now += 1
    ((count, first, last),) = asked(path, "SELECT count(*), min(seq), max(seq) FROM events")
    assert last == 100
    assert count == last - first + 1
    assert 14 <= count <= rows


async def test_thread_that_nobody_publishes_to_leaves_the_file_but_for_its_number(path: Path) -> None:
    clock = Clock()
    async with worker(path, Keep(seconds=10), clock) as busy:
        threads = [ThreadId(f"thread_{number}") for number in range(50)]
        heads = [[await busy.publish(thread) for _ in range(2)][-1] for thread in threads]
        clock.now += 11
        for _ in range(3):
            await busy.publish(THREAD)
    assert asked(path, "SELECT count(DISTINCT thread) FROM events") == [(1,)]
    async with worker(path, Keep(seconds=10), clock) as back:
        for thread, head in zip(threads, heads, strict=True):
            again = await back.publish(thread)
            assert (again.seq, again.epoch) == (3, head.epoch)


async def test_forgotten_threads_leave_the_file(path: Path) -> None:
    async with worker(path, Keep(threads=5)) as busy:
        for number in range(50):
            await busy.publish(ThreadId(f"thread_{number}"), number)
    assert asked(path, "SELECT count(*) FROM threads") == [(5,)]
    assert asked(path, "SELECT count(*) FROM events WHERE thread IN (SELECT number FROM threads)") == [(5,)]
    assert asked(path, "SELECT count(*) FROM events") == [(5,)]


async def test_what_was_to_leave_with_a_group_that_was_refused_leaves_with_a_later_one(path: Path) -> None:
    await changed(path, REFUSING)
    new = ThreadId("thread_new")
    async with worker(path, Keep(threads=2)) as ill:
        await ill.publish(THREAD)
        await ill.publish(OTHER)
        assert (await ill.publish(new, POISON)).outcome is Outcome.REFUSED
        await ill.publish(new)
    assert asked(path, "SELECT thread_id FROM threads ORDER BY thread_id") == [(OTHER,), (new,)]
    assert asked(path, "SELECT count(*) FROM events") == [(2,)]


async def test_what_a_killed_process_had_not_trimmed_yet_is_trimmed_by_the_next(path: Path) -> None:
    async with worker(path) as busy:
        for number in range(20):
            await busy.publish(THREAD, number)
            await busy.publish(OTHER, number)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM threads WHERE thread_id = ?", (OTHER,))
        connection.commit()
    async with worker(path, Keep(threads=1)) as back:
        assert (await back.publish(OTHER)).seq == 1
    assert asked(path, "SELECT thread_id FROM threads") == [(OTHER,)]
    assert asked(path, "SELECT count(*) FROM events") == [(1,)]


async def test_long_log_is_trimmed_in_small_steps_and_completely(path: Path) -> None:
    async with worker(path) as busy:
        await busy.publish(OTHER)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"INSERT INTO events SELECT 1, n + 1, n + 1, 0, x'7b7d' FROM ({WORK.format(steps=5_000)})")
        connection.commit()
    async with worker(path, Keep(threads=1), Ticking()) as back:
        await back.publish(THREAD)
        assert asked(image(path), "SELECT count(*) > 1 FROM events") == [(1,)]
    assert asked(path, "SELECT count(*) FROM events") == [(1,)]
