"""What every edge does, whatever carries its bytes: admit, attach, count, and see out in good order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import anyio
import msgspec

from bridgekit.errors import Disconnected, InvalidId, StoreAway, SubscriptionRefused
from bridgekit.signals import Cursor
from bridgekit.tally import Tally
from bridgekit.transport.admission import (
    CLOSE_BAD_REQUEST,
    CLOSE_BAD_TICKET,
    CLOSE_DRAINED,
    CLOSE_RESTARTED,
    CLOSE_STORE_AWAY,
    CLOSE_TOO_SLOW,
    Admission,
    Handshake,
    Subscription,
    check_origin,
)
from bridgekit.transport.broker import Replay
from bridgekit.transport.hub import Hub
from bridgekit.transport.outbox import Outbox
from bridgekit.transport.subscriber import Subscriber

__all__ = [
    "AUTHORISE_SECONDS",
    "CLOSE_SECONDS",
    "DRAIN_SECONDS",
    "INCOMING_BYTES",
    "REASONS",
    "Edge",
    "fitting",
    "ticket_in",
]

AUTHORISE_SECONDS: Final = 5.0
"""How long a client may take to bring its ticket, where it does so in its first message."""
DRAIN_SECONDS: Final = 10.0
"""How long sockets that are being drained may take to read what waits for them."""
CLOSE_SECONDS: Final = 1.0
"""How long a socket that is being closed may take over it."""
INCOMING_BYTES: Final = 16_384
"""Largest frame that a client may send: it has nothing to say but its ticket."""
REASON_BYTES: Final = 123
"""Longest reason that a close frame can carry (RFC 6455, section 5.5)."""

REASONS: Final = {
    CLOSE_DRAINED: "the server is going away: connect again",
    CLOSE_RESTARTED: "the thread's log began anew: connect again",
    CLOSE_STORE_AWAY: "the store does not answer: connect again",
    CLOSE_TOO_SLOW: "too slow: connect again",
}


class Edge:
    """Lets sockets in and sees them out. The application carries it at `app.state.bridgekit_edge`."""

    def __init__(
        self,
        hub: Hub,
        admission: Admission,
        tally: Tally,
        *,
        origins: Iterable[str] = (),
        outbox: Callable[[], Outbox] = Outbox,
    ) -> None:
        self.hub = hub
        self.outbox = outbox
        """Makes the outbox of each socket."""
        self.admission = admission
        self.tally = tally
        self._origins = frozenset(origins)
        self._here: set[Subscriber] = set()
        self._left = anyio.Event()
        self._closed = False

    @property
    def health(self) -> tuple[str, int]:
        """What `/healthz` says, and with which HTTP status: whether a new socket would be served now."""
        if self._closed:
            return "shutting down", 503
        return ("ok", 200) if self.hub.healthy else ("the store is away", 503)

    def look_at(self, asked: Handshake) -> Cursor | None:
        """Before anybody asks who it is: how far the client says it has come.

        SubscriptionRefused for a page of another site or what is no cursor; Disconnected while the server shuts down.
        """
        if self._closed:
            raise Disconnected(CLOSE_DRAINED, REASONS[CLOSE_DRAINED])
        check_origin(asked, self._origins)
        try:
            return asked.after
        except InvalidId as error:
            raise SubscriptionRefused(CLOSE_BAD_REQUEST, str(error)) from error

    async def admit(self, asked: Handshake) -> Subscription:
        """What the client may have. SubscriptionRefused where it may not; Disconnected where nobody can say."""
        with _store_needed():
            return await self.admission.admit(asked)

    @asynccontextmanager
    async def attached(self, socket: Subscriber, after: Cursor | None) -> AsyncIterator[Replay]:
        """Subscribe a socket for the length of a block, and count what became of it.

        Disconnected where the store cannot be asked.
        """
        self._here.add(socket)
        try:
            with _store_needed():
                async with self.hub.joined(socket, after) as replay:
                    self.tally.count_subscription(after is not None, replay.gap)
                    yield replay
        finally:
            self._here.discard(socket)
            reason = "too slow" if socket.code == CLOSE_TOO_SLOW else "socket left"
            self.tally.count_end(reason, unwritten=socket.unwritten, coalesced=socket.outbox.coalesced)
            self._left.set()
            self._left = anyio.Event()

    async def drain(self, *, seconds: float = DRAIN_SECONDS) -> None:
        """Close every socket when all that waits for it is written, and wait until they are gone.

        A socket whose client does not read is cut off after that many seconds. It can resume, as all of them can.
        """
        # Those that are here now: a client that is told to connect again may do so here, and is not waited for.
        leaving = set(self._here)
        for socket in leaving:
            socket.drain()
        with anyio.move_on_after(seconds):
            while leaving & self._here:
                await self._left.wait()
        for stuck in leaving & self._here:
            stuck.give_up()

    async def close(self, *, seconds: float = DRAIN_SECONDS) -> None:
        """Let nobody in any more, and drain."""
        self._closed = True
        await self.drain(seconds=seconds)


class _FirstMessage(msgspec.Struct, tag_field="type", tag="authorise"):
    ticket: str


def ticket_in(message: str | bytes) -> str:
    """The ticket in a message `{"type": "authorise", "ticket": "…"}`; SubscriptionRefused where there is none."""
    try:
        return msgspec.json.decode(message, type=_FirstMessage).ticket
    except (msgspec.DecodeError, UnicodeError) as error:
        raise SubscriptionRefused(CLOSE_BAD_TICKET, "the first message is to bring a ticket") from error


def fitting(reason: str) -> str:
    """As much of a reason as a close frame can carry."""
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")


@contextmanager
def _store_needed() -> Iterator[None]:
    try:
        yield
    except StoreAway as away:
        raise Disconnected(CLOSE_STORE_AWAY, REASONS[CLOSE_STORE_AWAY]) from away
