"""Tickets do not belong in logs, whatever a server or a client writes down of headers, addresses and messages."""

from __future__ import annotations

import logging
import re
from typing import Final

from bridgekit.transport.authorization import TICKET_PROTOCOL

__all__ = ["redact_tickets"]

HIDDEN: Final = "(hidden)"

# As a subprotocol, as a query parameter, and as a message, whose end a log may have left out.
_TICKETS: Final = re.compile(
    rf"(?P<before>{re.escape(TICKET_PROTOCOL)}|\bticket=|[\"']ticket[\"']\s*:\s*[\"'])[^\s,;&\"'\]\[]+"
)


def redact_tickets(*loggers: str) -> None:
    """Have these loggers write "(hidden)" where a ticket would stand."""
    for name in loggers:
        logging.getLogger(name).addFilter(_hide)


def _hide(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    discreet = _TICKETS.sub(rf"\g<before>{HIDDEN}", text)
    if discreet != text:
        record.msg, record.args = discreet, ()
    return True
