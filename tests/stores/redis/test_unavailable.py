"""The log while its server hangs or is out of memory: no publisher waits, memory is limited, refusals leave gaps."""

from __future__ import annotations

import anyio
import pytest

from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason
from bridgekit.events import Outcome
from bridgekit.ids import ThreadId
from bridgekit.stores.redis.log import ANSWER_TIMEOUT_SECONDS
from bridgekit_verify.faults.redis_servers import Persistence, redis_server
from tests.factories import OTHER, THREAD
from tests.stores.redis.workers import (
    SOON_SECONDS,
    event_with,
    publish,
    publish_and_wait,
    redis_worker,
)

pytestmark = pytest.mark.slow


async def test_publishers_do_not_wait_for_a_stopped_server() -> None:
    async with redis_server() as server, redis_worker(server.url) as worker:
        await worker.log.join(THREAD)
        await publish(worker, "before")
        server.stop()
        began = anyio.current_time()
        [first] = await publish_and_wait(worker, "first")
        assert anyio.current_time() - began >= ANSWER_TIMEOUT_SECONDS
        others = await publish(worker, *range(50))  # no publisher waits for an answer any more
        assert {receipt.outcome for receipt in (first, *others)} == {Outcome.PENDING}
        assert not worker.log.healthy
        server.resume()
        await worker.sink.until_delivered(52)
        await worker.until_healthy()
        [after] = await publish(worker, "after")
        assert after.outcome == Outcome.RELAYED
        await worker.sink.until_delivered(53)
        assert worker.sink.texts() == ["before", "first", *range(50), "after"]


async def test_events_in_the_socket_buffer_of_a_stopped_server_are_appended_once(short_timeouts: None) -> None:
    """A stopped server keeps the commands of a closed connection in its buffer and executes them later."""
    async with redis_server() as server, redis_worker(server.url) as worker:
        await worker.log.join(THREAD)
        await publish(worker, "before")
        [only] = worker.topology
        server.stop()
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(worker.publish, event_with(number))
        with anyio.fail_after(SOON_SECONDS):
            await only.failing.wait()
        server.resume()
        await worker.sink.until_delivered(21)
        await worker.until_healthy()
        await publish(worker, "after")
        await worker.sink.until_delivered(22)
        # Twenty tasks start in no particular order, but each event arrives exactly once.
        texts = worker.sink.texts()
        assert (texts[0], sorted(map(str, texts[1:-1])), texts[-1]) == ("before", sorted(map(str, range(20))), "after")
        assert worker.sink.restarts == []


async def test_refused_events_leave_skipped_numbers_while_the_server_is_unavailable() -> None:
    async with (
        redis_server(Persistence.ALWAYS) as server,
        redis_worker(server.url, backlog_events=3) as worker,
        redis_worker(server.url) as other,
    ):
        for each in (worker, other):
            await each.log.join(THREAD)
        [before] = await publish(worker, "before")
        await server.kill()
        receipts = await publish_and_wait(worker, "a", "b", "c", "lost 1", "lost 2")
        assert [receipt.outcome for receipt in receipts] == [Outcome.PENDING] * 3 + [Outcome.REFUSED] * 2
        assert {(receipt.link, receipt.reason) for receipt in receipts[3:]} == {
            (10, "the store is unavailable and the backlog is full")
        }
        await publish_and_wait(worker, "lost 3", thread_id=OTHER)
        await server.start()
        for each in (worker, other):
            # The thread's last seqs are missing, and no later event shows that. Clients reconnect, and get a gap.
            await each.sink.until(lambda each=each: THREAD in each.sink.restarts)  # type: ignore[misc]
            assert each.sink.numbers() == [1, 2, 3, 4]
        replay = await other.log.replay(THREAD, Cursor(str(before.epoch), 4))
        assert replay.gap == Gap(thread_id=THREAD, epoch=str(before.epoch), first=5, last=6, reason=GapReason.LOST)
        [after] = await publish(other, "after")
        assert after.seq == 7
        [receipt] = await publish(other, "x", thread_id=OTHER)
        assert receipt.seq == 2


async def test_memory_is_limited_while_the_server_is_unavailable() -> None:
    async with redis_server() as server, redis_worker(server.url, backlog_bytes=1_000_000) as worker:
        await server.kill()
        with anyio.fail_after(SOON_SECONDS):
            outcomes = [
                (
                    await worker.log.publish(event_with("x" * 1_000, thread_id=ThreadId(f"thread_{number % 100}")))
                ).outcome
                for number in range(5_000)
            ]
        assert 700 < outcomes.count(Outcome.PENDING) < 1_000
        assert outcomes.count(Outcome.PENDING) + outcomes.count(Outcome.REFUSED) == 5_000
        await server.start()
        await worker.until_healthy()


async def test_events_wait_until_the_server_has_memory_again() -> None:
    async with redis_server() as server, redis_worker(server.url) as worker:
        await worker.log.join(THREAD)
        await server.ask("CONFIG", "SET", "maxmemory", "1")
        receipts = await publish_and_wait(worker, "a", "b")
        assert [receipt.outcome for receipt in receipts] == [Outcome.PENDING] * 2
        assert not worker.log.healthy
        await server.ask("CONFIG", "SET", "maxmemory", "0")
        await worker.sink.until_delivered(2)
        await worker.until_healthy()
        assert worker.sink.texts() == ["a", "b"]


async def test_stopping_worker_waits_a_limited_time_for_an_unavailable_server(
    short_timeouts: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_server() as server:
        async with redis_worker(server.url) as worker:
            server.stop()
            await publish_and_wait(worker, "a")
            began = anyio.current_time()
        assert anyio.current_time() - began < SOON_SECONDS
    assert "1 events did not reach the store" in caplog.text
