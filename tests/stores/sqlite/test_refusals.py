"""Events that the SQLite file rejected: senders and clients are informed, and the store recovers with the disk."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from bridgekit.cursors_and_gaps import Cursor, GapReason
from bridgekit.events import Outcome
from bridgekit.stores.sqlite import group_commit
from bridgekit.transport.log import Replay
from tests.contract.stores import POLL_INTERVAL_SECONDS, WAIT_SECONDS, number_in, numbers
from tests.factories import OTHER, THREAD
from tests.stores.sqlite.disks import FULL, POISON, REFUSING, create_store, is_healthy, make_room, worker
from tests.stores.sqlite.files import query
from tests.timeouts import TIMEOUT_SECONDS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_refused_event_is_not_delivered_and_the_next_one_reveals_the_gap(path: Path) -> None:
    await create_store(path, REFUSING)
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
        assert numbers(ill.received[THREAD]) == [1, 4]
        whole = await ill.join(THREAD, begun.cursor)
        assert (numbers(whole.frames), whole.gap) == ([1, 4], None), "the socket sees from the numbers what is lost"
        after_the_first = await ill.join(THREAD, Cursor(begun.cursor.epoch, 1))
        assert (numbers(after_the_first.frames), after_the_first.gap) == ([4], None)


async def test_resuming_client_does_not_wait_for_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "RETRY_SECONDS", TIMEOUT_SECONDS)
    await create_store(path, REFUSING)
    async with worker(path) as ill:
        begun = await ill.join(THREAD)
        await ill.publish(THREAD, 1)
        await ill.publish(THREAD, POISON)
        answers: list[Replay] = []

        async def resume() -> None:
            answers.append(await ill.join(THREAD, begun.cursor))

        with anyio.fail_after(TIMEOUT_SECONDS / 2):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(resume)
        assert [numbers(replay.frames) for replay in answers] == [[1]] * 5


async def test_refused_last_event_is_a_gap_after_a_restart(path: Path) -> None:
    await create_store(path, REFUSING)
    async with worker(path) as ill:
        first = await ill.publish(THREAD, 1)
        await ill.publish(THREAD, POISON)
        await ill.publish(OTHER, POISON)
    async with worker(path) as back:
        replay = await back.join(THREAD, Cursor(first.epoch or "", 1))
        assert replay.gap is not None
        assert (replay.gap.first, replay.gap.last, replay.gap.reason) == (2, 2, GapReason.LOST)
        assert [(await back.publish(thread, 3)).seq for thread in (THREAD, OTHER)] == [3, 2]


async def test_failed_commit_refuses_the_events_of_its_batch_only(path: Path) -> None:
    await create_store(path, REFUSING)
    async with worker(path) as ill:
        await ill.join(THREAD)
        outcomes: dict[int, Outcome] = {}

        async def publish(number: int) -> None:
            outcomes[number] = (await ill.publish(THREAD, number)).outcome

        for round_ in range(5):
            async with anyio.create_task_group() as tasks:
                for number in range(round_ * 10, round_ * 10 + 10):
                    tasks.start_soon(publish, POISON if number == 25 else number)
        received = {number_in(frame): frame.seq for frame in ill.received[THREAD]}
        assert outcomes[POISON] is Outcome.REFUSED
        assert {number for number, outcome in outcomes.items() if outcome is Outcome.SENT} == set(received)
        assert set(range(20)) | set(range(30, 50)) <= set(received)
        assert max(received.values()) == 50


async def test_store_recovers_with_the_disk_with_and_without_publishing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "RETRY_SECONDS", POLL_INTERVAL_SECONDS)
    await create_store(path, FULL)
    async with worker(path) as ill:
        begun = await ill.join(THREAD)
        assert (await ill.publish(THREAD, 1)).outcome is Outcome.REFUSED
        assert not is_healthy(ill)
        await make_room(ill)
        with anyio.fail_after(WAIT_SECONDS):
            while not is_healthy(ill):  # noqa: ASYNC110  # the store retries after a fixed time
                await anyio.sleep(POLL_INTERVAL_SECONDS)
        assert (await ill.publish(THREAD, 2)).outcome is Outcome.SENT
        assert numbers((await ill.join(THREAD, begun.cursor)).frames) == [2]


async def test_store_closes_when_the_disk_is_full(path: Path) -> None:
    await create_store(path, FULL)
    with anyio.fail_after(WAIT_SECONDS):
        async with worker(path) as ill:
            await ill.join(OTHER)
            assert (await ill.publish(THREAD)).outcome is Outcome.REFUSED
    assert query(path, "SELECT count(*) FROM events") == [(0,)]
