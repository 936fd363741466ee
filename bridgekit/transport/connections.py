"""What every edge does, whatever carries its bytes: admit, attach, count, and see out in good order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Final, Self

import anyio

from bridgekit.counters import DeliveryCounters
from bridgekit.errors import Disconnected, InvalidId, StoreUnavailable, SubscriptionRefused
from bridgekit.signals import Cursor
from bridgekit.transport import origins as sites
from bridgekit.transport.authorization import (
    CLOSE_BAD_REQUEST,
    CLOSE_BAD_TICKET,
    CLOSE_DRAINED,
    CLOSE_OVERLOADED,
    CLOSE_RESTARTED,
    CLOSE_STORE_UNAVAILABLE,
    CLOSE_TOO_SLOW,
    Authorizer,
    Handshake,
    Subscription,
)
from bridgekit.transport.drain import OpenSockets
from bridgekit.transport.first_message import INCOMING_BYTES, ticket_in
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import Replay
from bridgekit.transport.outbox import OUTBOX_LIMITS, OutboxLimits, Subscriber
from bridgekit.transport.writer import WriteScheduler

__all__ = [
    "AUTHORIZE_TIMEOUT_SECONDS",
    "CLOSE_TIMEOUT_SECONDS",
    "DRAIN_TIMEOUT_SECONDS",
    "FIRST_MESSAGE_TIMEOUT_SECONDS",
    "INCOMING_BYTES",
    "MAX_UNAUTHENTICATED",
    "REASONS",
    "ConnectionRegistry",
]

FIRST_MESSAGE_TIMEOUT_SECONDS: Final = 5.0
"""How long a client may take to bring its ticket, where it does so in its first message."""
MAX_UNAUTHENTICATED: Final = 1_024
"""How many sockets may be open at a time that have not brought it yet."""
AUTHORIZE_TIMEOUT_SECONDS: Final = 10.0
"""How long it may take to find out whose thread it is, and whether a ticket was used before."""
DRAIN_TIMEOUT_SECONDS: Final = 10.0
"""How long sockets that are being drained may take to read what waits for them."""
CLOSE_TIMEOUT_SECONDS: Final = 1.0
"""How long a socket that is being closed may take over it."""
REASON_BYTES: Final = 123
"""Longest reason that a close frame can carry (RFC 6455, section 5.5)."""

REASONS: Final = {
    CLOSE_OVERLOADED: "too many sockets wait to be let in: connect again",
    CLOSE_DRAINED: "the server is going away: connect again",
    CLOSE_RESTARTED: "the thread's log began anew: connect again",
    CLOSE_STORE_UNAVAILABLE: "the store does not answer: connect again",
    CLOSE_TOO_SLOW: "too slow: connect again",
}
ENDS: Final[dict[int | None, str]] = {
    CLOSE_DRAINED: "drained",
    CLOSE_RESTARTED: "restarted",
    CLOSE_TOO_SLOW: "too slow",
}
"""Reasons for which frames stay unwritten, by close code; where there is none, the socket left by itself."""


class ConnectionRegistry:
    """Lets sockets in and sees them out. The application carries it at `app.state.bridgekit_connections`.

    It serves for the length of an `async with` block: the task that writes to the sockets is of that block.
    """

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
        self._origins = sites.origins(origins)
        self.scheduler = WriteScheduler(hub.crowded, outbox.within(hub.retention))
        self._present = OpenSockets()
        """Sockets that are joining or attached."""
        self._silent: dict[anyio.CancelScope, None] = {}
        """The waits for first messages, the longest first."""
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.scheduler.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self.scheduler.__aexit__(kind, error, traceback)

    @property
    def health(self) -> tuple[str, int]:
        """What `/healthz` says, and with which HTTP status: whether a new socket would be served now."""
        if self._closed:
            return "shutting down", 503
        return ("ok", 200) if self.hub.healthy else ("the store is away", 503)

    def check_origin_and_cursor(self, asked: Handshake) -> Cursor | None:
        """Before anybody asks who it is: how far the client says it has come.

        SubscriptionRefused for a page of another site or what is no cursor; Disconnected while the server shuts down.
        """
        self._check_open()
        sites.check_origin(asked, self._origins)
        try:
            return asked.after
        except InvalidId as error:
            raise SubscriptionRefused(CLOSE_BAD_REQUEST, str(error)) from error

    async def first_ticket(self, message: Callable[[], Awaitable[str | bytes]]) -> str:
        """The ticket that a socket brings in its first message, for which `message` waits.

        SubscriptionRefused where it brings none in time; Disconnected where it is to try again: too many wait, of
        whom the one that has waited longest goes, or the server shuts down.
        """
        with anyio.move_on_after(FIRST_MESSAGE_TIMEOUT_SECONDS) as patience:
            self._silent[patience] = None
            if len(self._silent) > MAX_UNAUTHENTICATED:
                self._send_away(next(iter(self._silent)))
            try:
                return ticket_in(await message())
            finally:
                sent_away = patience not in self._silent
                self._silent.pop(patience, None)
        self._check_open()
        if sent_away:
            raise _gone(CLOSE_OVERLOADED)
        raise SubscriptionRefused(CLOSE_BAD_TICKET, f"no ticket within {FIRST_MESSAGE_TIMEOUT_SECONDS:g} s")

    def _send_away(self, silent: anyio.CancelScope) -> None:
        del self._silent[silent]
        silent.cancel()

    async def authorize(self, asked: Handshake) -> Subscription:
        """What the client may have. SubscriptionRefused where it may not; Disconnected where nobody can say."""
        with _store_needed(), anyio.fail_after(AUTHORIZE_TIMEOUT_SECONDS):
            return await self.authorizer.authorize(asked)

    def reject(self, refusal: SubscriptionRefused | Disconnected) -> tuple[int, str]:
        """Count a socket that is not let in; with which code and reason it is to be closed."""
        self.counters.refused[refusal.code] += 1
        return refusal.code, _fitting(refusal.reason)

    def attached(self, socket: Subscriber, after: Cursor | None) -> AbstractAsyncContextManager[Replay]:
        """Subscribe a socket for the length of a block, and count what became of it.

        Disconnected where the store cannot be asked, or where the socket's end came before it was subscribed: then
        its client was told nothing, and can come again as it came now.
        """
        return _Attached(self, socket, after)

    async def join(self, socket: Subscriber, after: Cursor | None) -> Replay:
        """Begin such a block."""
        self._check_open()
        self._present.add(socket)
        try:
            with _store_needed():
                replay = await self.hub.join(socket, after)
            if socket.code is not None:
                self.hub.leave(socket)
                raise _gone(socket.code)
        except BaseException:
            self._left(socket)
            raise
        self.counters.count_subscription(after is not None, replay.gaps)
        return replay

    def leave(self, socket: Subscriber) -> None:
        """End it."""
        self.hub.leave(socket)
        self._left(socket)

    def _left(self, socket: Subscriber) -> None:
        socket.left()
        self.counters.count_end(
            ENDS.get(socket.code, "socket left"),
            unwritten=socket.unwritten,
            coalesced=socket.coalesced,
            gaps=socket.gaps,
        )
        self._present.remove(socket)

    async def drain(self, *, seconds: float = DRAIN_TIMEOUT_SECONDS) -> None:
        """Close every socket when all that waits for it is written, and wait until they are gone.

        A socket whose client does not read is cut off after that many seconds. It can resume, as all of them can.
        """
        await self._present.drain(seconds)

    def shut(self) -> None:
        """Let nobody in any more. Who is here stays."""
        self._closed = True
        for silent in list(self._silent):
            self._send_away(silent)

    def _check_open(self) -> None:
        if self._closed:
            raise _gone(CLOSE_DRAINED)

    async def close(self, *, seconds: float = DRAIN_TIMEOUT_SECONDS) -> None:
        """Let nobody in any more, and drain."""
        self.shut()
        await self.drain(seconds=seconds)


class _Attached:
    """A block of `ConnectionRegistry.attached`. A class of its own, since a generator and its frame live as long as the socket."""

    __slots__ = ("_after", "_edge", "_socket")

    def __init__(self, edge: ConnectionRegistry, socket: Subscriber, after: Cursor | None) -> None:
        self._edge = edge
        self._socket = socket
        self._after = after

    async def __aenter__(self) -> Replay:
        return await self._edge.join(self._socket, self._after)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._edge.leave(self._socket)


def _fitting(reason: str) -> str:
    """As much of a reason as a close frame can carry."""
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")


def _gone(code: int) -> Disconnected:
    return Disconnected(code, REASONS[code])


@contextmanager
def _store_needed() -> Iterator[None]:
    try:
        yield
    except (StoreUnavailable, TimeoutError) as away:
        raise _gone(CLOSE_STORE_UNAVAILABLE) from away
