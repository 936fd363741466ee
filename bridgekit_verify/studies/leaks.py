"""From loss to leak: where the audit's Fix 1, read by Fix 2's parser, sends the events of any set of thread ids.

The parser takes one word of the thread id for the whole of it. Where no thread is called so, the event is lost;
where one is, its owner reads what was said to somebody else. So whether an id is safe depends on which other ids there
are, and that can be found out without a socket. The shortest leak is then carried over real ones.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bridgekit.ids import ThreadId, UserId
from bridgekit_verify.measure.experiment import Measurement, measure_each
from bridgekit_verify.measure.tables import rate_table, transcript
from bridgekit_verify.measure.workload import FAMILIES, Owned, Workload, family
from bridgekit_verify.studies.leak_search import READINGS, Reading, Search, parsed, search, search_table
from bridgekit_verify.variants import FIX_1, SOUND

__all__ = ["Fate", "Landing", "LeakStudy", "landings", "population_table", "populations", "study_leaks"]


class Fate(enum.StrEnum):
    """What becomes of one thread's events."""

    DELIVERED = "delivered"
    LOST = "lost"
    WRONG_THREAD = "another thread of the same user"
    LEAKED = "another user's thread"


@dataclass(frozen=True, slots=True)
class Landing:
    """A thread, and the real thread that its events land in; None when they land nowhere."""

    owned: Owned
    lands_in: Owned | None

    @property
    def fate(self) -> Fate:
        if self.lands_in is None:
            return Fate.LOST
        if self.lands_in.thread_id == self.owned.thread_id:
            return Fate.DELIVERED
        return Fate.WRONG_THREAD if self.lands_in.user_id == self.owned.user_id else Fate.LEAKED


def landings(threads: Sequence[Owned], reading: Reading = parsed) -> list[Landing]:
    """Where the events of each of these threads land, among these threads. Pure: no chain, no socket.

    ValueError when two of them have one id: then nobody can say whose it is.
    """
    there = {owned.thread_id: owned for owned in threads}
    if len(there) < len(threads):
        raise ValueError("two threads have one id")
    found = [reading(owned.thread_id) for owned in threads]
    return [Landing(owned, there.get(to) if to else None) for owned, to in zip(threads, found, strict=True)]


def populations(threads: int, *, seed: int = 0) -> dict[str, tuple[Owned, ...]]:
    """Sets of threads to classify: each family alone, all families together, and these beside one more sort of id.

    The last set adds one `thread_<word>` for each first word that a longer id has: the id of someone who came
    earlier, or of a team whose members have theirs.
    """
    alone = {name: family(name, threads, seed=seed) for name in FAMILIES}
    together = tuple(
        Owned(owned.thread_id, UserId(f"{owned.user_id}, {name}")) for name, row in alone.items() for owned in row
    )
    taken = {owned.thread_id for owned in together}
    named = (owned.thread_id.split("_") for owned in together if owned.thread_id.startswith("thread_"))
    short = dict.fromkeys(ThreadId(f"thread_{words[1]}") for words in named if len(words) > 2)
    first = tuple(Owned(thread, UserId(f"owner of {thread}")) for thread in short if thread not in taken)
    return alone | {"all families together": together, "all families and thread_<word>": together + first}


def population_table(sets: Mapping[str, Sequence[Owned]], reading: Reading = parsed) -> pd.DataFrame:
    """One row a set of threads: how many are delivered, lost and leaked, and of which ordered pairs of owners.

    Columns: thread ids, threads, delivered, lost, leaked, owner pairs, pairs that leak, an example.
    """
    return pd.DataFrame([_summary(name, landings(threads, reading)) for name, threads in sets.items()])


def _summary(name: str, landed: Sequence[Landing]) -> dict[str, object]:
    fates = Counter(landing.fate for landing in landed)
    pairs = {(row.owned.user_id, row.lands_in.user_id): row for row in landed if row.lands_in and _leaks(row)}
    owners = len({landing.owned.user_id for landing in landed})
    example = next(iter(pairs.values()), None)
    return {
        "thread ids": name,
        "threads": len(landed),
        "delivered": fates[Fate.DELIVERED],
        "lost": fates[Fate.LOST],
        "leaked": fates[Fate.LEAKED],
        "owner pairs": owners * (owners - 1),
        "pairs that leak": len(pairs),
        "example": f"{example.owned.thread_id} → {example.lands_in.thread_id}" if example and example.lands_in else "",
    }


def _leaks(landing: Landing) -> bool:
    return landing.fate is Fate.LEAKED


@dataclass(frozen=True)
class LeakStudy:
    """Sets of ids classified, the searches, and the shortest leak over real sockets."""

    sets: Mapping[str, tuple[Owned, ...]]
    searches: tuple[Search, ...]
    """One for each of `READINGS`, in their order."""
    confirmed: tuple[Measurement, ...]
    """The shortest leak's two threads through Fix 1 and through the sound chain."""

    @property
    def shortest(self) -> tuple[ThreadId, ThreadId]:
        """The two ids of the shortest leak of Fix 1."""
        return self.searches[0].shortest

    def populations(self) -> pd.DataFrame:
        """What `population_table` says of the sets, under Fix 1 with the parser."""
        return population_table(self.sets)

    def found(self) -> pd.DataFrame:
        """What the searches found: the columns of `search_table`."""
        return search_table(self.searches)

    def sockets(self) -> pd.DataFrame:
        """The shortest leak over real sockets: the columns of `rate_table`."""
        return rate_table(self.confirmed)

    def strays(self, frames: int = 5) -> pd.DataFrame:
        """The first frames that another user's socket read, under Fix 1."""
        return transcript(self.confirmed[0], strays=True, frames=frames)


async def study_leaks(*, threads: int = 6, examples: int = 400, seed: int = 0) -> LeakStudy:
    """Classify `threads` threads of every family, search `examples` pairs a reading, and confirm the shortest leak.

    LookupError when the search finds no leak of Fix 1 in so few pairs.
    """
    searches = tuple(search(name, examples=examples, seed=seed) for name in READINGS)
    owners = (UserId("alice"), UserId("bob"))
    pair = tuple(Owned(thread, owner) for thread, owner in zip(searches[0].shortest, owners, strict=True))
    confirmed = await measure_each([FIX_1, SOUND], [Workload(threads=pair, at_once=2)], seed=seed)
    return LeakStudy(populations(threads, seed=seed), searches, tuple(confirmed))
