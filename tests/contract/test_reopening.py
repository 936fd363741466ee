"""Durable stores: acknowledged data is still there after reopening, and numbering continues."""

from __future__ import annotations

import anyio
import pytest

from bridgekit.chain.models_tools_and_owners import MemoryThreadStore
from bridgekit.cursors_and_gaps import START, Cursor
from bridgekit.errors import RunAlreadyMapped, SubscriptionRefused
from bridgekit.events import POLICIES, Policy, define_event_type, text_delta
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.transport.authorization import Handshake
from bridgekit.transport.log import Retention
from bridgekit.transport.tickets import Tickets
from tests.contract.stores import POLL_INTERVAL_SECONDS, WAIT_SECONDS, StoreLocation, numbers
from tests.factories import ALICE, OTHER, RUN, THREAD, emitted

KEY = b"a key that outlives the process, 32 B"


async def test_reopened_log_continues_its_epoch_and_replays_every_cursor(surviving: StoreLocation) -> None:
    async with surviving.worker() as worker:
        before = [await worker.publish(THREAD, number) for number in range(5)]
    async with surviving.worker() as worker:
        after = [await worker.publish(THREAD, number) for number in range(5, 8)]
        assert [receipt.seq for receipt in after] == [6, 7, 8]
        (epoch,) = {receipt.epoch or "" for receipt in (*before, *after)}
        for seq in range(9):
            replay = await worker.join(THREAD, Cursor(epoch, seq))
            assert (numbers(replay.frames), replay.gap) == (list(range(seq + 1, 9)), None)


@pytest.mark.parametrize(
    ("shorter", "kept"),
    [
        (Retention(events=3), 3),
        (Retention(events=0), 0),
        (Retention(size_bytes=1), 1),
        (Retention(seconds=0), 0),
    ],
    ids=["events", "no event", "bytes", "age"],
)
async def test_shorter_retention_applies_at_once_to_the_events_of_a_longer_one(
    surviving: StoreLocation, shorter: Retention, kept: int
) -> None:
    async with surviving.worker(Retention(seconds=3_600)) as worker:
        for number in range(5):
            await worker.publish(THREAD, number)
    async with surviving.worker(shorter) as worker:
        assert numbers((await worker.log.replay(THREAD, START)).frames) == [1, 2, 3, 4, 5][5 - kept :]


async def test_reopened_thread_continues_when_all_its_events_have_expired(surviving: StoreLocation) -> None:
    async with surviving.worker(Retention(events=0)) as worker:
        before = [await worker.publish(THREAD) for _ in range(3)][-1]
    async with surviving.worker(Retention(events=0)) as worker:
        after = await worker.publish(THREAD)
        assert (after.seq, after.epoch) == (4, before.epoch)


async def test_socket_of_an_unused_thread_misses_nothing_after_reopening(surviving: StoreLocation) -> None:
    async with surviving.worker() as worker:
        begun = await worker.join(THREAD)
    async with surviving.worker() as worker:
        await worker.publish(THREAD)
        replay = await worker.join(THREAD, begun.cursor)
        assert (numbers(replay.frames), replay.gap) == ([1], None)


async def test_many_reopened_threads_are_separate(surviving: StoreLocation) -> None:
    threads = [ThreadId(f"thread {number} {{}}") for number in range(50)]
    async with surviving.worker() as worker:
        heads = [await worker.publish(thread, number) for number, thread in enumerate(threads)]
    async with surviving.worker() as worker:
        for number, (thread, head) in enumerate(zip(threads, heads, strict=True)):
            (frame,) = (await worker.join(thread, Cursor(head.epoch or "", 0))).frames
            assert (frame.event.thread_id, frame.event.payload["number"]) == (thread, number)


async def test_routes_and_grace_periods_survive_reopening(surviving: StoreLocation) -> None:
    closed, lapsed = RunId("run_closed"), RunId("run_lapsed")
    async with surviving.opened() as stores:
        mapping, short = (RunThreadMappingService(stores.routes, grace_seconds=seconds) for seconds in (60.0, 0.2))
        for run in (RUN, closed, lapsed):
            await mapping.register_mapping(run, THREAD)
        await mapping.cleanup_mapping(closed)
        await short.cleanup_mapping(lapsed)
    async with surviving.opened() as stores:
        mapping = RunThreadMappingService(stores.routes)
        assert await mapping.get_thread_id(RUN) == THREAD
        assert await mapping.get_thread_id(closed) == THREAD
        with pytest.raises(RunAlreadyMapped):
            await mapping.register_mapping(RUN, OTHER)
        with anyio.fail_after(WAIT_SECONDS):
            while await mapping.get_thread_id(lapsed) is not None:  # noqa: ASYNC110  # no event signals an expiry
                await anyio.sleep(POLL_INTERVAL_SECONDS)


async def test_used_ticket_is_still_refused_after_reopening(location: StoreLocation) -> None:
    """A set of used tickets that is lost with its process has another generation, which refuses earlier tickets."""
    threads = MemoryThreadStore()
    await threads.claim(THREAD, ALICE)
    async with location.opened() as stores:
        tickets = Tickets(threads, stores.used_tickets, keys=[KEY])
        ticket = tickets.issue(ALICE, THREAD)
        await tickets.authorize(Handshake(query={}, ticket=ticket))
    async with location.opened() as stores:
        tickets = Tickets(threads, stores.used_tickets, keys=[KEY])
        with pytest.raises(SubscriptionRefused) as refused:
            await tickets.authorize(Handshake(query={}, ticket=ticket))
        assert refused.value.code in {4502, 4505}
        await tickets.authorize(Handshake(query={}, ticket=tickets.issue(ALICE, THREAD)))


async def test_events_of_a_type_that_is_no_longer_defined_are_replayed(
    surviving: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = [define_event_type(f"test_former_{policy.name.lower()}", policy) for policy in Policy]
    async with surviving.worker() as worker:
        for kind in kinds:
            await worker.log.publish(emitted(kind, payload={"message_id": "m", "delta": "x"}))
    for kind in kinds:
        monkeypatch.delitem(POLICIES, kind)
    async with surviving.worker() as worker:
        replay = await worker.join(THREAD, START)
    assert [(frame.type, frame.event.type, text_delta(frame)) for frame in replay.frames] == [
        (kind, kind, None) for kind in kinds
    ]
