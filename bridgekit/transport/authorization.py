"""Decides whether a client may subscribe to a thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Final, Protocol
from urllib.parse import parse_qsl

import msgspec

from bridgekit.cursors_and_gaps import START, Cursor, cursor
from bridgekit.errors import InvalidId, SubscriptionRefused
from bridgekit.ids import ThreadId, UserId, thread_id, user_id
from bridgekit.transport.used_tickets import UsedTickets

__all__ = [
    "CLOSE_ACCESS_ENDED",
    "CLOSE_BAD_REQUEST",
    "CLOSE_BAD_TICKET",
    "CLOSE_DRAINED",
    "CLOSE_NOT_OWNER",
    "CLOSE_OVERLOADED",
    "CLOSE_RESTARTED",
    "CLOSE_STORE_UNAVAILABLE",
    "CLOSE_TICKET_EXPIRED",
    "CLOSE_TICKET_USED",
    "CLOSE_TOO_SLOW",
    "CLOSE_WRONG_ORIGIN",
    "INCOMING_BYTES",
    "NO_SUCH_THREAD",
    "PROTOCOL",
    "TICKET_PROTOCOL",
    "Authorizer",
    "Handshake",
    "OwnerAuthorizer",
    "Subscription",
    "ThreadOwners",
    "authorize_owner",
    "parse_first_message",
    "parse_handshake",
]

# As in Centrifugo, close codes 4000-4499 ask the client to reconnect, and codes 4500-4999 are terminal.
CLOSE_DRAINED: Final = 4_000
CLOSE_RESTARTED: Final = 4_001
CLOSE_TOO_SLOW: Final = 4_008
CLOSE_STORE_UNAVAILABLE: Final = 4_009
CLOSE_OVERLOADED: Final = 4_010
CLOSE_BAD_REQUEST: Final = 4_500
CLOSE_BAD_TICKET: Final = 4_501
CLOSE_TICKET_EXPIRED: Final = 4_502
CLOSE_NOT_OWNER: Final = 4_503
CLOSE_WRONG_ORIGIN: Final = 4_504
CLOSE_TICKET_USED: Final = 4_505
CLOSE_ACCESS_ENDED: Final = 4_506

NO_SUCH_THREAD: Final = "no such thread of this user"
"""The same reason for missing threads and for other users' threads, so that clients cannot learn which threads
exist."""
INCOMING_BYTES: Final = 16_384
"""Largest frame that a client may send, in bytes."""
PROTOCOL: Final = "bridgekit.v1"
"""The WebSocket subprotocol (RFC 6455, section 1.9) that the server accepts if the client offers it."""
TICKET_PROTOCOL: Final = "bridgekit.ticket."
"""Prefix of the subprotocol that carries a ticket. A page can set no other header of the handshake, and servers log
URLs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """The parts of a client's opening request that authorization uses. The repr omits fields that may hold a secret."""

    query: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The headers by name, in lower case. The values of a repeated header are joined into one."""
    protocols: tuple[str, ...] = field(default=(), repr=False)
    origin: str | None = None
    """The origin of the page, which a browser sends and the page cannot forge."""
    host: str | None = None
    secure: bool = False
    """True if the request came over TLS, as far as this server knows. If False, a proxy may have terminated TLS."""
    ticket: str | None = field(default=None, repr=False)
    """The ticket from the first message, if the opening request has none."""

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name, with values unquoted as in Starlette.

        A page of another site can open a socket with the user's cookies, so the server checks the origin first.
        """
        pairs = (each.partition("=") for each in self.headers.get("cookie", "").split(";"))
        unquote = SimpleCookie().value_decode
        return {name.strip(): unquote(value.strip())[0] for name, separator, value in pairs if separator}

    @property
    def protocol(self) -> str | None:
        """bridgekit's subprotocol, or None if the client does not offer it."""
        return PROTOCOL if PROTOCOL in self.protocols else None

    @property
    def offered_ticket(self) -> str | None:
        """The ticket from the first message or from a subprotocol, or None."""
        offered = (each.removeprefix(TICKET_PROTOCOL) for each in self.protocols if each.startswith(TICKET_PROTOCOL))
        return self.ticket or next(offered, None)

    @property
    def after(self) -> Cursor | None:
        """The cursor from which the client resumes, or None for a new client. Raises InvalidId if malformed."""
        epoch, seq, after = (self.query.get(name) for name in ("epoch", "seq", "after"))
        if after is not None:
            if after != "start" or epoch is not None or seq is not None:
                raise InvalidId("after", 'must be "start", without epoch and seq')
            return START
        return None if epoch is None and seq is None else cursor(epoch, seq)


