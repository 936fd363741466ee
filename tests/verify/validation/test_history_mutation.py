"""Mutations: both checkers report exactly what was changed, in recorded and in generated histories."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridgekit.events import EventType
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit_verify.errors import MutationNotApplicable
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History, Socket
from bridgekit_verify.validation.history_mutation import MUTATIONS, TWO_THREADS_A_USER, mutate, mutation_table
from bridgekit_verify.variants import SOUND
from tests.verify.measure.histories import clean, sent
from tests.verify.measure.naive import judge


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def recorded() -> History:
    return (await measure(SOUND, TWO_THREADS_A_USER)).history


@pytest.mark.parametrize("seed", range(5))
async def test_each_mutation_and_each_pair_is_reported_exactly(recorded: History, seed: int) -> None:
    table = mutation_table(recorded, seed=seed)
    assert len(table) == 1 + 10 + 55
    assert list(table["exactly"]) == ["yes"] * len(table)
    assert list(table["expected"]) == list(table["reported"])
    assert table["reported"].iloc[0] == "nothing"
    assert "nothing" not in set(table["reported"].iloc[1:])


async def test_mutating_does_not_change_the_recorded_history(recorded: History) -> None:
    before = deepcopy(recorded)
    mutation_table(recorded)
    assert recorded == before


async def test_same_seed_gives_the_same_mutations(recorded: History) -> None:
    first, second = (mutate(recorded, ["lost", "swapped"], seed=3)[0] for _ in range(2))
    assert first == second
    assert mutate(recorded, ["lost", "swapped"], seed=4)[0] != first


@pytest.mark.parametrize("name", MUTATIONS)
async def test_expected_verdict_differs_from_the_clean_one(recorded: History, name: str) -> None:
    """The comparison can fail: the expected verdict is not the clean one."""
    _, expected = mutate(recorded, [name])
    assert expected != check(recorded)


@st.composite
def clean_histories(draw: st.DrawFn) -> History:
    """Everything that was sent arrived, at its thread's only socket and in the thread's order; threads interleave."""
    sockets = [
        Socket(number, ThreadId(f"thread {number}"), UserId(f"user {draw(st.integers(0, 1))}"))
        for number in range(draw(st.integers(2, 5)))
    ]
    waiting = {
        socket: [
            Arrival(
                socket, EventKey(f"of {socket.thread_id}", EventType.AGENT_THINKING, seq), RunId("run"), seq, 1.0, 2.0
            )
            for seq in range(1, draw(st.integers(2, 8)) + 1)
        ]
        for socket in sockets
    }
    history = History(sockets=sockets)
    while left := [socket for socket in sockets if waiting[socket]]:
        arrival = waiting[draw(st.sampled_from(left))].pop(0)
        assert arrival.key is not None
        history.arrivals.append(arrival)
        history.expected.append(Expectation(arrival.key, arrival.socket.thread_id, arrival.socket.user_id))
        history.acknowledged[arrival.key] = sent(arrival.socket.thread_id, arrival.seq)
    return history


@pytest.mark.slow
@given(clean_histories(), st.lists(st.sampled_from(list(MUTATIONS)), max_size=4), st.integers(0, 1_000))
def test_both_checkers_report_the_mutations_of_any_history(history: History, names: list[str], seed: int) -> None:
    try:
        mutated, expected = mutate(history, names, seed=seed)
    except MutationNotApplicable:
        assume(False)
        raise
    assert check(mutated) == expected
    naive = judge(mutated)
    assert naive == {name: getattr(expected, name) for name in naive}


def test_history_that_is_not_clean_raises_an_error() -> None:
    history = clean()
    history.arrivals.pop()
    with pytest.raises(MutationNotApplicable, match="use a clean history"):
        mutate(history, ["lost"])


def test_history_with_two_sockets_per_thread_raises_an_error() -> None:
    history = clean()
    twin = Socket(3, history.sockets[0].thread_id, history.sockets[0].user_id)
    history.sockets.append(twin)
    history.arrivals += [
        Arrival(twin, each.key, each.run_id, each.seq, 1.0, 2.0) for each in history.arrivals if each.socket.number == 0
    ]
    with pytest.raises(MutationNotApplicable, match="two sockets"):
        mutate(history, ["lost"])


@pytest.mark.slow
def test_history_with_too_few_events_raises_an_error() -> None:
    with pytest.raises(MutationNotApplicable, match="every event is already used"):
        mutate(clean(), ["lost"] * 16)
    alone = History(
        sockets=[Socket(0, ThreadId("a"), UserId("alice"))],
        expected=[Expectation(EventKey("q", EventType.AGENT_THINKING, 1), ThreadId("a"), UserId("alice"))],
        arrivals=[
            Arrival(
                Socket(0, ThreadId("a"), UserId("alice")),
                EventKey("q", EventType.AGENT_THINKING, 1),
                RunId("r"),
                1,
                0.0,
                0.0,
            )
        ],
    )
    with pytest.raises(MutationNotApplicable, match="no other socket"):
        mutate(alone, ["to another user"])
    with pytest.raises(MutationNotApplicable, match="two frames"):
        mutate(alone, ["swapped"])
