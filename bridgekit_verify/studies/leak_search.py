"""A search for two users' thread ids of which the one's events go to the other, shrunk to the shortest pair."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from bridgekit.events import AgentEvent, EventType
from bridgekit.ids import EmbeddedRunIds, RunId, SealedRunIds, ThreadId
from bridgekit.resolution import Carried, NoRoute, ReportParser, Resolver, route_of
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.workload import AGENT, seeded

__all__ = ["READINGS", "Reading", "Search", "carried", "parsed", "sealed", "search", "search_table"]

Reading = Callable[[ThreadId], ThreadId | None]
"""Gives a thread's run its id, finds the thread again as the bridge would, and answers it; None when it finds none."""


def parsed(thread_id: ThreadId) -> ThreadId | None:
    """Fix 1's run id, read by Fix 2's parser."""
    return _resolved(ReportParser(), EmbeddedRunIds(seeded(0)).new(thread_id))


def sealed(thread_id: ThreadId) -> ThreadId | None:
    """The sound run id, opened again."""
    run_ids = SealedRunIds(bytes(16), seeded(0))
    return run_ids.open(run_ids.new(thread_id))


def carried(thread_id: ThreadId) -> ThreadId | None:
    """The sound chain's way: the thread stands in the event."""
    return _resolved(Carried(), RunId("run_0"), thread_id)


READINGS: Final[Mapping[str, Reading]] = {
    "fix 1, parsed": parsed,
    "sealed, opened": sealed,
    "carried": carried,
}


def _resolved(resolver: Resolver, run_id: RunId, thread_id: ThreadId | None = None) -> ThreadId | None:
    event = AgentEvent(type=EventType.AGENT_THINKING, run_id=run_id, agent_name=AGENT, payload={}, thread_id=thread_id)
    found = without_waiting(route_of(resolver, event))
    return None if isinstance(found, NoRoute) else found


def without_waiting(coroutine: Coroutine[Any, Any, ThreadId | NoRoute]) -> ThreadId | NoRoute:
    """The answer of a coroutine that waits for nothing, in a place where nobody can wait, such as a search."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        answer: ThreadId | NoRoute = stop.value
        return answer
    coroutine.close()
    raise RuntimeError("it waits for something")


PREFIXES: Final = ("thread_", "", "session_", "chat_", "run_")
CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-. :/.~üñ東·"
LETTERS_AT_MOST: Final = 4
WORDS_AT_MOST: Final = 3


@dataclass(frozen=True)
class Search:
    """A search through pairs of thread ids of two users for one whose events go from the one to the other."""

    reading: str
    leak: tuple[ThreadId, ThreadId] | None
    """The shortest pair found: the events of the first land in the second. None when the search found none."""
    found_after: int | None
    """How many pairs were tried until the first, longer, leak turned up."""
    tried: int
    """How many pairs were tried in all, those for the shortest among them."""
    different: int
    """How many of them differ."""
    came_back: Rate
    """Of the first ids of those pairs: how many led back to their own thread."""

    @property
    def shortest(self) -> tuple[ThreadId, ThreadId]:
        """The leak; LookupError where none was found."""
        if self.leak is None:
            raise LookupError(f"{self.reading}: no leak in {self.tried:,} pairs; search longer")
        return self.leak


def search(name: str, *, examples: int, seed: int = 0) -> Search:
    """Let Hypothesis look for a leak of one of `READINGS` in that many pairs of ids, and shrink what it finds.

    Both ids of a pair are put together from the same few words, as ids of one application are: one of `PREFIXES`,
    and up to three words, none empty, joined by underscores. The same seed tries the same pairs on every reading, up
    to the first leak.
    """
    import hypothesis  # heavy, and of use here alone
    from hypothesis import strategies as st

    # Not st.text: it also draws literals of the modules that happen to be loaded, so a seed would not be enough.
    words = st.lists(st.sampled_from(CHARACTERS), min_size=1, max_size=LETTERS_AT_MOST).map("".join)

    def pair_of(few: list[str]) -> st.SearchStrategy[tuple[ThreadId, ThreadId]]:
        bodies = st.lists(st.sampled_from(few), min_size=1, max_size=WORDS_AT_MOST).map("_".join)
        ids = st.tuples(st.sampled_from(PREFIXES), bodies).map("".join).map(ThreadId)
        return st.tuples(*[ids.filter(lambda value: bool(value.strip()))] * 2)

    pairs = st.lists(words, min_size=1, max_size=WORDS_AT_MOST).flatmap(pair_of)
    reading = READINGS[name]
    tried: list[tuple[ThreadId, ThreadId]] = []
    came_back: list[bool] = []
    hits: list[int] = []

    def leaks(pair: tuple[ThreadId, ThreadId]) -> bool:
        here, there = pair
        lands_in = reading(here)
        tried.append(pair)
        came_back.append(lands_in == here)
        if leak := here != there and lands_in == there:
            hits.append(len(tried))
        return leak

    settings = hypothesis.settings(max_examples=examples, database=None, deadline=None)
    try:
        found = hypothesis.find(pairs, leaks, settings=settings, random=random.Random(seed))
    except hypothesis.errors.NoSuchExample:
        found = None
    return Search(
        reading=name,
        leak=found,
        found_after=hits[0] if hits else None,
        tried=len(tried),
        different=len(set(tried)),
        came_back=Rate(sum(came_back), len(tried)),
    )


def search_table(searches: Sequence[Search]) -> pd.DataFrame:
    """One row a search.

    Columns: run ids, shortest leak, found after, tried, different (of those tried), came back (first ids that led back
    to their own thread, of those tried), verdict.
    """
    return pd.DataFrame(
        {
            "run ids": search.reading,
            "shortest leak": " → ".join(search.leak) if search.leak else "none",
            "found after": search.found_after,
            "tried": search.tried,
            "different": search.different,
            "came back": str(search.came_back),
            "verdict": "leaks" if search.leak else f"survives {search.tried:,} examples",
        }
        for search in searches
    ).astype({"found after": "Int64"})
