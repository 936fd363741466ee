"""Validates ids that come from callers and clients, and creates run ids and event ids.

The sound chain never derives a thread from a run id. A caller in another process that has only a signed run id can get
the thread from `SignedRunIds.verify`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import os
import re
import secrets
import sys
from collections.abc import Callable
from typing import Final, NewType, Protocol

from bridgekit.errors import InvalidId

__all__ = [
    "ID_BYTES",
    "REQUEST_BYTES",
    "RUN_ID_BYTES",
    "HexSource",
    "RunId",
    "RunIdScheme",
    "SignedRunIds",
    "ThreadId",
    "UserId",
    "agent_name",
    "new_id",
    "request",
    "run_id",
    "thread_id",
    "user_id",
]

RunId = NewType("RunId", str)
ThreadId = NewType("ThreadId", str)
UserId = NewType("UserId", str)

ID_BYTES: Final = 1_024
"""Size limit of a thread id, a user id and an agent name, in bytes of UTF-8."""
RUN_ID_BYTES: Final = 2_048
"""Size limit of a run id, in bytes of UTF-8. A signed run id contains a thread id of up to `ID_BYTES` bytes in base64,
which adds a third to its length."""

REQUEST_BYTES: Final = 65_536
"""Size limit of a user's request, in bytes of UTF-8. The run's first event contains the request, and an `agent_error`
contains the request if the request fits into the frame."""

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

HexSource = Callable[[int], str]
"""Returns a string of the given number of random hexadecimal digits. The default source is cryptographically secure.
Measurements pass a seeded source."""


def thread_id(value: object) -> ThreadId:
    """Validate a thread id.

    A valid id is a string of 1 to 1,024 bytes of UTF-8 that is not blank and has no control characters and no
    surrogates. Raises InvalidId otherwise.
    """
    return ThreadId(_checked("thread_id", value, ID_BYTES))


def user_id(value: object) -> UserId:
    """Validate a user id, by the rules of `thread_id`."""
    return UserId(_checked("user_id", value, ID_BYTES))


def run_id(value: object) -> RunId:
    """Validate a run id, by the rules of `thread_id` but with a limit of 2,048 bytes."""
    return RunId(_checked("run_id", value, RUN_ID_BYTES))


def agent_name(value: object) -> str:
    """Validate an agent's name, by the rules of `thread_id`."""
    return _checked("agent_name", value, ID_BYTES)


def request(value: object) -> str:
    """Validate a user's request.

    A valid request is a string of at most 65,536 bytes of UTF-8. A request may be empty and may contain line breaks.
    Raises InvalidId otherwise.
    """
    if not isinstance(value, str):
        raise InvalidId("request", f"must be a string, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidId("request", "must be a string that UTF-8 can encode") from error
    if size > REQUEST_BYTES:
        raise InvalidId("request", f"must be at most {REQUEST_BYTES:,} bytes, not {size:,}")
    return value


def _checked(field: str, value: object, limit_bytes: int) -> str:
    if not isinstance(value, str):
        raise InvalidId(field, f"must be a string, not {type(value).__name__}")
    if not value.strip():
        raise InvalidId(field, "must not be empty")
    if found := _FORBIDDEN.search(value):
        raise InvalidId(field, f"must not contain the control character {found.group()!a}")
    if (size := len(value.encode())) > limit_bytes:
        raise InvalidId(field, f"must be at most {limit_bytes:,} bytes, not {size:,}")
    return value


def _secret_hexadecimal(digits: int) -> str:
    return secrets.token_hex((digits + 1) // 2)[:digits]


_count = itertools.count(1 << 60)  # starts at 2**60 so that every value has 16 hexadecimal digits
_process = os.urandom(8).hex()


def _reseed_after_fork() -> None:
    global _process
    _process = os.urandom(8).hex()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_reseed_after_fork)


def new_id() -> str:
    """Return a unique id of 32 hexadecimal digits, for events and tool calls.

    An id consists of 64 random bits, the same for the whole process, and a counter. The ids are predictable, so they
    must not serve as secrets. (An id of 128 random bits takes four times as long to create, and a uuid4 sixteen times.)
    """
    return _process + hex(next(_count))[2:]  # noqa: FURB116  # takes half the time of a format string


class RunIdScheme(Protocol):
    """Creates the ids of runs."""

    def new(self, thread_id: ThreadId) -> RunId:
        """Create an id for a new run of the thread."""


class SignedRunIds:
    """Run ids that consist of `run_`, the thread id in base64url, a nonce and a signature.

    `verify` recovers any thread id, and rejects a run id that was forged or changed.
    The signature is keyed BLAKE2b (RFC 7693, section 2.9). Processes that verify each other's ids need the same `key`
    (16 to 64 bytes). By default, each instance uses a new random key.
    """

    def __init__(self, key: bytes | None = None, hex_source: HexSource = _secret_hexadecimal) -> None:
        self._key = secrets.token_bytes(32) if key is None else key
        if not 16 <= len(self._key) <= 64:
            raise InvalidId("key", f"must be 16 to 64 bytes, not {len(self._key)}")
        self._hexadecimal = hex_source

    def new(self, thread_id: ThreadId) -> RunId:
        body = f"run_{base64.urlsafe_b64encode(thread_id.encode()).decode()}.{self._hexadecimal(24)}"
        return RunId(f"{body}.{self._sign(body)}")

    def verify(self, run_id: RunId) -> ThreadId:
        """Check the signature and return the thread id.

        Raises InvalidId if the run id is not valid, was not signed with this key, or contains no thread id.
        """
        body, _, signature = _checked("run_id", run_id, RUN_ID_BYTES).rpartition(".")
        if not secrets.compare_digest(signature.encode(), self._sign(body).encode()):
            raise InvalidId("run_id", "was not signed with this key, or was changed afterwards")
        try:
            return ThreadId(base64.urlsafe_b64decode(body.removeprefix("run_").partition(".")[0]).decode())
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidId("run_id", "contains no thread id") from error

    def _sign(self, body: str) -> str:
        return hashlib.blake2b(body.encode(), key=self._key, digest_size=16).hexdigest()
