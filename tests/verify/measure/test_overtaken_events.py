"""Lateness in events: literal histories in, and the link that delayed each event out."""

from __future__ import annotations

import pytest

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId
from bridgekit_verify.measure.attribution import Attribution
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History
from bridgekit_verify.measure.overtaken_events import attribute_delays, delayed_events
from tests.verify.measure.histories import ALICES, ALICES_OTHER, BOBS, clean

STARTED, THOUGHT, ASKED, DONE = KEYS = (
    EventKey("question", EventType.AGENT_STARTED, 0),
    EventKey("question", EventType.AGENT_THINKING, 1),
    EventKey("question", EventType.TOOL_EXECUTING, 1),
    EventKey("question", EventType.AGENT_COMPLETED, 0),
)


def history(answered: str, numbered: str, read: str) -> History:
    """Return a run of four events, 0 to 3: in the orders of receipts, of numbering by the hub, and of reading."""
    receipt = Receipt(outcome=Outcome.SENT, sockets=1, thread_id=ALICES.thread_id)
    return History(
        sockets=[ALICES],
        expected=[Expectation(key, ALICES.thread_id, ALICES.user_id) for key in KEYS],
        acknowledged={KEYS[int(digit)]: (RunId("run"), receipt) for digit in answered},
        arrivals=[
            Arrival(ALICES, KEYS[int(digit)], RunId("run"), numbered.index(digit) + 1, 0.0, 0.0) for digit in read
        ],
    )


@pytest.mark.parametrize(
    ("answered", "numbered", "read", "late"),
    [
        ("0123", "0123", "0123", {}),
        ("0123", "0123", "0213", {10: 1}),
        ("0123", "0123", "1230", {10: 1}),
        ("0123", "0123", "3210", {10: 3}),
        ("0123", "0213", "0213", {9: 1}),
        ("0123", "1032", "1032", {9: 2}),
        ("0213", "0213", "0213", {8: 1}),
        ("1230", "1230", "1230", {5: 1}),
        ("1320", "1320", "1320", {5: 1, 8: 1}),
        ("0123", "0123", "013", {}),
    ],
)
def test_late_event_is_attributed_to_the_link_that_delayed_it(
    answered: str, numbered: str, read: str, late: dict[int, int]
) -> None:
    delays = attribute_delays(history(answered, numbered, read))
    assert {attribution.link: count for attribution, count in delays.items()} == late


def test_lateness_is_the_number_of_later_events_read_first() -> None:
    [late] = delayed_events(history("0123", "0123", "1230"))
    assert (late.key, late.socket, late.events) == (STARTED, ALICES, 3)
    assert late.attribution == Attribution(10, "numbered in order, but read late")


def test_copies_and_misrouted_frames_are_not_late() -> None:
    run = history("0123", "0123", "0123")
    run.arrivals.append(run.arrivals[0])
    for socket in (BOBS, ALICES_OTHER):
        run.arrivals += [
            Arrival(socket, each.key, each.run_id, each.seq, 0.0, 0.0) for each in reversed(run.arrivals[:4])
        ]
    run.arrivals.append(Arrival(ALICES, None, RunId("run"), 9, 0.0, 0.0))
    assert delayed_events(run) == []


def test_interleaved_runs_of_one_thread_are_not_late() -> None:
    assert delayed_events(clean()) == []
