"""The broker while its server is killed, stopped, cut off or out of room: nothing lost, nothing twice, nobody waits."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from bridgekit.events import Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.measure.faults.proxy import Proxy, proxy
from bridgekit.measure.faults.redis_servers import Persistence, RedisServer, redis_server
from bridgekit.measure.faults.toxics import Partition, Way
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.storage.redis_library import FENCE
from bridgekit.transport.broker import Keep
from bridgekit.transport.broker.redis import ANSWER_SECONDS, CLOSE_SECONDS
from tests.samples import OTHER, THREAD
from tests.transport.broker.redis_workers import RedisWorker, redis_worker, said

pytestmark = pytest.mark.slow

AT_ONCE_SECONDS = 0.1
"""What a test calls at once: the machine may be busy."""


async def publish(worker: RedisWorker, *texts: object, thread_id: ThreadId = THREAD) -> list[Receipt]:
    return [await worker.broker.publish(said(text, thread_id=thread_id)) for text in texts]


@asynccontextmanager
async def through_proxy(server: RedisServer) -> AsyncIterator[tuple[Proxy, RedisWorker]]:
    """A worker whose way to the server can be spoilt."""
    async with proxy("127.0.0.1", server.port) as through, redis_worker(through.url("redis")) as worker:
        yield through, worker


async def until(server: RedisServer, question: tuple[str, ...], answer: str) -> None:
    """Wait until the server, asked by another way, says so."""
    with anyio.fail_after(5):
        while await server.ask(*question) != answer:  # noqa: ASYNC110  # a server rings nobody
            await anyio.sleep(0.005)


async def test_events_wait_in_order_while_the_server_is_killed_and_arrive_when_it_is_back() -> None:
    async with redis_server(Persistence.ALWAYS) as server, redis_worker(server.url) as worker:
        await worker.broker.join(THREAD)
        await publish(worker, "before")
        await server.kill()
        began = anyio.current_time()
        [first] = await publish(worker, "first")
        assert anyio.current_time() - began < ANSWER_SECONDS + AT_ONCE_SECONDS
        began = anyio.current_time()
        others = await publish(worker, *range(50))
        assert anyio.current_time() - began < AT_ONCE_SECONDS
        assert {receipt.outcome for receipt in (first, *others)} == {Outcome.PENDING}
        assert not worker.broker.healthy
        await server.start()
        await worker.sink.until_delivered(52)
        await worker.until_healthy()
        [after] = await publish(worker, "after")
        assert after.outcome == Outcome.RELAYED
        await worker.sink.until_delivered(53)
        assert worker.sink.texts() == ["before", "first", *range(50), "after"]
        # It had promised to forget nothing: no number is missing, and no socket was sent away.
        assert worker.sink.numbers() == list(range(1, 54))
        assert worker.sink.restarts == []


async def test_server_that_may_have_forgotten_something_leaves_numbers_out_and_readers_are_told() -> None:
    async with redis_server(Persistence.EVERYSEC) as server, redis_worker(server.url) as worker:
        await worker.broker.join(THREAD)
        receipts = await publish(worker, "a", "b")
        await server.restart()
        await worker.until_healthy(healthy=False)
        await worker.until_healthy()
        # Whether "b" was the last there was nobody can say: sockets connect again, and are told so.
        assert worker.sink.restarts == [THREAD]
        await publish(worker, "c")
        await worker.sink.until_delivered(3)
        assert worker.sink.numbers() == [1, 2, FENCE + 3]
        head = Cursor(str(receipts[0].epoch), 2)
        assert [frame.seq for frame in (await worker.broker.replay(THREAD, head)).frames] == [FENCE + 3]
        assert len((await worker.broker.replay(THREAD, Cursor(head.epoch, 0))).frames) == 3


async def test_socket_that_resumes_over_numbers_that_never_were_is_told_the_gap() -> None:
    async with redis_server(Persistence.EVERYSEC) as server, redis_worker(server.url) as worker:
        [receipt] = await publish(worker, "a")
        await server.restart()
        await worker.until_healthy(healthy=False)
        await worker.until_healthy()
        replay = await worker.broker.replay(THREAD, Cursor(str(receipt.epoch), 1))
        gap = Gap(thread_id=THREAD, epoch=str(receipt.epoch), first=2, last=FENCE + 1, reason=GapReason.LOST)
        assert (replay.cursor.seq, replay.frames, replay.gap) == (FENCE + 1, (), gap)


async def test_number_that_sockets_have_seen_is_never_given_to_another_event() -> None:
    """A machine that goes down with the last second in its memory: here its disk is put back to what it was."""
    async with redis_server(Persistence.EVERYSEC) as server, redis_worker(server.url) as worker:
        await worker.broker.join(THREAD)
        receipts = await publish(worker, "a", "b")
        shutil.copytree(server.directory / "appendonlydir", server.directory / "old")
        await publish(worker, "seen", "and lost")
        await worker.sink.until_delivered(4)
        await server.kill()
        shutil.rmtree(server.directory / "appendonlydir")
        (server.directory / "old").rename(server.directory / "appendonlydir")
        await server.start()
        await worker.until_healthy()
        assert worker.sink.restarts == [THREAD]
        await publish(worker, "c")
        await worker.sink.until_delivered(5)
        assert worker.sink.numbers() == [1, 2, 3, 4, FENCE + 3]
        replay = await worker.broker.replay(THREAD, Cursor(str(receipts[0].epoch), 4))
        assert ([frame.seq for frame in replay.frames], replay.gap) == ([FENCE + 3], None)


async def test_server_that_forgets_everything_begins_a_numbering_that_nobody_takes_for_the_old_one() -> None:
    async with redis_server(Persistence.NONE) as server, redis_worker(server.url) as worker:
        await worker.broker.join(THREAD)
        [old, _] = await publish(worker, "a", "b")
        await server.kill()
        [pending] = await publish(worker, "c")
        assert pending.outcome == Outcome.PENDING
        await server.start()
        await worker.sink.until(lambda: THREAD in worker.sink.restarts)
        [new] = await publish(worker, "d")
        assert new.epoch != old.epoch
        replay = await worker.broker.replay(THREAD, Cursor(str(old.epoch), 2))
        assert [frame.event.payload["text"] for frame in replay.frames] == ["c", "d"]
        assert replay.gap == Gap(thread_id=THREAD, epoch=str(old.epoch), first=3, last=None, reason=GapReason.RESTARTED)


@pytest.mark.parametrize("seconds", [0.5, 2.5])
async def test_stopped_server_is_noticed_nobody_waits_and_nothing_comes_twice(seconds: float) -> None:
    """The longer stop outlasts the connection: what it held is done by the server all the same, and sent again."""
    async with redis_server() as server, redis_worker(server.url) as worker:
        await worker.broker.join(THREAD)
        await publish(worker, "before")
        server.stop()
        began = anyio.current_time()
        [first] = await publish(worker, "first")
        assert ANSWER_SECONDS <= anyio.current_time() - began < ANSWER_SECONDS + 0.05 + AT_ONCE_SECONDS
        began = anyio.current_time()
        others = await publish(worker, *range(50))
        assert anyio.current_time() - began < AT_ONCE_SECONDS
        assert {receipt.outcome for receipt in (first, *others)} == {Outcome.PENDING}
        assert not worker.broker.healthy
        await anyio.sleep(seconds)
        server.resume()
        await worker.sink.until_delivered(52)
        await worker.until_healthy()
        await publish(worker, "after")
        await worker.sink.until_delivered(53)
        assert worker.sink.texts() == ["before", "first", *range(50), "after"]
        assert worker.sink.restarts == []


async def test_events_whose_answer_is_lost_with_the_connection_are_not_taken_twice() -> None:
    async with redis_server() as server, through_proxy(server) as (through, worker):
        log = worker.servers.names.thread(THREAD).log.decode()
        told: list[Receipt] = []

        async def publish_two() -> None:
            told.extend(await publish(worker, "a", "b"))

        with through.start(Partition(ways=(Way.TO_CLIENT,))) as held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish_two)
                await until(server, ("XLEN", log), "1")
                with through.down():
                    held.stop()
        assert [receipt.seq for receipt in told if receipt.outcome != Outcome.PENDING] in ([1, 2], [2])
        await until(server, ("XLEN", log), "2")
        await publish(worker, "c")
        replay = await worker.broker.replay(THREAD, Cursor("0" * 16, 0))
        assert [frame.event.payload["text"] for frame in replay.frames] == ["a", "b", "c"]


async def test_what_finds_no_room_while_the_server_is_away_is_refused_and_its_number_left_out() -> None:
    async with (
        redis_server(Persistence.ALWAYS) as server,
        redis_worker(server.url, backlog_events=3) as worker,
        redis_worker(server.url) as other,
    ):
        for each in (worker, other):
            await each.broker.join(THREAD)
        [before] = await publish(worker, "before")
        await server.kill()
        receipts = await publish(worker, "a", "b", "c", "lost 1", "lost 2")
        assert [receipt.outcome for receipt in receipts] == [Outcome.PENDING] * 3 + [Outcome.REFUSED] * 2
        assert {(receipt.link, receipt.reason) for receipt in receipts[3:]} == {
            (10, "the store is away and the backlog is full")
        }
        await publish(worker, "lost 3", thread_id=OTHER)
        await server.start()
        for each in (worker, other):
            # The end of the thread is missing, and no later event shows it: sockets connect again, and are told.
            await each.sink.until(lambda each=each: THREAD in each.sink.restarts)  # type: ignore[misc]
            assert each.sink.numbers() == [1, 2, 3, 4]
        replay = await other.broker.replay(THREAD, Cursor(str(before.epoch), 4))
        assert replay.gap == Gap(thread_id=THREAD, epoch=str(before.epoch), first=5, last=6, reason=GapReason.LOST)
        [after] = await publish(other, "after")
        assert after.seq == 7
        [receipt] = await publish(other, "x", thread_id=OTHER)
        assert receipt.seq == 2


async def test_memory_is_bounded_however_long_the_server_is_away() -> None:
    async with redis_server() as server, redis_worker(server.url, backlog_bytes=1_000_000) as worker:
        await server.kill()
        began = anyio.current_time()
        outcomes = [
            (await worker.broker.publish(said("x" * 1_000, thread_id=ThreadId(f"thread_{number % 100}")))).outcome
            for number in range(5_000)
        ]
        assert anyio.current_time() - began < 2
        assert 700 < outcomes.count(Outcome.PENDING) < 1_000
        assert outcomes.count(Outcome.PENDING) + outcomes.count(Outcome.REFUSED) == 5_000
        await server.start()
        await worker.until_healthy()


async def test_server_without_room_is_away_and_events_arrive_when_it_has_some() -> None:
    async with redis_server() as server, redis_worker(server.url) as worker:
        await worker.broker.join(THREAD)
        await server.ask("CONFIG", "SET", "maxmemory", "1")
        receipts = await publish(worker, "a", "b")
        assert [receipt.outcome for receipt in receipts] == [Outcome.PENDING] * 2
        assert not worker.broker.healthy
        await server.ask("CONFIG", "SET", "maxmemory", "0")
        await worker.sink.until_delivered(2)
        await worker.until_healthy()
        assert worker.sink.texts() == ["a", "b"]


async def test_one_threads_trouble_makes_nobody_elses_event_wait() -> None:
    async with redis_server() as server, redis_worker(server.url) as worker:
        await server.ask("SADD", worker.servers.names.thread(OTHER).head.decode(), "foreign")
        told: list[Outcome] = []

        async def publish_on() -> None:
            while len(told) < 200:
                told.append((await worker.broker.publish(said())).outcome)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish_on)
            [stuck] = await publish(worker, "stuck", thread_id=OTHER)
        assert stuck.outcome == Outcome.PENDING
        assert set(told) == {Outcome.NOBODY_LISTENING}
        await server.ask("DEL", worker.servers.names.thread(OTHER).head.decode())
        await until(server, ("XLEN", worker.servers.names.thread(OTHER).log.decode()), "1")


@pytest.mark.parametrize("keep", [Keep(), Keep(events=0)], ids=["kept", "not kept"])
async def test_subscription_that_is_killed_is_made_again_and_what_it_missed_is_made_up_for(keep: Keep) -> None:
    async with (
        redis_server() as server,
        redis_worker(server.url, keep=keep) as reader,
        redis_worker(server.url, keep=keep) as writer,
    ):
        await reader.broker.join(THREAD)

        async def kill_again_and_again() -> None:
            for _ in range(5):
                await server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                await reader.until_healthy(healthy=False)
                await reader.until_healthy()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill_again_and_again)
            for number in range(300):
                await publish(writer, number)
        numbers = reader.sink.numbers()
        if keep.events:
            await reader.sink.until_delivered(300)
            assert reader.sink.texts() == list(range(300))
            assert reader.sink.restarts == []
        else:
            # What was told to nobody is gone; but in order, once each, and the sockets were told.
            assert numbers == sorted(set(numbers))
            assert set(reader.sink.restarts) == {THREAD}


async def test_events_that_were_told_while_nobody_listened_arrive_without_a_later_one() -> None:
    async with redis_server() as server, redis_worker(server.url) as writer, through_proxy(server) as (through, reader):
        await reader.broker.join(THREAD)
        await publish(writer, "a")
        await reader.sink.until_delivered(1)
        with through.down():
            await publish(writer, "b", "c")
            assert not reader.broker.healthy
        await reader.sink.until_delivered(3)
        assert reader.sink.texts() == ["a", "b", "c"]


async def test_dead_subscription_that_nobody_reports_is_noticed_and_said_and_replaced() -> None:
    """The way is open as far as anybody can see, and nothing comes along it."""
    async with redis_server() as server, redis_worker(server.url) as writer, through_proxy(server) as (through, reader):
        await reader.broker.join(THREAD)
        with through.start(Partition(ways=(Way.TO_CLIENT,))) as held:
            await publish(writer, "a", "b")
            await reader.until_healthy(healthy=False)
            assert reader.sink.numbers() == []
            held.stop()
        await reader.sink.until_delivered(2)
        await reader.until_healthy()
        assert reader.sink.texts() == ["a", "b"]


async def test_worker_that_ends_while_the_server_is_away_does_not_wait_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with redis_server() as server:
        async with redis_worker(server.url) as worker:
            server.stop()
            await publish(worker, "a")
            began = anyio.current_time()
        assert anyio.current_time() - began < CLOSE_SECONDS + 0.5
    assert "1 events did not reach the store" in caplog.text
