"""Find thread ids whose events Fix 1, with Fix 2's parser, routes to no thread or to another user's thread.

The parser takes one segment of the thread id for the whole id. If no thread has the parsed id, the event is lost. If
another user has a thread with the parsed id, the event leaks. Whether an id is safe therefore depends on the other ids,
and can be computed without a socket. The shortest leak is also measured over real sockets.
"""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from bridgekit.events import AgentEvent, EventType
from bridgekit.ids import RunId, SignedRunIds, ThreadId, UserId
from bridgekit.thread_resolvers import Carried, NoRoute, Resolver, route_of
from bridgekit_verify.audited_routing import EmbeddedRunIds, ReportParser
from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.measure.experiment import Measurement, measure_each
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.tables import count_table, transcript
from bridgekit_verify.measure.thread_id_families import FAMILIES, Families, families_by_name, threads_by_family
from bridgekit_verify.measure.workload import AGENT, OwnedThread, Workload, seeded
from bridgekit_verify.variants import FIX_1, SOUND

__all__ = [
    "ROUND_TRIPS",
    "LeakStudy",
    "ParsedRoute",
    "RoundTrip",
    "RouteOutcome",
    "Search",
    "carried",
    "parsed",
    "parsed_routes",
    "population_table",
    "populations",
    "search",
    "signed",
    "study_leaks",
]

RoundTrip = Callable[[ThreadId], ThreadId | None]
"""Creates a run id for a thread, resolves the run id as the bridge would, and returns the resolved thread.

Returns None if the run id resolves to no thread.
"""


def parsed(thread_id: ThreadId) -> ThreadId | None:
    """Return the thread that Fix 2's parser finds in Fix 1's run id."""
    return _resolved(ReportParser(), EmbeddedRunIds(seeded(0)).new(thread_id))


def signed(thread_id: ThreadId) -> ThreadId | None:
    """Return the thread in a signed run id after its signature is verified."""
    run_ids = SignedRunIds(bytes(16), seeded(0))
    return run_ids.verify(run_ids.new(thread_id))


def carried(thread_id: ThreadId) -> ThreadId | None:
    """Return the thread that the event carries, as the sound chain does."""
    return _resolved(Carried(), RunId("run_0"), thread_id)


ROUND_TRIPS: Final[Mapping[str, RoundTrip]] = {
    "fix 1, parsed": parsed,
    "signed, verified": signed,
    "carried": carried,
}


def _resolved(resolver: Resolver, run_id: RunId, thread_id: ThreadId | None = None) -> ThreadId | None:
    event = AgentEvent(type=EventType.AGENT_THINKING, run_id=run_id, agent_name=AGENT, payload={}, thread_id=thread_id)
    found = without_waiting(route_of(resolver, event))
    return None if isinstance(found, NoRoute) else found


