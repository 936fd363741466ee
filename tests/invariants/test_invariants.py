"""Literal recordings and the literal violations expected for them, at least one for each invariant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from bridgekit.events import CRITICAL, EventType, RoutedEvent
from bridgekit.ids import RunId
from bridgekit.invariants.frame_parsing import ENVELOPE
from bridgekit.invariants.reports import Invariant, check_run, check_stream
from tests.invariants.recordings import STEPS, Frame, Violations, frame, numbered, run_of, sound, violations


def called(*steps: tuple[str, str]) -> list[Frame]:
    """Create a run with these tool-call events: "+" starts a call, "-" completes it. Call "x1" uses the tool "x"."""
    kinds = {"+": "tool_executing", "-": "tool_completed"}
    calls: list[tuple[str, dict[str, object]]] = [
        (kinds[sign], {"tool_call_id": call, "tool_name": call[0]}) for sign, call in steps
    ]
    return numbered(frame(kind, payload, run="a") for kind, payload in (*STEPS[:2], *calls, STEPS[4]))


def test_invariants_hold_when_the_run_is_sound() -> None:
    report = check_run(sound())
    assert violations(report) == []
    assert (report.run_id, report.frames, report.known, report.holds, bool(report)) == ("a", 5, True, True, True)
    assert report.counts == dict.fromkeys(CRITICAL, 1)
    assert report.latency is None
    assert str(report) == "5 frames, every invariant holds"


def test_result_is_unknown_when_the_recording_is_empty() -> None:
    report = check_run([])
    assert (report.frames, report.violations, report.known, report.holds, bool(report)) == (0, (), False, False, False)
    assert check_stream([]) == {None: report}
    assert str(report) == "unknown: no frame of this run was read"


def test_confirmation_is_skipped_when_it_is_the_first_frame() -> None:
    confirmation = {"type": "subscribed", "thread_id": "t", "seq": 0}
    assert check_run([confirmation]) == check_run([])
    assert check_run([confirmation, *sound()]).holds


def test_report_is_the_same_when_events_are_given_instead_of_json() -> None:
    events = msgspec.convert(sound(), list[RoutedEvent])
    assert check_run(events) == check_run(sound())
    assert check_run(events[1:]) == check_run([*sound()[1:]])


# Changes to a sound stream. If one change violates several invariants, all of them are reported.

GAP = "missing before this frame, from this run or from another run of its thread"
MUTATIONS: list[tuple[str, Callable[[list[Frame]], Iterable[Any]], Violations]] = [
    (
        "the start is lost",
        lambda frames: frames[1:],
        [(Invariant.STARTED_FIRST, "agent_started was never read", 1)],
    ),
    (
        "the start is late",
        lambda frames: numbered([frames[1], frames[0], *frames[2:]]),
        [(Invariant.STARTED_FIRST, "agent_started was not the first event read", 2)],
    ),
    (
        "the run starts twice",
        lambda frames: numbered([frames[0], *frames]),
        [(Invariant.STARTED_FIRST, "the run started again", 2)],
    ),
    (
        "the end is lost",
        lambda frames: frames[:4],
        [(Invariant.ENDED_LAST, "neither agent_completed nor agent_error was read", None)],
    ),
    (
        "the run ends twice",
        lambda frames: numbered([*frames, frames[4]]),
        [(Invariant.ENDED_LAST, "the run ended again", 6)],
    ),
    (
        "a thought comes after the end",
        lambda frames: numbered([*frames, frames[1]]),
        [(Invariant.ENDED_LAST, "agent_thinking was read after the run's end", 6)],
    ),
    (
        "no thought was ever sent",
        lambda frames: numbered([frames[0], *frames[2:]]),
        [(Invariant.CRITICAL_TYPES, "no agent_thinking was read", None)],
    ),
    (
        "a thought is lost",
        lambda frames: [frames[0], *frames[2:]],
        [(Invariant.NO_GAP, f"seq 2 is {GAP}", 2), (Invariant.CRITICAL_TYPES, "no agent_thinking was read", None)],
    ),
    (
        "two frames are swapped",
        lambda frames: [*frames[:2], frames[3], frames[2], frames[4]],
        [
            (Invariant.TOOL_CALLS, "call 'call 1' was completed but is not in progress", 3),
            (Invariant.IN_ORDER, "seq 3 was read after seq 4", 4),
            (Invariant.TOOL_CALLS, "call 'call 1' was never completed", 4),
        ],
    ),
    (
        "a frame is read twice",
        lambda frames: [*frames[:2], frames[1], *frames[2:]],
        [(Invariant.ONCE, "seq 2 was read before, at position 2", 3)],
    ),
    (
        "an event is sent again under a new number",
        lambda frames: [*frames, {**frames[1], "seq": 6}],
        [
            (Invariant.ONCE, "event 't/2' was read before, as seq 2 of thread 't'", 6),
            (Invariant.ENDED_LAST, "agent_thinking was read after the run's end", 6),
        ],
    ),
    (
        "two events have one number",
        lambda frames: [*frames[:2], {**frames[1], "event_id": "other"}, *frames[2:]],
        [(Invariant.ONCE, "seq 2 was used for two events: 't/2' and 'other'", 3)],
    ),
    (
        "a frame belongs to another run",
        lambda frames: numbered([*frames[:2], frame(*STEPS[1], run="b"), *frames[2:]]),
        [(Invariant.ONE_RUN, "the frame belongs to run 'b', not to 'a'", 3)],
    ),
    (
        "the run moves to another thread",
        lambda frames: numbered([*frames[:4], {**frames[4], "thread_id": "u"}]),
        [(Invariant.ONE_THREAD, "the run moved from thread 't' to 'u'", 5)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("mutate", "expected"), [row[1:] for row in MUTATIONS], ids=[row[0] for row in MUTATIONS])
def test_violation_is_reported_when_the_stream_is_changed(
    mutate: Callable[[list[Frame]], Iterable[Any]], expected: Violations
) -> None:
    report = check_run(mutate(sound()))
    assert violations(report) == expected
    assert not report.holds


def test_every_invariant_has_a_changed_stream_that_violates_it() -> None:
    """The invariant of required fields has separate tests."""
    violated = {invariant for _, _, expected in MUTATIONS for invariant, _, _ in expected}
    assert violated == set(Invariant) - {Invariant.FIELDS}


def test_violation_has_the_frame_that_shows_it() -> None:
    [violation] = check_run([*sound()[:2], *sound()[1:]]).violations
    assert (violation.position, violation.seq, violation.event_id) == (3, 2, "t/2")
    assert str(violation) == "read once: seq 2 was read before, at position 2"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("+", "x1"), ("+", "x2"), ("-", "x1"), ("-", "x2")], []),
        ([("+", "x1"), ("+", "y1"), ("-", "y1"), ("-", "x1")], []),
        ([("+", "x1"), ("-", "x1"), ("+", "x2")], ["call 'x2' was never completed"]),
        ([("+", "x1"), ("-", "x1"), ("-", "x1")], ["call 'x1' was completed but is not in progress"]),
        ([("+", "x1"), ("-", "x1"), ("+", "x1"), ("-", "x1")], ["call 'x1' was started twice"]),
        (
            [("+", "x1"), ("-", "x2")],
            ["call 'x1' was never completed", "call 'x2' was completed but is not in progress"],
        ),
    ],
)
def test_tool_call_violations_are_reported_when_calls_are_not_paired(
    steps: list[tuple[str, str]], expected: list[str]
) -> None:
    found = check_run(called(*steps)).violations
    assert sorted(violation.message for violation in found) == expected
    assert {violation.invariant for violation in found} <= {Invariant.TOOL_CALLS}


def test_violation_is_reported_when_a_call_completes_under_another_tool_name() -> None:
    frames = sound()
    frames[3]["payload"]["tool_name"] = "delete"
    assert violations(check_run(frames)) == [(Invariant.TOOL_CALLS, "call 'call 1' was started as tool 'look_up'", 4)]


@pytest.mark.parametrize(
    "kinds",
    [
        ("agent_started", "agent_error"),
        ("agent_started", "agent_thinking", "agent_error"),
        ("agent_started", "tool_executing", "agent_error"),
    ],
)
def test_invariants_hold_when_the_run_ended_in_an_error_early(kinds: tuple[str, ...]) -> None:
    assert violations(check_run(run_of(*kinds))) == []


def test_violation_is_reported_when_a_required_type_is_missing() -> None:
    quiet = run_of("agent_started", "agent_thinking", "agent_completed")
    assert [violation.message for violation in check_run(quiet).violations] == [
        "no tool_executing was read",
        "no tool_completed was read",
    ]
    assert check_run(quiet, required=()).holds
    [violation] = check_run(sound(), required=[EventType.PROGRESS_UPDATE]).violations
    assert violation.message == "no progress_update was read"
    assert not check_run(quiet[1:], required=()).holds, "the start and end events are always required"


@pytest.mark.parametrize("field", ENVELOPE)
@pytest.mark.parametrize("value", [None, [], 7.5, True, "", {"a": 1}])
def test_violation_is_reported_when_a_field_is_missing_or_has_a_wrong_type(field: str, value: object) -> None:
    frames = sound()
    if not (field == "payload" and isinstance(value, dict)):
        frames[1][field] = value
        wrong = check_run(frames)
        assert (Invariant.FIELDS, f"the field {field} is {value!r}", 2) in violations(wrong)
    del frames[1][field]
    assert (Invariant.FIELDS, f"the field {field} is missing", 2) in violations(check_run(frames))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "agent_exploded"),
        ("seq", 0),
        ("seq", "2"),
        ("timestamp", "2026-11-22T12:00:00"),
        ("timestamp", "noon"),
    ],
)
def test_violation_is_reported_when_a_field_has_an_invalid_value(field: str, value: object) -> None:
    frames = sound()
    frames[1][field] = value
    assert (Invariant.FIELDS, f"the field {field} is {value!r}", 2) in violations(check_run(frames))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_violation_is_reported_when_a_payload_lacks_a_required_field(number: int) -> None:
    frames = sound()
    kind, names = frames[number]["type"], tuple(frames[number]["payload"])
    frames[number]["payload"] = {}
    found = [message for invariant, message, _ in violations(check_run(frames)) if invariant is Invariant.FIELDS]
    assert found == [f"the payload of {kind} has no {name}" for name in names]


@pytest.mark.parametrize("rubbish", [None, 7, "agent_started", ["type"], b"{}"])
def test_violation_is_reported_when_a_frame_is_not_an_object(rubbish: Any) -> None:
    reports = check_stream([rubbish, *sound()])
    message = f"the frame is not a JSON object but {type(rubbish).__name__}"
    assert violations(reports[None]) == [(Invariant.FIELDS, message, 1)]
    assert reports[RunId("a")].holds
    assert not check_run([rubbish, *sound()]).holds
