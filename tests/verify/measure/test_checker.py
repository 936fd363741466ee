"""The checker: literal histories in, literal verdicts out."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.errors import LedgerImbalance
from bridgekit_verify.measure import checker
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History, SignalledGap, Socket
from bridgekit_verify.measure.ledger import Attribution, Row, ledger
from bridgekit_verify.measure.statistics import Rate
from tests.verify.measure.histories import ALICES, ALICES_OTHER, BOBS, arrival, clean, differences, key, moved, sent

REPORTED_SENT = Attribution(10, "reported as sent, but read by no socket")
MISROUTED = Attribution(10, "delivered to a socket of another thread")
NO_SUBSCRIBER_RECEIPT = Receipt(
    outcome=Outcome.NO_SUBSCRIBER, link=10, reason="no subscriber", thread_id=ALICES.thread_id, seq=3
)
THIRD = key(ALICES, 3)


def test_clean_history_has_a_clean_verdict() -> None:
    assert check(clean()) == Verdict(
        expected=15, no_socket=0, delivered=15, lost_signalled=0, lost_silent=0, frames=15, extra_copies=0,
        wrong_thread=0, wrong_user=0, unexpected=0, reordered=0, reordering_extent=0, reordered_in_run=0, false_gaps=0,
        false_success=0, false_failure=0, acknowledged=15, losses={}, misroutes={},
    )  # fmt: skip


def test_rates_are_unknown_for_a_history_without_events() -> None:
    verdict = check(History())
    assert (verdict.expected, verdict.frames) == (0, 0)
    assert {rate.known for rate in (verdict.delivery, verdict.drop, verdict.misrouting)} == {False}


def lose(history: History) -> None:
    history.arrivals.remove(arrival(ALICES, THIRD, 3))


def lose_and_signal(history: History) -> None:
    lose(history)
    history.gaps[ALICES.number] = [SignalledGap(3, 3)]


def lose_and_signal_others(history: History) -> None:
    lose(history)
    history.gaps[ALICES.number] = [SignalledGap(1, 2), SignalledGap(4, 9)]
    history.gaps[BOBS.number] = [SignalledGap(3, 3)]


def lose_and_report(history: History) -> None:
    lose(history)
    history.acknowledged[THIRD] = (RunId("run of a1"), NO_SUBSCRIBER_RECEIPT)


def lose_without_receipt(history: History) -> None:
    lose(history)
    del history.acknowledged[THIRD]


def duplicate(history: History) -> None:
    history.arrivals.insert(3, arrival(ALICES, THIRD, 3))


def duplicate_late(history: History) -> None:
    history.arrivals.append(arrival(ALICES, THIRD, 3))


def swap(history: History) -> None:
    history.arrivals[1:3] = reversed(history.arrivals[1:3])


def move_first_to_the_end(history: History) -> None:
    history.arrivals.append(history.arrivals.pop(0))


def copy_to_another_thread(history: History) -> None:
    history.arrivals.insert(7, arrival(ALICES_OTHER, THIRD, 99))


def copy_to_another_user(history: History) -> None:
    history.arrivals.insert(12, arrival(BOBS, THIRD, 99))


def move_to_another_thread(history: History) -> None:
    moved(history, 3, ALICES_OTHER)


def move_to_another_user(history: History) -> None:
    moved(history, 3, BOBS)


def read_unexpected_event(history: History) -> None:
    history.arrivals.append(arrival(ALICES, EventKey("not requested", EventType.AGENT_ERROR, 0), 6))


def read_unidentified_frame(history: History) -> None:
    history.arrivals.append(arrival(ALICES, None, 6))


def number(history: History, **numbers: int) -> None:
    """Give events of Alice's thread other numbers, and let her read them in the order of the numbers."""
    steps = {step: numbers.get(f"event_{step}", step) for step in range(1, 6)}
    for step, seq in steps.items():
        history.acknowledged[key(ALICES, step)] = sent("a1", seq)
    in_order = sorted(steps, key=steps.__getitem__)
    history.arrivals[:5] = [arrival(ALICES, key(ALICES, step), steps[step]) for step in in_order]


def exchange_numbers(history: History) -> None:
    number(history, event_2=3, event_3=2)


def number_the_first_last(history: History) -> None:
    number(history, event_1=5, event_2=1, event_3=2, event_4=3, event_5=4)


