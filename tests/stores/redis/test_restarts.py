"""The log while its server is restarted or replaced: no seq is assigned twice."""

from __future__ import annotations

import shutil

import anyio
import pytest

from bridgekit.cursors_and_gaps import START, Cursor, Gap, GapReason
from bridgekit.events import Outcome
from bridgekit.stores.redis.keys_and_functions import SEQ_SKIP_AFTER_RESTART
from bridgekit_verify.faults.redis_servers import Persistence, redis_server
from tests.factories import THREAD
from tests.stores.redis.workers import (
    SOON_SECONDS,
    publish,
    publish_and_wait,
    redis_worker,
    until_server_replies,
)

pytestmark = pytest.mark.slow


async def test_events_wait_in_order_until_a_killed_server_is_restarted() -> None:
    async with redis_server(Persistence.ALWAYS) as server, redis_worker(server.url) as worker:
        await worker.log.join(THREAD)
        await publish(worker, "before")
        await server.kill()
        [first] = await publish_and_wait(worker, "first")
        others = await publish(worker, *range(50))  # no publisher waits for an answer any more
        assert {receipt.outcome for receipt in (first, *others)} == {Outcome.PENDING}
        assert not worker.log.healthy
        await server.start()
        await worker.sink.until_delivered(52)
        await worker.until_healthy()
        [after] = await publish(worker, "after")
        assert after.outcome == Outcome.RELAYED
        await worker.sink.until_delivered(53)
        assert worker.sink.texts() == ["before", "first", *range(50), "after"]
        # The server syncs each write, so no seq is missing and no client had to reconnect.
        assert worker.sink.numbers() == list(range(1, 54))
        assert worker.sink.restarts == []


async def test_server_that_may_have_lost_events_skips_numbers_and_clients_get_a_gap() -> None:
    async with redis_server(Persistence.EVERYSEC) as server, redis_worker(server.url) as worker:
        await worker.log.join(THREAD)
        receipts = await publish(worker, "a", "b")
        await server.wait_fsynced()
        await server.kill()
        await worker.until_healthy(healthy=False)
        await server.start()
        await worker.until_healthy()
        # Events after "b" may have been lost, so clients reconnect and get a gap.
        assert worker.sink.restarts == [THREAD]
        await publish(worker, "c")
        await worker.sink.until_delivered(3)
        assert worker.sink.numbers() == [1, 2, SEQ_SKIP_AFTER_RESTART + 3]
        head = Cursor(str(receipts[0].epoch), 2)
        assert [frame.seq for frame in (await worker.log.replay(THREAD, head)).frames] == [SEQ_SKIP_AFTER_RESTART + 3]
        assert len((await worker.log.replay(THREAD, Cursor(head.epoch, 0))).frames) == 3


async def test_client_that_resumes_over_skipped_numbers_gets_a_gap() -> None:
    async with redis_server(Persistence.EVERYSEC) as server, redis_worker(server.url) as worker:
        [receipt] = await publish(worker, "a")
        await server.wait_fsynced()
        await server.kill()
        await worker.until_healthy(healthy=False)
        await server.start()
        await worker.until_healthy()
        replay = await worker.log.replay(THREAD, Cursor(str(receipt.epoch), 1))
        gap = Gap(
            thread_id=THREAD, epoch=str(receipt.epoch), first=2, last=SEQ_SKIP_AFTER_RESTART + 1, reason=GapReason.LOST
        )
        assert (replay.cursor.seq, replay.frames, replay.gap) == (SEQ_SKIP_AFTER_RESTART + 1, (), gap)


async def test_seq_that_clients_have_seen_is_never_assigned_to_another_event() -> None:
    """Simulates a machine that loses its last second of writes, by restoring an earlier copy of its disk."""
    async with redis_server(Persistence.EVERYSEC) as server, redis_worker(server.url) as worker:
        await worker.log.join(THREAD)
        receipts = await publish(worker, "a", "b")
        await server.wait_fsynced()
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
        assert worker.sink.numbers() == [1, 2, 3, 4, SEQ_SKIP_AFTER_RESTART + 3]
        replay = await worker.log.replay(THREAD, Cursor(str(receipts[0].epoch), 4))
        assert ([frame.seq for frame in replay.frames], replay.gap) == ([SEQ_SKIP_AFTER_RESTART + 3], None)


async def test_server_that_lost_its_data_starts_a_new_epoch() -> None:
    async with redis_server(Persistence.NONE) as server, redis_worker(server.url) as worker:
        await worker.log.join(THREAD)
        [old, _] = await publish(worker, "a", "b")
        await server.kill()
        [pending] = await publish_and_wait(worker, "c")
        assert pending.outcome == Outcome.PENDING
        await server.start()
        await worker.sink.until(lambda: THREAD in worker.sink.restarts)
        await until_server_replies(server, ("XLEN", worker.topology.names.thread(THREAD).log.decode()), "1")
        [new] = await publish(worker, "d")
        assert new.epoch != old.epoch
        replay = await worker.log.replay(THREAD, Cursor(str(old.epoch), 2))
        assert [frame.event.payload["text"] for frame in replay.frames] == ["c", "d"]
        assert replay.gap == Gap(thread_id=THREAD, epoch=str(old.epoch), first=3, last=None, reason=GapReason.RESTARTED)
        everything = await worker.log.replay(THREAD, START)
        assert [frame.event.payload["text"] for frame in everything.frames] == ["c", "d"]
        assert (everything.gap, everything.cursor) == (None, Cursor(str(new.epoch), 0))


async def test_promoted_replica_skips_numbers_whatever_its_configuration() -> None:
    async with (
        redis_server(Persistence.ALWAYS, settings=("repl-diskless-sync-delay 0",)) as first,
        redis_server(Persistence.ALWAYS) as replica,
    ):
        async with redis_worker(first.url) as worker:
            [receipt] = await publish(worker, "a")
        await replica.ask("REPLICAOF", "127.0.0.1", str(first.port))
        with anyio.fail_after(SOON_SECONDS):
            while "master_link_status:up" not in await replica.ask("INFO", "replication"):  # noqa: ASYNC110
                await anyio.sleep(0.005)
        await replica.ask("REPLICAOF", "NO", "ONE")
        async with redis_worker(replica.url) as worker:
            [later] = await publish(worker, "b")
        assert (later.epoch, later.seq) == (receipt.epoch, SEQ_SKIP_AFTER_RESTART + 2)


async def test_server_that_became_a_replica_is_disconnected_and_resolved_again() -> None:
    async with redis_server() as first, redis_server() as other, redis_worker(first.url) as worker:
        await first.ask("REPLICAOF", "127.0.0.1", str(other.port))
        [receipt] = await publish_and_wait(worker, "a")
        assert receipt.outcome == Outcome.PENDING
        [only] = worker.topology
        with anyio.fail_after(SOON_SECONDS):
            await only.failing.wait()
        await first.ask("REPLICAOF", "NO", "ONE")
        await until_server_replies(first, ("XLEN", worker.topology.names.thread(THREAD).log.decode()), "1")
