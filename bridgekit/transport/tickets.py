"""Tickets: short-lived, signed tokens, each for one socket of one user and one thread.

A ticket is a JSON Web Token (RFC 7519) with HS256, signed by PyJWT. The application issues a ticket to a user whom it
has authenticated. The client presents the ticket to open a socket, and requests a new one for each further socket.
"""

from __future__ import annotations

import math
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
    authorize_owner,
)
from bridgekit.transport.used_tickets import UsedTickets

__all__ = ["KEY_BYTES", "TICKET_SECONDS", "Tickets"]

TICKET_SECONDS: Final = 60.0
"""How long a ticket is valid. The socket stays open after its ticket expires."""
CLOCK_SECONDS: Final = 60.0
"""How much the clocks of the workers may differ. A used ticket is remembered for this long after it has expired,
because another worker's clock may be behind. A ticket that was issued further in the future is refused."""
TICKET_BYTES: Final = 8_192
"""Longest ticket that is accepted, in bytes."""
KEY_BYTES: Final = 32
"""Shortest key, in bytes: as long as the digest (RFC 7518, section 3.2)."""
ALGORITHM: Final = "HS256"
AUDIENCE: Final = "bridgekit"


class _Claims(msgspec.Struct):
    exp: float
    jti: str
    sub: str
    thread: str
    iat: float = -math.inf
    """When the ticket was issued. A ticket of another program may lack it."""
    generation: str = ""
    """The generation of the set of used tickets when this ticket was issued, or an empty string if unknown."""


class Tickets:
    """Issues tickets, and authorizes the sockets that present them. All workers of an application need the same key.

    The first of `keys` signs new tickets, and all keys verify tickets, so that keys can be rotated while tickets are in
    use. Without `keys`, the object generates a random key, which works for a single process. `in_query` also accepts a
    ticket in the query parameter `ticket`, for clients that cannot use a subprotocol or a first message. Avoid
    `in_query`, because servers and proxies log URLs.
    """

    def __init__(
        self,
        threads: ThreadOwners,
        used_tickets: UsedTickets,
        *,
        keys: Sequence[bytes] = (),
        seconds: float = TICKET_SECONDS,
        in_query: bool = False,
    ) -> None:
        self._threads = threads
        self._used_tickets = used_tickets
        self.has_random_key = not keys
        """True if this object generated its key, so that no other worker accepts its tickets."""
        self._keys = tuple(keys) or (secrets.token_bytes(KEY_BYTES),)
        if not all(isinstance(key, bytes) for key in self._keys):
            raise InvalidId("keys", "must be a sequence of bytes, such as (key,)")
        if type(seconds) not in (int, float) or not math.isfinite(seconds):
            raise InvalidId("seconds", f"must be a finite number, not {seconds!r}")
        if (shortest := min(map(len, self._keys))) < KEY_BYTES:
            raise InvalidId(
                "key", f"must be at least {KEY_BYTES} bytes, not {shortest}; generate one with secrets.token_bytes"
            )
        self._seconds = seconds
        self._in_query = in_query

    def issue(self, user_id: str, thread_id: str) -> str:
        """Return a ticket for one socket of this user on this thread.

        Give the ticket only to that user. Raises InvalidId if an id is malformed.
        """
        now = time.time()
        claims = {
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + self._seconds,
            "jti": secrets.token_hex(16),
            "sub": ids.user_id(user_id),
            "thread": ids.thread_id(thread_id),
            "generation": self._used_tickets.generation,
        }
        return jwt.encode(claims, self._keys[0], algorithm=ALGORITHM)

    def awaits_message(self, handshake: Handshake) -> bool:
        return self._find_ticket(handshake) is None

    async def authorize(self, handshake: Handshake) -> Subscription:
        """Return the ticket's subscription. A `user_id` or `thread_id` in the query must match the ticket."""
        claims, key = self._verify(self._find_ticket(handshake))
        try:
            subscription = Subscription(ids.user_id(claims.sub), ids.thread_id(claims.thread), key)
        except InvalidId as error:
            raise SubscriptionRefused(CLOSE_BAD_TICKET, "the ticket contains no valid user id or thread id") from error
        if handshake.query.get("thread_id", subscription.thread_id) != subscription.thread_id:
            raise SubscriptionRefused(CLOSE_NOT_OWNER, "the ticket is for another thread")
        if handshake.query.get("user_id", subscription.user_id) != subscription.user_id:
            raise SubscriptionRefused(CLOSE_NOT_OWNER, "the ticket is for another user")
        await authorize_owner(self._threads, subscription)
        # Mark the ticket as used only after the checks above, so that a ticket that fails one of them stays usable.
        if not await self._used_tickets.mark_used(claims.jti, claims.exp - time.time() + CLOCK_SECONDS):
            raise SubscriptionRefused(CLOSE_TICKET_USED, "the ticket was used before; request a new one")
        if claims.generation not in ("", self._used_tickets.generation):
            problem = "used tickets were lost since the ticket was issued; request a new one"
            raise SubscriptionRefused(CLOSE_TICKET_EXPIRED, problem)
        return subscription

    def _find_ticket(self, handshake: Handshake) -> str | None:
        return handshake.offered_ticket or (handshake.query.get("ticket") if self._in_query else None)

    def _verify(self, ticket: str | None) -> tuple[_Claims, bytes]:
        if ticket is None or len(ticket) > TICKET_BYTES:
            raise SubscriptionRefused(CLOSE_BAD_TICKET, "no ticket" if ticket is None else "the ticket is too long")
        for key in self._keys:
            try:
                decoded = jwt.decode(
                    ticket, key, algorithms=[ALGORITHM], audience=AUDIENCE, options={"verify_iat": False}
                )
                claims = msgspec.convert(decoded, _Claims)
                if claims.iat > time.time() + CLOCK_SECONDS:
                    raise jwt.ImmatureSignatureError("issued in the future")
                return claims, key
            except jwt.ExpiredSignatureError as error:
                raise SubscriptionRefused(CLOSE_TICKET_EXPIRED, "the ticket has expired; request a new one") from error
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, msgspec.ValidationError, OverflowError, RecursionError) as error:
                # The message has no details, because they would help only a forger. (Older PyJWT versions raise
                # OverflowError and RecursionError.)
                raise SubscriptionRefused(CLOSE_BAD_TICKET, "the ticket is not valid") from error
        raise SubscriptionRefused(CLOSE_BAD_TICKET, "the ticket is not valid")