def read_against_the_numbers(history: History) -> None:
    history.arrivals[:5] = reversed(history.arrivals[:5])


def skip_a_number(history: History) -> None:
    number(history, event_4=5, event_5=6)


def skip_a_number_on_the_wire(history: History) -> None:
    """The receipts do not show it."""
    history.arrivals[3:5] = [arrival(ALICES, key(ALICES, 4), 5), arrival(ALICES, key(ALICES, 5), 6)]


def skip_two_ranges(history: History) -> None:
    number(history, event_2=3, event_3=4, event_4=9, event_5=10)


def skip_and_signal(history: History) -> None:
    skip_a_number(history)
    history.gaps[ALICES.number] = [SignalledGap(4, 4)]


def signal_what_is_read(history: History) -> None:
    history.gaps[BOBS.number] = [SignalledGap(2, 3)]


def signal_to_the_end(history: History) -> None:
    history.gaps[BOBS.number] = [SignalledGap(2, None)]


def skip_a_number_that_another_thread_took(history: History) -> None:
    """Bob's third event was sent to Alice's thread, where its number is missing for her."""
    skip_a_number(history)
    history.acknowledged[key(BOBS, 3)] = sent("a1", 4)


def report_not_sent(history: History) -> None:
    history.acknowledged[THIRD] = (RunId("run of a1"), NO_SUBSCRIBER_RECEIPT)


LOST = {"delivered": -1, "frames": -1, "lost_silent": 1, "losses": {REPORTED_SENT: 1}, "false_success": 1}
MOVED = LOST | {"misroutes": {MISROUTED: 1}}
del MOVED["frames"]

MUTATED: list[tuple[Any, dict[str, Any]]] = [
    (lose, LOST),
    (lose_and_signal, {name: n for name, n in LOST.items() if name != "lost_silent"} | {"lost_signalled": 1}),
    (lose_and_signal_others, LOST | {"false_gaps": 3}),
    (
        lose_and_report,
        {"delivered": -1, "frames": -1, "lost_silent": 1, "losses": {Attribution(10, "no subscriber"): 1}},
    ),
    (
        lose_without_receipt,
        {
            "delivered": -1, "frames": -1, "lost_silent": 1, "acknowledged": -1,
            "losses": {Attribution(8, "the adapter did not pass the event to the bridge"): 1},
        },
    ),
    (duplicate, {"frames": 1, "extra_copies": 1}),
    (duplicate_late, {"frames": 1, "extra_copies": 1}),
    (swap, {"reordered": 1, "reordering_extent": 1}),
    (move_first_to_the_end, {"reordered": 1, "reordering_extent": 4}),
    (copy_to_another_thread, {"frames": 1, "wrong_thread": 1, "misroutes": {MISROUTED: 1}}),
    (copy_to_another_user, {"frames": 1, "wrong_user": 1, "misroutes": {MISROUTED: 1}}),
    (move_to_another_thread, MOVED | {"wrong_thread": 1}),
    (move_to_another_user, MOVED | {"wrong_user": 1}),
    (read_unexpected_event, {"frames": 1, "unexpected": 1}),
    (read_unidentified_frame, {"frames": 1, "unexpected": 1}),
    (report_not_sent, {"false_failure": 1}),
    (exchange_numbers, {"reordered_in_run": 1}),
    (number_the_first_last, {"reordered_in_run": 1}),
    (read_against_the_numbers, {"reordered": 4, "reordering_extent": 4}),
    (skip_a_number, {"false_gaps": 1}),
    (skip_a_number_on_the_wire, {"false_gaps": 1}),
    (skip_a_number_that_another_thread_took, {}),
    (skip_two_ranges, {"false_gaps": 2}),
    (skip_and_signal, {"false_gaps": 1}),
    (signal_what_is_read, {"false_gaps": 1}),
    (signal_to_the_end, {}),
]  # fmt: skip


@pytest.mark.parametrize(("mutate", "found"), MUTATED, ids=[mutate.__name__ for mutate, _ in MUTATED])
def test_mutation_is_reported_exactly_and_nothing_else(mutate: Any, found: dict[str, Any]) -> None:
    history = clean()
    mutate(history)
    assert differences(check(clean()), check(history)) == found


