"""An application whose workers believe that they share their memory stores, so that several of them start."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import anyio

from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.errors import StoreUnavailable
from bridgekit.stores import Stores, in_memory
from bridgekit.transport.tickets import Tickets
from tests.served_application import KEY, AliceOwnsAll

OUTAGE = "WORKERS_OUTAGE"
"""The environment variable with a path. While the file exists, no worker starts."""


@asynccontextmanager
async def _stores() -> AsyncIterator[Stores]:
    if OUTAGE in os.environ and await anyio.Path(os.environ[OUTAGE]).exists():
        raise StoreUnavailable("test", "an outage")
    yield replace(in_memory(), shared=True)


def app() -> object:
    """Each worker has its own threads, which is enough for its counters."""
    config = BridgeConfig(
        agents={}, stores=_stores, authorizer=partial(Tickets, keys=(KEY,)), db_session_factory=AliceOwnsAll()
    )
    return create_app(config)
