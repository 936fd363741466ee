"""Who may have which thread's events: decided before a socket is attached to anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from starlette.requests import HTTPConnection

from bridgekit.errors import InvalidId, SubscriptionRefused
from bridgekit.ids import ThreadId, UserId, thread_id, user_id

__all__ = [
    "CLOSE_BAD_REQUEST",
    "CLOSE_DRAINED",
    "CLOSE_NOT_OWNER",
    "CLOSE_TOO_SLOW",
    "Admission",
    "OwnersOnly",
    "Subscription",
    "ThreadOwners",
]

# 4000-4499 ask the client to connect again, 4500-4999 are final: the split that Centrifugo uses.
CLOSE_DRAINED: Final = 4_000
CLOSE_TOO_SLOW: Final = 4_008
CLOSE_BAD_REQUEST: Final = 4_500
CLOSE_NOT_OWNER: Final = 4_503


@dataclass(frozen=True, slots=True)
class Subscription:
    """The one thread a socket is for, and whose socket it is."""

    user_id: UserId
    thread_id: ThreadId


class ThreadOwners(Protocol):
    """What admission needs of a thread store."""

    async def owner_of(self, thread_id: ThreadId) -> UserId | None:
        """The thread's owner, or None when there is no such thread."""


class Admission(Protocol):
    """Turns a handshake into a subscription, or raises SubscriptionRefused."""

    async def admit(self, request: HTTPConnection) -> Subscription: ...


class OwnersOnly:
    """Admits a thread's owner, named by the query parameters `user_id` and `thread_id`.

    It believes who the user says he is: put it behind something that has checked that.
    """

    def __init__(self, threads: ThreadOwners) -> None:
        self._threads = threads

    async def admit(self, request: HTTPConnection) -> Subscription:
        try:
            asked = Subscription(
                user_id(request.query_params.get("user_id")), thread_id(request.query_params.get("thread_id"))
            )
        except InvalidId as error:
            raise SubscriptionRefused(CLOSE_BAD_REQUEST, str(error)) from error
        # One answer for "no such thread" and "not yours": the difference is nobody else's business.
        if await self._threads.owner_of(asked.thread_id) != asked.user_id:
            raise SubscriptionRefused(CLOSE_NOT_OWNER, "no such thread of this user")
        return asked
