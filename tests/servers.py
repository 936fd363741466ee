"""Redis-protocol servers shared by a test session, because a cluster needs two seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anyio.from_thread import BlockingPortal, start_blocking_portal

from bridgekit_verify.faults.redis_servers import (
    Persistence,
    RedisCluster,
    RedisServer,
    redis_cluster,
    redis_url,
)

__all__ = ["SharedCluster", "shared_cluster", "shared_server"]


class SharedCluster:
    """A cluster whose processes belong to an event loop in another thread."""

    def __init__(self, cluster: RedisCluster, portal: BlockingPortal) -> None:
        self.url = cluster.url
        self.servers = cluster.servers
        self._portal = portal

    def kill(self, server: RedisServer) -> None:
        self._portal.call(server.kill)

    def start(self, server: RedisServer) -> None:
        """Start a killed server. It rejoins when the other nodes have detected it."""
        self._portal.call(server.start)


@contextmanager
def shared_cluster() -> Iterator[SharedCluster]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(redis_cluster(Persistence.ALWAYS)) as cluster,
    ):
        yield SharedCluster(cluster, portal)


@contextmanager
def shared_server() -> Iterator[str]:
    """Yield the URL of the server from BRIDGEKIT_REDIS_URL, or of a server that is started here."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(redis_url()) as url:
        yield url
