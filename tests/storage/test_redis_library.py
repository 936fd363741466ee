"""What the server does by itself: numbers, holes, bounds, and the same parcel twice."""

from __future__ import annotations

from typing import Any, cast

import anyio
import msgspec
import pytest

from bridgekit.ids import ThreadId
from bridgekit.storage.redis import Servers
from bridgekit.storage.redis_library import APPEND, FENCE, READ
from bridgekit_verify.faults.redis_servers import Persistence, RedisServer, redis_server
from tests.patience import PATIENCE_SECONDS
from tests.samples import OTHER, THREAD

KEEP = b"1000 4194304 300000 0"
PROMISED = b"1000 4194304 300000 1"
WORKER = b"a" * 32
ANOTHER = b"b" * 32


def parcel_head(number: int, skip: int, count: int) -> bytes:
    return msgspec.msgpack.encode(number) + msgspec.msgpack.encode(skip) + msgspec.msgpack.encode(count)


async def append(
    servers: Servers,
    *texts: bytes,
    parcel: int,
    skip: int = 0,
    keep: bytes = KEEP,
    worker: bytes = WORKER,
    thread: ThreadId = THREAD,
) -> tuple[str, int, int]:
    """Frames `{seq text}`; answers epoch, last number, subscribers."""
    keys = servers.names.thread(thread)
    head = parcel_head(parcel, skip, len(texts))
    answer = await servers.call(
        keys.slot,
        b"FCALL",
        APPEND,
        2,
        keys.log,
        keys.head,
        keep,
        worker,
        b"{",
        b" ",
        head,
        *[b"%b}" % text for text in texts],
    )
    epoch, last, told = cast("list[Any]", answer)
    return epoch.decode(), int(last), told


async def read(
    servers: Servers, epoch: str = "", after: int | str = "", *, keep: bytes = KEEP, thread: ThreadId = THREAD
) -> tuple[str, int, list[str]]:
    keys = servers.names.thread(thread)
    answer = await servers.call(keys.slot, b"FCALL", READ, 2, keys.log, keys.head, keep, WORKER, epoch, after)
    numbering, seq, *entries = cast("list[bytes]", answer)
    return numbering.decode(), int(seq), [entry.decode() for entry in entries]


async def test_events_are_numbered_from_1_in_each_thread_for_itself(servers: Servers) -> None:
    epoch, last, told = await append(servers, b"a", b"b", parcel=1)
    assert (last, told) == (2, 0)
    assert await append(servers, b"c", parcel=2) == (epoch, 3, 0)
    other, first, _ = await append(servers, b"x", parcel=3, thread=OTHER)
    assert first == 1
    assert other != epoch
    assert await read(servers, epoch, 0) == (epoch, 3, ["{1 a}", "{2 b}", "{3 c}"])
    assert await read(servers, epoch, 2) == (epoch, 3, ["{3 c}"])
    assert await read(servers, epoch, 3) == (epoch, 3, [])


async def test_reading_begins_a_numbering_that_the_first_event_goes_on_with(servers: Servers) -> None:
    epoch, seq, entries = await read(servers)
    assert (len(epoch), seq, entries) == (16, 0, [])
    assert await append(servers, b"a", parcel=1) == (epoch, 1, 0)


async def test_reader_of_another_numbering_is_given_all_of_this_one(servers: Servers) -> None:
    epoch, _, _ = await append(servers, b"a", b"b", parcel=1)
    assert await read(servers, "0" * 16, 1_000) == (epoch, 2, ["{1 a}", "{2 b}"])


async def test_parcel_that_is_sent_twice_is_taken_once_and_answered_the_same(servers: Servers) -> None:
    first = await append(servers, b"a", b"b", parcel=5)
    await append(servers, b"x", parcel=1, worker=ANOTHER)
    assert await append(servers, b"a", b"b", parcel=5) == first
    epoch, last, _ = await append(servers, b"c", parcel=6)
    assert last == 4
    assert (await read(servers, epoch, 0))[2] == ["{1 a}", "{2 b}", "{3 x}", "{4 c}"]


