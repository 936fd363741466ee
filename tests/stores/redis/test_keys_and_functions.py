"""The functions on the server: seqs, skips, limits, a batch that is sent twice, and the keys that they use."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from redis.crc import key_slot

from bridgekit.errors import InvalidId
from bridgekit.ids import RunId, ThreadId
from bridgekit.stores.redis.keys_and_functions import APPEND, READ, SEQ_SKIP_AFTER_RESTART, KeyNames
from bridgekit.stores.redis.topology import CONNECTION_ERRORS, ClusterTopology
from bridgekit_verify.faults.redis_servers import Persistence, RedisServer, redis_server
from tests.factories import OTHER, THREAD
from tests.timeouts import TIMEOUT_SECONDS

SETTINGS = b"1000 4194304 300000 0"
PROMISED = b"1000 4194304 300000 1"
WORKER = b"a" * 32
ANOTHER = b"b" * 32


async def append(
    redis: ClusterTopology,
    *texts: bytes,
    batch: int,
    skip: int = 0,
    settings: bytes = SETTINGS,
    worker: bytes = WORKER,
    thread: ThreadId = THREAD,
) -> tuple[str, int, int]:
    """Append frames `{"seq":1 text}`. Return the epoch, the last seq and the receivers."""
    keys = redis.names.thread(thread)
    epoch, last, receivers = await redis.call(
        keys.slot, "FCALL", APPEND, 2, keys.log, keys.head, settings, worker, *batch_of(batch, skip, *texts)
    )
    return epoch.decode(), int(last), receivers


def batch_of(number: int, skip: int, *texts: bytes) -> tuple[bytes, bytes]:
    """Return the arguments of one batch."""
    return b"%d %d" % (number, skip), b"\n".join([b" %b}" % text for text in texts])


async def read(
    redis: ClusterTopology,
    epoch: str = "",
    after: int | str = "",
    *,
    settings: bytes = SETTINGS,
    thread: ThreadId = THREAD,
) -> tuple[str, int, list[str]]:
    """Return epoch, last seq, and the entries after the cursor: `{1 text}` for a frame."""
    keys = redis.names.thread(thread)
    reply = await redis.call(keys.slot, "FCALL", READ, 2, keys.log, keys.head, settings, WORKER, epoch, after)
    log_epoch, seq, *entries = reply
    return log_epoch.decode(), int(seq), [entry.decode().replace('{"seq":', "{") for entry in entries]


async def test_each_thread_numbers_its_events_from_1(redis: ClusterTopology) -> None:
    epoch, last, receivers = await append(redis, b"a", b"b", batch=1)
    assert (last, receivers) == (2, 0)
    assert await append(redis, b"c", batch=2) == (epoch, 3, 0)
    other, first, _ = await append(redis, b"x", batch=3, thread=OTHER)
    assert first == 1
    assert other != epoch
    assert await read(redis, epoch, 0) == (epoch, 3, ["{1 a}", "{2 b}", "{3 c}"])
    assert await read(redis, epoch, 2) == (epoch, 3, ["{3 c}"])
    assert await read(redis, epoch, 3) == (epoch, 3, [])


async def test_reading_an_empty_log_starts_the_epoch_of_its_first_event(redis: ClusterTopology) -> None:
    epoch, seq, entries = await read(redis)
    assert (len(epoch), seq, entries) == (16, 0, [])
    assert await append(redis, b"a", batch=1) == (epoch, 1, 0)


async def test_cursor_of_another_epoch_reads_all_entries(redis: ClusterTopology) -> None:
    epoch, _, _ = await append(redis, b"a", b"b", batch=1)
    assert await read(redis, "0" * 16, 1_000) == (epoch, 2, ["{1 a}", "{2 b}"])


async def test_batch_that_is_sent_twice_is_appended_once_with_the_same_reply(redis: ClusterTopology) -> None:
    first = await append(redis, b"a", b"b", batch=5)
    await append(redis, b"x", batch=1, worker=ANOTHER)
    assert await append(redis, b"a", b"b", batch=5) == first
    epoch, last, _ = await append(redis, b"c", batch=6)
    assert last == 4
    assert (await read(redis, epoch, 0))[2] == ["{1 a}", "{2 b}", "{3 x}", "{4 c}"]


async def test_late_batch_is_ignored_after_its_successor(redis: ClusterTopology) -> None:
    await append(redis, b"a", batch=1)
    epoch, _, _ = await append(redis, b"b", batch=2)
    await append(redis, b"a", batch=1)
    assert (await read(redis, epoch, 0))[2] == ["{1 a}", "{2 b}"]


async def test_last_batches_of_many_workers_are_stored_up_to_a_limit(
    redis: ClusterTopology,
) -> None:
    for number in range(130):
        await append(redis, b"a", batch=1, worker=b"%032x" % number)
    keys = redis.names.thread(THREAD)
    assert await redis.call(keys.slot, "STRLEN", keys.head) < 5_000
    assert (await append(redis, b"a", batch=1, worker=b"%032x" % 129))[1] == 130
    assert (await append(redis, b"a", batch=1, worker=b"%032x" % 80))[1] == 81


async def test_skipped_numbers_are_distinguished_from_expired_events(redis: ClusterTopology) -> None:
    epoch, _, _ = await append(redis, b"a", batch=1)
    assert (await append(redis, b"b", batch=2, skip=3))[1] == 5
    assert (await append(redis, batch=3, skip=2))[1] == 7
    assert await read(redis, epoch, 0) == (epoch, 7, ["{1 a}", "h2 4", "{5 b}", "h6 7"])
    assert (await read(redis, epoch, 3))[2] == ["h2 4", "{5 b}", "h6 7"]


@pytest.mark.parametrize("in_one_go", [True, False])
async def test_log_retains_at_most_the_configured_events(redis: ClusterTopology, in_one_go: bool) -> None:
    settings = b"3 4194304 300000 0"
    texts = [b"a", b"b", b"c", b"d", b"e"]
    if in_one_go:
        await append(redis, *texts, batch=1, settings=settings)
    else:
        for number, text in enumerate(texts, 1):
            await append(redis, text, batch=number, settings=settings)
    epoch, _, _ = await read(redis, settings=settings)
    assert (await read(redis, epoch, 0, settings=settings))[2] == ["{3 c}", "{4 d}", "{5 e}"]


async def test_log_retains_at_most_the_configured_bytes_and_always_the_latest_event(redis: ClusterTopology) -> None:
    settings = b"1000 100 300000 0"
    epoch, _, _ = await read(redis)
    for number in (1, 2, 3):
        await append(redis, b"x" * 30, batch=number, settings=settings)
    keys = redis.names.thread(THREAD)
    assert await redis.call(keys.slot, "XLEN", keys.log) == 2
    assert [entry[:3] for entry in (await read(redis, epoch, 0, settings=settings))[2]] == ["{2 ", "{3 "]
    await append(redis, b"x" * 500, batch=4, settings=settings)
    assert [entry[:3] for entry in (await read(redis, epoch, 0, settings=settings))[2]] == ["{4 "]


async def test_events_are_retained_for_the_configured_time(redis: ClusterTopology) -> None:
    settings, started_ms = b"1000 4194304 200 0", await server_ms(redis)
    epoch, _, _ = await append(redis, b"a", batch=1, settings=settings)
    while (entries := await read(redis, epoch, 0, settings=settings))[2]:
        assert entries == (epoch, 1, ["{1 a}"])
    assert entries == (epoch, 1, [])
    assert await server_ms(redis) - started_ms >= 200


async def server_ms(redis: ClusterTopology) -> int:
    """Return the server's clock in whole milliseconds, as its functions read it for retention."""
    seconds, microseconds = await redis.call(redis.names.thread(THREAD).slot, "TIME")
    return int(seconds) * 1_000 + int(microseconds) // 1_000


