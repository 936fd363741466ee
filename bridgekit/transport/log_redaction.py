"""Redacts tickets and credentials in the log records of servers and clients."""

from __future__ import annotations

import logging
import re
from traceback import format_exception
from typing import Final
from urllib.parse import unquote

from bridgekit.transport.authorization import TICKET_PROTOCOL

__all__ = ["redact_tickets"]

HIDDEN: Final = "(hidden)"

# Matches a ticket in a subprotocol, in a query parameter, in a message (which may be truncated), or by itself.
_TICKETS: Final = re.compile(
    rf"(?P<before>{re.escape(TICKET_PROTOCOL)}|\bticket=|[\"']ticket[\"']\s*:\s*[\"']"
    r"|\b(?=eyJ[\w-]{6,}\.[\w-]))[^\s,;&\"'\]\[]+"
)
_HEADER: Final = "(?:(?:proxy-)?authorization|(?:set-)?cookie)"
_CREDENTIALS: Final = re.compile(rf"""(?im)(^[<>] {_HEADER}:|["']{_HEADER}["'][:,]) .+""")
"""Matches a header with credentials, as servers and clients log it, or as in the text of a dictionary or of pairs."""


def redact_tickets(*loggers: str) -> None:
    """Replace tickets, cookies and authorization headers with "(hidden)" in the records of these loggers."""
    for name in loggers:
        logging.getLogger(name).addFilter(_redact)


def _redact(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    if (redacted := _hide(text)) != text:
        # Keep the arguments if possible, because the formatter of uvicorn's access log needs them.
        if isinstance(record.args, tuple):
            record.args = tuple(_hide(each) if isinstance(each, str) else each for each in record.args)
        if (text := record.getMessage()) != _hide(text):
            record.msg, record.args = redacted, ()
    if record.exc_info:
        trace = "".join(format_exception(*record.exc_info)).rstrip()
        if (redacted := _hide(trace)) != trace:
            record.exc_info, record.exc_text = None, redacted
    return True


def _hide(text: str) -> str:
    redacted = _CREDENTIALS.sub(rf"\1 {HIDDEN}", _TICKETS.sub(rf"\g<before>{HIDDEN}", text))
    # A client may percent-encode any character of a ticket or of its parameter's name, because the server decodes the
    # query.
    decoded = unquote(redacted)
    return _TICKETS.sub(rf"\g<before>{HIDDEN}", decoded) if "%" in redacted and _shows_ticket(decoded) else redacted


def _shows_ticket(text: str) -> bool:
    return any(HIDDEN not in found[0] for found in _TICKETS.finditer(text))
