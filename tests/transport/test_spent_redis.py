"""Spent tickets in a real server: once, whichever worker is asked, and whatever happens to the answer."""

from __future__ import annotations

from typing import cast

import anyio
import pytest

from bridgekit.errors import StoreAway
from bridgekit.ids import new_id
from bridgekit.storage.redis import Servers
from bridgekit.transport.spent_redis import SpentInRedis
from bridgekit_verify.faults.proxy import proxy
from bridgekit_verify.faults.redis_servers import redis_server
from bridgekit_verify.faults.toxics import Partition, Way
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.slow


async def test_ticket_is_spent_once_whichever_worker_is_asked(redis_url: str) -> None:
    prefix, told = f"test-{new_id()}", []
    async with Servers(redis_url, prefix=prefix) as one, Servers(redis_url, prefix=prefix) as two:
        here, there = SpentInRedis(one), SpentInRedis(two)

        async def spend(spent: SpentInRedis) -> None:
            told.append(await spent.spend("ticket", 60))

        async with anyio.create_task_group() as tasks:
            for spent in (here, there) * 10:
                tasks.start_soon(spend, spent)
        assert sorted(told) == [False] * 19 + [True]
        assert await there.spend("another", 60)


async def test_ticket_is_remembered_for_as_long_as_it_would_be_valid_and_no_longer(redis_url: str) -> None:
    async with Servers(redis_url, prefix=f"test-{new_id()}") as servers:
        spent = SpentInRedis(servers)
        assert await spent.spend("long", 59.5)
        key, slot = servers.names.ticket("long")
        assert 59 < cast("int", await servers.call(slot, b"PTTL", key)) / 1_000 <= 59.5
        assert await spent.spend("over", 0.0)


async def test_ticket_whose_answer_was_lost_is_not_held_against_its_owner() -> None:
    async with (
        redis_server() as server,
        proxy("127.0.0.1", server.port) as through,
        Servers(through.url("redis")) as servers,
    ):
        spent, told = SpentInRedis(servers), []

        async def spend() -> None:
            told.append(await spent.spend("ticket", 60))

        with through.start(Partition(ways=(Way.TO_CLIENT,))) as held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(spend)
                with anyio.fail_after(PATIENCE_SECONDS):
                    while await server.ask("DBSIZE") != "1":  # noqa: ASYNC110  # a server rings nobody
                        await anyio.sleep(0.005)
                with through.down():
                    held.stop()
        assert told == [True]
        assert not await spent.spend("ticket", 60)


async def test_nobody_is_let_in_while_nobody_can_say() -> None:
    async with redis_server() as server, Servers(server.url) as servers:
        await server.kill()
        with pytest.raises(StoreAway), anyio.fail_after(PATIENCE_SECONDS):
            await SpentInRedis(servers).spend("ticket", 60)
