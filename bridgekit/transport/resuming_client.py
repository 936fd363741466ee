"""A client that stays: it connects again by itself, resumes where it was, and tells its user what he misses."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream, TaskStatus
from websockets.exceptions import InvalidHandshake, InvalidStatus

from bridgekit.errors import Disconnected, SubscriptionRefused, unwrap_single_error
from bridgekit.signals import Cursor
from bridgekit.transport.authorization import CLOSE_BAD_TICKET, CLOSE_TICKET_EXPIRED, CLOSE_TICKET_USED
from bridgekit.transport.client import KEEPALIVE_SECONDS, EventClient, connect
from bridgekit.transport.cursor_tracker import Item, Reading

__all__ = ["Backoff", "Item", "ResumingClient", "TicketSource", "follow"]

TicketSource = Callable[[], Awaitable[str]]
"""Asks the application for a new ticket: each socket needs one of its own."""

READ_AHEAD: Final = 64
"""Items that are read before the user asks for them. One who stops asking makes the server see a slow socket."""
RETRYABLE: Final = (OSError, TimeoutError, Disconnected, InvalidHandshake)
"""What another try may mend, but for a certificate that is not believed and what these statuses do not stand for."""
TICKET_CODES: Final = frozenset({CLOSE_BAD_TICKET, CLOSE_TICKET_EXPIRED, CLOSE_TICKET_USED})
"""What another ticket may mend: this one grew old on its way, or was given before the server had its present key."""
RETRYABLE_STATUS: Final = frozenset({408, 425, 429, *range(500, 600)})


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


class ResumingClient:
    """One thread's events, over as many sockets as it takes. Iterate over it: an event, or a gap, at a time.

    Each event comes once and in order. A Gap says which never come: nothing goes missing without one. Iteration ends
    with SubscriptionRefused when the server will not have the user any more, or with whatever else cannot be mended;
    and without an error where the block has ended.
    """

    def __init__(self, items: ObjectReceiveStream[tuple[Item, Cursor]], reading: Reading) -> None:
        self._items = items
        self._reading = reading
        self.cursor = reading.cursor
        """How far its user has come; give it to `follow` to go on from there in another process."""
        self.subscriptions = 0
        """How many sockets were subscribed."""
        self.failure: Exception | None = None
        """What ended it."""

    @property
    def duplicates(self) -> int:
        """What came again, and was dropped."""
        return self._reading.duplicates

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        try:
            item, self.cursor = await self._items.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            raise self.failure or StopAsyncIteration from None
        return item


@asynccontextmanager
async def follow(
    url: str,
    *,
    thread_id: str,
    ticket: TicketSource | None = None,
    user_id: str | None = None,
    after: Cursor | None = None,
    backoff: Backoff | None = None,
    passing: tuple[type[Exception], ...] = (),
    keepalive_seconds: float = KEEPALIVE_SECONDS,
    draw: Callable[[], float] = random.random,
    online: Callable[[bool], None] = lambda subscribed: None,
) -> AsyncIterator[ResumingClient]:
    """Follow a thread for the length of a block, from now on or from a cursor, whatever happens to the socket.

    Entered once it is subscribed, however long that takes; SubscriptionRefused where that can never be. `ticket` is
    asked for each socket anew, and once again where one was no good. `passing` is what it raises and another try may
    mend, such as `httpx.TransportError`; OSError and TimeoutError go without saying. `online` is told True whenever a
    socket is subscribed and False when it is lost: what a user interface shows as "reconnecting".
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
    follower = ResumingClient(receive, reading := Reading(after))
    keeper = _ReconnectLoop(
        follower, reading, socket, send, backoff or Backoff(), draw, passing, online, ticket is not None
    )
    with unwrap_single_error():
        async with send, receive, anyio.create_task_group() as tasks:
            await tasks.start(keeper.keep_reading)
            yield follower
            tasks.cancel_scope.cancel()


@dataclass(slots=True)
class _ReconnectLoop:
    """Opens socket after socket for a follower, and gives him what they bring."""

    follower: ResumingClient
    reading: Reading
    socket: Callable[[Cursor | None], AbstractAsyncContextManager[EventClient]]
    send: ObjectSendStream[tuple[Item, Cursor]]
    backoff: Backoff
    draw: Callable[[], float]
    passing: tuple[type[Exception], ...]
    online: Callable[[bool], None]
    has_tickets: bool
    failures: int = 0
    """How many sockets in a row brought nothing and did not last."""
    bad_tickets: int = 0
    """How many tickets in a row were no good."""

    async def keep_reading(self, *, task_status: TaskStatus[None]) -> None:
        """Until something happens that another try does not mend."""
        async with self.send:
            while True:
                try:
                    with unwrap_single_error():
                        async with self.socket(self.reading.cursor) as client:
                            self._begin(client, task_status)
                            await self._read(client)
                except Exception as error:
                    if not self._passes(error):
                        if not self.follower.subscriptions:
                            raise
                        self.follower.failure = error  # it is raised where the follower is read
                        return
                await anyio.sleep(self.backoff.seconds(self.failures, self.draw))
                self.failures += 1

    def _begin(self, client: EventClient, task_status: TaskStatus[None]) -> None:
        self.reading.begin(client.subscribed.cursor)
        if self.follower.cursor is None:
            self.follower.cursor = self.reading.cursor
        self.bad_tickets = 0
        self.follower.subscriptions += 1
        if self.follower.subscriptions == 1:
            task_status.started()

    async def _read(self, client: EventClient) -> None:
        begun = anyio.current_time()
        self.online(True)
        try:
            while True:
                for item in self.reading.take(await client.receive_any()):
                    await self.send.send(item)
                    self.failures = 0
        finally:
            self.online(False)
            # A server that subscribes everybody and turns him out at once is no better than one that is away.
            if anyio.current_time() - begun >= self.backoff.longest_seconds:
                self.failures = 0

    def _passes(self, error: Exception) -> bool:
        if isinstance(error, SubscriptionRefused):
            self.bad_tickets += 1
            return self.has_tickets and error.code in TICKET_CODES and self.bad_tickets == 1
        if isinstance(error, InvalidStatus):
            return error.response.status_code in RETRYABLE_STATUS
        return isinstance(error, (*RETRYABLE, *self.passing)) and not isinstance(error, ssl.SSLCertVerificationError)
