"""Ids, checked at the border, and the ways to make a run id out of a thread id.

Nothing in the sound chain finds out a thread by reading a run id. The schemes stand here side by side because
the audit's first fix does just that, and because a caller in another process may hold nothing but a run id.
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
    "EmbeddedRunIds",
    "HexSource",
    "OpaqueRunIds",
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
"""Longest id accepted from outside, in UTF-8 bytes."""
RUN_ID_BYTES: Final = 2_048
"""Longest run id, in UTF-8 bytes: a sealed one carries a thread id of `ID_BYTES`, a third longer as base64."""

REQUEST_BYTES: Final = 65_536
"""Longest request of a user, in UTF-8 bytes. It travels in the run's first event and in its last."""

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

HexSource = Callable[[int], str]
"""Makes a text of that many random hexadecimal digits. Seeded in measurements, secret everywhere else."""


def thread_id(value: object) -> ThreadId:
    """Check a thread id from outside: a text of 1 to 1,024 bytes without control characters; else InvalidId."""
    return ThreadId(_checked("thread_id", value, ID_BYTES))


def user_id(value: object) -> UserId:
    """Check a user id from outside, by the rules of `thread_id`."""
    return UserId(_checked("user_id", value, ID_BYTES))


def run_id(value: object) -> RunId:
    """Check a run id from outside, by the rules of `thread_id`, up to 2,048 bytes."""
    return RunId(_checked("run_id", value, RUN_ID_BYTES))


def agent_name(value: object) -> str:
    """Check an agent's name, by the rules of `thread_id`."""
    return _checked("agent_name", value, ID_BYTES)


def request(value: object) -> str:
    """Check a user's request: a text of up to 65,536 bytes that UTF-8 can carry; line breaks are welcome."""
    if not isinstance(value, str):
        raise InvalidId("request", f"must be a text, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidId("request", "must be a text that UTF-8 can carry") from error
    if size > REQUEST_BYTES:
        raise InvalidId("request", f"must be at most {REQUEST_BYTES:,} bytes, not {size:,}")
    return value


def _checked(field: str, value: object, limit_bytes: int) -> str:
    if not isinstance(value, str):
        raise InvalidId(field, f"must be a text, not {type(value).__name__}")
    if not value.strip():
        raise InvalidId(field, "must not be empty")
    if found := _FORBIDDEN.search(value):
        raise InvalidId(field, f"must not contain the control character {found.group()!a}")
    if (size := len(value.encode())) > limit_bytes:
        raise InvalidId(field, f"must be at most {limit_bytes:,} bytes, not {size:,}")
    return value


def _secret_hexadecimal(digits: int) -> str:
    return secrets.token_hex((digits + 1) // 2)[:digits]


_count = itertools.count(1 << 60)  # its hexadecimal digits are 16, always
_process = os.urandom(8).hex()


def _reseed_after_fork() -> None:
    global _process
    _process = os.urandom(8).hex()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_reseed_after_fork)


def new_id() -> str:
    """32 hexadecimal digits that nobody else has, for events and tool calls: 64 random bits a process, and a count.

    Anybody can guess the next one. (128 random bits cost four times as much, a uuid4 sixteen times.)
    """
    return _process + hex(next(_count))[2:]  # noqa: FURB116  # half the time of a format


class RunIdScheme(Protocol):
    """Gives each run of a thread an id of its own."""

    def new(self, thread_id: ThreadId) -> RunId:
        """Make the id of a new run of that thread."""


class OpaqueRunIds:
    """`run_` and 12 hexadecimal digits, as audited: says nothing of the thread."""

    def __init__(self, hex_source: HexSource = _secret_hexadecimal) -> None:
        self._hexadecimal = hex_source

    def new(self, thread_id: ThreadId) -> RunId:
        return RunId(f"run_{self._hexadecimal(12)}")


class EmbeddedRunIds:
    """`run_{thread_id}_` and 8 hexadecimal digits: the audit's Fix 1.

    The thread can be read back only by a reader who knows where it ends, and 32 bits collide after about
    77,000 runs of one thread (p = 0.5, birthday bound).
    """

    def __init__(self, hex_source: HexSource = _secret_hexadecimal) -> None:
        self._hexadecimal = hex_source

    def new(self, thread_id: ThreadId) -> RunId:
        return RunId(f"run_{thread_id}_{self._hexadecimal(8)}")


class SignedRunIds:
    """`run_`, the thread id in base64url, a nonce and a seal: any thread id comes back, and only an unforged one.

    The seal is keyed BLAKE2b (RFC 7693, section 2.9). Give every process the same `key` (16 to 64 bytes) when
    they are to open each other's ids; by default the key is drawn anew.
    """

    def __init__(self, key: bytes | None = None, hex_source: HexSource = _secret_hexadecimal) -> None:
        self._key = secrets.token_bytes(32) if key is None else key
        if not 16 <= len(self._key) <= 64:
            raise InvalidId("key", f"must be 16 to 64 bytes, not {len(self._key)}")
        self._hexadecimal = hex_source

    def new(self, thread_id: ThreadId) -> RunId:
        body = f"run_{base64.urlsafe_b64encode(thread_id.encode()).decode()}.{self._hexadecimal(24)}"
        return RunId(f"{body}.{self._seal(body)}")

    def open(self, run_id: RunId) -> ThreadId:
        """Read back the thread id; InvalidId when the run id was not sealed with this key."""
        body, _, seal = _checked("run_id", run_id, RUN_ID_BYTES).rpartition(".")
        if not secrets.compare_digest(seal.encode(), self._seal(body).encode()):
            raise InvalidId("run_id", "was not sealed here, or was changed since")
        try:
            return ThreadId(base64.urlsafe_b64decode(body.removeprefix("run_").partition(".")[0]).decode())
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidId("run_id", "carries no thread id") from error

    def _seal(self, body: str) -> str:
        return hashlib.blake2b(body.encode(), key=self._key, digest_size=16).hexdigest()
