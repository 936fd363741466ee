"""Recordings with several runs: expected runs, signalled gaps, latencies and the formatted report."""

from __future__ import annotations

from typing import Any

import pytest

from bridgekit.ids import RunId
from bridgekit.invariants.frame_parsing import Recorded
from bridgekit.invariants.reports import Invariant, LatencyQuantiles, check_run, check_stream, format_report
from tests.invariants.recordings import SECOND, STEPS, TOOL, Frame, numbered, run_of, sound, violations

GAP = "missing before this frame, from this run or from another run of its thread"


def interleaved() -> list[Frame]:
    """Create runs a and b that alternate, then c alone: a has seq 1, 3, 5, 7, 9; b 2, 4, 6, 8, 10; c 11 to 15."""
    pairs = zip(sound("a"), sound("b"), strict=True)
    return numbered([each for pair in pairs for each in pair] + sound("c"))


def test_each_run_has_its_own_report_when_runs_share_a_thread() -> None:
    reports = check_stream(interleaved())
    assert {run: report.holds for run, report in reports.items()} == {"a": True, "b": True, "c": True}
    assert all(check_run(interleaved(), run_id=run).holds for run in "abc")


def test_gap_is_attributed_to_each_active_run_when_runs_overlap() -> None:
    stream = interleaved()
    del stream[3]
    reports = check_stream(stream)
    gap = (Invariant.NO_GAP, f"seq 4 is {GAP}", 4)
    assert violations(reports[RunId("a")]) == [gap]
    assert violations(reports[RunId("b")]) == [gap, (Invariant.CRITICAL_TYPES, "no agent_thinking was read", None)]
    assert reports[RunId("c")].holds
    assert [check_run(stream, run_id=run).holds for run in "abc"] == [False, False, True]


def test_gap_is_attributed_to_the_next_run_when_no_run_is_active() -> None:
    alone = numbered([*sound("a"), *sound("b"), *sound("c")])
    reports = check_stream([*alone[:5], *alone[10:]])
    assert {run: report.holds for run, report in reports.items()} == {"a": True, "c": False}
    assert violations(reports[RunId("c")]) == [(Invariant.NO_GAP, f"seq 6 to 10 are {GAP}", 6)]


def test_gaps_are_not_checked_when_the_stream_is_filtered() -> None:
    filtered = [each for each in interleaved() if each["run_id"] == "b"]
    assert [violation.invariant for violation in check_run(filtered).violations] == [Invariant.NO_GAP] * 4
    assert check_run(filtered, whole=False).holds
    assert not check_run([*filtered[:2], filtered[3], filtered[2], filtered[4]], whole=False).holds
    assert not check_run([*filtered[:2], *filtered[1:]], whole=False).holds


def test_gap_is_not_a_violation_when_it_was_signalled() -> None:
    thoughtful = run_of("agent_started", *["agent_thinking"] * 6, *(kind for kind, _ in STEPS[2:]))
    holey = [each for each in thoughtful if each["seq"] not in (3, 4, 5)]
    assert check_run(holey, signalled=[(3, 5)]).holds
    assert check_run(holey, signalled=[(2, 3), (4, 9)]).holds
    for elsewhere in ((1, 2), (6, 9)):
        assert violations(check_run(holey, signalled=[elsewhere])) == [(Invariant.NO_GAP, f"seq 3 to 5 are {GAP}", 3)]
    assert violations(check_run(holey, signalled=[(4, 4)])) == [
        (Invariant.NO_GAP, f"seq 3 is {GAP}", 3),
        (Invariant.NO_GAP, f"seq 5 is {GAP}", 3),
    ]
    started_lost = numbered([*sound("a"), *sound("b")])
    del started_lost[5]
    assert not check_stream(started_lost, signalled=[(6, 6)])[RunId("b")].holds


def test_missing_run_is_unknown_and_other_run_is_a_violation_when_runs_are_given() -> None:
    reports = check_stream(sound("a"), runs=["b"])
    assert (reports[RunId("b")].known, reports[RunId("b")].holds) == (False, False)
    assert violations(reports[RunId("a")]) == [(Invariant.ONE_RUN, "run 'a' was not expected", 1)]
    assert check_stream(sound("a"), runs=["a"])[RunId("a")].holds
    assert not check_run(sound("a"), run_id="b").known


def test_frames_have_a_separate_report_when_they_have_no_run_id() -> None:
    stream = sound()
    del stream[2]["run_id"]
    reports = check_stream(stream)
    assert violations(reports[None]) == [(Invariant.FIELDS, "the field run_id is missing", 3)]
    assert [violation.invariant for violation in reports[RunId("a")].violations] == [
        Invariant.TOOL_CALLS,
        Invariant.CRITICAL_TYPES,
    ]


def test_violation_is_reported_when_one_event_is_in_two_threads() -> None:
    leaked = {**sound()[1], "thread_id": "u", "seq": 1}
    sentences = [violation.message for violation in check_stream([*sound(), leaked])[RunId("a")].violations]
    assert "the run moved from thread 't' to 'u'" in sentences
    assert "event 't/2' was read before, as seq 2 of thread 't'" in sentences


# Latencies.


