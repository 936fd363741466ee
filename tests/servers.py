"""Real servers of the Redis protocol for a whole session of tests: a cluster takes two seconds until it is ready."""

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
    """A cluster, and a loop of its own that its processes belong to."""

    def __init__(self, cluster: RedisCluster, portal: BlockingPortal) -> None:
        self.url = cluster.url
        self.servers = cluster.servers
        self._portal = portal

    def kill(self, server: RedisServer) -> None:
        self._portal.call(server.kill)

    def start(self, server: RedisServer) -> None:
        """Start one that was killed. It takes its place again when the others have noticed."""
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
    """A server's URL: of the one that the environment names, or of one of our own."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(redis_url()) as url:
        yield url
