"""Thread ids as they occur in use, grouped into families by the shape of the id."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from bridgekit.errors import UnknownName
from bridgekit.ids import ThreadId, UserId

__all__ = ["FAMILIES", "OwnedThread", "thread_ids"]


@dataclass(frozen=True, slots=True)
class OwnedThread:
    """A thread and the user who owns it."""

    thread_id: ThreadId
    user_id: UserId


def _numbered(number: int, source: random.Random) -> str:
    return f"thread_{123 + number}"


def _hexadecimal(number: int, source: random.Random) -> str:
    return f"thread_{source.getrandbits(64):016x}"


def _uuid(source: random.Random) -> UUID:
    return UUID(int=source.getrandbits(128), version=4)


_USERS: Final = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
_NAMES: Final = ("smith", "jones", "support_case", "holiday_plans")

IdGenerator = Callable[[int, random.Random], str]

FAMILIES: Final[dict[str, IdGenerator]] = {
    "thread_123": _numbered,
    "thread_<16 hex>": _hexadecimal,
    "thread_<uuid4>": lambda number, source: f"thread_{_uuid(source)}",
    "thread_<user>_<name>": lambda number, source: f"thread_{_USERS[number // 4 % 8]}_{_NAMES[number % 4]}",
    "thread_<user>_<epoch>": lambda number, source: f"thread_{_USERS[number % 8]}_{1_756_800_000 + number}",
    "thread_<op>_<n>_<8 hex>": lambda number, source: f"thread_chat_{number}_{source.getrandbits(32):08x}",
    "session_<ms>_<8 hex>": lambda number, source: f"session_{1_756_800_000_000 + number}_{source.getrandbits(32):08x}",
    "chat_<n>": lambda number, source: f"chat_{number}",
    "<uuid4>": lambda number, source: str(_uuid(source)),
    "prefixes of one another": lambda number, source: (
        f"thread_team{number // 3}{('', '_red', '_red_lead')[number % 3]}"
    ),
    "contains _run_": lambda number, source: f"thread_run_{number}_run_{number}",
    "spaces and unicode": lambda number, source: f"thread_Zürich {number} · 東京",
    "1 kB": lambda number, source: f"thread_{number}".ljust(1_024, "x"),
}
"""Generators of thread ids, by the shape of the id."""


def thread_ids(name: str, threads: int, *, seed: int = 0) -> tuple[OwnedThread, ...]:
    """Return `threads` threads of the named family, each with its own user. UnknownName lists the families."""
    if name not in FAMILIES:
        raise UnknownName("family of thread ids", name, tuple(FAMILIES))
    source = random.Random(f"{seed}:{name}")
    return tuple(
        OwnedThread(ThreadId(FAMILIES[name](number, source)), UserId(f"{_USERS[number % 8]}-{number}"))
        for number in range(threads)
    )
