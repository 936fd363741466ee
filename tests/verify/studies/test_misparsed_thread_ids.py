"""Where the parser routes events, the search for the shortest leak, and that leak over real sockets."""

from __future__ import annotations

from itertools import product

import anyio
import pytest

from bridgekit.ids import ThreadId, UserId
from bridgekit.thread_resolvers import NoRoute
from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.workload import FAMILIES, OwnedThread, Workload, thread_ids
from bridgekit_verify.studies.misparsed_thread_ids import (
    PREFIXES,
    ROUND_TRIPS,
    RouteOutcome,
    Search,
    parsed,
    parsed_routes,
    population_table,
    populations,
    search,
    study_leaks,
    without_waiting,
)
from bridgekit_verify.variants import FIX_1

pytestmark = pytest.mark.slow

LEAKING = "starts with another id"
SOUND_ROUND_TRIPS = [name for name in ROUND_TRIPS if name != "fix 1, parsed"]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


def owned(thread: str, user: str) -> OwnedThread:
    return OwnedThread(ThreadId(thread), UserId(user))


def test_events_go_to_the_thread_of_the_parsed_segment() -> None:
    threads = [
        owned("thread_alice", "alice"),
        owned("thread_alice_notes", "alice"),
        owned("thread_alice_smith", "alice smith"),
        owned("thread_bob_jones", "bob"),
        owned("chat_1", "carol"),
    ]
    outcomes = [route.outcome for route in parsed_routes(threads)]
    assert outcomes == [
        RouteOutcome.DELIVERED,
        RouteOutcome.WRONG_THREAD,
        RouteOutcome.LEAKED,
        RouteOutcome.LOST,
        RouteOutcome.LOST,
    ]
    assert parsed_routes(threads)[2].resolved_thread == threads[0]


def test_two_threads_with_the_same_id_raise_an_error() -> None:
    with pytest.raises(ValueError, match="the same id"):
        parsed_routes([owned("thread_1", "alice"), owned("thread_1", "bob")])


@pytest.mark.parametrize("round_trip", SOUND_ROUND_TRIPS)
def test_sound_round_trip_delivers_every_population(round_trip: str) -> None:
    table = population_table(populations(3), ROUND_TRIPS[round_trip])
    assert table["delivered"].tolist() == table["threads"].tolist()
    assert len(table) == len(FAMILIES) + 2


def test_own_thread_ids_are_classified_like_any_population() -> None:
    own = {"mine": ["thread_a", "thread_a_b", "support-42"], "again": ["support-42", "thread_c"]}
    table = population_table(populations(9, families=own))
    counted = table[["thread ids", "threads", "delivered", "lost", "leaked"]].to_numpy().tolist()
    assert counted[:3] == [["mine", 3, 1, 1, 1], ["again", 1, 1, 0, 0], ["all kinds together", 4, 2, 1, 1]]


def test_family_that_loses_alone_leaks_next_to_a_shorter_id() -> None:
    table = population_table(populations(3))
    columns = ["thread ids", "delivered", "lost", "leaked", "owner pairs", "pairs that leak"]
    counted = {name: counts for name, *counts in table[columns].itertuples(index=False)}
    assert counted["thread_<user>_<name>"] == [0, 3, 0, 6, 0]
    assert counted[LEAKING] == [1, 0, 2, 6, 2]
    assert counted["all kinds together"][2] == 2
    assert counted["all kinds and thread_<word>"][2] == 14


async def test_classification_matches_a_measurement_over_sockets() -> None:
    threads = thread_ids(LEAKING, 3)
    verdict = (await measure(FIX_1, Workload(threads=threads))).verdict
    leaked = sum(route.outcome is RouteOutcome.LEAKED for route in parsed_routes(threads))
    assert (verdict.delivered, verdict.wrong_user) == (5 * (3 - leaked), 5 * leaked) == (5, 10)


@pytest.mark.short_form(1)
@pytest.mark.parametrize("seed", [0, 7])
def test_search_finds_the_shortest_possible_leak(seed: int) -> None:
    found = search("fix 1, parsed", examples=500, seed=seed)
    bodies = ["_".join(words) for length in (1, 2) for words in product("ab", repeat=length)]
    ids = [ThreadId(prefix + body) for prefix in PREFIXES for body in bodies]
    leaks = [(here, there) for here, there in product(ids, ids) if here != there and parsed(here) == there]
    shortest = min(len(here) + len(there) for here, there in leaks)
    assert found.leak in leaks
    assert sum(map(len, found.shortest)) == shortest
    assert found.found_after is not None
    assert found.found_after <= found.tried
    assert found == search("fix 1, parsed", examples=500, seed=seed)


@pytest.mark.parametrize("round_trip", SOUND_ROUND_TRIPS)
def test_search_finds_no_leak_in_a_sound_round_trip(round_trip: str) -> None:
    found = search(round_trip, examples=60)
    assert found.leak is None
    assert found.tried == found.correct.n == found.correct.k == 60
    with pytest.raises(
        InvalidParameter, match=r"examples must be more pairs, until the search finds a leak of .*, not 60"
    ):
        _ = found.shortest


def test_search_finds_a_leak_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    by_length = {"last word lost": lambda thread: ThreadId(thread.rpartition("_")[0])}
    monkeypatch.setattr("bridgekit_verify.studies.misparsed_thread_ids.ROUND_TRIPS", by_length)
    assert search("last word lost", examples=500).leak is not None


@pytest.mark.acceptance  # `make test` does the same in notebook 11
async def test_study_measures_the_shortest_leak_over_sockets() -> None:
    study = await study_leaks(threads=2, examples=300)
    assert study.sockets()[["delivered", "dropped", "misrouted"]].to_numpy().tolist() == [[5, 5, 5], [10, 0, 0]]
    misrouted = study.misrouted()
    assert misrouted["socket of"].tolist() == ["bob"] * 5
    assert misrouted["event of"].tolist() == ["alice"] * 5
    assert study.found()["verdict"].tolist() == ["leaks", "no leak in 300 pairs", "no leak in 300 pairs"]
    assert study.found()["found after"].isna().tolist() == [False, True, True]


def test_resolver_that_waits_raises_an_error() -> None:
    async def wait() -> NoRoute:
        await anyio.lowlevel.checkpoint()
        return NoRoute("")

    with pytest.raises(RuntimeError):
        without_waiting(wait())


def test_rate_of_an_empty_search_is_unknown() -> None:
    assert not Search("none", None, None, 0, 0, Rate(0, 0)).correct.known
