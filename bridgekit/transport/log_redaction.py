"""Redaction of tickets in log records of servers and clients, which may log headers, addresses and messages."""

from __future__ import annotations

import logging
import re
from typing import Final

from bridgekit.transport.authorization import TICKET_PROTOCOL

__all__ = ["redact_tickets"]

HIDDEN: Final = "(hidden)"

# Matches a ticket in a subprotocol, in a query parameter, and in a message that the log may have truncated.
_TICKETS: Final = re.compile(
    rf"(?P<before>{re.escape(TICKET_PROTOCOL)}|\bticket=|[\"']ticket[\"']\s*:\s*[\"'])[^\s,;&\"'\]\[]+"
)


def redact_tickets(*loggers: str) -> None:
    """Replace tickets with "(hidden)" in the records of these loggers."""
    for name in loggers:
        logging.getLogger(name).addFilter(_redact)


def _redact(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    redacted = _TICKETS.sub(rf"\g<before>{HIDDEN}", text)
    if redacted != text:
        record.msg, record.args = redacted, ()
    return True
