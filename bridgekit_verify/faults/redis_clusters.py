"""A cluster of real servers as child processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from bridgekit_verify.faults.redis_servers import (
    LOOK_SECONDS,
    START_SECONDS,
    Persistence,
    RedisServer,
    redis_server,
)

__all__ = ["RedisCluster", "redis_cluster"]

SLOTS: Final = 16_384
SETTINGS: Final = ("cluster-enabled yes", "cluster-node-timeout 2000", "cluster-require-full-coverage no")


@dataclass(frozen=True)
class RedisCluster:
    """Three primaries that share the slots."""

    servers: tuple[RedisServer, ...]

    @property
    def url(self) -> str:
        """Of the first; who asks it learns of the others."""
        return self.servers[0].url


@asynccontextmanager
async def redis_cluster(persistence: Persistence = Persistence.NONE, *, nodes: int = 3) -> AsyncIterator[RedisCluster]:
    """A cluster of primaries for the length of a block, ready. At its end its servers are killed."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(redis_server(persistence, settings=SETTINGS)) for _ in range(nodes)]
        for number, server in enumerate(servers):
            first, last = number * SLOTS // nodes, (number + 1) * SLOTS // nodes - 1
            await server.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            # Told apart from the start, so that no two of them have to find out who is the newer one.
            await server.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for server in servers[1:]:
            await server.ask("CLUSTER", "MEET", "127.0.0.1", str(servers[0].port), str(servers[0].bus_port))
        with anyio.fail_after(START_SECONDS):
            for server in servers:
                await _wait_until_joined(server, nodes)
        yield RedisCluster(tuple(servers))


async def _wait_until_joined(server: RedisServer, nodes: int) -> None:
    wanted = {"cluster_state:ok", f"cluster_known_nodes:{nodes}", f"cluster_size:{nodes}"}
    while not wanted <= set((await server.ask("CLUSTER", "INFO")).split()):  # noqa: ASYNC110  # nobody rings
        await anyio.sleep(LOOK_SECONDS)
