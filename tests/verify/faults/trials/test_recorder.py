"""Infers the `seq` of events that were acknowledged without one, from literal receipts, arrivals and gaps."""

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


def test_lost_event_gets_the_seq_between_its_neighbours() -> None:
    receipts = [sent(7), PENDING, sent(9)]
    assert number_of(1, receipts, [read(0, 7), read(2, 9)], []) == (8, EPOCH)


def test_signalled_seq_is_used_only_if_no_other_is_free() -> None:
    receipts = [sent(7), PENDING, sent(20)]
    arrivals = [read(0, 7), read(2, 20)]
    assert number_of(1, receipts, arrivals, [SignalledGap(8, 19, EPOCH)]) == (8, EPOCH)
    assert number_of(1, receipts, arrivals, [SignalledGap(8, 18, EPOCH)]) == (19, EPOCH)
    assert number_of(1, receipts, arrivals, [SignalledGap(8, 12, EPOCH), SignalledGap(14, 19, EPOCH)]) == (13, EPOCH)


def test_gap_of_another_epoch_is_ignored() -> None:
    receipts = [sent(7), PENDING, sent(9)]
    assert number_of(1, receipts, [], [SignalledGap(8, 8, "e0")]) == (8, EPOCH)


def test_pending_neighbour_that_was_read_has_the_seq_of_its_arrival() -> None:
    receipts = [PENDING, PENDING, PENDING]
    assert number_of(1, receipts, [read(0, 1_000_001), read(2, 1_000_003)], []) == (1_000_002, EPOCH)


def test_new_epoch_is_searched_from_its_first_seq() -> None:
    receipts = [sent(7, "e0"), PENDING, sent(2)]
    assert number_of(1, receipts, [read(2, 2)], []) == (1, EPOCH)


def test_event_that_was_read_keeps_its_receipt() -> None:
    assert number_of(1, [sent(1), PENDING, sent(3)], [read(0, 1), read(1, 2), read(2, 3)], []) == (None, None)


@pytest.mark.parametrize(
    "receipts", [[sent(1), PENDING], [sent(1), PENDING, sent(2)]], ids=["nothing after", "no room"]
)
def test_event_without_a_possible_seq_gets_none(receipts: list[Receipt]) -> None:
    assert number_of(1, receipts, [], []) == (None, None)
