"""The delivery counters count each event exactly once."""

from __future__ import annotations

from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import Gap, GapReason
from bridgekit.events import EventType, Outcome, Receipt
from tests.factories import THREAD, emitted


def test_event_is_counted_once_as_sent_or_lost() -> None:
    counters = DeliveryCounters()
    for outcome, link, reason in (
        (Outcome.SENT, None, ""),
        (Outcome.SENT, None, ""),
        (Outcome.NO_SUBSCRIBER, 10, "no subscriber"),
        (Outcome.UNROUTABLE, 9, "no route"),
        (Outcome.UNROUTABLE, 9, "no route"),
        (Outcome.REFUSED, 7, "no bridge"),
        (Outcome.REFUSED, None, "for no reason"),
    ):
        counters.count(emitted(), Receipt(outcome=outcome, sockets=1, link=link, reason=reason))
    assert counters.sent == {EventType.AGENT_THINKING: 2}
    assert counters.lost == {(10, "no subscriber"): 1, (9, "no route"): 2, (7, "no bridge"): 1, (0, "for no reason"): 1}


def test_event_is_neither_sent_nor_lost_when_it_is_retained_or_pending() -> None:
    counters = DeliveryCounters()
    for outcome, kept in (
        (Outcome.NO_SUBSCRIBER, True),
        (Outcome.RELAYED, True),
        (Outcome.PENDING, False),
        (Outcome.PENDING, False),
    ):
        counters.count(emitted(), Receipt(outcome=outcome, kept=kept, link=10, reason="no subscriber"))
    counters.count(emitted(), Receipt(outcome=Outcome.RELAYED, workers=1, kept=True))
    thinking = EventType.AGENT_THINKING
    assert (counters.sent, counters.kept, counters.pending, counters.lost) == (
        {thinking: 1},
        {thinking: 2},
        {thinking: 2},
        {},
    )


def test_subscription_is_counted_by_how_it_started() -> None:
    counters = DeliveryCounters()
    counters.count_subscription(False, [])
    counters.count_subscription(True, [])
    counters.count_subscription(True, [gap(GapReason.RESTARTED), gap(GapReason.EXPIRED)])
    counters.count_subscription(True, [gap(GapReason.EXPIRED)])
    assert counters.subscriptions == {"new": 1, "resumed": 1, "gap": 2}
    assert counters.gaps == {GapReason.RESTARTED: 1, GapReason.EXPIRED: 2}


def gap(reason: GapReason) -> Gap:
    return Gap(thread_id=THREAD, epoch="0" * 16, first=1, last=None, reason=reason)


def test_counters_are_zero_when_they_were_cleared() -> None:
    counters = DeliveryCounters()
    counters.count(emitted(), Receipt(outcome=Outcome.SENT, sockets=1))
    counters.count(emitted(), Receipt(outcome=Outcome.UNROUTABLE, link=9, reason="no route"))
    counters.count(emitted(), Receipt(outcome=Outcome.PENDING))
    counters.count(emitted(), Receipt(outcome=Outcome.NO_SUBSCRIBER, kept=True))
    counters.count_subscription(True, [gap(GapReason.EXPIRED)])
    counters.unwritten["too slow"] += 1
    counters.coalesced += 1
    counters.concatenated += 1
    counters.refused[4_503] += 1
    counters.clear()
    assert vars(counters) == vars(DeliveryCounters())
