"""The broker over a real server that is well: numbers, delivery to all workers, joining, resuming, bounds."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from bridgekit.events import EventType, Outcome
from bridgekit.ids import RunId, ThreadId
from bridgekit.measure.faults.redis_servers import redis_server
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.transport.broker import Keep, Replay
from bridgekit.transport.broker.redis import RedisBroker
from tests.samples import OTHER, THREAD
from tests.transport.broker.redis_workers import RedisWorker, redis_worker, said
from tests.transport.broker.redis_workers import publish as publish_all


async def publish(worker: RedisWorker, *texts: object, thread_id: ThreadId = THREAD) -> Cursor:
    """Publish one after the other; where the thread is after that."""
    [*_, last] = await publish_all(worker, *texts, thread_id=thread_id)
    return Cursor(str(last.epoch), int(last.seq or 0))


async def test_event_reaches_every_worker_that_joined_its_thread_and_no_other(url: str, prefix: str) -> None:
    async with (
        redis_worker(url, prefix) as agents,
        redis_worker(url, prefix) as one,
        redis_worker(url, prefix) as two,
        redis_worker(url, prefix) as other,
    ):
        for each in (one, two):
            await each.broker.join(THREAD)
        await other.broker.join(OTHER)
        receipt = await agents.broker.publish(said())
        assert (receipt.outcome, receipt.workers, receipt.seq, receipt.kept) == (Outcome.RELAYED, 2, 1, True)
        assert receipt
        for each in (one, two):
            await each.sink.until_delivered(1)
        await agents.broker.publish(said(thread_id=OTHER))
        await other.sink.until_delivered(1, OTHER)
        assert [dict.fromkeys(each.sink.frames) for each in (agents, one, two, other)] == [
            {}, {THREAD: None}, {THREAD: None}, {OTHER: None}
        ]  # fmt: skip


async def test_frame_is_the_event_with_its_number(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.broker.join(THREAD)
        event = said('straße 🙂\n"{', run_id=RunId("run_7"), type=EventType.TOOL_EXECUTING)
        await worker.broker.publish(said())
        await worker.broker.publish(event)
        await worker.sink.until_delivered(2)
        assert worker.sink.frames[THREAD][1] == event.frame(2)
        replay = await worker.broker.replay(THREAD, Cursor(str((await worker.broker.publish(said())).epoch), 1))
        assert replay.frames[0] == event.frame(2)


async def test_event_that_nobody_listens_to_is_kept_and_not_called_sent(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        receipt = await worker.broker.publish(said())
        assert (receipt.outcome, receipt.link, receipt.kept, bool(receipt)) == (
            Outcome.NOBODY_LISTENING, 10, True, False,
        )  # fmt: skip
        assert receipt.reason


async def test_applications_with_prefixes_of_their_own_hear_nothing_of_one_another(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as one, redis_worker(url, f"{prefix}-2") as two:
        await two.broker.join(THREAD)
        assert (await one.broker.publish(said())).workers == 0
        assert (await two.broker.publish(said())).seq == 1


async def test_events_of_one_publisher_keep_their_order_and_those_of_many_get_each_a_number(
    url: str, prefix: str
) -> None:
    async with redis_worker(url, prefix) as one, redis_worker(url, prefix) as two:
        await one.broker.join(THREAD)

        async def run(worker: RedisWorker, name: str) -> None:
            for number in range(30):
                assert (await worker.broker.publish(said(f"{name} {number:02}"))).outcome == Outcome.RELAYED

        async with anyio.create_task_group() as tasks:
            for worker, names in ((one, "abc"), (two, "xyz")):
                for name in names:
                    tasks.start_soon(run, worker, name)
        await one.sink.until_delivered(180)
        assert one.sink.numbers() == list(range(1, 181))
        texts = [str(text) for text in one.sink.texts()]
        for name in "abcxyz":
            assert [text for text in texts if text[0] == name] == [f"{name} {number:02}" for number in range(30)]


async def test_many_threads_at_once_keep_their_events_apart(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        threads = [ThreadId(f"thread_{number}") for number in range(50)]
        for thread in threads:
            await worker.broker.join(thread)
        async with anyio.create_task_group() as tasks:
            for text in range(10):
                for thread in threads:
                    tasks.start_soon(worker.broker.publish, said(f"{thread} {text}", thread_id=thread))
        for thread in threads:
            await worker.sink.until_delivered(10, thread)
            assert sorted(map(str, worker.sink.texts(thread))) == [f"{thread} {text}" for text in range(10)]


async def test_thread_is_left_when_the_last_socket_leaves_and_can_be_joined_again(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.broker.join(THREAD)
        await worker.broker.join(THREAD)
        worker.broker.leave(THREAD)
        assert (await worker.broker.publish(said())).workers == 1
        worker.broker.leave(THREAD)
        # Each of these waits for its own confirmation, not for that of a subscription before it.
        for _ in range(5):
            await worker.broker.join(THREAD)
            assert (await worker.broker.publish(said())).workers == 1
            worker.broker.leave(THREAD)


async def test_socket_that_gives_up_joining_leaves_nothing_behind(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await worker.broker.join(THREAD)
        assert scope.cancelled_caught
        await worker.broker.join(OTHER)
        assert (await worker.broker.publish(said())).workers == 0


async def test_joining_and_leaving_at_once_ends_as_the_last_word_was(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await worker.broker.join(THREAD)
            tasks.start_soon(worker.broker.join, THREAD)
        await worker.broker.publish(said("heard"))
        await worker.sink.until_delivered(1)
        assert worker.sink.texts() == ["heard"]


async def test_socket_that_resumes_is_given_all_that_came_after_its_cursor(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as writer, redis_worker(url, prefix) as reader:
        head = await publish(writer, "a", "b", "c")
        await reader.broker.join(THREAD)
        after = Cursor(head.epoch, 1)
        replay = await reader.broker.replay(THREAD, after)
        assert (replay.cursor, [frame.seq for frame in replay.frames], replay.gap) == (after, [2, 3], None)
        assert await reader.broker.replay(THREAD, head) == Replay(head)
        assert await reader.broker.replay(THREAD, None) == Replay(head)


async def test_thread_of_which_nothing_is_known_has_an_epoch_that_the_first_event_keeps(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.broker.join(THREAD)
        begin = (await worker.broker.replay(THREAD, None)).cursor
        assert begin.seq == 0
        assert await publish(worker, "a") == Cursor(begin.epoch, 1)
        await worker.sink.until_delivered(1)
        assert worker.sink.restarts == []


async def test_events_during_a_replay_are_in_it_or_delivered_or_both(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as writer, redis_worker(url, prefix) as reader:
        head = await publish(writer, "first")

        async def write() -> None:
            for number in range(50):
                await writer.broker.publish(said(number))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await reader.broker.join(THREAD)
            replay = await reader.broker.replay(THREAD, head)
        await reader.sink.until(lambda: reader.sink.numbers()[-1:] == [51] or replay.frames[-1].seq == 51)
        seen = {frame.seq for frame in replay.frames} | set(reader.sink.numbers())
        assert seen >= set(range(2, 52))
        assert reader.sink.numbers() == sorted(set(reader.sink.numbers()))


async def test_cursor_before_what_is_kept_is_answered_by_the_gap_and_nothing_else(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix, keep=Keep(events=2)) as worker:
        head = await publish(worker, "a", "b", "c", "d")
        replay = await worker.broker.replay(THREAD, Cursor(head.epoch, 1))
        gap = Gap(thread_id=THREAD, epoch=head.epoch, first=2, last=4, reason=GapReason.EXPIRED)
        assert replay == Replay(head, gap=gap)
        assert len((await worker.broker.replay(THREAD, Cursor(head.epoch, 2))).frames) == 2


async def test_cursor_of_another_numbering_is_answered_by_its_gap_and_all_of_this_one(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix, keep=Keep(events=3)) as worker:
        await publish(worker, "a", "b")
        strange = Cursor("0" * 16, 7)
        gap = Gap(thread_id=THREAD, epoch=strange.epoch, first=8, last=None, reason=GapReason.RESTARTED)
        replay = await worker.broker.replay(THREAD, strange)
        assert (replay.cursor.seq, [frame.seq for frame in replay.frames], replay.gap) == (0, [1, 2], gap)
        head = await publish(worker, "c", "d")
        replay = await worker.broker.replay(THREAD, strange)
        assert (replay.cursor.seq, [frame.seq for frame in replay.frames], replay.gap) == (1, [2, 3, 4], gap)
        assert replay.expired == Gap(thread_id=THREAD, epoch=head.epoch, first=1, last=1, reason=GapReason.EXPIRED)


async def test_cursor_ahead_of_the_log_is_answered_by_a_gap_to_an_unknown_end(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        head = await publish(worker, "a")
        replay = await worker.broker.replay(THREAD, Cursor(head.epoch, 9))
        gap = Gap(thread_id=THREAD, epoch=head.epoch, first=10, last=None, reason=GapReason.RESTARTED)
        assert replay == Replay(head, gap=gap)


async def test_where_nothing_is_kept_events_are_delivered_and_said_not_to_be_kept(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix, keep=Keep(events=0)) as worker:
        await worker.broker.join(THREAD)
        receipt = await worker.broker.publish(said("a"))
        assert (receipt.outcome, receipt.kept) == (Outcome.RELAYED, False)
        await publish(worker, "b")
        await worker.sink.until_delivered(2)
        replay = await worker.broker.replay(THREAD, Cursor(str(receipt.epoch), 0))
        assert (replay.frames, replay.gap is not None) == ((), True)


async def test_event_of_a_megabyte_arrives(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.broker.join(THREAD)
        await publish(worker, "x" * 1_000_000, "small")
        await worker.sink.until_delivered(2)
        assert [len(str(text)) for text in worker.sink.texts()] == [1_000_000, 5]


async def test_what_is_no_frame_of_ours_costs_nobody_an_event(url: str, prefix: str) -> None:
    """Whoever may write to the server may write to a channel."""
    async with redis_worker(url, prefix) as worker:
        await worker.broker.join(THREAD)
        channel, _, slot = worker.servers.names.thread(THREAD)
        for rubbish in (b"", b"rubbish", b"a b c\n{}", b"\xff 1 2", b"0000000000000000 0 1\n{}"):
            assert await worker.servers.call(slot, b"SPUBLISH", channel, rubbish) == 1
        await publish(worker, "a", "b")
        await worker.sink.until_delivered(2)
        assert worker.sink.texts() == ["a", "b"]


async def test_bursts_cost_few_commands(prefix: str) -> None:
    """Never one round trip an event."""
    async with redis_server() as server, redis_worker(server.url, prefix) as worker:
        await server.ask("CONFIG", "RESETSTAT")
        async with anyio.create_task_group() as tasks:
            for number in range(400):
                tasks.start_soon(worker.broker.publish, said(number, thread_id=ThreadId(f"thread_{number % 40}")))
        stats = Counter[str]()
        for line in (await server.ask("INFO", "commandstats")).splitlines():
            name, _, rest = line.partition(":calls=")
            stats[name] = int(rest.partition(",")[0] or 0)
        assert 1 <= stats["cmdstat_fcall"] <= 10


async def test_worker_that_ends_sends_what_is_on_its_way_and_takes_no_more(prefix: str) -> None:
    async with redis_server() as server, redis_worker(server.url, prefix) as reader:
        await reader.broker.join(THREAD)

        async def resume() -> None:
            await anyio.wait_all_tasks_blocked()
            server.resume()

        async with anyio.create_task_group() as tasks, redis_worker(server.url, prefix) as ending:
            server.stop()
            for number in range(100):
                tasks.start_soon(ending.broker.publish, said(number))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(resume)
        await reader.sink.until_delivered(100)
        receipt = await ending.broker.publish(said("late"))
        assert (receipt.outcome, "shutting down" in receipt.reason) == (Outcome.REFUSED, True)


async def test_broker_is_healthy_only_as_long_as_it_is_open(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        assert worker.broker.healthy
        broker = RedisBroker(worker.servers)
        assert not broker.healthy
    await worker.until_healthy(healthy=False)


@pytest.mark.parametrize("thread", ["x" * 1_024, "}{", "thread_1_run_2", "straße 🙂"])
async def test_any_thread_id_will_do(url: str, prefix: str, thread: str) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.broker.join(ThreadId(thread))
        await publish(worker, "a", thread_id=ThreadId(thread))
        await worker.sink.until_delivered(1, ThreadId(thread))
