"""bridgekit's ASGI edge on uvicorn with the default configuration: retention, receipts, metrics and limits are on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from benchmarks.peers.bridgekit_stack import BridgekitStack
from benchmarks.peers.stack_context import StackContext
from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.serve.in_process import serving
from bridgekit.transport.authorization import OwnerAuthorizer

__all__ = ["serve"]


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[BridgekitStack]:
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer))
    async with serving(app, **context.server_options) as url:
        yield BridgekitStack(app.state.bridgekit, urlsplit(url).port or 0)