def test_latency_quantiles_use_the_nearest_rank() -> None:
    waits = [0.5, 0.1, 0.3, 0.2, 0.4]
    report = check_run([(each, SECOND + wait) for each, wait in zip(sound(), waits, strict=True)])
    assert report.holds
    assert report.latency is not None
    assert report.latency == pytest.approx(LatencyQuantiles(5, 0.3, 0.5, 0.5), abs=1e-6)


def test_latency_ignores_a_frame_when_a_time_is_missing() -> None:
    frames = sound()
    del frames[1]["timestamp"]
    recorded: list[Recorded] = [*((each, float(SECOND)) for each in frames[:3]), *frames[3:]]
    report = check_run(recorded)
    assert report.latency is not None
    assert report.latency.n == 2


# The formatted report.


def test_report_shows_the_frames_when_invariants_are_violated() -> None:
    stream = [*sound("a"), *sound("b", "u")]
    del stream[6]
    assert (
        format_report(stream, check_stream(stream, runs=["a", "b", "c"]))
        == f"""\
2 of 3 runs do not hold

run 'b':
  no gap: seq 2 is {GAP}
  critical types: no agent_thinking was read
      6  seq 1  agent_started  {{}}
  >   7  seq 3  tool_executing  {TOOL}
      8  seq 4  tool_completed  {TOOL}
      9  seq 5  agent_completed  {{'result': None}}

run 'c':
  unknown: no frame of this run was read"""
    )


def test_report_shows_only_frames_near_violations_when_the_run_is_long() -> None:
    stream = run_of("agent_started", *["agent_thinking"] * 30, *(kind for kind, _ in STEPS[2:]))
    del stream[15]
    lines = format_report(stream, check_stream(stream)).splitlines()[4:]
    assert [line.split()[0] for line in lines] == ["…", "15", ">", "17", "…"]


def test_report_shows_a_frame_as_recorded_when_it_is_not_an_object() -> None:
    recording: list[Any] = [["what", 7]]
    assert (
        format_report(recording, check_stream(recording))
        == """\
1 of 1 runs do not hold

frames without a run id:
  required fields: the frame is not a JSON object but list
  >   1  ['what', 7]"""
    )


def test_report_is_one_line_when_every_run_holds() -> None:
    assert format_report(sound(), check_stream(sound())) == "every run holds"


def test_signalled_gap_applies_only_to_its_thread_when_there_are_several() -> None:
    two = [each | {"thread_id": thread} for thread in ("A", "B") for each in sound(thread)]
    for number, each in enumerate(two):
        each["seq"] = number % 5 + 1
    holey = [each for each in two if each["seq"] != 3]
    with pytest.raises(ValueError, match="the stream has 2 threads: pass the signalled gaps by thread"):
        check_stream(holey, signalled=[(3, 3)])
    reports = check_stream(holey, required=(), signalled={"A": [(3, 3)]})
    rules = {run: {violation.invariant for violation in report.violations} for run, report in reports.items()}
    assert Invariant.NO_GAP not in rules[RunId("A")]
    assert Invariant.NO_GAP in rules[RunId("B")]


def test_gaps_are_not_checked_when_frames_have_no_thread_id() -> None:
    without_thread = [{name: value for name, value in each.items() if name != "thread_id"} for each in sound("a")]
    del without_thread[2]
    with_thread = [*sound("a")[:2], *sound("a")[3:]]
    assert Invariant.NO_GAP not in {violation.invariant for violation in check_run(without_thread).violations}
    assert Invariant.NO_GAP in {violation.invariant for violation in check_run(with_thread).violations}


def joined(first: int, last: int) -> list[Frame]:
    """Return a sound run of 9 events in which the frames of `first` to `last` were joined."""
    whole = run_of("agent_started", *["agent_thinking"] * 5, *(kind for kind, _ in STEPS[2:]))
    return [
        {**each, "first_seq": first} if each["seq"] == last else each
        for each in whole
        if not first <= each["seq"] < last
    ]


def test_frames_that_were_joined_leave_no_gap() -> None:
    assert check_run(joined(3, 5)).holds
    stream = [each for each in joined(3, 5) if each["seq"] != 2]
    assert violations(check_run(stream)) == [(Invariant.NO_GAP, f"seq 2 is {GAP}", 2)]


@pytest.mark.parametrize("latest", [3, 4])
def test_joined_frame_repeats_no_event_that_was_read(latest: int) -> None:
    whole = joined(6, 6)
    stream = [each for each in whole if each["seq"] <= latest] + joined(3, 5)[2:]
    message = f"seq 3 to 5 were joined, and seq {latest} was read before"
    assert violations(check_run(stream)) == [(Invariant.ONCE, message, latest + 1)]


def test_signalled_gap_within_another_one_does_not_shorten_it() -> None:
    thoughtful = run_of("agent_started", *["agent_thinking"] * 6, *(kind for kind, _ in STEPS[2:]))
    holey = [each for each in thoughtful if each["seq"] not in (3, 4, 5)]
    assert check_run(holey, signalled=[(2, 5), (3, 4)]).holds
    assert check_run(holey, signalled=[(3, 4), (4, 5)]).holds
