"""Tickets: short-lived, signed, good for one socket of one user and one thread.

A ticket is a JSON Web Token (RFC 7519) with HS256, by PyJWT. An application gives one to a user whom it has
authenticated, who presents it when he opens a socket, and asks for another before he opens the next.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Final

import jwt
import msgspec

from bridgekit import ids
from bridgekit.errors import InvalidId, SubscriptionRefused
from bridgekit.transport.authorization import (
    CLOSE_BAD_TICKET,
    CLOSE_NOT_OWNER,
    CLOSE_TICKET_EXPIRED,
    CLOSE_TICKET_USED,
    Handshake,
    Subscription,
    ThreadOwners,
    owned,
)
from bridgekit.transport.used_tickets import UsedTickets

__all__ = ["KEY_BYTES", "TICKET_SECONDS", "Tickets"]

TICKET_SECONDS: Final = 60.0
"""How long a ticket may be presented. The socket that it opens lives on."""
TICKET_BYTES: Final = 8_192
"""Longest ticket that is looked at."""
KEY_BYTES: Final = 32
"""Shortest key: as long as the digest (RFC 7518, section 3.2)."""
ALGORITHM: Final = "HS256"
AUDIENCE: Final = "bridgekit"


class _Claims(msgspec.Struct):
    exp: float
    jti: str
    sub: str
    thread: str


class Tickets:
    """Gives tickets, and admits who brings one. Every worker of an application needs the same key.

    `keys`: the first signs; the others are still believed, so that a key can be changed while tickets are on their
    way. Drawn anew by default, which is right for one process. `in_query` also takes a ticket from the query parameter
    `ticket`: for clients that can do neither of the other ways, since addresses are logged by servers and proxies.
    """

    def __init__(
        self,
        threads: ThreadOwners,
        spent: UsedTickets,
        *,
        keys: Sequence[bytes] = (),
        seconds: float = TICKET_SECONDS,
        in_query: bool = False,
    ) -> None:
        self._threads = threads
        self._spent = spent
        self.key_is_ours_alone = not keys
        """Whether the key was drawn here, so that no other worker believes our tickets."""
        self._keys = tuple(keys) or (secrets.token_bytes(KEY_BYTES),)
        if (shortest := min(map(len, self._keys))) < KEY_BYTES:
            raise InvalidId("key", f"must be at least {KEY_BYTES} bytes, not {shortest}; secrets.token_bytes makes one")
        self._seconds = seconds
        self._in_query = in_query

    def issue(self, user_id: str, thread_id: str) -> str:
        """A ticket for a user's socket on a thread of his. Give it to nobody else. InvalidId for what is no id."""
        claims = {
            "aud": AUDIENCE,
            "exp": time.time() + self._seconds,
            "jti": secrets.token_hex(16),
            "sub": ids.user_id(user_id),
            "thread": ids.thread_id(thread_id),
        }
        return jwt.encode(claims, self._keys[0], algorithm=ALGORITHM)

    def awaits_message(self, asked: Handshake) -> bool:
        return self._ticket_of(asked) is None

    async def authorize(self, asked: Handshake) -> Subscription:
        """The subscription that the ticket is for. What the client asks for besides must agree with it."""
        claims = self._claims_of(self._ticket_of(asked))
        try:
            wanted = Subscription(ids.user_id(claims.sub), ids.thread_id(claims.thread))
        except InvalidId as error:
            raise SubscriptionRefused(CLOSE_BAD_TICKET, "the ticket names no user or no thread") from error
        if asked.query.get("thread_id", wanted.thread_id) != wanted.thread_id:
            raise SubscriptionRefused(CLOSE_NOT_OWNER, "the ticket is for another thread")
        if asked.query.get("user_id", wanted.user_id) != wanted.user_id:
            raise SubscriptionRefused(CLOSE_NOT_OWNER, "the ticket is for another user")
        await owned(self._threads, wanted)
        # Last, so that a ticket that is refused for another reason is not used up by it.
        if not await self._spent.spend(claims.jti, claims.exp - time.time()):
            raise SubscriptionRefused(CLOSE_TICKET_USED, "the ticket was used before; ask for another")
        return wanted

    def _ticket_of(self, asked: Handshake) -> str | None:
        return asked.offered_ticket or (asked.query.get("ticket") if self._in_query else None)

    def _claims_of(self, ticket: str | None) -> _Claims:
        if ticket is None or len(ticket) > TICKET_BYTES:
            raise SubscriptionRefused(CLOSE_BAD_TICKET, "no ticket" if ticket is None else "the ticket is too long")
        for key in self._keys:
            try:
                claims = jwt.decode(ticket, key, algorithms=[ALGORITHM], audience=AUDIENCE)
                return msgspec.convert(claims, _Claims)
            except jwt.ExpiredSignatureError as error:
                raise SubscriptionRefused(CLOSE_TICKET_EXPIRED, "the ticket has expired; ask for another") from error
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, msgspec.ValidationError, OverflowError, RecursionError) as error:
                # What is wrong with it helps nobody but a forger. (PyJWT lets the last two through in older versions.)
                raise SubscriptionRefused(CLOSE_BAD_TICKET, "the ticket is not valid") from error
        raise SubscriptionRefused(CLOSE_BAD_TICKET, "the ticket is not valid")
