"""The SQLite file holds little more than the logs retain, and no transaction deletes many rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bridgekit.cursors_and_gaps import Cursor, GapReason
from bridgekit.events import Outcome
from bridgekit.ids import ThreadId
from bridgekit.stores import sqlite_stores
from bridgekit.stores.sqlite import group_commit
from bridgekit.stores.sqlite.file import checksum
from bridgekit.transport.log import Retention
from tests.contract.stores import Worker, numbers
from tests.factories import OTHER, THREAD
from tests.stores.sqlite.disks import POISON, REFUSING, WORK, create_store, worker
from tests.stores.sqlite.files import Clock, query, run_script, snapshot


class Ticking(Clock):
    """A clock that gives each transaction a different time."""

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.mark.parametrize("steps", [(3_600.0,), (-3_600.0,), (3_600.0, -3_600.0)], ids=str)
async def test_step_of_the_clock_does_not_change_how_long_events_are_retained(
    path: Path, steps: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    wall, steady = Clock(), Clock()
    monkeypatch.setattr(group_commit, "time", SimpleNamespace(time=wall, monotonic=steady))
    async with sqlite_stores(path, Retention(seconds=60))() as stores:
        opened = Worker(stores.log)
        before = await opened.publish(THREAD)
        for step in steps:
            wall.now += step
            await opened.publish(THREAD)
        start = Cursor(before.epoch or "", 0)
        count = 1 + len(steps)
        assert len((await opened.log.replay(THREAD, start)).frames) == count
        steady.now += 61
        await opened.publish(THREAD)
        gap = (await opened.log.replay(THREAD, start)).gap
        assert gap is not None
        assert (gap.reason, gap.last) == (GapReason.EXPIRED, count + 1)


async def test_log_is_trimmed_at_once_when_opened_with_a_shorter_retention(path: Path) -> None:
    async with worker(path) as before:
        head = [await before.publish(THREAD) for _ in range(10)][-1]
    async with worker(path, Retention(events=3)) as back:
        whole = await back.join(THREAD, Cursor(head.epoch or "", 7))
        assert (numbers(whole.frames), whole.gap) == ([8, 9, 10], None)
        gap = (await back.join(THREAD, Cursor(head.epoch or "", 6))).gap
        assert gap is not None
        assert (gap.first, gap.last, gap.reason) == (7, 10, GapReason.EXPIRED)


@pytest.mark.parametrize(
    ("retention", "rows"),
    [
        pytest.param(Retention(events=16), 18, id="events"),
        pytest.param(Retention(size_bytes=4_000), 22, id="bytes"),
        pytest.param(Retention(seconds=16), 20, id="age"),
    ],
)
async def test_file_keeps_little_more_than_the_log(path: Path, retention: Retention, rows: int) -> None:
    clock = Clock()
    async with worker(path, retention, clock) as busy:
        for number in range(100):
            await busy.publish(THREAD, number)
            clock.now += 1
    ((count, first, last),) = query(path, "SELECT count(*), min(seq), max(seq) FROM events")
    assert last == 100
    assert count == last - first + 1
    assert 14 <= count <= rows


async def test_unused_thread_keeps_only_its_position_in_the_file(path: Path) -> None:
    clock = Clock()
    async with worker(path, Retention(seconds=10), clock) as busy:
        threads = [ThreadId(f"thread_{number}") for number in range(50)]
        heads = [[await busy.publish(thread) for _ in range(2)][-1] for thread in threads]
        clock.now += 11
        for _ in range(3):
            await busy.publish(THREAD)
    assert query(path, "SELECT count(DISTINCT thread) FROM events") == [(1,)]
    async with worker(path, Retention(seconds=10), clock) as back:
        for thread, head in zip(threads, heads, strict=True):
            again = await back.publish(thread)
            assert (again.seq, again.epoch) == (3, head.epoch)


async def test_events_that_expired_while_the_process_was_down_are_deleted(path: Path) -> None:
    clock = Clock()
    async with worker(path, Retention(seconds=10), clock) as busy:
        for number in range(20):
            await busy.publish(ThreadId(f"thread_{number}"))
    clock.now += 11
    async with worker(path, Retention(seconds=10), clock) as back:
        await back.publish(THREAD)
    assert query(path, "SELECT count(*) FROM events") == [(1,)]
    assert query(path, "SELECT count(*) FROM threads") == [(21,)]


async def test_evicted_threads_are_deleted_from_the_file(path: Path) -> None:
    async with worker(path, Retention(threads=5)) as busy:
        for number in range(50):
            await busy.publish(ThreadId(f"thread_{number}"), number)
    assert query(path, "SELECT count(*) FROM threads") == [(5,)]
    assert query(path, "SELECT count(*) FROM events WHERE thread IN (SELECT number FROM threads)") == [(5,)]
    assert query(path, "SELECT count(*) FROM events") == [(5,)]


async def test_deletions_of_a_failed_transaction_are_repeated_in_a_later_one(path: Path) -> None:
    await create_store(path, REFUSING)
    new = ThreadId("thread_new")
    async with worker(path, Retention(threads=2)) as ill:
        await ill.publish(THREAD)
        await ill.publish(OTHER)
        assert (await ill.publish(new, POISON)).outcome is Outcome.REFUSED
        await ill.publish(new)
    assert query(path, "SELECT thread_id FROM threads ORDER BY thread_id") == [(OTHER,), (new,)]
    assert query(path, "SELECT count(*) FROM events") == [(2,)]


async def test_next_process_trims_what_a_killed_process_had_not(path: Path) -> None:
    async with worker(path) as busy:
        for number in range(20):
            await busy.publish(THREAD, number)
            await busy.publish(OTHER, number)
    run_script(path, f"DELETE FROM threads WHERE thread_id = '{OTHER}'")
    async with worker(path, Retention(threads=1)) as back:
        assert (await back.publish(OTHER)).seq == 1
    assert query(path, "SELECT thread_id FROM threads") == [(OTHER,)]
    assert query(path, "SELECT count(*) FROM events") == [(1,)]


async def test_long_log_is_trimmed_in_small_steps_and_completely(path: Path) -> None:
    async with worker(path) as busy:
        await busy.publish(OTHER)
    rows = f"INSERT INTO events SELECT 1, n + 1, n + 1, 0, x'7b7d', 0 FROM ({WORK.format(steps=5_000)})"
    ((*head, _, _),) = query(path, "SELECT number, thread_id, epoch, seq, last FROM threads")
    position = f"UPDATE threads SET seq = 5001, last = 5001, sum = {checksum(*head, 5_001, 5_001)}"
    run_script(path, f"{rows}; {position}")
    async with worker(path, Retention(threads=1), Ticking()) as back:
        await back.publish(THREAD)
        assert query(snapshot(path), "SELECT count(*) > 1 FROM events") == [(1,)]
    assert query(path, "SELECT count(*) FROM events") == [(1,)]
