"""Who may have which thread's events: decided before a socket is attached to anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import parse_qsl

from bridgekit.errors import InvalidId, SubscriptionRefused
from bridgekit.ids import ThreadId, UserId, thread_id, user_id
from bridgekit.signals import Cursor, cursor
from bridgekit.transport.used_tickets import UsedTickets

__all__ = [
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
    "PROTOCOL",
    "TICKET_PROTOCOL",
    "Authorizer",
    "Handshake",
    "OwnerAuthorizer",
    "Subscription",
    "ThreadOwners",
    "owned",
    "parse_handshake",
]

# 4000-4499 ask the client to connect again, 4500-4999 are final: the split that Centrifugo uses.
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

PROTOCOL: Final = "bridgekit.v1"
"""The WebSocket subprotocol (RFC 6455, section 1.9) that is spoken here, for a client that offers any."""
TICKET_PROTOCOL: Final = "bridgekit.ticket."
"""With the ticket behind it a second subprotocol: a browser can set no header, and addresses end up in logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What a client says when it opens a socket. Where a ticket may be, nothing of it is shown."""

    query: Mapping[str, str] = field(repr=False)
    protocols: tuple[str, ...] = field(default=(), repr=False)
    origin: str | None = None
    """Only browsers send one, and a page cannot forge it."""
    host: str | None = None
    secure: bool = False
    """Whether it came over TLS, as far as this server knows: a proxy in front may have taken that off."""
    ticket: str | None = field(default=None, repr=False)
    """The ticket that came in the first message, where none came in the handshake."""

    @property
    def protocol(self) -> str | None:
        """The subprotocol to answer with."""
        return PROTOCOL if PROTOCOL in self.protocols else None

    @property
    def offered_ticket(self) -> str | None:
        """The ticket, by subprotocol or first message."""
        offered = (each.removeprefix(TICKET_PROTOCOL) for each in self.protocols if each.startswith(TICKET_PROTOCOL))
        return self.ticket or next(offered, None)

    @property
    def after(self) -> Cursor | None:
        """How far the client has come, if it was here before; InvalidId where that is no cursor."""
        epoch, seq = self.query.get("epoch"), self.query.get("seq")
        return None if epoch is None and seq is None else cursor(epoch, seq)


def parse_handshake(
    query: str, *, protocols: Iterable[str], origin: str | None, host: str | None, secure: bool
) -> Handshake:
    """A handshake from its parts as they came: the query of the address, and the lines of Sec-WebSocket-Protocol."""
    return Handshake(
        query=dict(parse_qsl(query, keep_blank_values=True)),
        protocols=tuple(protocol.strip() for line in protocols for protocol in line.split(",")),
        origin=origin,
        host=host,
        secure=secure,
    )


@dataclass(frozen=True, slots=True)
class Subscription:
    """The one thread a socket is for, and whose socket it is."""

    user_id: UserId
    thread_id: ThreadId


class ThreadOwners(Protocol):
    """What authorizer needs of a thread store."""

    async def owner_of(self, thread_id: ThreadId) -> UserId | None:
        """The thread's owner, or None when there is no such thread."""


class Authorizer(Protocol):
    """Turns a handshake into a subscription."""

    def awaits_message(self, asked: Handshake) -> bool:
        """Whether the client is to say in its first message what the handshake lacks."""

    async def authorize(self, asked: Handshake) -> Subscription:
        """SubscriptionRefused, with a terminal code, where it may not have the thread."""


class OwnerAuthorizer:
    """Admits a thread's owner, named by the query parameters `user_id` and `thread_id`.

    It believes who the user says he is: put it behind something that has checked that, or use `Tickets`.
    """

    def __init__(self, threads: ThreadOwners, spent: UsedTickets) -> None:
        self._threads = threads

    def awaits_message(self, asked: Handshake) -> bool:
        return False

    async def authorize(self, asked: Handshake) -> Subscription:
        try:
            wanted = Subscription(user_id(asked.query.get("user_id")), thread_id(asked.query.get("thread_id")))
        except InvalidId as error:
            raise SubscriptionRefused(CLOSE_BAD_REQUEST, str(error)) from error
        return await owned(self._threads, wanted)


async def owned(threads: ThreadOwners, wanted: Subscription) -> Subscription:
    """The subscription, if the thread is the user's; else SubscriptionRefused."""
    # One answer for "no such thread" and "not yours": the difference is nobody else's business.
    if await threads.owner_of(wanted.thread_id) != wanted.user_id:
        raise SubscriptionRefused(CLOSE_NOT_OWNER, "no such thread of this user")
    return wanted
