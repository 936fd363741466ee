"""Creates an error's text for the user: the types and messages of its causes, shortened and without secrets.

The Python logger gets the whole error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from bridgekit.errors import text_for_users

__all__ = ["ERROR_BYTES", "ErrorText", "bounded_error_text", "causes_of", "is_cancellation", "user_error_text"]

logger = logging.getLogger(__name__)

ERROR_BYTES: Final = 4_096
"""Size limit of an error text that is sent to a user, in bytes of UTF-8."""
MAX_CAUSES: Final = 3
"""The text of an exception group contains at most three of its errors."""

ErrorText = Callable[[BaseException], str]
"""A function from the error of a run or a tool to the text for the user."""


def user_error_text(error: BaseException) -> str:
    """Return the text of the error, or of the errors in a group: see `bridgekit.errors.text_for_users`."""
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

    Cancellations are left out. If there is no other error, the list contains only the first cancellation.
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
    """Return whether the error is the exception that asyncio or trio raises in a cancelled task."""
    return type(error).__name__ in ("CancelledError", "Cancelled") and not issubclass(type(error), Exception)


def _text_of(error: BaseException) -> str:
    return "Cancelled: the run was cancelled" if is_cancellation(error) else text_for_users(error)


def _encodable(text: str) -> str:
    return str.encode(text, errors="replace")[:ERROR_BYTES].decode(errors="ignore")
