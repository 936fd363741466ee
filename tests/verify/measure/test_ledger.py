"""The ledger: one row per event and entitled socket, and one attributed link per loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.measure.history import EventKey, Expectation, Handover, History, SignalledGap, Socket, key_of
from bridgekit_verify.measure.ledger import Attribution, attribute_loss, attribute_misroute, ledger
from tests.verify.measure.histories import ALICES, arrival, clean, key

THOUGHT = key(ALICES, 3)
EXPECTED = Expectation(THOUGHT, ALICES.thread_id, ALICES.user_id)
STARTED = Expectation(EventKey(THOUGHT.request, EventType.AGENT_STARTED, 0), ALICES.thread_id, ALICES.user_id)
RUN = RunId("run of a1")


def without_receipt(**evidence: Any) -> History:
    """Return a history where Alice's third thought has no receipt."""
    history = clean()
    del history.acknowledged[THOUGHT]
    for name, value in evidence.items():
        setattr(history, name, value)
    return history


def handover(**evidence: Any) -> dict[str, Handover]:
    whole = Handover(run_id=RUN, given=True, passed_on=True, holds=True)
    return {THOUGHT.request: replace(whole, **evidence)}


@pytest.mark.parametrize(
    ("evidence", "expected", "link", "reason"),
    [
        ({"wrong_bridge": (4, "another bridge")}, EXPECTED, 4, "another bridge"),
        ({"failures": {THOUGHT.request: (3, "KeyError")}}, EXPECTED, 3, "KeyError"),
        ({"handovers": {}}, EXPECTED, 5, "the core did not emit the event"),
        ({}, STARTED, 5, "the core did not emit the event"),
        ({"handovers": handover(given=False)}, EXPECTED, 5, "the agent received no bridge"),
        (
            {"handovers": handover(given=False), "bound_by_registry": True},
            EXPECTED,
            3,
            "the agent received no bridge",
        ),
        (
            {"handovers": handover(passed_on=False, holds=False)},
            EXPECTED,
            6,
            "the agent did not bind its adapter",
        ),
        ({"handovers": handover(holds=False)}, EXPECTED, 7, "the adapter does not hold both a bridge and a run"),
        ({}, EXPECTED, 8, "the adapter did not pass the event to the bridge"),
        (
            {"wrong_bridge": (2, "first"), "failures": {THOUGHT.request: (3, "second")}, "handovers": {}},
            EXPECTED,
            2,
            "first",
        ),
    ],
)
def test_event_without_a_receipt_is_attributed_to_the_first_link_without_it(
    evidence: dict[str, object], expected: Expectation, link: int, reason: str
) -> None:
    assert attribute_loss(without_receipt(**evidence), expected) == Attribution(link, reason)


def receipt(outcome: Outcome, *, thread_id: str | None = "a1", link: int | None = None) -> Receipt:
    return Receipt(
        outcome=outcome,
        sockets=1,
        thread_id=None if thread_id is None else ThreadId(thread_id),
        seq=3,
        link=link,
        reason=f"{outcome}!",
    )


@pytest.mark.parametrize(
    ("run_id", "answer", "link", "reason"),
    [
        (RUN, receipt(Outcome.SENT), 10, "reported as sent, but read by no socket"),
        (RUN, receipt(Outcome.SENT, thread_id="b1"), 9, "sent to another thread"),
        (RUN, receipt(Outcome.NO_SUBSCRIBER, link=10), 10, "no subscriber!"),
        (RUN, receipt(Outcome.NO_SUBSCRIBER, thread_id="b1", link=10), 9, "sent to another thread"),
        (RUN, receipt(Outcome.UNROUTABLE, thread_id=None, link=9), 9, "unroutable!"),
        (RUN, receipt(Outcome.UNROUTABLE, thread_id=None), 9, "unroutable!"),
        ("run of b1", receipt(Outcome.SENT, thread_id="b1"), 5, "the agent emitted the event for another run"),
        (
            "run of b1",
            receipt(Outcome.UNROUTABLE, thread_id=None, link=9),
            5,
            "the agent emitted the event for another run",
        ),
    ],
)
def test_event_with_a_receipt_is_attributed_to_the_first_link_that_failed(
    run_id: str, answer: Receipt, link: int, reason: str
) -> None:
    history = clean()
    history.acknowledged[THOUGHT] = (RunId(run_id), answer)
    assert attribute_loss(history, EXPECTED) == Attribution(link, reason)


