"""The checker: literal histories in, literal verdicts out; and a second one, written otherwise, beside it."""

from __future__ import annotations

from typing import Any

import pytest

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.errors import LedgerImbalance
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.history import Arrival, Expectation, History, EventKey, SignalledGap, Socket
from bridgekit_verify.measure.ledger import Attribution
from bridgekit_verify.measure.statistics import Rate
from tests.verify.measure.histories import ALICES, ALICES_OTHER, BOBS, arrival, clean, differences, key, moved

CALLED_SENT = Attribution(10, "reported as sent, but no socket read it")
ASTRAY = Attribution(10, "delivered to a socket of another thread")
NO_OBSERVER = Receipt(outcome=Outcome.NOBODY_LISTENING, link=10, reason="nobody", thread_id=ALICES.thread_id, seq=3)
THIRD = key(ALICES, 3)


def test_clean_history_has_a_clean_verdict() -> None:
    assert check(clean()) == Verdict(
        expected=15, delivered=15, lost_signalled=0, lost_silent=0, frames=15, extra_copies=0,
        wrong_thread=0, wrong_user=0, unexpected=0, reordered=0, reordering_extent=0,
        false_success=0, false_failure=0, acknowledged=15, losses={}, misroutes={},
    )  # fmt: skip


def test_history_without_events_says_unknown_and_neither_0_nor_100_percent() -> None:
    verdict = check(History())
    assert (verdict.expected, verdict.frames) == (0, 0)
    assert {rate.known for rate in (verdict.delivery, verdict.drop, verdict.misrouting)} == {False}


def lose(history: History) -> None:
    history.arrivals.remove(arrival(ALICES, THIRD, 3))


def lose_and_say_so(history: History) -> None:
    lose(history)
    history.gaps[ALICES.number] = [SignalledGap(3, 3)]


def lose_and_speak_of_another(history: History) -> None:
    lose(history)
    history.gaps[ALICES.number] = [SignalledGap(1, 2), SignalledGap(4, 9)]
    history.gaps[BOBS.number] = [SignalledGap(3, 3)]


def lose_and_admit(history: History) -> None:
    lose(history)
    history.acknowledged[THIRD] = (RunId("run of a1"), NO_OBSERVER)


def never_answer(history: History) -> None:
    lose(history)
    del history.acknowledged[THIRD]


def duplicate(history: History) -> None:
    history.arrivals.insert(3, arrival(ALICES, THIRD, 3))


def duplicate_late(history: History) -> None:
    history.arrivals.append(arrival(ALICES, THIRD, 3))


def swap(history: History) -> None:
    history.arrivals[1:3] = reversed(history.arrivals[1:3])


def send_first_to_the_end(history: History) -> None:
    history.arrivals.append(history.arrivals.pop(0))


def copy_to_another_thread(history: History) -> None:
    history.arrivals.insert(7, arrival(ALICES_OTHER, THIRD, 99))


def copy_to_another_user(history: History) -> None:
    history.arrivals.insert(12, arrival(BOBS, THIRD, 99))


def move_to_another_thread(history: History) -> None:
    moved(history, 3, ALICES_OTHER)


def move_to_another_user(history: History) -> None:
    moved(history, 3, BOBS)


def read_what_nobody_said(history: History) -> None:
    history.arrivals.append(arrival(ALICES, EventKey("nobody", EventType.AGENT_ERROR, 0), 6))


def read_what_says_nothing(history: History) -> None:
    history.arrivals.append(arrival(ALICES, None, 6))


def deny(history: History) -> None:
    history.acknowledged[THIRD] = (RunId("run of a1"), NO_OBSERVER)


LOST = {"delivered": -1, "frames": -1, "lost_silent": 1, "losses": {CALLED_SENT: 1}, "false_success": 1}
MOVED = LOST | {"misroutes": {ASTRAY: 1}}
del MOVED["frames"]

