"""bridgekit with the Redis store, like bridgekit_redis, but with sockets on the ASGI edge."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from benchmarks.peers.bridgekit_redis import serve_on
from benchmarks.peers.bridgekit_stack import BridgekitStack
from benchmarks.peers.stack_context import StackContext

__all__ = ["serve"]


def serve(context: StackContext) -> AbstractAsyncContextManager[BridgekitStack]:
    return serve_on(context, "asgi")
