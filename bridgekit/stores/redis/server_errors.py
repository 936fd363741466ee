"""Interprets errors of a Redis server: their text, whether they concern one key, and when to try again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from typing import Final

from redis.exceptions import RedisError

__all__ = ["CONNECTION_ERRORS", "KeyProblem", "RetryDelay", "concerns_key", "error_message", "key_of"]

_log = logging.getLogger(__name__)

CONNECTION_ERRORS: Final = (RedisError, OSError, TimeoutError)
"""Errors of redis-py for a refused command or a lost connection. If the connection was lost, the server may have
executed the command."""
FOREIGN_VALUES: Final = (
    "WRONGTYPE",
    "the head of the thread has another format",
    "The ID specified in XADD",
    "attempt to ",
    "bad argument ",
)
"""Substrings of the error messages about a value that another program has written. The last two substrings are from
errors of Lua."""
REPORT_SECONDS: Final = 60.0
"""How long `/healthz` shows an error that concerns single keys."""


class RetryDelay:
    """Pauses between attempts.

    Each pause is random, so that workers do not retry at the same time. The longest pause doubles each time, up to one
    second.
    """

    FIRST_SECONDS: Final = 0.05
    LONGEST_SECONDS: Final = 1.0

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._seconds = self.FIRST_SECONDS

    def next(self) -> float:
        seconds, self._seconds = self._seconds, min(2 * self._seconds, self.LONGEST_SECONDS)
        return seconds * random.uniform(0.5, 1.0)


class KeyProblem:
    """The latest error that concerns single keys.

    `/healthz` shows the error until a minute after it last occurred. The error is logged once while it continues.
    """

    def __init__(self) -> None:
        self._text = ""
        self._reported_at = 0.0

    def __str__(self) -> str:
        return self._text if time.monotonic() - self._reported_at < REPORT_SECONDS else ""

    def report(self, problem: str, key: bytes | str | int) -> str:
        """Record the error, log it if it is new, and return its text with the key."""
        text = f"{problem} ({key.decode() if isinstance(key, bytes) else key})"
        if text != str(self):
            _log.warning("%s", text)
        self._text, self._reported_at = text, time.monotonic()
        return text


def error_message(error: BaseException) -> str:
    """Return the text of an error, or of the first error in a group, with the server's code.

    The text contains no URL, because a URL may contain a password.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    code = getattr(error, "status_code", None)
    return " ".join(filter(None, (code if code != "ERR" else None, str(error) or type(error).__name__)))


def concerns_key(problem: str) -> bool:
    """Return whether an error concerns only one key, under which another program has stored a value."""
    return any(text in problem for text in FOREIGN_VALUES)


def key_of(command: Sequence[bytes | str | int]) -> bytes | str | int:
    """Return a command's first key. In an FCALL command, the keys follow the function's name and the number of keys."""
    return command[3 if command[0] == "FCALL" else 1]
