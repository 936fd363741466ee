"""A client that reconnects by itself, resumes at its cursor, and reports the events that it misses as gaps."""

from __future__ import annotations

import asyncio
import random as random_source
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream, TaskStatus
from websockets.exceptions import InvalidHandshake, InvalidStatus

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import Disconnected, SubscriptionRefused, unwrap_single_error
from bridgekit.transport.authorization import CLOSE_BAD_TICKET, CLOSE_TICKET_EXPIRED, CLOSE_TICKET_USED
from bridgekit.transport.cancellation import ends_task
from bridgekit.transport.client import KEEPALIVE_SECONDS, EventClient, connect
from bridgekit.transport.cursor_tracker import CursorTracker, Item

__all__ = ["Backoff", "Item", "ResumingClient", "TicketSource", "subscribe"]

TicketSource = Callable[[], Awaitable[str]]
"""Requests a new ticket from the application. Each socket needs its own ticket."""

READ_AHEAD: Final = 64
"""Limit on items that the client reads before the caller requests them. At this limit, the client stops reading from
the socket."""
RETRYABLE_ERRORS: Final = (OSError, TimeoutError, Disconnected, InvalidHandshake)
"""Errors that a retry may resolve, except an untrusted certificate or an HTTP status that is not in
RETRYABLE_STATUS."""
TICKET_CODES: Final = frozenset({CLOSE_BAD_TICKET, CLOSE_TICKET_EXPIRED, CLOSE_TICKET_USED})
"""Refusals that a new ticket may resolve, because the last ticket may have expired, been used before, or been signed
with an earlier key."""
RETRYABLE_STATUS: Final = frozenset({408, 425, 429, *range(500, 600)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter: the wait is uniform between 0 and a bound that doubles with each failure.

    Jitter spreads the reconnects of many clients over time.
    """

    first_seconds: float = 0.1
    longest_seconds: float = 10.0

    def seconds(self, failures: int, random: Callable[[], float]) -> float:
        """Return the wait after this many consecutive failures. `random` returns a number between 0 and 1."""
        bound: float = min(self.first_seconds * 2.0 ** min(failures, 30), self.longest_seconds)
        return random() * bound


class ResumingClient:
    """Receives one thread's events over as many sockets as necessary. Iterate over the client for events and gaps.

    Events arrive once and in order, and the client gets a Gap for every event that it will not get. Iteration raises
    SubscriptionRefused if the server refuses the client, and any other error that a retry cannot resolve. Iteration
    ends without an error when the `subscribe` block ends.
    """

    def __init__(self, items: ObjectReceiveStream[tuple[Item, Cursor]], tracker: CursorTracker) -> None:
        self._items = items
        self._tracker = tracker
        self.cursor = tracker.cursor
        """The position after the last item that iteration returned. To resume with another client, pass this cursor to
        `subscribe`."""
        self.subscriptions = 0
        """The number of sockets that have been subscribed."""
        self.failure: Exception | None = None
        """The error that ended the client."""

    @property
    def duplicates(self) -> int:
        """The number of events that were received again and discarded."""
        return self._tracker.duplicates

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        try:
            item, self.cursor = await self._items.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            raise self.failure or StopAsyncIteration from None
        return item


@asynccontextmanager
async def subscribe(
    url: str,
    *,
    thread_id: str,
    ticket: TicketSource | None = None,
    user_id: str | None = None,
    after: Cursor | None = None,
    headers: Mapping[str, str] | None = None,
    backoff: Backoff | None = None,
    retryable: tuple[type[Exception], ...] = (),
    keepalive_seconds: float = KEEPALIVE_SECONDS,
    random: Callable[[], float] = random_source.random,
    on_status: Callable[[bool], None] = lambda subscribed: None,
) -> AsyncIterator[ResumingClient]:
    """Subscribe to a thread while the block runs, and reconnect whenever the socket is lost.

    The stream starts with the next event of the thread or, with `after`, with the first event after that cursor. The
    block starts when the first socket is subscribed, however long that takes. Raises SubscriptionRefused if the server
    refuses the client, and any other error that a retry cannot resolve. `ticket` is called for each socket, and once
    more if the server rejects the ticket. `retryable` lists further errors of `ticket` after which the client tries
    again, such as `httpx.TransportError`. The client also tries again after OSError and TimeoutError. `on_status` is
    called with True when a socket is subscribed and with False when it is lost, for example to show "reconnecting".
    `random` returns a number between 0 and 1, for the backoff.
    """

    @asynccontextmanager
    async def connect_once(cursor: Cursor | None) -> AsyncIterator[EventClient]:
        try:
            fresh = None if ticket is None else await ticket()
        except asyncio.CancelledError as error:
            if ends_task(error):
                raise
            raise RuntimeError("what `ticket` awaits was cancelled") from error
        async with connect(
            url,
            thread_id=thread_id,
            ticket=fresh,
            user_id=user_id,
            after=cursor,
            headers=headers,
            keepalive_seconds=keepalive_seconds,
        ) as socket:
            yield socket

    send, receive = anyio.create_memory_object_stream[tuple[Item, Cursor]](READ_AHEAD)
    client = ResumingClient(receive, tracker := CursorTracker(after))
    loop = _ReconnectLoop(
        client, tracker, connect_once, send, backoff or Backoff(), random, retryable, on_status, ticket is not None
    )
    with unwrap_single_error():
        async with send, receive, anyio.create_task_group() as tasks:
            await tasks.start(loop.run)
            yield client
            tasks.cancel_scope.cancel()


@dataclass(slots=True)
class _ReconnectLoop:
    """Opens one socket after another for a ResumingClient, and passes the received items to it."""

    client: ResumingClient
    tracker: CursorTracker
    connect_once: Callable[[Cursor | None], AbstractAsyncContextManager[EventClient]]
    send: ObjectSendStream[tuple[Item, Cursor]]
    backoff: Backoff
    random: Callable[[], float]
    retryable: tuple[type[Exception], ...]
    on_status: Callable[[bool], None]
    has_tickets: bool
    failures: int = 0
    """The number of consecutive attempts that failed to connect, or whose socket ended early without an item."""
    rejected_tickets: int = 0
    """The number of consecutive tickets that the server rejected."""

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Reconnect until an error occurs that a retry cannot resolve."""
        async with self.send:
            while True:
                try:
                    with unwrap_single_error():
                        async with self.connect_once(self.tracker.cursor) as socket:
                            self._start(socket, task_status)
                            await self._read(socket)
                except Exception as error:
                    if not self._is_retryable(error):
                        if not self.client.subscriptions:
                            raise
                        self.client.failure = error  # raised by iteration over the client
                        return
                await anyio.sleep(self.backoff.seconds(self.failures, self.random))
                self.failures += 1

    def _start(self, socket: EventClient, task_status: TaskStatus[None]) -> None:
        self.tracker.start(socket.subscribed.cursor)
        if self.client.cursor is None:
            self.client.cursor = self.tracker.cursor
        self.rejected_tickets = 0
        self.client.subscriptions += 1
        if self.client.subscriptions == 1:
            task_status.started()

    async def _read(self, socket: EventClient) -> None:
        started_at = anyio.current_time()
        self.on_status(True)
        try:
            while True:
                for item in self.tracker.accept(await socket.receive_any()):
                    await self.send.send(item)
                    self.failures = 0
        finally:
            self.on_status(False)
            # A socket that ends soon after its subscription counts as a failure, so that the backoff grows.
            if anyio.current_time() - started_at >= self.backoff.longest_seconds:
                self.failures = 0

    def _is_retryable(self, error: Exception) -> bool:
        if isinstance(error, SubscriptionRefused):
            self.rejected_tickets += 1
            return self.has_tickets and error.code in TICKET_CODES and self.rejected_tickets == 1
        if isinstance(error, InvalidStatus):
            return error.response.status_code in RETRYABLE_STATUS
        retryable = (*RETRYABLE_ERRORS, *self.retryable)
        return isinstance(error, retryable) and not isinstance(error, ssl.SSLCertVerificationError)
