"""Creates the text of an error for the user: type and message of its causes, shortened, with likely secrets replaced.

The log gets the whole error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final

__all__ = ["ERROR_BYTES", "ErrorText", "bounded_error_text", "causes_of", "is_cancellation", "user_error_text"]

logger = logging.getLogger(__name__)

ERROR_BYTES: Final = 4_096
"""Size limit of an error text that is sent to a user, in bytes of UTF-8."""
MAX_CAUSES: Final = 3
"""The text of an exception group contains at most three of its errors."""
HIDDEN: Final = "***"

_NAMES: Final = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret(?!ary)|token(?!s|iz)|credential|csrf|jwt|session[-_]?id"
    r"|auth(?=\s*=\s*\()|\bsig(?:nature)?(?=[\w-]*=)|(?:api|account|access|private|encryption|signing"
    r"|master|subscription)[-_ ]?key)[\w-]{0,64}"
)
"""Names whose values are secrets."""
_SECRETS: Final = (
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,31}://)[^\s'\"<>]{0,256}@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(?is)-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*-----|\Z)"), HIDDEN),
    (re.compile(r"(?i)\b(authorization|(?:set-)?cookie)(['\"]?\s*[:=,])[^\n]*"), rf"\1\2 {HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)([\s:]+)(?=[a-z]*[^a-z\s])[\w.~+/=-]{6,}"), rf"\1\2{HIDDEN}"),
    (
        re.compile(
            rf"(?i)({_NAMES}['\"]?\s*(?:=>|[:=])\s*)"
            r"(?:b?\"(?:\\.|[^\"\\])*\"?|b?'(?:\\.|[^'\\])*'?|\([^)]*|[^\s,;&)\]}]+)"
        ),
        rf"\1{HIDDEN}",
    ),
    # A secret in a command line, or in a sentence such as "API key 'abc' is invalid".
    (re.compile(rf"(?i)(?<![\w-])(--[\w-]{{0,32}}?{_NAMES}\s+)\S+"), rf"\1{HIDDEN}"),
    (
        re.compile(r"(?i)\b((?:password|api[-_ ]?key)\s+(?:is\s+)?)(?:(['\"]).*?\2|(?=[^\s\d]*\d)\S{6,})"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/\S+"), rf"\1/{HIDDEN}"),
    # Keys with the prefixes of known providers.
    (
        re.compile(
            r"\b(?:sk|pk|rk|hf|r8|gh[opsur]|github_pat|glpat|gsk|npm|nvapi|pcsk|pypi|dop_v1|lsv2|tvly|whsec|xai|xapp"
            r"|xox[a-z])[-_][\w-]{8,}|\b(?:SG|hvs|ya29)\.[\w.-]{12,}|\b(?:AKIA|ASIA|AIza|ATATT|LTAI|eyJ)[\w.-]{12,}"
        ),
        HIDDEN,
    ),
    # A key of AWS.
    (
        re.compile(
            r"(?<![\w+/.=-])(?=[A-Za-z+/]*\d)(?=[A-Z\d+/]*[a-z])(?=[a-z\d+/]*[A-Z])[\w+][\w+/]{39}(?![\w+/.=-])"
        ),
        HIDDEN,
    ),
    # Keys and hashes: long words of letters and digits, except UUIDs.
    (
        re.compile(
            r"(?<![\w+-])(?![\da-fA-F]{8}-(?:[\da-fA-F]{4}-){3}[\da-fA-F]{12}\b)"
            r"(?=[\w+-]*\d)(?=[\w+-]*[A-Za-z])[\w+=-]{32,}"
        ),
        HIDDEN,
    ),
)
"""Patterns of likely secrets, each with its replacement. Each pattern takes linear time, because users may influence
error messages."""

ErrorText = Callable[[BaseException], str]
"""A function that returns the text that the user of a failed run or tool gets."""


def user_error_text(error: BaseException) -> str:
    """Return type and message of the error, or of the errors in a group, with likely secrets replaced."""
    causes = causes_of(error)
    texts = [_text_of(cause) for cause in causes[:MAX_CAUSES]]
    more = len(causes) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def bounded_error_text(choose: ErrorText, error: BaseException) -> str:
    """Return the text that `choose` returns, shortened and made encodable, so that a frame can carry it. Never raises.

    A text that no frame can carry would hide the agent's error and leave the run without an end event.
    """
    try:
        return _encodable(choose(error))
    except BaseException:
        logger.exception("error_text failed for an error of type %s", type(error).__name__)
        return _encodable(type(error).__name__)


_errors_in: Final[Callable[[BaseException], tuple[BaseException, ...]]] = BaseExceptionGroup.exceptions.__get__


def causes_of(error: BaseException) -> list[BaseException]:
    """Return the errors in an exception group and its nested groups, in order, or `[error]` if it is not a group.

    Cancellations are left out, except for the first one if there is no other error.
    """
    found, waiting = list[BaseException](), [error]
    while waiting:
        each = waiting.pop()
        # `type` and `_errors_in` bypass attributes that the error's class may override.
        if issubclass(type(each), BaseExceptionGroup):
            waiting += reversed(_errors_in(each))
        else:
            found.append(each)
    return [each for each in found if not is_cancellation(each)] or found[:1]


def is_cancellation(error: BaseException) -> bool:
    """Return whether this is the exception that asyncio or trio raises in a cancelled task."""
    return type(error).__name__ in ("CancelledError", "Cancelled") and not issubclass(type(error), Exception)


def _text_of(error: BaseException) -> str:
    name = type(error).__name__
    if is_cancellation(error):
        return "Cancelled: the run was cancelled"
    try:
        message = str(error)[: 4 * ERROR_BYTES]
    except BaseException:  # noqa: BLE001  # the error's own `__str__` fails
        return f"{name}: its message could not be formatted"
    for pattern, replacement in _SECRETS:
        message = pattern.sub(replacement, message)
    return f"{name}: {message}" if message else name


def _encodable(text: str) -> str:
    return str.encode(text, errors="replace")[:ERROR_BYTES].decode(errors="ignore")
