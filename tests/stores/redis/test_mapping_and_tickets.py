"""Routes and used tickets on a real server: cases that the contract suite does not cover."""

from __future__ import annotations

import anyio
import pytest

from bridgekit.errors import RunAlreadyMapped, StoreUnavailable
from bridgekit.ids import RunId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.stores.redis.mapping_and_tickets import RedisMappingStore, RedisUsedTickets
from bridgekit.stores.redis.topology import ClusterTopology
from bridgekit_verify.faults.proxy import proxy
from bridgekit_verify.faults.redis_servers import redis_server
from bridgekit_verify.faults.toxics import Direction, Partition
from tests.factories import OTHER, RUN, THREAD
from tests.timeouts import TIMEOUT_SECONDS

pytestmark = pytest.mark.slow

DAY = 86_400


async def ttl(redis: ClusterTopology, run_id: RunId = RUN) -> int:
    """Return the seconds until the route's key expires, or -2 if there is no key."""
    key, slot = redis.names.route(run_id)
    seconds: int = await redis.call(slot, "TTL", key)
    return seconds


async def test_run_that_one_worker_registered_is_found_by_another(url: str, prefix: str) -> None:
    async with ClusterTopology(url, prefix=prefix) as here, ClusterTopology(url, prefix=prefix) as there:
        await RunThreadMappingService(RedisMappingStore(here)).register_mapping(RUN, THREAD)
        asked = RunThreadMappingService(RedisMappingStore(there))
        assert await asked.get_thread_id(RUN) == THREAD
        assert await asked.get_thread_id(RunId("run_2")) is None
        with pytest.raises(RunAlreadyMapped):
            await asked.register_mapping(RUN, OTHER)


async def test_live_route_expires_a_day_after_its_last_use(redis: ClusterTopology) -> None:
    store = RedisMappingStore(redis)
    await store.add(RUN, THREAD)
    assert DAY - 10 < await ttl(redis) <= DAY
    key, slot = redis.names.route(RUN)
    await redis.call(slot, "EXPIRE", key, DAY // 2 - 1)
    await store.get(RUN)
    assert DAY - 10 < await ttl(redis) <= DAY


async def test_grace_period_of_a_closed_run_is_not_extended_by_later_calls(redis: ClusterTopology) -> None:
    store = RedisMappingStore(redis)
    await store.add(RUN, THREAD)
    await store.expire(RUN, 30)
    assert 0 < await ttl(redis) <= 30
    await store.expire(RUN, 3_000)
    assert await store.get(RUN) == THREAD
    assert 0 < await ttl(redis) <= 30
    with pytest.raises(RunAlreadyMapped):
        await RunThreadMappingService(store).register_mapping(RUN, OTHER)


async def test_store_that_is_unavailable_raises() -> None:
    async with redis_server() as server, ClusterTopology(server.url) as redis:
        store = RedisMappingStore(redis)
        await server.kill()
        with pytest.raises(StoreUnavailable), anyio.fail_after(TIMEOUT_SECONDS):
            await store.get(RUN)
        with pytest.raises(StoreUnavailable), anyio.fail_after(TIMEOUT_SECONDS):
            await store.add(RUN, THREAD)


async def test_ticket_is_accepted_by_only_one_of_many_workers(url: str, prefix: str) -> None:
    answers: list[bool] = []
    async with ClusterTopology(url, prefix=prefix) as one, ClusterTopology(url, prefix=prefix) as two:
        here, there = RedisUsedTickets(one), RedisUsedTickets(two)

        async def mark_used(spent: RedisUsedTickets) -> None:
            answers.append(await spent.mark_used("ticket", 60))

        async with anyio.create_task_group() as tasks:
            for spent in (here, there) * 10:
                tasks.start_soon(mark_used, spent)
        assert sorted(answers) == [False] * 19 + [True]
        assert await there.mark_used("another", 60)


async def test_used_ticket_is_stored_until_it_would_have_expired(url: str, prefix: str) -> None:
    async with ClusterTopology(url, prefix=prefix) as redis:
        spent = RedisUsedTickets(redis)
        assert await spent.mark_used("long", 59.5)
        key, slot = redis.names.ticket("long")
        assert 59 < await redis.call(slot, "PTTL", key) / 1_000 <= 59.5
        assert await spent.mark_used("over", 0.0)
        for seconds in (1e17, 1e300):
            assert [await spent.mark_used(f"until {seconds}", seconds) for _ in range(2)] == [True, False]


async def test_ticket_is_accepted_on_retry_when_the_reply_was_lost() -> None:
    async with (
        redis_server() as server,
        proxy("127.0.0.1", server.port) as through,
        ClusterTopology(through.url("redis")) as redis,
    ):
        spent, answers = RedisUsedTickets(redis), list[bool]()

        async def mark_used() -> None:
            answers.append(await spent.mark_used("ticket", 60))

        with through.start(Partition(directions=(Direction.TO_CLIENT,))) as held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(mark_used)
                with anyio.fail_after(TIMEOUT_SECONDS):
                    while await server.ask("DBSIZE") != "1":  # noqa: ASYNC110  # a server sets no event
                        await anyio.sleep(0.005)
                with through.down():
                    held.stop()
        assert answers == [True]
        assert not await spent.mark_used("ticket", 60)


async def test_ticket_is_refused_while_the_store_is_unavailable() -> None:
    async with redis_server() as server, ClusterTopology(server.url) as redis:
        await server.kill()
        with pytest.raises(StoreUnavailable), anyio.fail_after(TIMEOUT_SECONDS):
            await RedisUsedTickets(redis).mark_used("ticket", 60)
