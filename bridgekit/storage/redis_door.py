"""How a server of the Redis protocol is reached: a URL, and one connection made and held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from coredis.connection import BaseConnectionParams, Location
from coredis.exceptions import RedisError
from coredis.pool import ConnectionPool
from coredis.typing import RedisValueT

from bridgekit.storage.redis_way import way
from bridgekit.storage.redis_wire import TROUBLE, Heard, Wire

__all__ = ["CONNECT_SECONDS", "TROUBLE", "Door", "Wire", "problem_of"]

CONNECT_SECONDS: Final = 1.0
"""In which a server has to take a connection, and to answer on it."""
PROTOCOL: Final = 3
"""RESP3: messages and answers by one connection."""
SCHEMES: Final = ("redis://", "rediss://", "unix://", "valkey://")


def _ignore(message: list[Any]) -> None:
    """What a connection hears that has asked to be told nothing."""


@dataclass(frozen=True)
class Door:
    """How a server is reached."""

    location: Location
    parameters: BaseConnectionParams = field(repr=False)
    """With the password, which is told to nobody but the server."""

    @classmethod
    def of(cls, url: str) -> Door:
        """Read a URL. ValueError where it is none."""
        pool = ConnectionPool.from_url(url, decode_components=True)
        if pool.location is None or not url.startswith(SCHEMES):
            raise ValueError("no server's URL")
        return cls(pool.location, pool.connection_kwargs)

    def to(self, location: Location) -> Door:
        """Another server of the same Cluster."""
        return Door(location, self.parameters)

    @property
    def database(self) -> int:
        return self.parameters.get("db") or 0

    @asynccontextmanager
    async def opened(self, heard: Heard = _ignore) -> AsyncIterator[Wire]:
        """A connection for the length of a block. When it is lost the block is cancelled and OSError is raised."""
        wire = Wire(heard)
        with anyio.fail_after(CONNECT_SECONDS):
            there = await way(self.location, self.parameters.get("ssl_context"), wire)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(there.run)
                with anyio.fail_after(CONNECT_SECONDS):
                    await self._shake_hands(wire)
                yield wire
                tasks.cancel_scope.cancel()
        finally:
            await there.break_off()

    async def _shake_hands(self, wire: Wire) -> None:
        """Agree on the protocol, and say who it is. RedisError where the server will have none of it."""
        hello: list[RedisValueT] = [PROTOCOL]
        username, password = self.parameters.get("username"), self.parameters.get("password")
        if username or password:
            hello += "AUTH", username or "default", password or ""
        if name := self.parameters.get("client_name"):
            hello += "SETNAME", name
        await wire.ask(b"HELLO", *hello)
        if self.database:
            await wire.ask(b"SELECT", self.database)
        try:
            await wire.ask(b"CLIENT SETINFO", "LIB-NAME", "bridgekit")
        except RedisError:
            # Redis 7.0 does not know it, and not everybody may say it.
            return


def problem_of(error: BaseException) -> str:
    """What to tell of an error, or of the first of a group: never a URL, which may hold a password."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
