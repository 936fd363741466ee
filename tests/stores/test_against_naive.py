"""The memory log and the SQLite log give the same answers as a naive model."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import Outcome, encode
from bridgekit.ids import ThreadId
from bridgekit.stores.sqlite.file import Synchronous
from bridgekit.stores.sqlite.group_commit import open_database
from bridgekit.stores.sqlite.log import SqliteEventLog
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import EventLog, MemoryEventLog, Retention
from tests.contract.stores import Worker, event_with_number
from tests.stores.naive import Naive, answer_of
from tests.stores.sqlite.disks import POISON, REFUSING
from tests.stores.sqlite.files import Clock, run_script

THREADS = [ThreadId(name) for name in "abcd"]


class Comparison:
    """A log and the model, which get the same calls."""

    def __init__(self, log: EventLog, retention: Retention, clock: Clock) -> None:
        self.log = log
        self.naive = Naive(retention, clock)
        self.clock = clock
        self.published = 0
        self.epochs: dict[int, str] = {}
        self.joined: list[ThreadId] = []

    def birth(self, thread_id: ThreadId, epoch: str) -> None:
        """Assert that births of the model and epochs of the log correspond one to one."""
        birth = self.naive.threads[thread_id].birth
        assert self.epochs.setdefault(birth, epoch) == epoch
        assert len(set(self.epochs.values())) == len(self.epochs)

    async def publish(self, thread_id: ThreadId, padding: int, poison: bool) -> None:
        self.published += 1
        number = POISON if poison else 1_000 + self.published
        event = event_with_number(thread_id, number, padding=padding)
        receipt = await self.log.publish(event)
        seq = receipt.seq or 0
        assert seq == self.naive.publish(thread_id, number, len(encode(event)), lost=poison)
        assert (receipt.outcome is Outcome.REFUSED) == poison
        self.birth(thread_id, receipt.epoch or "")

    async def replay(self, thread_id: ThreadId, birth: int, back: int) -> None:
        """Resume in one of the known epochs, `back` events before the end of the thread, but not before its start."""
        thread = self.naive.used(thread_id)
        head = (await self.log.replay(thread_id, None)).cursor
        self.birth(thread_id, head.epoch)
        assert head.seq == thread.seq
        birth = birth if birth in self.epochs else thread.birth
        cursor = Cursor(self.epochs[birth], max(0, thread.seq - back))
        expected = self.naive.replay(thread_id, birth, cursor.seq)
        assert answer_of(await self.log.replay(thread_id, cursor), cursor) == expected

    async def join(self, thread_id: ThreadId) -> None:
        await self.log.join(thread_id)
        self.naive.used(thread_id).sockets += 1
        self.joined.append(thread_id)

    def leave(self) -> None:
        if self.joined:
            thread_id = self.joined.pop(0)
            self.log.leave(thread_id)
            self.naive.used(thread_id).sockets -= 1


threads = st.sampled_from(THREADS)
paddings = st.sampled_from([0, 0, 0, 200, 700])
backs = st.integers(-1, 8)
PUBLISH = st.tuples(st.just("publish"), threads, paddings)
POISONED = st.tuples(st.just("poison"), threads, paddings)
REPLAY = st.tuples(st.just("replay"), threads, st.integers(0, 6), backs)
OTHERS = (
    REPLAY,
    st.tuples(st.just("join"), threads),
    st.tuples(st.just("leave")),
    st.tuples(st.just("pass"), st.sampled_from([1.0, 4.0, 11.0])),
)
RETENTIONS = st.builds(
    Retention,
    events=st.sampled_from([1, 3, 20]),
    size_bytes=st.sampled_from([1_500, 1_000_000]),
    seconds=st.just(10.0),
    threads=st.sampled_from([1, 2, 3, 100]),
)


async def compare(comparison: Comparison, steps: list[tuple[object, ...]]) -> None:
    for step in steps:
        match step:
            case ("publish", str(thread), int(padding)):
                await comparison.publish(ThreadId(thread), padding, poison=False)
            case ("poison", str(thread), int(padding)):
                await comparison.publish(ThreadId(thread), padding, poison=True)
            case ("replay", str(thread), int(birth), int(back)):
                await comparison.replay(ThreadId(thread), birth, back)
            case ("join", str(thread)):
                await comparison.join(ThreadId(thread))
            case ("leave",):
                comparison.leave()
            case ("pass", float(seconds)):
                comparison.clock.now += seconds
            case _:
                raise AssertionError(step)


@settings(max_examples=100, deadline=None)
@given(RETENTIONS, st.lists(st.one_of(PUBLISH, PUBLISH, *OTHERS), max_size=60))
async def test_memory_log_answers_as_the_model_does(retention: Retention, steps: list[tuple[object, ...]]) -> None:
    clock = Clock()
    log = MemoryEventLog(retention, clock)
    Hub(log)
    comparison = Comparison(log, retention, clock)
    await compare(comparison, steps)
    assert len(log) == len(comparison.naive.threads)


@asynccontextmanager
async def opened(path: Path, retention: Retention, clock: Clock) -> AsyncIterator[SqliteEventLog]:
    async with open_database(path, Synchronous.OFF, clock) as database:
        log = await SqliteEventLog(database, retention).load()
        Worker(log)
        yield log


@pytest.fixture(scope="module")
async def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("naive") / "template.db"
    async with opened(path, Retention(), Clock()):
        pass
    run_script(path, REFUSING)
    return path


def refusing(template: Path) -> Path:
    """Copy the template: an empty store that refuses the event POISON."""
    return Path(shutil.copy(template, template.with_name("store.db")))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RETENTIONS, st.lists(st.one_of(PUBLISH, PUBLISH, POISONED, *OTHERS), max_size=40))
async def test_sqlite_log_answers_as_the_model_does(
    template: Path, retention: Retention, steps: list[tuple[object, ...]]
) -> None:
    clock = Clock()
    async with opened(refusing(template), retention, clock) as log:
        comparison = Comparison(log, retention, clock)
        await compare(comparison, steps)
        assert len(log) == len(comparison.naive.threads)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([1, 3, 20]), st.lists(st.lists(st.one_of(PUBLISH, POISONED, REPLAY), max_size=12), max_size=4))
async def test_sqlite_log_answers_as_the_model_does_when_it_is_closed_and_reopened(
    template: Path, events: int, lives: list[list[tuple[object, ...]]]
) -> None:
    clock, retention = Clock(), Retention(events=events, seconds=10.0)
    path, comparison = refusing(template), None
    for steps in lives:
        async with AsyncExitStack() as stack:
            log = await stack.enter_async_context(opened(path, retention, clock))
            comparison = comparison or Comparison(log, retention, clock)
            comparison.log = log
            await compare(comparison, steps)
        clock.now += 4