def parse_handshake(query: str, headers: Iterable[tuple[str, str]], *, secure: bool) -> Handshake:
    """Build a Handshake from the raw query string and the names and values of the headers."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        separator = "; " if key == "cookie" else ", "
        joined[key] = f"{joined[key]}{separator}{value}" if key in joined else value
    return Handshake(
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=joined,
        protocols=tuple(protocol.strip() for protocol in joined.get("sec-websocket-protocol", "").split(",")),
        origin=joined.get("origin"),
        host=joined.get("host"),
        secure=secure,
    )


class _FirstMessage(msgspec.Struct, tag_field="type", tag="authorise"):
    ticket: str


def parse_first_message(message: str | bytes) -> str:
    """Return the ticket in a message `{"type": "authorise", "ticket": "…"}`.

    Raises SubscriptionRefused if the message contains no ticket or is longer than INCOMING_BYTES.
    """
    if len(message) > INCOMING_BYTES:
        raise SubscriptionRefused(CLOSE_BAD_TICKET, f"the first message is longer than {INCOMING_BYTES:,} bytes")
    try:
        return msgspec.json.decode(message, type=_FirstMessage).ticket
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SubscriptionRefused(CLOSE_BAD_TICKET, "the first message must contain a ticket") from error


@dataclass(frozen=True, slots=True)
class Subscription:
    """The thread to which a socket may subscribe, and the user who subscribes."""

    user_id: UserId
    thread_id: ThreadId
    ticket_key: bytes | None = field(default=None, compare=False, repr=False)
    """The key that signed the ticket, or None if the authorizer uses no tickets."""
    ends: int | None = field(default=None, compare=False, repr=False)
    """The number of `end_access` calls before this authorization began, or None if unknown."""


class ThreadOwners(Protocol):
    """The part of a thread store that an authorizer uses."""

    async def owner_of(self, thread_id: ThreadId) -> UserId | None:
        """Return the thread's owner, or None if the thread does not exist."""


class Authorizer(Protocol):
    """Decides to which thread, if any, a client may subscribe."""

    def awaits_message(self, handshake: Handshake) -> bool:
        """Return whether the client must send its credentials in its first message, because the handshake has none."""

    async def authorize(self, handshake: Handshake) -> Subscription:
        """Return the subscription.

        Raises SubscriptionRefused, with a terminal close code, if the client may not subscribe.
        """


class OwnerAuthorizer:
    """Authorizes a client if the query parameter `user_id` names the owner of the thread `thread_id`.

    `OwnerAuthorizer` does not authenticate the user: use it behind a proxy or middleware that does, or use `Tickets`.
    """

    def __init__(self, threads: ThreadOwners, used_tickets: UsedTickets) -> None:
        """Ignore `used_tickets`, which every `BridgeConfig.authorizer` gets as its second argument."""
        self._threads = threads

    def awaits_message(self, handshake: Handshake) -> bool:
        return False

    async def authorize(self, handshake: Handshake) -> Subscription:
        query = handshake.query
        try:
            subscription = Subscription(user_id(query.get("user_id")), thread_id(query.get("thread_id")))
        except InvalidId as error:
            raise SubscriptionRefused(CLOSE_BAD_REQUEST, str(error)) from error
        return await authorize_owner(self._threads, subscription)


async def authorize_owner(threads: ThreadOwners, subscription: Subscription) -> Subscription:
    """Return the subscription if its user owns the thread. Raises SubscriptionRefused otherwise."""
    if await threads.owner_of(subscription.thread_id) != subscription.user_id:
        raise SubscriptionRefused(CLOSE_NOT_OWNER, NO_SUCH_THREAD)
    return subscription
