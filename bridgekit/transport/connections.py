"""The registry of sockets, for both edges: it authorizes, subscribes, counts, drains and closes them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

import anyio

from bridgekit import ids
from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import (
    BridgekitError,
    Disconnected,
    InvalidId,
    StoreUnavailable,
    SubscriptionRefused,
    WrongEventLoop,
)
from bridgekit.transport.authorization import (
    CLOSE_ACCESS_ENDED,
    CLOSE_BAD_REQUEST,
    CLOSE_BAD_TICKET,
    CLOSE_DRAINED,
    CLOSE_NOT_OWNER,
    CLOSE_OVERLOADED,
    CLOSE_RESTARTED,
    CLOSE_STORE_UNAVAILABLE,
    CLOSE_TOO_SLOW,
    INCOMING_BYTES,
    NO_SUCH_THREAD,
    Authorizer,
    Handshake,
    Subscription,
    parse_first_message,
)
from bridgekit.transport.cancellation import current_loop, ends_task
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import Replay
from bridgekit.transport.metrics import DISCONNECT_REASONS
from bridgekit.transport.origins import check_origin
from bridgekit.transport.origins import origins as allowed_origins
from bridgekit.transport.outbox import OUTBOX_LIMITS, OutboxLimits, Subscriber
from bridgekit.transport.writer import WriteScheduler

__all__ = [
    "AUTHORIZE_TIMEOUT_SECONDS",
    "CLOSE_REASONS",
    "CLOSE_TIMEOUT_SECONDS",
    "DRAIN_TIMEOUT_SECONDS",
    "FIRST_MESSAGE_TIMEOUT_SECONDS",
    "INCOMING_BYTES",
    "MAX_UNAUTHENTICATED",
    "ConnectionRegistry",
]

logger = logging.getLogger(__name__)

FIRST_MESSAGE_TIMEOUT_SECONDS: Final = 5.0
"""How long a client may take to send its first message, if the message contains its ticket."""
MAX_UNAUTHENTICATED: Final = 1_024
"""How many sockets may wait for their first message at the same time."""
AUTHORIZE_TIMEOUT_SECONDS: Final = 10.0
"""How long authorization may take, including the look-ups of the thread's owner and of the used ticket."""
DRAIN_TIMEOUT_SECONDS: Final = 10.0
"""How long a drain waits until the frames in the outboxes are written, before it aborts the remaining sockets."""
CLOSE_TIMEOUT_SECONDS: Final = 1.0
"""How long the close handshake of a socket may take."""
REFUSALS: Final[Mapping[int, int]] = {
    HTTPStatus.UNAUTHORIZED: CLOSE_BAD_TICKET,
    HTTPStatus.FORBIDDEN: CLOSE_NOT_OWNER,
    HTTPStatus.NOT_FOUND: CLOSE_NOT_OWNER,
}
"""The close code for each HTTP status with which an application refuses a client. The default is CLOSE_BAD_REQUEST."""
REFUSING_STATUSES: Final = {*range(400, 500)} - {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
TERMINAL_CODES: Final = range(4_500, 5_000)
"""The close codes with which an authorizer may refuse a client."""
RECONNECT_CODES: Final = range(4_000, 4_500)
MAX_REASON_BYTES: Final = 123
"""Longest reason in a close frame, in bytes (RFC 6455, section 5.5)."""

CLOSE_REASONS: Final = {
    CLOSE_ACCESS_ENDED: "access has ended",
    CLOSE_OVERLOADED: "too many sockets await authorization: connect again",
    CLOSE_DRAINED: "the server is shutting down: connect again",
    CLOSE_RESTARTED: "the thread's log was lost and restarted: connect again",
    CLOSE_STORE_UNAVAILABLE: "the store is unavailable: connect again",
    CLOSE_TOO_SLOW: "too slow: connect again",
}


class ConnectionRegistry:
    """Authorizes, subscribes and closes an application's sockets. Available as `app.state.bridgekit_connections`.

    Use the registry as an async context manager: the task that writes to the sockets runs only inside the block.
    """

    running = 0
    """The number of registries in use in this process."""

    def __init__(
        self,
        hub: Hub,
        authorizer: Authorizer,
        counters: DeliveryCounters,
        *,
        origins: Iterable[str] = (),
        outbox: OutboxLimits = OUTBOX_LIMITS,
    ) -> None:
        self.hub = hub
        self.authorizer = authorizer
        self.counters = counters
        self._origins = allowed_origins(origins)
        self.scheduler = WriteScheduler(counters, hub.crowded, outbox.within(hub.retention))
        self._open_sockets = set[Subscriber]()
        """Sockets that are subscribing or subscribed."""
        self._drains: list[tuple[set[Subscriber], anyio.Event]] = []
        """For each drain in progress, the sockets that it waits for, and the event that ends its wait."""
        self._unauthenticated: dict[anyio.CancelScope, None] = {}
        """Cancel scopes of the sockets that wait for their first message, oldest first."""
        self._closed = False
        self._ends = 0
        """The number of calls of `end_access`."""
        self._home: object = None
        """The event loop or OS thread of the sockets, or None while the registry is not in use."""

    async def __aenter__(self) -> Self:
        self._home = current_loop()
        await self.scheduler.__aenter__()
        ConnectionRegistry.running += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        # Usually, the server has closed all sockets. If the application's lifespan failed, the server continues.
        self.stop_accepting()
        for socket in list(self._open_sockets):
            if not socket.unwritten:
                socket.code = socket.code or CLOSE_DRAINED
            socket.disconnect_slow()
        ConnectionRegistry.running -= 1
        return await self.scheduler.__aexit__(kind, error, traceback)

    @property
    def health(self) -> tuple[str, int]:
        """The status text and HTTP status code of `/healthz`.

        The status code is 200 if the application can serve a new socket now.
        """
        if self._closed:
            return "shutting down", 503
        problem = self.hub.problem
        if self.hub.healthy:
            return f"degraded: {problem}" if problem else "ok", 200
        return f"the store is unavailable: {problem}", 503

    def check_origin_and_cursor(self, handshake: Handshake) -> Cursor | None:
        """Run the checks that need no authorization, and return the cursor from which the client resumes.

        Raises SubscriptionRefused if the page's origin is not allowed or the cursor is malformed. Raises Disconnected
        if the server shuts down.
        """
        self._check_open()
        check_origin(handshake, self._origins)
        try:
            return handshake.after
        except InvalidId as error:
            raise SubscriptionRefused(CLOSE_BAD_REQUEST, str(error)) from error

    async def receive_ticket(self, message: Callable[[], Awaitable[str | bytes]]) -> str:
        """Await the client's first message by calling `message`, and return the ticket in the message.

        Raises SubscriptionRefused if no ticket arrives within FIRST_MESSAGE_TIMEOUT_SECONDS. Raises Disconnected if the
        server shuts down, or if too many sockets wait and this socket has waited longest.
        """
        with anyio.move_on_after(FIRST_MESSAGE_TIMEOUT_SECONDS) as timeout:
            self._unauthenticated[timeout] = None
            if len(self._unauthenticated) > MAX_UNAUTHENTICATED:
                self._evict(next(iter(self._unauthenticated)))
            try:
                return parse_first_message(await message())
            finally:
                evicted = timeout not in self._unauthenticated
                self._unauthenticated.pop(timeout, None)
        self._check_open()
        if evicted:
            raise _close_with(CLOSE_OVERLOADED)
        raise SubscriptionRefused(CLOSE_BAD_TICKET, f"no ticket within {FIRST_MESSAGE_TIMEOUT_SECONDS:g} s")

    def _evict(self, scope: anyio.CancelScope) -> None:
        del self._unauthenticated[scope]
        scope.cancel()

    def awaits_message(self, handshake: Handshake) -> bool:
        """Return whether the client must send its credentials in its first message. Raises as `authorize` does."""
        with _close_on_error():
            awaits = self.authorizer.awaits_message(handshake)
            if not isinstance(awaits, bool):
                raise TypeError(
                    f"awaits_message returned {type(awaits).__name__}; declare it as `def` that returns a bool"
                )
            return awaits

    async def authorize(self, handshake: Handshake) -> Subscription:
        """Return the subscription for which the client is authorized.

        Raises SubscriptionRefused if the client is not authorized. Raises Disconnected if the store or the application
        fails or does not answer in time.
        """
        ends = self._ends
        with _close_on_error(), anyio.fail_after(AUTHORIZE_TIMEOUT_SECONDS):
            subscription = replace(await self.authorizer.authorize(handshake), ends=ends)
            ids.user_id(subscription.user_id)
            ids.thread_id(subscription.thread_id)
            return subscription

    def end_access(
        self,
        *,
        user_id: str | None = None,
        thread_id: str | None = None,
        ticket_key: bytes | None = None,
        except_user_id: str | None = None,
    ) -> int:
        """Close this worker's open sockets that match all given criteria, and return their number.

        The closed sockets get no later event, and their waiting events are discarded. The close code, 4506, tells
        clients not to reconnect. A client whose authorization is in progress during the call must connect again.

        Raises TypeError if no user, thread or ticket key is given, InvalidId if one of them is not valid, and
        WrongEventLoop in another OS thread, such as that of a plain `def` endpoint.
        """
        self._require_own_loop("end_access")
        if user_id is None and thread_id is None and ticket_key is None:
            raise TypeError("end_access needs user_id, thread_id or ticket_key")
        for validate, given in ((ids.user_id, user_id), (ids.thread_id, thread_id), (ids.user_id, except_user_id)):
            if given is not None:
                validate(given)
        if not isinstance(ticket_key, bytes | None):
            raise InvalidId("ticket_key", f"must be bytes, not {type(ticket_key).__name__}")
        self._ends += 1
        ended = 0
        for socket in list(self._open_sockets):
            of = socket.subscription
            if (
                user_id in (None, of.user_id)
                and thread_id in (None, of.thread_id)
                and ticket_key in (None, of.ticket_key)
                and except_user_id != of.user_id
            ):
                socket.code = CLOSE_ACCESS_ENDED
                socket.abort()
                ended += 1
        return ended

    def reject(self, refusal: SubscriptionRefused | Disconnected) -> tuple[int, str]:
        """Count a rejected socket, and return the close code and reason to send."""
        self.counters.refused[refusal.code] += 1
        return refusal.code, refusal.reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")

    async def join(self, socket: Subscriber, after: Cursor | None) -> Replay:
        """Subscribe a socket until `leave`, and return the replay to send first.

        Raises Disconnected if the server shuts down, if `end_access` was called since the authorization began, if the
        store is unavailable, or if the socket was closed before it was subscribed. On Disconnected, the client has
        received no event and, unless its access has ended, can reconnect with the same cursor.
        """
        self._check_open()
        if socket.subscription.ends not in (None, self._ends):
            raise Disconnected(CLOSE_OVERLOADED, "access was ended meanwhile: connect again")
        self._open_sockets.add(socket)
        try:
            with _close_if_store_unavailable():
                replay = await self.hub.join(socket, after)
            if socket.code is not None:
                self.hub.leave(socket)
                raise _close_with(socket.code)
        except BaseException:
            self._unsubscribed(socket)
            raise
        self.counters.count_subscription(after is not None, replay.gaps)
        return replay

    def leave(self, socket: Subscriber) -> None:
        """Unsubscribe a socket, and count its unwritten frames."""
        self.hub.leave(socket)
        self._unsubscribed(socket)

    def _unsubscribed(self, socket: Subscriber) -> None:
        socket.clear_crowded()
        if socket.unwritten:
            self.counters.unwritten[DISCONNECT_REASONS[socket.code]] += socket.unwritten
        self._open_sockets.remove(socket)
        for remaining, done in self._drains:
            remaining.discard(socket)
            if not remaining:
                done.set()

    async def drain(self, *, seconds: float = DRAIN_TIMEOUT_SECONDS) -> None:
        """Close every socket after the frames in its outbox are written, and wait until all sockets are closed.

        After `seconds`, the remaining sockets are aborted. Every client can resume. The drain does not wait for sockets
        that are opened during the drain. Raises WrongEventLoop on another event loop.
        """
        self._require_own_loop("drain")
        remaining, done = drain = set(self._open_sockets), anyio.Event()
        self._drains.append(drain)
        try:
            for socket in list(remaining):
                socket.drain()
            with anyio.move_on_after(seconds):
                if remaining:
                    await done.wait()
            for stuck in list(remaining):
                stuck.disconnect_slow()
        finally:
            self._drains.remove(drain)

    def stop_accepting(self) -> None:
        """Accept no new sockets, and close those that wait for a first message. Subscribed sockets stay open."""
        self._require_own_loop("stop_accepting")
        self._closed = True
        for scope in list(self._unauthenticated):
            self._evict(scope)

    def _check_open(self) -> None:
        if self._closed:
            raise _close_with(CLOSE_DRAINED)

    def _require_own_loop(self, call: str) -> None:
        if self._home not in (None, current_loop()):
            raise WrongEventLoop(call)


def _close_with(code: int) -> Disconnected:
    return Disconnected(code, CLOSE_REASONS[code])


@contextmanager
def _close_if_store_unavailable() -> Iterator[None]:
    try:
        yield
    except (StoreUnavailable, TimeoutError) as error:
        raise _close_with(CLOSE_STORE_UNAVAILABLE) from error


@contextmanager
def _close_on_error() -> Iterator[None]:
    """Convert any error of the application's authorizer or thread store to a close code, which a browser can read.

    Log errors other than refusals. Without the conversion, SystemExit and KeyboardInterrupt would end the server, and a
    CancelledError would leave the client without an answer.
    """
    try:
        with _close_if_store_unavailable():
            yield
    except BaseException as error:
        if ends_task(error):
            raise
        refusal = None
        with suppress(BaseException):  # reading the error's attributes may raise anything
            refusal = _refusal(error)
        if refusal is None:
            logger.exception("a client could not be authorized")
            refusal = Disconnected(CLOSE_STORE_UNAVAILABLE, "authorization failed: connect again")
        if refusal is error:
            raise
        raise refusal from error


def _refusal(error: BaseException) -> SubscriptionRefused | Disconnected | None:
    """Return the refusal if the error is a BridgekitError or HTTPException with the HTTP status of a refusal, or None.

    An error of another class may have a status that comes from a service that the application called.
    """
    if isinstance(error, SubscriptionRefused) and error.code in TERMINAL_CODES:
        return error
    if isinstance(error, Disconnected) and error.code in RECONNECT_CODES:
        if isinstance(error.__cause__, TimeoutError):
            logger.warning("a client could not be authorized in time: %s", error.__cause__)
        return error
    # An HTTPException is recognized by its `detail`, because this module imports no server library.
    may_refuse = isinstance(error, BridgekitError) or getattr(error, "detail", None) is not None
    status = getattr(error, "status_code", HTTPStatus.INTERNAL_SERVER_ERROR)
    if not may_refuse or status not in REFUSING_STATUSES:
        return None
    code = REFUSALS.get(status, CLOSE_BAD_REQUEST)
    return SubscriptionRefused(code, NO_SUCH_THREAD if code == CLOSE_NOT_OWNER else str(error))
