"""Signals that a server sends in addition to events, and validation of a client's cursor."""

from __future__ import annotations

import pytest

from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason, Subscribed, cursor, decode_any, encode_signal
from bridgekit.errors import FrameTooLarge, InvalidId, MalformedFrame
from bridgekit.events import FRAME_BYTES
from bridgekit.ids import ThreadId
from tests.factories import THREAD, frame, routed

EPOCH = "0123456789abcdef"


@pytest.mark.parametrize(
    ("epoch", "seq"),
    [(EPOCH, "0"), (EPOCH, 0), (EPOCH, "9" * 18), (EPOCH, "0017")],
    ids=["0", "number", "huge", "0017"],
)
def test_cursor_is_accepted_when_epoch_and_seq_are_valid(epoch: object, seq: object) -> None:
    assert cursor(epoch, seq) == Cursor(EPOCH, int(str(seq)))


@pytest.mark.parametrize(
    ("epoch", "seq", "field"),
    [
        (None, "1", "epoch"),
        ("", "1", "epoch"),
        (EPOCH.upper(), "1", "epoch"),
        (EPOCH[:-1], "1", "epoch"),
        (EPOCH + "0", "1", "epoch"),
        (EPOCH + "\n", "1", "epoch"),
        ("g" * 16, "1", "epoch"),
        (16 * "\N{ARABIC-INDIC DIGIT ONE}", "1", "epoch"),
        (EPOCH, None, "seq"),
        (EPOCH, "", "seq"),
        (EPOCH, "-1", "seq"),
        (EPOCH, -1, "seq"),
        (EPOCH, "+1", "seq"),
        (EPOCH, "1.0", "seq"),
        (EPOCH, 1.0, "seq"),
        (EPOCH, "1e3", "seq"),
        (EPOCH, "1_000", "seq"),
        (EPOCH, " 1", "seq"),
        (EPOCH, "1\n", "seq"),
        (EPOCH, "0x1", "seq"),
        (EPOCH, "nan", "seq"),
        (EPOCH, "9" * 19, "seq"),
        (EPOCH, "9" * 10_000, "seq"),
        (EPOCH, "\N{ARABIC-INDIC DIGIT ONE}", "seq"),
        (EPOCH, "\N{SUPERSCRIPT TWO}", "seq"),
    ],
)
def test_error_names_the_field_when_a_cursor_is_invalid(epoch: object, seq: object, field: str) -> None:
    with pytest.raises(InvalidId) as refused:
        cursor(epoch, seq)
    assert refused.value.field == field


def test_gap_is_unchanged_when_it_is_encoded_and_decoded() -> None:
    gap = Gap(thread_id=THREAD, epoch=EPOCH, first=3, last=5, reason=GapReason.EXPIRED)
    assert encode_signal(gap) == (
        b'{"type":"gap","thread_id":"thread_123","epoch":"0123456789abcdef","from":3,"to":5,"reason":"expired"}'
    )
    assert decode_any(encode_signal(gap)) == gap


def test_gap_has_null_as_its_end_when_the_end_is_unknown() -> None:
    gap = Gap(thread_id=THREAD, epoch=EPOCH, first=3, last=None, reason=GapReason.RESTARTED)
    assert b'"to":null' in encode_signal(gap)
    assert decode_any(encode_signal(gap).decode()) == gap


def test_gap_contains_the_seqs_in_its_range() -> None:
    gap = Gap(thread_id=THREAD, epoch=EPOCH, first=3, last=5, reason=GapReason.LOST)
    assert [seq for seq in range(1, 9) if seq in gap] == [3, 4, 5]
    endless = Gap(thread_id=THREAD, epoch=EPOCH, first=3, last=None, reason=GapReason.LOST)
    assert [seq for seq in range(1, 6) if seq in endless] == [3, 4, 5]


def test_subscribed_is_unchanged_when_it_is_encoded_and_decoded() -> None:
    subscribed = Subscribed(ThreadId("Zürich"), EPOCH, 0)
    assert decode_any(encode_signal(subscribed)) == subscribed
    assert subscribed.cursor == Cursor(EPOCH, 0)


def test_decode_any_returns_the_event_when_the_frame_is_an_event() -> None:
    assert decode_any(frame(7).data) == routed(seq=7)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'{"type":"subscribed"}',
        b'{"type":"subscribed","thread_id":"t","epoch":"e","seq":-1}',
        b'{"type":"gap","thread_id":"t","epoch":"e","from":0,"to":1,"reason":"lost"}',
        b'{"type":"gap","thread_id":"t","epoch":"e","from":1,"to":1,"reason":"bored"}',
        b'{"type":"gone"}',
        b'{"type":7}',
        b'{"no":"type"}',
        b"\xff",
        "\ud800",
        b"[" * 100_000,
    ],
)
def test_frame_is_refused_when_it_is_neither_event_nor_signal(data: str | bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_any(data)


@pytest.mark.parametrize("data", [b"x" * (FRAME_BYTES + 1), "x" * (FRAME_BYTES + 1)], ids=["bytes", "text"])
def test_frame_is_refused_before_decoding_when_it_exceeds_the_limit(data: str | bytes) -> None:
    with pytest.raises(FrameTooLarge):
        decode_any(data)
