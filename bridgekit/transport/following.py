"""A client that stays: it connects again by itself, resumes where it was, and tells its user what he misses."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream, TaskStatus
from websockets.exceptions import InvalidHandshake, InvalidStatus

from bridgekit.errors import BridgekitError, Disconnected, first_error
from bridgekit.events import RoutedEvent
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.transport.client import KEEPALIVE_SECONDS, EventClient, connect

__all__ = ["Backoff", "Follower", "Item", "TicketSource", "follow"]

Item = RoutedEvent | Gap
TicketSource = Callable[[], Awaitable[str]]
"""Asks the application for a new ticket: each socket needs one of its own."""

READ_AHEAD: Final = 64
"""Items that are read before the user asks for them. One who stops asking makes the server see a slow socket."""
PASSING: Final = (OSError, TimeoutError, Disconnected, InvalidHandshake)
"""What another try may mend."""
PASSING_STATUS: Final = frozenset({408, 425, 429, *range(500, 600)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before the next try: drawn evenly between 0 and a bound that doubles ("full jitter").

    So that the clients of a server that went away do not all come back in the same moment.
    """

    first_seconds: float = 0.1
    longest_seconds: float = 10.0

    def seconds(self, failures: int, draw: Callable[[], float]) -> float:
        """After so many failures in a row, by a draw between 0 and 1."""
        bound: float = min(self.first_seconds * 2.0 ** min(failures, 30), self.longest_seconds)
        return draw() * bound


class Follower:
    """One thread's events, over as many sockets as it takes. Iterate over it: an event, or a gap, at a time.

    Each event comes once and in order. A Gap says which never come: nothing goes missing without one. Iteration ends
    with SubscriptionRefused when the server will not have the user any more, or with whatever else cannot be mended.
    """

    def __init__(self, items: ObjectReceiveStream[tuple[Item, Cursor]], after: Cursor | None) -> None:
        self._items = items
        self.cursor = after
        """How far its user has come; give it to `follow` to go on from there in another process."""
        self.read_to = after
        """How far it has read ahead of him: where the next socket begins."""
        self.subscriptions = 0
        """How many sockets were subscribed."""
        self.duplicates = 0
        """Events that came again, and were dropped."""
        self.failure: Exception | None = None
        """What ended it."""

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        try:
            item, self.cursor = await self._items.receive()
        except anyio.EndOfStream:
            raise self.failure or StopAsyncIteration from None
        return item

    def begin(self, client: EventClient) -> None:
        """A socket was subscribed."""
        self.subscriptions += 1
        self.read_to = client.subscribed.cursor
        if self.cursor is None:
            self.cursor = self.read_to

    def take(self, item: Item) -> list[tuple[Item, Cursor]]:
        """What is new in what came: nothing, the item, or the item behind a gap that the server did not tell."""
        epoch, seq = self.read_to or Cursor("", 0)
        if isinstance(item, Gap):
            if item.epoch == epoch and item.last is not None:
                self.read_to = Cursor(epoch, max(seq, item.last))
            return [(item, self.read_to or Cursor(epoch, seq))]
        if item.seq <= seq:
            self.duplicates += 1
            return []
        self.read_to = Cursor(epoch, item.seq)
        if item.seq == seq + 1:
            return [(item, self.read_to)]
        hole = Gap(thread_id=item.thread_id, epoch=epoch, first=seq + 1, last=item.seq - 1, reason=GapReason.LOST)
        return [(hole, Cursor(epoch, item.seq - 1)), (item, self.read_to)]


@asynccontextmanager
async def follow(
    url: str,
    *,
    thread_id: str,
    ticket: TicketSource | None = None,
    user_id: str | None = None,
    after: Cursor | None = None,
    backoff: Backoff | None = None,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
    draw: Callable[[], float] = random.random,
    online: Callable[[bool], None] = lambda subscribed: None,
) -> AsyncIterator[Follower]:
    """Follow a thread for the length of a block, from now on or from a cursor, whatever happens to the socket.

    Entered once it is subscribed, however long that takes; SubscriptionRefused where that can never be. `online` is
    told True whenever a socket is subscribed and False when it is lost: what a user interface shows as "reconnecting".
    """

    @asynccontextmanager
    async def socket(cursor: Cursor | None) -> AsyncIterator[EventClient]:
        fresh = None if ticket is None else await ticket()
        async with connect(
            url,
            thread_id=thread_id,
            ticket=fresh,
            user_id=user_id,
            after=cursor,
            keepalive_seconds=keepalive_seconds,
        ) as client:
            yield client

    send, receive = anyio.create_memory_object_stream[tuple[Item, Cursor]](READ_AHEAD)
    follower = Follower(receive, after)
    with first_error():
        async with send, receive, anyio.create_task_group() as tasks:
            wait_seconds = partial((backoff or Backoff()).seconds, draw=draw)
            await tasks.start(_keep_reading, follower, socket, send, wait_seconds, online)
            yield follower
            tasks.cancel_scope.cancel()


async def _keep_reading(
    follower: Follower,
    socket: Callable[[Cursor | None], AbstractAsyncContextManager[EventClient]],
    send: ObjectSendStream[tuple[Item, Cursor]],
    wait_seconds: Callable[[int], float],
    online: Callable[[bool], None],
    *,
    task_status: TaskStatus[None],
) -> None:
    failures, told = 0, False
    async with send:
        while True:
            try:
                with first_error():
                    async with socket(follower.read_to) as client:
                        follower.begin(client)
                        failures = 0
                        if not told:
                            told = True
                            task_status.started()
                        online(True)
                        try:
                            await _read(follower, client, send)
                        finally:
                            online(False)
            except (*PASSING, BridgekitError) as error:
                if not _passes(error):
                    if not told:
                        raise
                    follower.failure = error
                    return
            await anyio.sleep(wait_seconds(failures))
            failures += 1


async def _read(follower: Follower, client: EventClient, send: ObjectSendStream[tuple[Item, Cursor]]) -> None:
    while True:
        for item in follower.take(await client.receive_any()):
            await send.send(item)


def _passes(error: Exception) -> bool:
    if isinstance(error, InvalidStatus):
        return error.response.status_code in PASSING_STATUS
    return isinstance(error, PASSING)
