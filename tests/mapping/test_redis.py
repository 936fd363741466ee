"""Routes in a real server of the Redis protocol: what the memory store promises, for any number of workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import anyio
import pytest

from bridgekit.errors import RunAlreadyMapped, StoreAway
from bridgekit.ids import RunId, ThreadId, new_id
from bridgekit.mapping import RunThreadMappingService
from bridgekit.mapping.redis import RedisStore
from bridgekit.storage.redis import Servers
from bridgekit_verify.faults.redis_servers import redis_server
from tests.patience import PATIENCE_SECONDS
from tests.samples import OTHER, RUN, THREAD

pytestmark = pytest.mark.slow

DAY = 86_400


@pytest.fixture
def url(redis_url: str) -> str:
    return redis_url


@pytest.fixture
async def servers(url: str, patient: None) -> AsyncIterator[Servers]:
    async with Servers(url, prefix=f"test-{new_id()}") as servers:
        yield servers


async def lasts(servers: Servers, run_id: RunId = RUN) -> int:
    """Seconds until the route is forgotten; -2 where there is none."""
    key, slot = servers.names.route(run_id)
    return cast("int", await servers.call(slot, b"TTL", key))


async def test_run_that_one_worker_registered_is_found_by_another(url: str) -> None:
    prefix = f"test-{new_id()}"
    async with Servers(url, prefix=prefix) as here, Servers(url, prefix=prefix) as there:
        await RunThreadMappingService(RedisStore(here)).register_mapping(RUN, THREAD)
        asked = RunThreadMappingService(RedisStore(there))
        assert await asked.get_thread_id(RUN) == THREAD
        assert await asked.get_thread_id(RunId("run_2")) is None
        with pytest.raises(RunAlreadyMapped):
            await asked.register_mapping(RUN, OTHER)


async def test_routes_of_one_application_are_nothing_to_another(url: str) -> None:
    async with Servers(url, prefix=f"test-{new_id()}") as one, Servers(url, prefix=f"test-{new_id()}") as other:
        await RedisStore(one).add(RUN, THREAD)
        assert await RedisStore(other).get(RUN) is None


async def test_of_many_who_register_a_run_at_once_one_has_its_way(servers: Servers) -> None:
    store, held = RedisStore(servers), set()

    async def add(number: int) -> None:
        held.add(await store.add(RUN, ThreadId(f"thread_{number}")))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(add, number)
    assert held == {await store.get(RUN)}


@pytest.mark.parametrize("thread", ["x" * 1_024, "straße {a} 𐍈", "a\\b'c\"d"])
async def test_any_id_comes_back_unchanged(servers: Servers, thread: str) -> None:
    store = RedisStore(servers)
    assert await store.add(RunId(thread * 2), ThreadId(thread)) == thread
    assert await store.get(RunId(thread * 2)) == thread


async def test_live_run_is_kept_for_a_day_after_it_was_last_used(servers: Servers) -> None:
    store = RedisStore(servers)
    await store.add(RUN, THREAD)
    assert DAY - 10 < await lasts(servers) <= DAY
    key, slot = servers.names.route(RUN)
    await servers.call(slot, b"EXPIRE", key, DAY // 2 - 1)
    await store.get(RUN)
    assert DAY - 10 < await lasts(servers) <= DAY


async def test_closed_run_lingers_for_its_grace_whoever_asks_or_closes_it_again(servers: Servers) -> None:
    store = RedisStore(servers)
    await store.add(RUN, THREAD)
    await store.expire(RUN, 30)
    assert 0 < await lasts(servers) <= 30
    await store.expire(RUN, 3_000)
    assert await store.get(RUN) == THREAD
    assert 0 < await lasts(servers) <= 30
    with pytest.raises(RunAlreadyMapped):
        await RunThreadMappingService(store).register_mapping(RUN, OTHER)


async def test_closed_run_is_forgotten_when_its_grace_is_over(servers: Servers) -> None:
    store = RedisStore(servers)
    await store.add(RUN, THREAD)
    await store.expire(RUN, 0)
    assert await store.get(RUN) is None
    assert await lasts(servers) == -2
    assert await store.add(RUN, OTHER) == OTHER


async def test_run_that_goes_on_in_its_grace_period_is_live_again(servers: Servers) -> None:
    store = RedisStore(servers)
    await store.add(RUN, THREAD)
    await store.expire(RUN, 30)
    await store.add(RUN, THREAD)
    assert await lasts(servers) > DAY - 10
    await store.expire(RUN, 30)
    assert await lasts(servers) <= 30


async def test_closing_an_unknown_run_is_no_error_and_keeps_nothing(servers: Servers) -> None:
    await RedisStore(servers).expire(RUN, 30)
    assert await lasts(servers) == -2


async def test_store_that_is_away_is_said_to_be() -> None:
    async with redis_server() as server, Servers(server.url) as servers:
        store = RedisStore(servers)
        await server.kill()
        with pytest.raises(StoreAway), anyio.fail_after(PATIENCE_SECONDS):
            await store.get(RUN)
        with pytest.raises(StoreAway), anyio.fail_after(PATIENCE_SECONDS):
            await store.add(RUN, THREAD)