async def test_unused_threads_expire(redis: ClusterTopology) -> None:
    await append(redis, b"a", batch=1)
    keys = redis.names.thread(THREAD)
    for key, seconds in ((keys.log, 600), (keys.head, 86_400)):
        assert seconds - 60 < await redis.call(keys.slot, "TTL", key) <= seconds


@pytest.mark.parametrize("earlier", [b"1000 4194304 20 0", SETTINGS], ids=["shorter retention", "same retention"])
async def test_log_expires_after_its_events_also_if_it_was_read_before_the_first(
    redis: ClusterTopology, earlier: bytes
) -> None:
    """A client subscribes, and so reads the log, before the first event. A restarted worker may raise the retention."""
    await read(redis, settings=earlier)
    await append(redis, b"a", batch=1, settings=earlier)
    await append(redis, b"b", batch=2)
    keys = redis.names.thread(THREAD)
    assert 300_000 < await redis.call(keys.slot, "PTTL", keys.log) <= 600_000


async def test_events_are_numbered_when_none_are_retained(redis: ClusterTopology) -> None:
    settings = b"0 4194304 300000 0"
    epoch, last, _ = await append(redis, b"a", b"b", batch=1, skip=1, settings=settings)
    assert last == 3
    assert await read(redis, epoch, 0, settings=settings) == (epoch, 3, [])
    keys = redis.names.thread(THREAD)
    assert await redis.call(keys.slot, "EXISTS", keys.log) == 0


