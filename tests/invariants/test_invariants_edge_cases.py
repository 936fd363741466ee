"""Edge cases of the invariants. Each detects a mutant of `make mutation` that the other tests of them do not."""

from __future__ import annotations

from typing import Any

import pytest

from bridgekit.ids import RunId
from bridgekit.invariants.reports import Invariant, check_run, check_stream, format_report
from tests.invariants.recordings import SECOND, STEPS, frame, numbered, run_of, sound, violations


def test_rules_have_these_labels() -> None:
    assert [rule.value for rule in Invariant] == [
        "required fields", "one run id", "one thread id", "started first", "completed or error last",
        "critical types", "tool calls paired", "no gap", "in order", "read once",
    ]  # fmt: skip


def test_frame_without_an_event_id_is_no_copy_of_another() -> None:
    frames = sound()
    frames[1]["event_id"] = "?"
    del frames[2]["event_id"]
    assert {violation.invariant for violation in check_run(frames).violations} == {Invariant.FIELDS}


def test_late_frame_of_an_ended_run_does_not_reopen_it() -> None:
    """The late frame is a violation; the gap after it is attributed to the run that shows it."""
    late = frame(*STEPS[1], run="a")
    lost = frame(*STEPS[0], run="b")
    stream = numbered([*sound("a"), late, lost, *sound("b")])
    reports = check_stream([*stream[:6], *stream[7:]])
    assert [violation.invariant for violation in reports[RunId("a")].violations] == [Invariant.ENDED_LAST]
    assert [violation.invariant for violation in reports[RunId("b")].violations] == [Invariant.NO_GAP]


@pytest.mark.parametrize(
    ("signalled", "left"),
    [
        ([(5, 6), (2, 3)], ["seq 4 is", "seq 7 to 8 are"]),
        ([(8, 20)], ["seq 2 to 7 are"]),
        ([(8, 8)], ["seq 2 to 7 are"]),
        ([(9, 20)], ["seq 2 to 8 are"]),
        ([(1, 8)], []),
    ],
)
def test_signalled_part_of_a_gap_is_not_reported(signalled: list[tuple[int, int]], left: list[str]) -> None:
    """The client reads 1 and 9; the order of the gap signals does not matter."""
    frames = run_of("agent_started", *["progress_update"] * 7, "agent_completed")
    report = check_run([frames[0], frames[8]], required=(), signalled=signalled)
    holes = [sentence for rule, sentence, _ in violations(report) if rule is Invariant.NO_GAP]
    assert [sentence.partition(" missing")[0] for sentence in holes] == left


def test_start_of_another_run_is_no_second_start_of_this_one() -> None:
    frames = sound("a")
    stream = numbered([*frames[:2], frame(*STEPS[0], run="b"), *frames[2:]])
    assert [violation.invariant for violation in check_run(stream).violations] == [Invariant.ONE_RUN]


def test_thread_of_a_run_is_the_first_that_it_names() -> None:
    frames: list[dict[str, Any]] = sound()
    del frames[0]["thread_id"]
    assert [violation.invariant for violation in check_run(frames).violations] == [Invariant.FIELDS]


def test_tool_call_without_an_id_completes_nothing() -> None:
    frames = sound()
    frames[3]["payload"] = {"tool_name": "look_up"}
    assert violations(check_run(frames)) == [
        (Invariant.TOOL_CALLS, "call 'call 1' was never completed", 3),
        (Invariant.FIELDS, "the payload of tool_completed has no tool_call_id", 4),
    ]


def test_report_of_one_frame_is_known_and_lists_its_violations_in_one_line() -> None:
    report = check_run(sound()[1:2])
    assert report.known
    assert len(report.violations) > 1
    assert str(report).split("; ") == [str(violation) for violation in report.violations]


def test_run_id_comes_from_the_first_frame_that_names_one() -> None:
    frames: list[dict[str, Any]] = sound()
    del frames[0]["run_id"]
    frames[1]["type"] = "agent_dreaming"
    report = check_run(frames)
    assert report.run_id == "a"
    assert [*report.counts] == ["agent_started", "tool_executing", "tool_completed", "agent_completed"]


def test_quantiles_are_the_50th_90th_and_99th() -> None:
    frames = run_of("agent_started", *["progress_update"] * 998, "agent_completed")
    latency = check_run([(each, SECOND + wait) for wait, each in enumerate(frames, 1)]).latency
    assert latency == (1_000, 500, 900, 990)


@pytest.mark.parametrize(
    ("frames", "lost", "shown"),
    [
        (13, 4, ["1", "2", "3", "4", ">", "6", "7", "8", "9", "10", "11", "12"]),
        (14, 4, ["…", "4", ">", "6", "…"]),
        (14, 2, ["…", "2", ">", "4", "…"]),
    ],
)
def test_up_to_twelve_frames_are_shown_and_of_more_only_the_violating_ones(
    frames: int, lost: int, shown: list[str]
) -> None:
    stream = run_of("agent_started", *["progress_update"] * (frames - 2), "agent_completed")
    del stream[lost]
    lines = format_report(stream, check_stream(stream, required=())).splitlines()
    assert [line.split()[0] for line in lines[4:]] == shown
