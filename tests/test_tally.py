"""The books of one application."""

from __future__ import annotations

from collections import Counter

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.tally import Tally
from tests.samples import emitted


def test_each_event_is_counted_once_as_sent_or_by_the_link_that_lost_it() -> None:
    tally = Tally()
    for outcome, link, reason in (
        (Outcome.SENT, None, ""),
        (Outcome.SENT, None, ""),
        (Outcome.NOBODY_LISTENING, 10, "nobody"),
        (Outcome.UNROUTABLE, 9, "no route"),
        (Outcome.UNROUTABLE, 9, "no route"),
        (Outcome.REFUSED, 7, "no bridge"),
        (Outcome.REFUSED, None, "for no reason"),
    ):
        tally.count(emitted(), Receipt(outcome=outcome, sockets=1, link=link, reason=reason))
    assert tally.sent == {EventType.AGENT_THINKING: 2}
    assert tally.lost == {(10, "nobody"): 1, (9, "no route"): 2, (7, "no bridge"): 1, (0, "for no reason"): 1}


def test_cleared_tally_knows_nothing() -> None:
    tally = Tally()
    tally.count(emitted(), Receipt(outcome=Outcome.SENT, sockets=1))
    tally.count(emitted(), Receipt(outcome=Outcome.UNROUTABLE, link=9, reason="no route"))
    tally.unwritten["too slow"] += 1
    tally.clear()
    assert (tally.sent, tally.lost, tally.unwritten) == (Counter(), Counter(), Counter())
