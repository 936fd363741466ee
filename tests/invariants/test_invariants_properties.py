"""The invariants of random recordings: any interleaving of sound runs holds, and any single change is detected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.invariants.reports import check_run, check_stream, format_report
from tests.invariants.recordings import STEPS, Frame, frame, numbered

THREADS = ("t", "u")
Step = tuple[str, dict[str, object]]
PROGRESS: Step = ("progress_update", {})
ERROR: Step = ("agent_error", {"error_message": "no"})


@st.composite
def sound_run(draw: st.DrawFn, run: str) -> list[Frame]:
    """Draw a start event, thoughts and tool calls in any valid order, and one of the two end events."""
    calls = draw(st.permutations(list(range(draw(st.integers(1, 3)))) * 2))
    steps: list[Step] = [
        # The first occurrence of a call starts it, the second one completes it.
        (
            "tool_completed" if call in calls[:position] else "tool_executing",
            {"tool_call_id": f"{call}", "tool_name": "x"},
        )
        for position, call in enumerate(calls)
    ]
    for step in (STEPS[1], *draw(st.lists(st.sampled_from([STEPS[1], PROGRESS]), max_size=3))):
        steps.insert(draw(st.integers(0, len(steps))), step)
    end = draw(st.sampled_from([STEPS[4], ERROR]))
    thread = draw(st.sampled_from(THREADS))
    return [frame(kind, payload, run=run, thread=thread) for kind, payload in (STEPS[0], *steps, end)]


@st.composite
def recordings(draw: st.DrawFn) -> list[Frame]:
    """Draw one to four sound runs on two threads, in any interleaving, numbered in the order of sending."""
    runs = [draw(sound_run(run)) for run in "abcd"[: draw(st.integers(1, 4))]]
    turns = draw(st.permutations([number for number, run in enumerate(runs) for _ in run]))
    frames = [iter(run) for run in runs]
    return numbered(next(frames[number]) for number in turns)


def holds(stream: list[Frame]) -> bool:
    return all(
        report.holds for report in check_stream(stream, runs=sorted({each["run_id"] for each in stream})).values()
    )


@pytest.mark.slow
@given(recordings())
def test_invariants_hold_when_sound_runs_are_interleaved(stream: list[Frame]) -> None:
    assert format_report(stream, check_stream(stream)) == "every run holds"
    for run in {each["run_id"] for each in stream}:
        assert check_run(stream, run_id=run).holds
        assert check_run([each for each in stream if each["run_id"] == run], whole=False).holds


@pytest.mark.slow
@given(recordings(), st.data())
def test_violation_is_found_when_one_frame_is_lost(stream: list[Frame], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(stream) - 1))
    assert not holds(stream[:position] + stream[position + 1 :])


@pytest.mark.slow
@given(recordings(), st.data())
def test_violation_is_found_when_one_frame_is_duplicated(stream: list[Frame], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(stream) - 1))
    later = data.draw(st.integers(position + 1, len(stream)))
    assert not holds([*stream[:later], stream[position], *stream[later:]])


@pytest.mark.slow
@given(recordings(), st.data())
def test_violation_is_found_when_two_frames_of_a_thread_are_swapped(stream: list[Frame], data: st.DataObject) -> None:
    """Frames of different threads may be swapped, because `seq` orders only the frames of one thread."""
    one = data.draw(st.integers(0, len(stream) - 1))
    same = [
        position
        for position, each in enumerate(stream)
        if each["thread_id"] == stream[one]["thread_id"] and position != one
    ]
    other = data.draw(st.sampled_from(same))
    swapped = list(stream)
    swapped[one], swapped[other] = stream[other], stream[one]
    assert not holds(swapped)


@pytest.mark.slow
@given(recordings(), st.data())
def test_violation_is_found_when_one_field_is_removed(stream: list[Frame], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(stream) - 1))
    field = data.draw(st.sampled_from(sorted(stream[position])))
    stream[position] = {name: value for name, value in stream[position].items() if name != field}
    assert not holds([each | {"run_id": each.get("run_id", "")} for each in stream])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@given(st.lists(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(frame("", {}, run=""), JSON)), max_size=4))
def test_check_raises_nothing_when_frames_are_arbitrary_json(rubbish: list[Any]) -> None:
    reports = check_stream(rubbish)
    assert not any(report.holds for report in reports.values())
    assert format_report(rubbish, reports)
    assert not check_run(rubbish).holds
