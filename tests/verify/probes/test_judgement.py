"""The comparisons that judge a link: what counts as a difference, and which call passed another one on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bridgekit_verify.probes.judgement import Judgement, ViolationKind, canonical, difference, match
from bridgekit_verify.probes.recorded_calls import RecordedCall

NOW = datetime(2025, 9, 1, tzinfo=UTC)

DIFFERENT: list[tuple[Any, Any]] = [
    (1, 1.0),
    (1, True),
    (0, False),
    (0.1 + 0.2, 0.3),
    (0.0, -0.0),
    ("é", "e\u0301"),
    ("\U0001f6f0", "?"),
    ("", None),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({"a": 1}, {}),
    ({}, {"a": 1}),
    ([1, 2], [2, 1]),
    ([1], [1, 1]),
    ({"a": [{"b": "x"}]}, {"a": [{"b": "y"}]}),
]


@pytest.mark.parametrize(("given", "found"), DIFFERENT)
def test_difference_is_found_in_both_directions_and_in_the_canonical_form(given: Any, found: Any) -> None:
    assert difference(given, found, "value") is not None
    assert difference(found, given, "value") is not None
    assert canonical(given) != canonical(found)


@pytest.mark.parametrize("value", [each for pair in DIFFERENT for each in pair])
def test_equal_values_have_no_difference(value: Any) -> None:
    assert difference(value, value, "value") is None
    assert canonical(value) == canonical(value)


def test_difference_names_the_place() -> None:
    assert difference({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]}, "it") == "it['a'][1]['b'] is 'y' instead of 'x'"


def call(content: str, entered: int, within: RecordedCall | None = None) -> RecordedCall:
    return RecordedCall("adapter", "emit", None, {"payload": content}, within, entered, NOW, 0.0, left=entered)


def content(each: RecordedCall) -> str:
    return str(each.given["payload"])


def test_calls_are_matched_by_caller_and_content_then_by_content_then_by_caller() -> None:
    first, second, third = calls = [call(name, place) for place, name in enumerate(("a", "a", "b"))]
    late = call("a", 12, third)
    changed = call("B", 13, third)
    found = match(calls, [call("a", 11, second), late, changed], content, content)
    assert [(content(given), made.entered) for given, made in found.pairs] == [("a", 12), ("a", 11), ("b", 13)]
    assert (found.lost, found.extra) == ([], [])
    assert [(late, earlier) for late, earlier in found.overtaken(lambda each: 0)] == [(first, second)]


def test_what_is_passed_on_twice_is_extra_and_what_is_not_is_lost() -> None:
    first, second = calls = [call("a", 1), call("b", 2)]
    again = call("a", 12, first)
    found = match(calls, [call("a", 11, first), again], content, content)
    assert (found.lost, found.extra) == ([second], [again])


def test_evidence_has_the_first_violation_of_the_most_severe_kinds_and_their_number() -> None:
    found = Judgement(9)
    for number in range(3):
        found.expect(False, ViolationKind.LOST, f"loss {number}")
    found.equal(1, 2, "a number")
    assert found.evidence == "loss 0 (the first of 3 violations of this kind); a number is 2 instead of 1"
    found.expect(False, ViolationKind.MISROUTED, "leak")
    assert found.evidence == "leak; loss 0 (the first of 3 violations of this kind)"
