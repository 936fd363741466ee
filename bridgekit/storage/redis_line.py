"""The line to one server of the Redis protocol: a connection that is looked after, and made again when it is lost."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from coredis.typing import RedisValueT, ResponseType

from bridgekit.storage.redis_door import CONNECT_SECONDS, TROUBLE, Door, Wire, problem_of
from bridgekit.storage.redis_wire import Answered

__all__ = ["AWAY_SECONDS", "SILENCE_SECONDS", "Backoff", "Line"]

AWAY_SECONDS: Final = 0.25
"""A server without a connection for so long is away: nobody waits for it any more."""
SILENCE_SECONDS: Final = 1.0
"""A connection that owes an answer for so long is given up: a server that hangs does not say so."""
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0


class Backoff:
    """How long to wait before the next attempt: twice as long each time, up to a second, and never in step."""

    def __init__(self) -> None:
        self._seconds = FIRST_PAUSE_SECONDS

    def reset(self) -> None:
        self._seconds = FIRST_PAUSE_SECONDS

    def next(self) -> float:
        seconds, self._seconds = self._seconds, min(2 * self._seconds, LONGEST_PAUSE_SECONDS)
        return seconds * random.uniform(0.5, 1.0)


class Line:
    """The connection to a server that commands go by. One at a time, and another when it is lost."""

    def __init__(self, door: Door, greet: Callable[[Wire], Awaitable[None]], lost: Callable[[], None]) -> None:
        """`greet` is awaited before a connection is used; `lost` is called when it is lost, or did not come about."""
        self.problem = "not connected yet"
        """What was wrong when it was lost, or did not come about."""
        self._door = door
        self._greet = greet
        self._tell_lost = lost
        self._connection: Wire | None = None
        self._lost_at = anyio.current_time()
        self._up = anyio.Event()
        self._down = anyio.Event()

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.usable

    @property
    def away(self) -> bool:
        """Whether it is without a connection for longer than anybody should wait."""
        return self._connection is None and anyio.current_time() >= self._lost_at + AWAY_SECONDS

    async def up(self) -> None:
        """Wait until it is connected."""
        while not self.connected:
            await (self._up if self._connection is None else self._down).wait()

    async def down(self) -> None:
        """Wait until it is not connected."""
        if self._connection is not None:
            await self._down.wait()

    def send(self, packed: bytes, answered: Answered, *, answers: int) -> None:
        """Send so many commands at once; each of their answers is told, in their order. OSError where it is lost."""
        if self._connection is None:
            raise ConnectionResetError(self.problem)
        self._connection.send(packed, answered, answers=answers)

    async def ask(self, name: bytes, *arguments: RedisValueT) -> ResponseType:
        """One command's answer. TimeoutError where there is none in time, or the server is away."""
        if not self.connected:
            # One that is being taken down is away from then on.
            await self.down()
            with anyio.fail_after(max(0.0, self._lost_at + AWAY_SECONDS - anyio.current_time())):
                await self.up()
        connection = self._connection
        try:
            with anyio.fail_after(SILENCE_SECONDS):
                if connection is None:
                    raise ConnectionResetError(self.problem)
                return await connection.ask(name, *arguments)
        except TimeoutError:
            if connection is self._connection:
                self.drop(f"no answer in {SILENCE_SECONDS:.0f} s")
            raise

    def drop(self, problem: str) -> None:
        """Give the connection up, and say why."""
        if self._connection is not None:
            self._connection.lose(ConnectionResetError(problem))

    async def run(self) -> None:
        """Connect, and connect again, for ever."""
        backoff = Backoff()
        while True:
            try:
                async with self._door.opened() as connection:
                    with anyio.fail_after(CONNECT_SECONDS):
                        await self._greet(connection)
                    backoff.reset()
                    self._connection = connection
                    self._up.set()
                    await anyio.sleep_forever()
            except* TROUBLE as group:
                self.problem = problem_of(group)
            finally:
                self._note_lost()
            self._tell_lost()
            await anyio.sleep(backoff.next())

    def _note_lost(self) -> None:
        if self._connection is not None:
            self._lost_at = anyio.current_time()
            self._connection, self._up = None, anyio.Event()
            self._down.set()
            self._down = anyio.Event()
