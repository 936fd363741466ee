"""The broker over a real server that is well: numbers, delivery to all workers, joining, resuming, bounds."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from bridgekit.events import EventType, Outcome
from bridgekit.ids import RunId, ThreadId
from bridgekit.signals import Cursor
from bridgekit.transport.broker.redis import RedisBroker
from bridgekit_verify.faults.redis_servers import redis_server
from tests.samples import OTHER, THREAD
from tests.transport.broker.redis_workers import RedisWorker, redis_worker, said
from tests.transport.broker.redis_workers import publish as publish_all

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("patient")]


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
        event = said('straße 𐍈\n"{', run_id=RunId("run_7"), type=EventType.TOOL_EXECUTING)
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


@pytest.mark.parametrize("thread", ["x" * 1_024, "}{", "thread_1_run_2", "straße 𐍈"])
async def test_any_thread_id_will_do(url: str, prefix: str, thread: str) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.broker.join(ThreadId(thread))
        await publish(worker, "a", thread_id=ThreadId(thread))
        await worker.sink.until_delivered(1, ThreadId(thread))