def test_rates_have_the_right_numerator_and_denominator() -> None:
    history = clean()
    lose(history)
    copy_to_another_user(history)
    verdict = check(history)
    assert (verdict.delivery, verdict.drop) == (Rate(14, 15), Rate(1, 15))
    assert verdict.misrouting == Rate(1, 15)
    assert (verdict.misrouted, verdict.lost, verdict.lost_at) == (1, 1, {10: 1})


@pytest.mark.parametrize(
    "mutate",
    [lose, lose_and_signal, move_to_another_user, move_to_another_thread, copy_to_another_user, copy_to_another_thread],
)
def test_all_is_delivered_only_if_nothing_is_lost_or_misrouted(mutate: Any) -> None:
    history = clean()
    assert check(history).all_delivered
    mutate(history)
    assert not check(history).all_delivered


def test_nothing_expected_is_not_all_delivered() -> None:
    assert not check(History()).all_delivered


def test_event_is_expected_at_each_entitled_socket() -> None:
    history = clean()
    history.sockets.append(Socket(3, ALICES.thread_id, ALICES.user_id))
    assert differences(check(clean()), check(history)) == {
        "expected": 5,
        "lost_silent": 5,
        "losses": {REPORTED_SENT: 5},
    }


def test_reordering_is_counted_for_each_socket_separately() -> None:
    """The interleaving of different sockets' frames does not matter."""
    history = clean()
    history.arrivals.sort(key=lambda each: (each.seq, each.socket.number))
    assert check(history) == check(clean())


def test_checking_changes_no_history() -> None:
    history = clean()
    assert check(history) == check(history)
    assert history == clean()


@pytest.mark.parametrize("enabled", [True, False])
def test_check_leaves_the_garbage_collector_as_it_was(enabled: bool) -> None:
    twice = clean()
    twice.expected.append(twice.expected[0])
    try:
        (gc.enable if enabled else gc.disable)()
        check(clean())
        assert gc.isenabled() == enabled
        with pytest.raises(LedgerImbalance):
            check(twice)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_inconsistent_history_raises_ledger_imbalance() -> None:
    twice = clean()
    twice.expected.append(twice.expected[0])
    with pytest.raises(LedgerImbalance) as raised:
        check(twice)
    assert raised.value.identity == "frames = delivered + extra copies + misrouted + unexpected"
    assert (raised.value.left, raised.value.right) == (15, 16)
    foreign_socket = clean()
    foreign_socket.arrivals.append(arrival(Socket(9, ALICES.thread_id, ALICES.user_id), THIRD, 3))
    with pytest.raises(LedgerImbalance):
        check(foreign_socket)


def test_arrival_counts_only_for_its_own_thread() -> None:
    """A frame at the same user's other thread is not a delivery."""
    history = History(
        sockets=[ALICES, ALICES_OTHER],
        expected=[Expectation(THIRD, ThreadId("a1"), ALICES.user_id)],
        arrivals=[Arrival(ALICES_OTHER, THIRD, RunId("run"), 1, 0.0, 0.0)],
    )
    verdict = check(history)
    assert (verdict.delivered, verdict.lost_silent, verdict.wrong_thread) == (0, 1, 1)


def test_attributions_and_losses_are_in_the_order_of_the_chain() -> None:
    history = clean()
    for seq, link in ((1, 10), (2, 9), (3, 3)):
        history.arrivals.remove(arrival(ALICES, key(ALICES, seq), seq))
        refused = Receipt(outcome=Outcome.REFUSED, link=link, reason="no", thread_id=ThreadId("a1"))
        history.acknowledged[key(ALICES, seq)] = (RunId("run of a1"), refused)
    moved(history, 4, BOBS)
    verdict = check(history)
    assert [*verdict.lost_at] == [3, 9, 10]
    assert verdict.attributions == [
        Attribution(3, "no"),
        Attribution(9, "no"),
        Attribution(10, "delivered to a socket of another thread"),
        Attribution(10, "no"),
        Attribution(10, "reported as sent, but read by no socket"),
    ]
    assert check(History()).attributions == []


def test_garbage_collector_is_paused_while_a_history_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    paused = list[bool]()

    def observed(history: History) -> list[Row]:
        paused.append(not gc.isenabled())
        return ledger(history)

    monkeypatch.setattr(checker, "ledger", observed)
    check(clean())
    assert paused == [True]