async def test_parcel_that_comes_late_is_not_taken_after_its_successor(servers: Servers) -> None:
    await append(servers, b"a", parcel=1)
    epoch, _, _ = await append(servers, b"b", parcel=2)
    await append(servers, b"a", parcel=1)
    assert (await read(servers, epoch, 0))[2] == ["{1 a}", "{2 b}"]


async def test_last_parcels_of_many_workers_take_bounded_room_and_the_latest_are_remembered(servers: Servers) -> None:
    for number in range(130):
        await append(servers, b"a", parcel=1, worker=b"%032x" % number)
    keys = servers.names.thread(THREAD)
    assert cast("int", await servers.call(keys.slot, b"STRLEN", keys.head)) < 5_000
    assert (await append(servers, b"a", parcel=1, worker=b"%032x" % 129))[1] == 130
    assert (await append(servers, b"a", parcel=1, worker=b"%032x" % 80))[1] == 81


async def test_skipped_numbers_are_told_apart_from_what_is_kept_no_longer(servers: Servers) -> None:
    epoch, _, _ = await append(servers, b"a", parcel=1)
    assert (await append(servers, b"b", parcel=2, skip=3))[1] == 5
    assert (await append(servers, parcel=3, skip=2))[1] == 7
    assert await read(servers, epoch, 0) == (epoch, 7, ["{1 a}", "h2 4", "{5 b}", "h6 7"])
    assert (await read(servers, epoch, 3))[2] == ["h2 4", "{5 b}", "h6 7"]


@pytest.mark.parametrize("in_one_go", [True, False])
async def test_no_more_events_are_kept_than_are_to_be(servers: Servers, in_one_go: bool) -> None:
    keep = b"3 4194304 300000 0"
    texts = [b"a", b"b", b"c", b"d", b"e"]
    if in_one_go:
        await append(servers, *texts, parcel=1, keep=keep)
    else:
        for parcel, text in enumerate(texts, 1):
            await append(servers, text, parcel=parcel, keep=keep)
    epoch, _, _ = await read(servers, keep=keep)
    assert (await read(servers, epoch, 0, keep=keep))[2] == ["{3 c}", "{4 d}", "{5 e}"]


async def test_no_more_bytes_are_kept_than_are_to_be_but_for_the_latest_event(servers: Servers) -> None:
    keep = b"1000 100 300000 0"
    epoch, _, _ = await read(servers)
    for parcel in (1, 2, 3):
        await append(servers, b"x" * 36, parcel=parcel, keep=keep)
    keys = servers.names.thread(THREAD)
    assert await servers.call(keys.slot, b"XLEN", keys.log) == 2
    assert [entry[:3] for entry in (await read(servers, epoch, 0, keep=keep))[2]] == ["{2 ", "{3 "]
    await append(servers, b"x" * 500, parcel=4, keep=keep)
    assert [entry[:3] for entry in (await read(servers, epoch, 0, keep=keep))[2]] == ["{4 "]


async def test_events_are_kept_for_as_long_as_they_are_to_be(servers: Servers) -> None:
    # A machine that is busy for longer than an event is kept says nothing of it, and is asked again.
    tries = (ThreadId(f"thread_{number}") for number in range(100))
    while not await are_kept_for_200_ms(servers, next(tries)):
        pass


async def are_kept_for_200_ms(servers: Servers, thread: ThreadId) -> bool:
    """Whether it could be seen."""
    keep, began = b"1000 4194304 200 0", anyio.current_time()
    epoch, _, _ = await append(servers, b"a", parcel=1, keep=keep, thread=thread)
    await anyio.sleep(0.12)
    since = anyio.current_time()
    await append(servers, b"b", parcel=2, keep=keep, thread=thread)
    both = await read(servers, epoch, 0, keep=keep, thread=thread)
    in_time = anyio.current_time() - began < 0.19
    await anyio.sleep(0.1)
    one = await read(servers, epoch, 0, keep=keep, thread=thread)
    in_time = in_time and anyio.current_time() - since < 0.19
    await anyio.sleep(0.12)
    assert await read(servers, epoch, 0, keep=keep, thread=thread) == (epoch, 2, [])
    if in_time:
        assert (both, one) == ((epoch, 2, ["{1 a}", "{2 b}"]), (epoch, 2, ["{2 b}"]))
    return in_time


