"""What a client may say: its ticket, in its first message, where none came in the handshake."""

from __future__ import annotations

from typing import Final

import msgspec

from bridgekit.errors import SubscriptionRefused
from bridgekit.transport.authorization import CLOSE_BAD_TICKET

__all__ = ["INCOMING_BYTES", "ticket_in"]

INCOMING_BYTES: Final = 16_384
"""Largest frame that a client may send: it has nothing to say but its ticket."""


class _FirstMessage(msgspec.Struct, tag_field="type", tag="authorise"):
    ticket: str


def ticket_in(message: str | bytes) -> str:
    """The ticket in a message `{"type": "authorise", "ticket": "…"}`; SubscriptionRefused where there is none."""
    if len(message) > INCOMING_BYTES:
        raise SubscriptionRefused(CLOSE_BAD_TICKET, f"the first message is longer than {INCOMING_BYTES:,} bytes")
    try:
        return msgspec.json.decode(message, type=_FirstMessage).ticket
    except (msgspec.DecodeError, UnicodeError) as error:
        raise SubscriptionRefused(CLOSE_BAD_TICKET, "the first message is to bring a ticket") from error
