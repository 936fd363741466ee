"""The same on the ASGI edge."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from benchmarks.peers.bridgekit_agents import Bridged
from benchmarks.peers.bridgekit_redis import up_on
from benchmarks.peers.context import StackContext

__all__ = ["up"]


def up(place: StackContext) -> AbstractAsyncContextManager[Bridged]:
    return up_on(place, "asgi")