PLANTED: list[tuple[Any, dict[str, Any]]] = [
    (lose, LOST),
    (lose_and_say_so, {name: n for name, n in LOST.items() if name != "lost_silent"} | {"lost_signalled": 1}),
    (lose_and_speak_of_another, LOST),
    (
        lose_and_admit,
        {"delivered": -1, "frames": -1, "lost_silent": 1, "losses": {Attribution(10, "nobody"): 1}},
    ),
    (
        never_answer,
        {
            "delivered": -1, "frames": -1, "lost_silent": 1, "acknowledged": -1,
            "losses": {Attribution(8, "the adapter did not reach the bridge"): 1},
        },
    ),
    (duplicate, {"frames": 1, "extra_copies": 1}),
    (duplicate_late, {"frames": 1, "extra_copies": 1}),
    (swap, {"reordered": 1, "reordering_extent": 1}),
    (send_first_to_the_end, {"reordered": 1, "reordering_extent": 4}),
    (copy_to_another_thread, {"frames": 1, "wrong_thread": 1, "misroutes": {ASTRAY: 1}}),
    (copy_to_another_user, {"frames": 1, "wrong_user": 1, "misroutes": {ASTRAY: 1}}),
    (move_to_another_thread, MOVED | {"wrong_thread": 1}),
    (move_to_another_user, MOVED | {"wrong_user": 1}),
    (read_what_nobody_said, {"frames": 1, "unexpected": 1}),
    (read_what_says_nothing, {"frames": 1, "unexpected": 1}),
    (deny, {"false_failure": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "found"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_planted_fault_is_reported_exactly_and_nothing_else(plant: Any, found: dict[str, Any]) -> None:
    history = clean()
    plant(history)
    assert differences(check(clean()), check(history)) == found


def test_rates_are_of_what_they_say() -> None:
    history = clean()
    lose(history)
    copy_to_another_user(history)
    verdict = check(history)
    assert (verdict.delivery, verdict.drop) == (Rate(14, 15), Rate(1, 15))
    assert verdict.misrouting == Rate(1, 15)
    assert (verdict.misrouted, verdict.lost, verdict.lost_at) == (1, 1, {10: 1})


def test_each_entitled_socket_is_owed_the_event() -> None:
    history = clean()
    history.sockets.append(Socket(3, ALICES.thread_id, ALICES.user_id))
    assert differences(check(clean()), check(history)) == {
        "expected": 5,
        "lost_silent": 5,
        "losses": {CALLED_SENT: 5},
    }


def test_reordering_is_told_for_each_socket_by_itself() -> None:
    """However the sockets' readings fall between one another."""
    history = clean()
    history.arrivals.sort(key=lambda each: (each.seq, each.socket.number))
    assert check(history) == check(clean())


def test_checking_changes_no_history() -> None:
    history = clean()
    assert check(history) == check(history)
    assert history == clean()


def test_history_that_contradicts_itself_gets_an_error_and_no_verdict() -> None:
    twice = clean()
    twice.expected.append(twice.expected[0])
    with pytest.raises(LedgerImbalance) as told:
        check(twice)
    assert told.value.identity == "frames = delivered + extra copies + misrouted + unexpected"
    assert (told.value.left, told.value.right) == (15, 16)
    stranger = clean()
    stranger.arrivals.append(arrival(Socket(9, ALICES.thread_id, ALICES.user_id), THIRD, 3))
    with pytest.raises(LedgerImbalance):
        check(stranger)


def test_arrival_is_of_its_own_thread_only() -> None:
    """The same user's other thread does not count as delivery."""
    history = History(
        sockets=[ALICES, ALICES_OTHER],
        expected=[Expectation(THIRD, ThreadId("a1"), ALICES.user_id)],
        arrivals=[Arrival(ALICES_OTHER, THIRD, RunId("run"), 1, 0.0, 0.0)],
    )
    verdict = check(history)
    assert (verdict.delivered, verdict.lost_silent, verdict.wrong_thread) == (0, 1, 1)
