"""Events that were answered before they had a number: told, or lost in silence? Literal streams in, numbers out."""

from __future__ import annotations

import pytest

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId
from bridgekit_verify.faults.trials.recorder import assign_seq
from bridgekit_verify.measure.history import Arrival, EventKey, SignalledGap
from tests.verify.faults.trials.trials import SOCKET

KEYS = [EventKey("down:thread_1:during", EventType.AGENT_THINKING, step) for step in range(5)]
PENDING = Receipt(outcome=Outcome.PENDING)
EPOCH = "e1"


def sent(seq: int, epoch: str = EPOCH) -> Receipt:
    return Receipt(outcome=Outcome.RELAYED, workers=1, seq=seq, epoch=epoch)


def read(index: int, seq: int, epoch: str = EPOCH) -> Arrival:
    return Arrival(SOCKET, KEYS[index], RunId("run_1"), seq, 0.0, 0.0, epoch)


def number_of(
    index: int, receipts: list[Receipt], arrivals: list[Arrival], gaps: list[SignalledGap]
) -> tuple[int | None, str | None]:
    found = assign_seq(KEYS[: len(receipts)], dict(zip(KEYS, receipts, strict=False)), arrivals, gaps)[KEYS[index]]
    return found.seq, found.epoch


def test_lost_event_has_the_number_between_its_neighbours() -> None:
    receipts = [sent(7), PENDING, sent(9)]
    assert number_of(1, receipts, [read(0, 7), read(2, 9)], []) == (8, EPOCH)


def test_number_that_was_told_is_taken_only_when_every_other_was_read_or_told() -> None:
    receipts = [sent(7), PENDING, sent(20)]
    arrivals = [read(0, 7), read(2, 20)]
    assert number_of(1, receipts, arrivals, [SignalledGap(8, 19, EPOCH)]) == (8, EPOCH)
    assert number_of(1, receipts, arrivals, [SignalledGap(8, 18, EPOCH)]) == (19, EPOCH)
    assert number_of(1, receipts, arrivals, [SignalledGap(8, 12, EPOCH), SignalledGap(14, 19, EPOCH)]) == (13, EPOCH)


def test_gap_of_another_numbering_tells_nothing() -> None:
    receipts = [sent(7), PENDING, sent(9)]
    assert number_of(1, receipts, [], [SignalledGap(8, 8, "e0")]) == (8, EPOCH)


def test_neighbour_that_was_pending_and_read_has_the_number_it_was_read_with() -> None:
    receipts = [PENDING, PENDING, PENDING]
    assert number_of(1, receipts, [read(0, 1_000_001), read(2, 1_000_003)], []) == (1_000_002, EPOCH)


def test_numbering_that_began_anew_is_searched_from_its_beginning() -> None:
    receipts = [sent(7, "e0"), PENDING, sent(2)]
    assert number_of(1, receipts, [read(2, 2)], []) == (1, EPOCH)


def test_event_that_was_read_keeps_its_receipt() -> None:
    assert number_of(1, [sent(1), PENDING, sent(3)], [read(0, 1), read(1, 2), read(2, 3)], []) == (None, None)


@pytest.mark.parametrize(
    "receipts", [[sent(1), PENDING], [sent(1), PENDING, sent(2)]], ids=["nothing after", "no room"]
)
def test_event_that_can_have_no_number_has_none(receipts: list[Receipt]) -> None:
    assert number_of(1, receipts, [], []) == (None, None)