def without_waiting(coroutine: Coroutine[Any, Any, ThreadId | NoRoute]) -> ThreadId | NoRoute:
    """Run a coroutine in synchronous code and return its result. Raises RuntimeError if the coroutine waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: ThreadId | NoRoute = stop.value
        return result
    coroutine.close()
    raise RuntimeError("the coroutine waits for something: this search accepts only resolvers that never wait")


PREFIXES: Final = ("thread_", "", "session_", "chat_", "run_")
CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-. :/.~üñ東·"
LETTERS_AT_MOST: Final = 4
WORDS_AT_MOST: Final = 3


@dataclass(frozen=True)
class Search:
    """The result of a search for two users' thread ids with which the first user's events reach the second user."""

    round_trip: str
    leak: tuple[ThreadId, ThreadId] | None
    """The shortest pair of ids for which events of the first thread are routed to the second, or None."""
    found_after: int | None
    """How many pairs were tried until the first leak, or None if no leak was found."""
    tried: int
    """How many pairs were tried in all, including the pairs that were tried to shrink the leak."""
    different: int
    """How many distinct pairs were tried."""
    correct: Rate
    """In how many of the tried pairs the first id was resolved to its own thread."""

    @property
    def shortest(self) -> tuple[ThreadId, ThreadId]:
        """The shortest leak. Raises InvalidParameter if the search found no leak."""
        if self.leak is None:
            raise InvalidParameter(
                "examples", self.tried, f"more pairs, until the search finds a leak of {self.round_trip}"
            )
        return self.leak


def search(name: str, *, examples: int, seed: int = 0) -> Search:
    """Use Hypothesis to search `examples` pairs of ids for a leak of one of `ROUND_TRIPS`, and shrink the leak.

    Like the ids of one application, both ids of a pair consist of the same few words. An id is one of `PREFIXES`,
    followed by up to three words with underscores between them. With the same seed, every round trip tries the same
    pairs up to the first leak.
    """
    import hypothesis  # imported here, because the import is slow and only this function needs it
    from hypothesis import strategies as st

    # Do not use st.text: it also draws literals from loaded modules, so the seed would not reproduce the search.
    words = st.lists(st.sampled_from(CHARACTERS), min_size=1, max_size=LETTERS_AT_MOST).map("".join)

    def pair_of(few: list[str]) -> st.SearchStrategy[tuple[ThreadId, ThreadId]]:
        bodies = st.lists(st.sampled_from(few), min_size=1, max_size=WORDS_AT_MOST).map("_".join)
        ids = st.tuples(st.sampled_from(PREFIXES), bodies).map("".join).map(ThreadId)
        return st.tuples(*[ids.filter(lambda value: bool(value.strip()))] * 2)

    pairs = st.lists(words, min_size=1, max_size=WORDS_AT_MOST).flatmap(pair_of)
    round_trip = ROUND_TRIPS[name]
    tried: list[tuple[ThreadId, ThreadId]] = []
    correct: list[bool] = []
    hits: list[int] = []

    def leaks(pair: tuple[ThreadId, ThreadId]) -> bool:
        first, second = pair
        resolved_thread = round_trip(first)
        tried.append(pair)
        correct.append(resolved_thread == first)
        if leak := first != second and resolved_thread == second:
            hits.append(len(tried))
        return leak

    settings = hypothesis.settings(max_examples=examples, database=None, deadline=None)
    try:
        found = hypothesis.find(pairs, leaks, settings=settings, random=random.Random(seed))
    except hypothesis.errors.NoSuchExample:
        found = None
    return Search(
        round_trip=name,
        leak=found,
        found_after=hits[0] if hits else None,
        tried=len(tried),
        different=len(set(tried)),
        correct=Rate(sum(correct), len(tried)),
    )


class RouteOutcome(enum.StrEnum):
    """The outcome of one thread's events."""

    DELIVERED = "delivered"
    LOST = "lost"
    WRONG_THREAD = "another thread of the same user"
    LEAKED = "another user's thread"


@dataclass(frozen=True, slots=True)
class ParsedRoute:
    """A thread, and the thread to which its events are routed (None: the events are lost)."""

    owned: OwnedThread
    resolved_thread: OwnedThread | None

    @property
    def outcome(self) -> RouteOutcome:
        if self.resolved_thread is None:
            return RouteOutcome.LOST
        if self.resolved_thread.thread_id == self.owned.thread_id:
            return RouteOutcome.DELIVERED
        return RouteOutcome.WRONG_THREAD if self.resolved_thread.user_id == self.owned.user_id else RouteOutcome.LEAKED


def parsed_routes(threads: Sequence[OwnedThread], round_trip: RoundTrip = parsed) -> list[ParsedRoute]:
    """Return where each thread's events are routed: to a thread of `threads`, or to none. No socket is opened.

    Raises ValueError if two threads have the same id, because the owner would be ambiguous.
    """
    by_id = {owned.thread_id: owned for owned in threads}
    if len(by_id) < len(threads):
        raise ValueError("two threads have the same id: give each thread its own id")
    found = [round_trip(owned.thread_id) for owned in threads]
    return [ParsedRoute(owned, by_id.get(to) if to else None) for owned, to in zip(threads, found, strict=True)]


def populations(threads: int, *, seed: int = 0, families: Families = FAMILIES) -> dict[str, tuple[OwnedThread, ...]]:
    """Return sets of threads: each family alone, all families together, and all families with added short ids.

    The last set adds `thread_<word>` for the first word of each id with several words. Such a short id may belong to an
    earlier user, or to a team whose members have their own ids.
    """
    alone = threads_by_family(families_by_name(families), threads, seed=seed)
    together = tuple(
        OwnedThread(owned.thread_id, UserId(f"{owned.user_id}, {name}")) for name, row in alone.items() for owned in row
    )
    taken = {owned.thread_id for owned in together}
    named = (owned.thread_id.split("_") for owned in together if owned.thread_id.startswith("thread_"))
    short = dict.fromkeys(ThreadId(f"thread_{words[1]}") for words in named if len(words) > 2)
    first = tuple(OwnedThread(thread, UserId(f"owner of {thread}")) for thread in short if thread not in taken)
    return alone | {"all kinds together": together, "all kinds and thread_<word>": together + first}


