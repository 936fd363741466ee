"""The ledger: one row for each event and entitled socket, and one link for each loss, by the evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.measure.history import Expectation, Handover, History, Key, Missing, Socket, key_of
from bridgekit_verify.measure.ledger import Charge, attribute_misroute, charge, ledger
from tests.verify.measure.histories import ALICES, arrival, clean, key

THOUGHT = key(ALICES, 3)
EXPECTED = Expectation(THOUGHT, ALICES.thread_id, ALICES.user_id)
STARTED = Expectation(Key(THOUGHT.request, EventType.AGENT_STARTED, 0), ALICES.thread_id, ALICES.user_id)
RUN = RunId("run of a1")


def unheard(**evidence: Any) -> History:
    """Alice's third thought reached no bridge."""
    history = clean()
    del history.acknowledged[THOUGHT]
    for name, value in evidence.items():
        setattr(history, name, value)
    return history


def handed(**evidence: Any) -> dict[str, Handover]:
    whole = Handover(run_id=RUN, given=True, passed_on=True, holds=True)
    return {THOUGHT.request: replace(whole, **evidence)}


@pytest.mark.parametrize(
    ("evidence", "expected", "link", "reason"),
    [
        ({"misplaced": (4, "another bridge")}, EXPECTED, 4, "another bridge"),
        ({"failures": {THOUGHT.request: (3, "KeyError")}}, EXPECTED, 3, "KeyError"),
        ({"handovers": {}}, EXPECTED, 5, "the core did not say it"),
        ({}, STARTED, 5, "the core did not say it"),
        ({"handovers": handed(given=False)}, EXPECTED, 5, "the agent was given no bridge"),
        (
            {"handovers": handed(given=False), "bound_by_registry": True},
            EXPECTED,
            3,
            "the agent was given no bridge",
        ),
        (
            {"handovers": handed(passed_on=False, holds=False)},
            EXPECTED,
            6,
            "the agent did not tell its adapter",
        ),
        ({"handovers": handed(holds=False)}, EXPECTED, 7, "the adapter does not hold bridge and run"),
        ({}, EXPECTED, 8, "the adapter did not reach the bridge"),
        (
            {"misplaced": (2, "first"), "failures": {THOUGHT.request: (3, "second")}, "handovers": {}},
            EXPECTED,
            2,
            "first",
        ),
    ],
)
def test_event_that_no_bridge_answered_is_charged_to_the_first_link_without_it(
    evidence: dict[str, object], expected: Expectation, link: int, reason: str
) -> None:
    assert charge(unheard(**evidence), expected) == Charge(link, reason)


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
        (RUN, receipt(Outcome.SENT), 10, "called sent, and no socket read it"),
        (RUN, receipt(Outcome.SENT, thread_id="b1"), 9, "sent to another thread"),
        (RUN, receipt(Outcome.NO_SUBSCRIBER, link=10), 10, "no subscriber!"),
        (RUN, receipt(Outcome.NO_SUBSCRIBER, thread_id="b1", link=10), 9, "sent to another thread"),
        (RUN, receipt(Outcome.UNROUTABLE, thread_id=None, link=9), 9, "unroutable!"),
        (RUN, receipt(Outcome.UNROUTABLE, thread_id=None), 9, "unroutable!"),
        ("run of b1", receipt(Outcome.SENT, thread_id="b1"), 5, "the agent spoke for another run"),
        ("run of b1", receipt(Outcome.UNROUTABLE, thread_id=None, link=9), 5, "the agent spoke for another run"),
    ],
)
def test_event_that_the_bridge_answered_is_charged_to_the_first_link_that_erred(
    run_id: str, answer: Receipt, link: int, reason: str
) -> None:
    history = clean()
    history.acknowledged[THOUGHT] = (RunId(run_id), answer)
    assert charge(history, EXPECTED) == Charge(link, reason)


@pytest.mark.parametrize(
    ("run_id", "thread", "link", "reason"),
    [
        (RUN, "a1", 10, "given to a socket of another thread"),
        (RUN, "b1", 9, "sent to another thread"),
        ("run of b1", "b1", 5, "the agent spoke for another run"),
    ],
)
def test_misroute_is_charged_to_the_first_link_that_sent_it_astray(
    run_id: str, thread: str, link: int, reason: str
) -> None:
    history = clean()
    history.acknowledged[THOUGHT] = (RunId(run_id), receipt(Outcome.SENT, thread_id=thread))
    assert attribute_misroute(history, EXPECTED) == Charge(link, reason)


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
    assert [(row.socket.number, row.copies, row.latency_seconds, row.charge) for row in (first, second)] == [
        (0, 1, 0.25, None),
        (3, 2, 0.25, None),
    ]
    lost = rows[3]
    assert (lost.socket.number, lost.copies, lost.latency_seconds) == (3, 0, None)
    assert lost.charge == Charge(10, "called sent, and no socket read it")


def test_loss_is_signalled_only_by_a_gap_told_to_that_socket() -> None:
    history = clean()
    history.arrivals.remove(arrival(ALICES, THOUGHT, 3))
    [silent] = [row for row in ledger(history) if not row.copies]
    history.gaps[ALICES.number] = [Missing(1, 1), Missing(2, 4)]
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
def test_event_is_named_by_its_content(event_type: str, payload: dict[str, object], step: int) -> None:
    kind = EventType(event_type)
    assert key_of(kind, payload) == Key("question 1", kind, step)
    assert key_of(EventType.PROGRESS_UPDATE, payload) is None
    assert key_of(kind, {}) is None
