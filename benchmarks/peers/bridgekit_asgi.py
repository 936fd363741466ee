"""bridgekit's ASGI edge on uvicorn: history, Receipt, metrics and bounds on, as they are by default."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from benchmarks.peers.bridgekit_agents import Bridged
from benchmarks.peers.context import StackContext
from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.serve.in_process import serving
from bridgekit.transport.authorization import OwnerAuthorizer

__all__ = ["up"]


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[Bridged]:
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer))
    async with serving(app, **place.how) as url:
        yield Bridged(app.state.bridgekit, urlsplit(url).port or 0)
