"""The checker on random histories, compared with a second, independent one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.history import EventKey, Expectation, History, SignalledGap, Socket
from tests.verify.measure.histories import SOCKETS, arrival, differences
from tests.verify.measure.naive import judge

epochs = st.sampled_from([None, "e1", "e2"])
receipts = st.builds(
    Receipt,
    outcome=st.sampled_from(Outcome),
    sockets=st.integers(0, 2),
    thread_id=st.sampled_from([None, *(socket.thread_id for socket in SOCKETS)]),
    seq=st.none() | st.integers(1, 6),
    link=st.none() | st.integers(7, 10),
    epoch=epochs,
    kept=st.booleans(),
    reason=st.just("a reason"),
)
gaps = st.lists(st.builds(SignalledGap, st.integers(1, 6), st.none() | st.integers(1, 6), epoch=epochs), max_size=2)


@st.composite
def histories(draw: st.DrawFn) -> History:
    sockets = [
        Socket(number, like.thread_id, like.user_id)
        for number, like in enumerate(draw(st.lists(st.sampled_from(SOCKETS), min_size=1, max_size=5)))
    ]
    keys = [EventKey("question", EventType.AGENT_THINKING, step) for step in range(1, 7)]
    expected = [
        Expectation(name, owner.thread_id, owner.user_id)
        for name in keys[: draw(st.integers(0, 6))]
        for owner in [draw(st.sampled_from(SOCKETS))]
    ]
    arrivals = [
        arrival(socket, name, seq)
        for socket, name, seq in draw(
            st.lists(
                st.tuples(st.sampled_from(sockets), st.none() | st.sampled_from(keys), st.integers(1, 8)),
                max_size=25,
            )
        )
    ]
    return History(
        sockets=sockets,
        expected=expected,
        arrivals=arrivals,
        acknowledged={
            name: (RunId("run"), receipt)
            for name, receipt in draw(st.dictionaries(st.sampled_from(keys), receipts)).items()
        },
        gaps=draw(st.dictionaries(st.integers(0, 4), gaps, max_size=3)),
    )


@pytest.mark.slow
@given(histories())
def test_independent_second_checker_agrees(history: History) -> None:
    verdict = check(history)
    assert {name: getattr(verdict, name) for name in judge(history)} == judge(history)


@pytest.mark.slow
@given(histories())
def test_counts_add_up_for_any_history(history: History) -> None:
    verdict = check(history)
    assert verdict.expected == verdict.delivered + verdict.lost_signalled + verdict.lost_silent
    assert verdict.frames == (
        verdict.delivered + verdict.extra_copies + verdict.wrong_thread + verdict.wrong_user + verdict.unexpected
    )
    assert sum(verdict.losses.values()) == sum(verdict.lost_at.values()) == verdict.lost
    assert sum(verdict.misroutes.values()) == verdict.misrouted


@pytest.mark.slow
@given(histories(), st.randoms(use_true_random=False))
def test_order_of_reading_affects_only_the_reordering(history: History, random: Any) -> None:
    before = check(history)
    random.shuffle(history.arrivals)
    assert differences(before, check(history)).keys() <= {"reordered", "reordering_extent"}