@pytest.mark.parametrize(
    ("run_id", "thread", "link", "reason"),
    [
        (RUN, "a1", 10, "delivered to a socket of another thread"),
        (RUN, "b1", 9, "sent to another thread"),
        ("run of b1", "b1", 5, "the agent emitted the event for another run"),
    ],
)
def test_misroute_is_attributed_to_the_first_link_that_misrouted_it(
    run_id: str, thread: str, link: int, reason: str
) -> None:
    history = clean()
    history.acknowledged[THOUGHT] = (RunId(run_id), receipt(Outcome.SENT, thread_id=thread))
    assert attribute_misroute(history, EXPECTED) == Attribution(link, reason)


def test_ledger_has_a_row_for_each_event_and_entitled_socket_in_order() -> None:
    history = clean()
    history.sockets.append(Socket(3, ALICES.thread_id, ALICES.user_id))
    history.arrivals.insert(0, arrival(history.sockets[3], key(ALICES, 1), 1))
    history.arrivals.insert(1, arrival(history.sockets[3], key(ALICES, 1), 1))
    rows = ledger(history)
    assert len(rows) == 20
    first, second, third = rows[:3]
    assert [row.expectation.key for row in (first, second, third)] == [
        key(ALICES, 1),
        key(ALICES, 1),
        key(ALICES, 2),
    ]
    assert [(row.socket.number, row.copies, row.latency_seconds, row.attribution) for row in (first, second)] == [
        (0, 1, 0.25, None),
        (3, 2, 0.25, None),
    ]
    lost = rows[3]
    assert (lost.socket.number, lost.copies, lost.latency_seconds) == (3, 0, None)
    assert lost.attribution == Attribution(10, "reported as sent, but read by no socket")


def test_loss_is_signalled_only_by_a_gap_sent_to_that_socket() -> None:
    history = clean()
    history.arrivals.remove(arrival(ALICES, THOUGHT, 3))
    [silent] = [row for row in ledger(history) if not row.copies]
    history.gaps[ALICES.number] = [SignalledGap(1, 1), SignalledGap(2, 4)]
    [signalled] = [row for row in ledger(history) if not row.copies]
    assert (silent.signalled, signalled.signalled) == (False, True)
    assert not any(row.signalled for row in ledger(history) if row.copies)


REQUEST = {"request": "question 1"}
STEP = {"request": "question 1", "step": 2}


@pytest.mark.parametrize(
    ("event_type", "payload", "step"),
    [
        ("agent_started", {"context": REQUEST}, 0),
        ("agent_completed", {"result": REQUEST}, 0),
        ("agent_error", {"error_context": REQUEST}, 0),
        ("agent_thinking", {"reasoning": "question 1: hm: hm", "step_number": 2}, 2),
        ("tool_executing", {"parameters": STEP}, 2),
        ("tool_completed", {"result": STEP}, 2),
    ],
)
def test_event_is_identified_by_its_content(event_type: str, payload: dict[str, object], step: int) -> None:
    kind = EventType(event_type)
    assert key_of(kind, payload) == EventKey("question 1", kind, step)
    assert key_of(EventType.PROGRESS_UPDATE, payload) is None
    assert key_of(kind, {}) is None


def test_part_of_a_history_contains_only_its_event_types() -> None:
    history = clean()
    started = EventKey("question of a1", EventType.AGENT_STARTED, 0)
    history.expected.append(Expectation(started, ALICES.thread_id, ALICES.user_id))
    history.acknowledged[started] = history.acknowledged[key(ALICES, 1)]
    history.arrivals += [arrival(ALICES, started, 6), arrival(ALICES, None, 7)]
    part = history.of({EventType.AGENT_STARTED})
    assert [each.key for each in part.expected] == [*part.acknowledged] == [started]
    assert [each.key for each in part.arrivals] == [started]
    assert part.sockets == history.sockets


@pytest.mark.parametrize(
    ("seq", "epoch", "covered"),
    [(2, "e", True), (3, "e", True), (1, "e", False), (4, "e", False), (None, "e", False), (2, "f", False)],
)
def test_gap_covers_the_numbers_of_its_own_epoch(seq: int | None, epoch: str, covered: bool) -> None:
    receipt = Receipt(outcome=Outcome.SENT, sockets=1, thread_id=ALICES.thread_id, seq=seq, epoch=epoch)
    assert SignalledGap(2, 3, "e").covers(receipt) is covered
    assert SignalledGap(2, 3).covers(receipt) is (seq in (2, 3))
    assert SignalledGap(2, None, "e").covers(receipt) is (seq in (2, 3, 4) and epoch == "e")


def test_history_of_some_types_says_so() -> None:
    assert clean().all_types
    assert clean().of({EventType.AGENT_THINKING}).all_types is False
