"""Kinds of thread ids, called families: six documented families, seven stress families, and the reader's own.

The families are chosen, not sampled, and each result is deterministic. Report the delivered events of each family and
the number of affected families, but never a sum over families.
"""

from __future__ import annotations

import random
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from bridgekit import ids
from bridgekit.errors import InvalidId
from bridgekit.ids import ThreadId, UserId
from bridgekit_verify.errors import InvalidParameter, UnknownFamily

__all__ = [
    "FAMILIES",
    "Citation",
    "Families",
    "Family",
    "OwnedThread",
    "families_by_name",
    "own_threads",
    "thread_ids",
    "threads_by_family",
]


@dataclass(frozen=True, slots=True)
class OwnedThread:
    """A thread and the user who owns it."""

    thread_id: ThreadId
    user_id: UserId


@dataclass(frozen=True, slots=True)
class Citation:
    """The file in a public repository in which thread ids of a family were found."""

    file: str
    commit: str
    shape: str
    """A paraphrase of what the file contains."""
    repository: str = "netra-systems/zen"

    def __str__(self) -> str:
        return f"{self.repository}, commit {self.commit}, {self.file}: {self.shape}"


IdGenerator = Callable[[int, random.Random], str]
"""Creates the thread id with a given number, counted from 0."""

_USERS: Final = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
_NAMES: Final = ("smith", "jones", "support_case", "holiday_plans")


@dataclass(frozen=True)
class Family:
    """One kind of thread id."""

    name: str
    generate: IdGenerator
    source: Citation | None = None
    """Where ids of this kind occur, or None for stress families and for a reader's own ids."""
    own: int | None = None
    """The number of ids in a reader's own family, or None for a family that generates as many as requested."""

    @property
    def group(self) -> Literal["documented", "stress", "your own"]:
        """The origin of the ids: audit or public history ("documented"), this suite ("stress"), or the reader."""
        return "your own" if self.own is not None else "documented" if self.source else "stress"

    @property
    def documented(self) -> bool | None:
        """Whether ids of this kind occur in the audit or the public history, or None for a reader's own ids."""
        return None if self.own is not None else self.source is not None

    def threads(self, count: int, *, seed: int = 0) -> tuple[OwnedThread, ...]:
        """Return `count` threads, each with its own user. A reader's own family returns all of its threads."""
        source = random.Random(f"{seed}:{self.name}")
        return tuple(
            OwnedThread(ThreadId(self.generate(number, source)), UserId(f"{_USERS[number % 8]}-{number}"))
            for number in range(count if self.own is None else self.own)
        )


Families = str | Iterable[str] | Mapping[str, Family | Iterable[str]]
"""A choice of families: a name, several names, or a mapping from names to families or to a reader's own thread ids."""


def _named(number: int, source: random.Random) -> str:
    """Return an id such as `thread_alice_smith`. After 32 different ids, a number is appended."""
    repetition = number // 32
    return f"thread_{_USERS[number // 4 % 8]}_{_NAMES[number % 4]}" + (f"_{repetition}" if repetition else "")


def _uuid(source: random.Random) -> UUID:
    return UUID(int=source.getrandbits(128), version=4)


FAMILIES: Final[Mapping[str, Family]] = {
    family.name: family
    for family in (
        Family(
            "thread_123",
            lambda number, source: f"thread_{123 + number}",
            Citation(
                "WEBSOCKET_BRIDGE_PROPAGATION_AUDIT_20250902.md",
                "ced61c673",
                "the audit of this commit, with its only example of a thread id",
            ),
        ),
        Family(
            "thread_<16 hex>",
            lambda number, source: f"thread_{source.getrandbits(64):016x}",
            Citation("app/routes/threads_route.py", "b9ba07f78", "a new thread gets 16 digits of a uuid4"),
        ),
        Family(
            "thread_<user>_<name>",
            _named,
            Citation(
                "tests/mission_critical/test_websocket_bridge_thread_resolution.py",
                "e20f5ed7c",
                "thread ids that name a user and a session, with underscores",
            ),
        ),
        Family(
            "thread_<user>_<epoch>",
            lambda number, source: f"thread_{_USERS[number % 8]}_{1_756_800_000 + number}",
            Citation(
                "netra_backend/app/services/factory_adapter.py",
                "05239d6b5",
                "a request context without a thread gets the user id and the time in seconds",
            ),
        ),
        Family(
            "thread_<op>_<n>_<8 hex>",
            lambda number, source: f"thread_chat_{number}_{source.getrandbits(32):08x}",
            Citation(
                "SSOT-dual-systems-unified-id-manager-conflict.md",
                "514a29b71",
                "the pattern of one of two competing generators: operation, counter, random digits",
            ),
        ),
        Family(
            "session_<ms>_<8 hex>",
            lambda number, source: f"session_{(10_000 + number) % 100_000}_{source.getrandbits(32):08x}",
            Citation(
                "netra_backend/app/core/unified_id_manager.py",
                "022a320ae",
                "the last five digits of the time in milliseconds, and eight digits of a uuid4",
            ),
        ),
        Family("thread_<uuid4>", lambda number, source: f"thread_{_uuid(source)}"),
        Family("chat_<n>", lambda number, source: f"chat_{number}"),
        Family("<uuid4>", lambda number, source: str(_uuid(source))),
        Family(
            "starts with another id",
            lambda number, source: f"thread_team{number // 3}{('', '_red', '_red_lead')[number % 3]}",
        ),
        Family("contains _run_", lambda number, source: f"thread_run_{number}_run_{number}"),
        Family("spaces and unicode", lambda number, source: f"thread_Zürich {number} · 東京"),
        Family("1 kB", lambda number, source: f"thread_{number}".ljust(1_024, "x")),
    )
}
"""The families by name: first the documented families, then the stress families."""


