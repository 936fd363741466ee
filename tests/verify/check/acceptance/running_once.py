"""Starts a backend once for several checks, because starting it takes longer than a check."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from bridgekit_verify.check.live.backend_file import Backend
from bridgekit_verify.check.live.model_ledger import ModelLedger
from bridgekit_verify.check.live.model_server import ModelServer
from bridgekit_verify.check.live.starting import running_backend

__all__ = ["running_once"]


@asynccontextmanager
async def running_once(backend: Backend) -> AsyncIterator[tuple[Backend, ModelServer]]:
    """Run the backend and its model. Yield what `check_backend` needs to check it as one that runs already.

    Each check needs another seed, because the seed determines the ids of the threads, which the backend remembers.
    """
    with ModelServer(ModelLedger()) as model:
        async with running_backend(backend, model.address) as running:
            start = msgspec.structs.replace(backend.start, command="", env={}, url=running.url)
            yield msgspec.structs.replace(backend, start=start), model
