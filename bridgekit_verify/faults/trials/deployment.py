"""The ways to deliver that are compared, each as processes that run: workers, a database file, a broker."""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from bridgekit.transport.log import HISTORY
from bridgekit_verify.faults.proxy import Proxy, proxy
from bridgekit_verify.faults.redis_servers import Persistence, RedisServer, redis_server
from bridgekit_verify.faults.trials.hands import Hand, hand
from bridgekit_verify.faults.trials.worker import Setup
from bridgekit_verify.measure.families import Owned

__all__ = [
    "AT_MOST_ONCE",
    "DELIVERIES",
    "REDIS",
    "RESUME",
    "SQLITE",
    "Delivery",
    "Deployment",
    "delivery_table",
    "deployed",
]

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One way to deliver: what the server keeps, and what its clients do when they come back."""

    name: str
    summary: str
    store: str
    """"memory", "sqlite" or "redis"."""
    resumes: bool = True
    """Whether clients say where they were. Without it, what was sent while they were away is not for them."""
    keep_events: int = HISTORY.events
    outbox_bytes: int = 262_144
    """What may wait for a socket. Small, so that a slow reader of heavy events overflows it within a fault's window."""

    @property
    def apart(self) -> bool:
        """Whether agents and sockets live in two workers."""
        return self.store == "redis"


AT_MOST_ONCE: Final = Delivery(
    name="at most once",
    summary="one worker, nothing kept, clients connect again and say nothing",
    store="memory",
    resumes=False,
    keep_events=0,
)
RESUME: Final = Delivery(name="resume", summary="one worker, logs in its memory", store="memory")
SQLITE: Final = Delivery(name="SQLite", summary="one worker, logs in a file", store="sqlite")
REDIS: Final = Delivery(name="Redis", summary="agents and sockets in two workers, logs at a broker", store="redis")

DELIVERIES: Final = {row.name: row for row in (AT_MOST_ONCE, RESUME, SQLITE, REDIS)}
"""Weakest first. All but the first promise that nothing is lost in silence."""


def delivery_table() -> pd.DataFrame:
    """One row a way to deliver: what it is made of, and how many events of a thread it keeps."""
    return pd.DataFrame(
        {
            "delivery": row.name,
            "made of": row.summary,
            "clients resume": row.resumes,
            "events kept a thread": row.keep_events,
        }
        for row in DELIVERIES.values()
    )


@dataclass(frozen=True)
class Deployment:
    """One way to deliver, up and running."""

    delivery: Delivery
    sockets: Hand
    """The worker that users connect to."""
    agents: Hand
    """The worker whose agents run; the same one where they are not apart."""
    key: bytes
    broker: RedisServer | None = None
    to_broker: Proxy | None = None
    """Between the workers and the broker, where the experiment wants to cut there."""


@asynccontextmanager
async def deployed(
    delivery: Delivery, owned: Sequence[Owned], *, cut_broker: bool = False
) -> AsyncIterator[Deployment]:
    """Start all processes of it for the length of a block, with these threads; at its end they are gone."""
    key = secrets.token_bytes(KEY_BYTES)
    async with AsyncExitStack() as stack:
        broker, between, url = None, None, f"{delivery.store}:"
        if delivery.store == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bridgekit-", ignore_cleanup_errors=True))
            url = f"sqlite:///{Path(folder) / 'logs.sqlite'}"
        elif delivery.store == "redis":
            broker = await stack.enter_async_context(redis_server(Persistence.EVERYSEC))
            url = broker.url
            if cut_broker:
                between = await stack.enter_async_context(proxy("127.0.0.1", broker.port))
                url = between.url("redis")
        hands = []
        for _ in range(1 + delivery.apart):
            setup = Setup(
                store=url,
                keep_events=delivery.keep_events,
                outbox_bytes=delivery.outbox_bytes,
                port=_held_port(stack),
                key=key,
                owned=[(each.thread_id, each.user_id) for each in owned],
            )
            hands.append(await stack.enter_async_context(hand(setup)))
        yield Deployment(delivery, hands[0], hands[-1], key, broker, between)


def _held_port(stack: AsyncExitStack) -> int:
    """A port that stays ours while its worker is away: bound here, where nobody listens, free to listen on there."""
    held = stack.enter_context(socket.socket())
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    return port