async def test_new_epoch_has_no_frames_of_an_expired_one(redis: ClusterTopology) -> None:
    old, _, _ = await append(redis, b"a", b"b", batch=1)
    keys = redis.names.thread(THREAD)
    await redis.call(keys.slot, "DEL", keys.head)
    new, last, _ = await append(redis, b"c", batch=2)
    assert (new != old, last) == (True, 1)
    assert (await read(redis, new, 0))[2] == ["{1 c}"]


async def test_error_of_one_thread_does_not_affect_another(redis: ClusterTopology) -> None:
    """Another program has stored a value under the thread's key."""
    broken, sound = redis.names.thread(THREAD), redis.names.thread(OTHER)
    await redis.call(broken.slot, "SADD", broken.head, b"foreign")
    answer = await redis.call(
        sound.slot, "FCALL", APPEND, 4, broken.log, broken.head, sound.log, sound.head, SETTINGS, WORKER,
        *batch_of(1, 0, b"a"), *batch_of(2, 0, b"b"),
    )  # fmt: skip
    problem, _, receivers, epoch, last, _ = answer
    assert b"WRONGTYPE" in problem
    assert (receivers, last) == (-1, b"1")
    assert (await read(redis, epoch.decode(), 0, thread=OTHER))[2] == ["{1 b}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("persistence", "settings", "jumps"),
    [
        (Persistence.EVERYSEC, SETTINGS, True),
        (Persistence.ALWAYS, PROMISED, False),
        (Persistence.ALWAYS, SETTINGS, True),
    ],
)
async def test_restarted_server_skips_numbers_unless_it_syncs_each_write(
    persistence: Persistence, settings: bytes, jumps: bool
) -> None:
    async with redis_server(persistence) as server, ClusterTopology(server.url) as redis:
        epoch, _, _ = await append(redis, b"a", batch=1, settings=settings)
        await restarted(server, redis)
        assert (await append(redis, b"b", batch=2, settings=settings))[1] == (
            SEQ_SKIP_AFTER_RESTART + 2 if jumps else 2
        )
        assert await append(redis, b"c", batch=3, settings=settings) == (
            epoch,
            SEQ_SKIP_AFTER_RESTART + 3 if jumps else 3,
            0,
        )
        later = (
            [
                f"h2 {SEQ_SKIP_AFTER_RESTART + 1}",
                f"{{{SEQ_SKIP_AFTER_RESTART + 2} b}}",
                f"{{{SEQ_SKIP_AFTER_RESTART + 3} c}}",
            ]
            if jumps
            else ["{2 b}", "{3 c}"]
        )
        assert (await read(redis, epoch, 0, settings=settings))[2] == ["{1 a}", *later]


@pytest.mark.slow
async def test_batch_from_before_a_restart_is_not_appended_again() -> None:
    async with redis_server(Persistence.EVERYSEC) as server, ClusterTopology(server.url) as redis:
        first = await append(redis, b"a", batch=1)
        await restarted(server, redis)
        assert await append(redis, b"a", batch=1) == first
        assert await append(redis, b"a", batch=1) == first
        assert (await read(redis, first[0], 0))[2] == ["{1 a}", f"h2 {SEQ_SKIP_AFTER_RESTART + 1}"]


async def restarted(server: RedisServer, redis: ClusterTopology) -> None:
    await server.wait_fsynced()
    await server.restart()
    # A closed connection is detected when it is used.
    [only] = redis
    with suppress(*CONNECTION_ERRORS):
        await only.request("PING")
    with anyio.fail_after(TIMEOUT_SECONDS):
        await only.answering.wait()


def test_all_keys_of_a_thread_share_a_slot() -> None:
    names = KeyNames("app")
    for thread in ("thread_123", "}{", "", "x" * 1_024, "{a}b{c}"):
        keys = names.thread(ThreadId(thread))
        assert key_slot(keys.log) == key_slot(keys.head) == keys.slot


def test_threads_runs_tickets_and_applications_have_separate_keys() -> None:
    keys = [
        *(KeyNames("a").thread(ThreadId("x"))[:2]),
        KeyNames("b").thread(ThreadId("x")).log,
        KeyNames("a").thread(ThreadId("y")).log,
        KeyNames("a").route(RunId("x"))[0],
        KeyNames("a").ticket("x")[0],
    ]
    assert len(set(keys)) == len(keys)


def test_prefix_with_a_hash_tag_is_refused() -> None:
    with pytest.raises(InvalidId, match="prefix"):
        KeyNames("app{1}")