async def test_threads_that_nobody_uses_are_forgotten(servers: Servers) -> None:
    await append(servers, b"a", parcel=1)
    keys = servers.names.thread(THREAD)
    for key, seconds in ((keys.log, 600), (keys.head, 86_400)):
        assert seconds - 60 < cast("int", await servers.call(keys.slot, b"TTL", key)) <= seconds


async def test_where_nothing_is_kept_events_are_numbered_all_the_same(servers: Servers) -> None:
    keep = b"0 4194304 300000 0"
    epoch, last, _ = await append(servers, b"a", b"b", parcel=1, skip=1, keep=keep)
    assert last == 3
    assert await read(servers, epoch, 0, keep=keep) == (epoch, 3, [])
    keys = servers.names.thread(THREAD)
    assert await servers.call(keys.slot, b"EXISTS", keys.log) == 0


async def test_numbering_that_was_forgotten_begins_anew_and_without_old_frames(servers: Servers) -> None:
    old, _, _ = await append(servers, b"a", b"b", parcel=1)
    keys = servers.names.thread(THREAD)
    await servers.call(keys.slot, b"DEL", keys.head)
    new, last, _ = await append(servers, b"c", parcel=2)
    assert (new != old, last) == (True, 1)
    assert (await read(servers, new, 0))[2] == ["{1 c}"]


async def test_one_threads_trouble_is_not_anothers(servers: Servers) -> None:
    """A value that somebody else put under the thread's key."""
    broken, sound = servers.names.thread(THREAD), servers.names.thread(OTHER)
    await servers.call(broken.slot, b"SADD", broken.head, b"foreign")
    answer = await servers.call(
        sound.slot, b"FCALL", APPEND, 4, broken.log, broken.head, sound.log, sound.head, KEEP, WORKER, b"{", b" ",
        parcel_head(1, 0, 1), b"a}", parcel_head(2, 0, 1), b"b}",
    )  # fmt: skip
    problem, _, told, epoch, last, _ = cast("list[Any]", answer)
    assert b"WRONGTYPE" in problem
    assert (told, last) == (-1, b"1")
    assert (await read(servers, epoch.decode(), 0, thread=OTHER))[2] == ["{1 b}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("persistence", "keep", "jumps"),
    [(Persistence.EVERYSEC, KEEP, True), (Persistence.ALWAYS, PROMISED, False), (Persistence.ALWAYS, KEEP, True)],
)
async def test_restarted_server_gives_no_number_twice_unless_it_promised_to_forget_nothing(
    persistence: Persistence, keep: bytes, jumps: bool
) -> None:
    async with redis_server(persistence) as server, Servers(server.url) as servers:
        epoch, _, _ = await append(servers, b"a", parcel=1, keep=keep)
        await restarted(server, servers)
        assert (await append(servers, b"b", parcel=2, keep=keep))[1] == (FENCE + 2 if jumps else 2)
        assert await append(servers, b"c", parcel=3, keep=keep) == (epoch, FENCE + 3 if jumps else 3, 0)
        later = [f"h2 {FENCE + 1}", f"{{{FENCE + 2} b}}", f"{{{FENCE + 3} c}}"] if jumps else ["{2 b}", "{3 c}"]
        assert (await read(servers, epoch, 0, keep=keep))[2] == ["{1 a}", *later]


@pytest.mark.slow
async def test_parcel_that_was_taken_before_a_restart_is_not_taken_after_it() -> None:
    async with redis_server(Persistence.EVERYSEC) as server, Servers(server.url) as servers:
        first = await append(servers, b"a", parcel=1)
        await restarted(server, servers)
        assert await append(servers, b"a", parcel=1) == first
        assert await append(servers, b"a", parcel=1) == first
        assert (await read(servers, first[0], 0))[2] == ["{1 a}", f"h2 {FENCE + 1}"]


async def restarted(server: RedisServer, servers: Servers) -> None:
    [only] = servers
    with anyio.fail_after(PATIENCE_SECONDS):
        await server.written()
        await server.kill()
        await only.line.down()
        await server.start()
        await only.line.up()