def families_by_name(chosen: Families) -> dict[str, Family]:
    """Return the chosen families by name. A choice may be `{**FAMILIES, "mine": ["support-42", "support-43"]}`.

    Raises UnknownFamily if a name is unknown, and InvalidParameter or InvalidId if a value is not allowed.
    """
    given: object = chosen
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InvalidParameter(
            "families", given, "a name, a list of names, or a mapping such as {'mine': ['support-42']}"
        )
    if isinstance(chosen, str):
        chosen = (chosen,)
    if isinstance(chosen, Mapping):
        found = {name: _family(name, value) for name, value in chosen.items()}
    else:
        found = {name: _known(name) for name in chosen}
    if not found:
        raise InvalidParameter("families", chosen, "at least one family of thread ids")
    return found


def threads_by_family(
    families: Mapping[str, Family], threads: int, *, seed: int = 0
) -> dict[str, tuple[OwnedThread, ...]]:
    """Return at most `threads` threads of each family, without ids that an earlier family already contains."""
    taken: set[ThreadId] = set()
    found = {}
    for name, family in families.items():
        found[name] = tuple(each for each in family.threads(threads, seed=seed) if each.thread_id not in taken)
        taken |= {each.thread_id for each in found[name]}
    return found


def thread_ids(name: str, threads: int, *, seed: int = 0) -> tuple[OwnedThread, ...]:
    """Return `threads` threads of a family, each with its own user. Raises UnknownFamily."""
    return _known(name).threads(threads, seed=seed)


def own_threads(thread_ids: Iterable[str]) -> tuple[OwnedThread, ...]:
    """Return a reader's own threads for a `Workload`, each with its own user.

    Raises InvalidId for an id that is not allowed or occurs twice, and InvalidParameter if `thread_ids` is not a list
    of ids.
    """
    return _own_family("thread_ids", "own", thread_ids).threads(0)


def _known(name: object) -> Family:
    if not isinstance(name, str) or name not in FAMILIES:
        raise UnknownFamily(name, tuple(FAMILIES))
    return FAMILIES[name]


def _family(name: object, value: Family | Iterable[str]) -> Family:
    if not isinstance(name, str) or not name.strip():
        raise InvalidParameter("the name of a family", name, "a string that is not blank")
    return value if isinstance(value, Family) else _own_family(f"families[{name!r}]", name, value)


def _own_family(argument: str, name: str, thread_ids: object) -> Family:
    if isinstance(thread_ids, str | bytes) or not isinstance(thread_ids, Iterable):
        raise InvalidParameter(argument, thread_ids, "a list of thread ids, such as ['support-42']")
    own: dict[ThreadId, None] = {}
    for index, value in enumerate(thread_ids):
        try:
            own_id = ids.thread_id(value)
        except InvalidId as invalid:
            raise InvalidId(
                f"{argument}[{index}] = {reprlib.repr(value)}",
                f"{invalid.problem}. A thread id is a string of 1 to {ids.ID_BYTES:,} bytes of UTF-8, not blank and"
                " without control characters",
            ) from None
        if own_id in own:
            raise InvalidId(f"{argument}[{index}]", f"{reprlib.repr(value)} occurs twice: list each thread id once")
        own[own_id] = None
    if not own:
        raise InvalidParameter(argument, thread_ids, "a list of at least one thread id, such as ['support-42']")
    in_order = tuple(own)
    return Family(name, lambda number, source: in_order[number], own=len(in_order))