def population_table(sets: Mapping[str, Sequence[OwnedThread]], round_trip: RoundTrip = parsed) -> pd.DataFrame:
    """Return one row per set of threads: how many threads have each outcome, and how many pairs of users leak.

    Columns: thread ids, threads, delivered, lost, leaked, owner pairs, pairs that leak, an example.
    """
    return pd.DataFrame([_summary(name, parsed_routes(threads, round_trip)) for name, threads in sets.items()])


def _summary(name: str, routes: Sequence[ParsedRoute]) -> dict[str, object]:
    outcomes = Counter(route.outcome for route in routes)
    pairs = {
        (row.owned.user_id, row.resolved_thread.user_id): row for row in routes if row.resolved_thread and _leaks(row)
    }
    owners = len({route.owned.user_id for route in routes})
    example = next(iter(pairs.values()), None)
    return {
        "thread ids": name,
        "threads": len(routes),
        "delivered": outcomes[RouteOutcome.DELIVERED],
        "lost": outcomes[RouteOutcome.LOST],
        "leaked": outcomes[RouteOutcome.LEAKED],
        "owner pairs": owners * (owners - 1),
        "pairs that leak": len(pairs),
        "example": f"{example.owned.thread_id} → {example.resolved_thread.thread_id}"
        if example and example.resolved_thread
        else "",
    }


def _leaks(route: ParsedRoute) -> bool:
    return route.outcome is RouteOutcome.LEAKED


@dataclass(frozen=True)
class LeakStudy:
    """Sets of threads to classify, the searches for leaks, and the shortest leak, measured over real sockets."""

    sets: Mapping[str, tuple[OwnedThread, ...]]
    searches: tuple[Search, ...]
    """One search for each of `ROUND_TRIPS`, in the same order."""
    confirmed: tuple[Measurement, ...]
    """The measurements of the shortest leak's two threads, with Fix 1 and with the sound chain."""

    @property
    def shortest(self) -> tuple[ThreadId, ThreadId]:
        """The two ids of the shortest leak of Fix 1."""
        return self.searches[0].shortest

    def populations(self) -> pd.DataFrame:
        """Return `population_table` of the sets, for Fix 1 with the parser."""
        return population_table(self.sets)

    def found(self) -> pd.DataFrame:
        """Return one row per search.

        Columns: run ids, shortest leak, found after, tried, different (distinct tried pairs), resolved correctly
        (tried pairs whose first id was resolved to its own thread), verdict.
        """
        return pd.DataFrame(
            {
                "run ids": search.round_trip,
                "shortest leak": " → ".join(search.leak) if search.leak else "none",
                "found after": search.found_after,
                "tried": search.tried,
                "different": search.different,
                "resolved correctly": str(search.correct),
                "verdict": "leaks" if search.leak else f"no leak in {search.tried:,} pairs",
            }
            for search in self.searches
        ).astype({"found after": "Int64"})

    def sockets(self) -> pd.DataFrame:
        """Return the shortest leak over real sockets, with the columns of `count_table`."""
        return count_table(self.confirmed)

    def misrouted(self, frames: int = 5) -> pd.DataFrame:
        """Return the first frames that another user's socket read, under Fix 1."""
        return transcript(self.confirmed[0], misrouted=True, frames=frames)


async def study_leaks(
    *, threads: int = 6, examples: int = 400, seed: int = 0, families: Families = FAMILIES
) -> LeakStudy:
    """Classify threads of every family, search for a leak with each round trip, and measure the shortest leak.

    Each family has `threads` threads, and each search tries `examples` pairs. Raises InvalidParameter if the search
    finds no leak of Fix 1.
    """
    searches = tuple(search(name, examples=examples, seed=seed) for name in ROUND_TRIPS)
    owners = (UserId("alice"), UserId("bob"))
    pair = tuple(OwnedThread(thread, owner) for thread, owner in zip(searches[0].shortest, owners, strict=True))
    confirmed = await measure_each([FIX_1, SOUND], [Workload(threads=pair, at_once=2)], seed=seed)
    return LeakStudy(populations(threads, seed=seed, families=families), searches, tuple(confirmed))
