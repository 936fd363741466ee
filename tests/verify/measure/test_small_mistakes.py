"""Tests for mutations that `make mutation` found undetected by all other tests."""

from __future__ import annotations

from typing import Any

import pytest

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.invariants.reports import Rule, check_run, check_stream, told
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.history import BridgeBinding, Emission, Expectation, History, EventKey
from bridgekit_verify.measure.ledger import Attribution, attribute_misroute, attribute_loss
from bridgekit_verify.measure.statistics import Rate, percent
from tests.verify.measure.histories import ALICES, BOBS, arrival, clean, key, moved
from tests.verify.measure.recordings import SECOND, STEPS, breaches, frame, numbered, run_of, sound
from tests.verify.measure.test_attribution import (
    EXPECTED,
    OTHER_BRIDGE,
    OTHER_RUN,
    OTHER_THREAD,
    RIGHT,
    STARTED,
    recorded_history,
)


def test_attributions_and_losses_are_in_the_order_of_the_chain() -> None:
    history = clean()
    for seq, link in ((1, 10), (2, 9), (3, 3)):
        history.arrivals.remove(arrival(ALICES, key(ALICES, seq), seq))
        refused = Receipt(outcome=Outcome.REFUSED, link=link, reason="no", thread_id=ThreadId("a1"))
        history.acknowledged[key(ALICES, seq)] = (RunId("run of a1"), refused)
    moved(history, 4, BOBS)
    verdict = check(history)
    assert [*verdict.lost_at] == [3, 9, 10]
    assert verdict.attributions == [
        Attribution(3, "no"),
        Attribution(9, "no"),
        Attribution(10, "reported as sent, but no socket read it"),
        Attribution(10, "delivered to a socket of another thread"),
        Attribution(10, "no"),
    ]
    assert check(History()).attributions == []


def test_rules_have_these_labels() -> None:
    assert [rule.value for rule in Rule] == [
        "required fields", "one run id", "one thread id", "started first", "completed or error last",
        "critical types", "tool calls paired", "no gap", "in order", "read once",
    ]  # fmt: skip


def test_frame_without_an_event_id_is_no_copy_of_another() -> None:
    frames = sound()
    frames[1]["event_id"] = "?"
    del frames[2]["event_id"]
    assert {breach.rule for breach in check_run(frames).breaches} == {Rule.FIELDS}


def test_late_frame_of_an_ended_run_does_not_reopen_it() -> None:
    """The late frame is a violation; the gap after it is attributed to the run that shows it."""
    late = frame(*STEPS[1], run="a")
    lost = frame(*STEPS[0], run="b")
    stream = numbered([*sound("a"), late, lost, *sound("b")])
    reports = check_stream([*stream[:6], *stream[7:]])
    assert [breach.rule for breach in reports[RunId("a")].breaches] == [Rule.ENDED_LAST]
    assert [breach.rule for breach in reports[RunId("b")].breaches] == [Rule.NO_GAP]


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
    holes = [sentence for rule, sentence, _ in breaches(report) if rule is Rule.NO_GAP]
    assert [sentence.partition(" missing")[0] for sentence in holes] == left


def test_start_of_another_run_is_no_second_start_of_this_one() -> None:
    frames = sound("a")
    stream = numbered([*frames[:2], frame(*STEPS[0], run="b"), *frames[2:]])
    assert [breach.rule for breach in check_run(stream).breaches] == [Rule.ONE_RUN]


def test_thread_of_a_run_is_the_first_that_it_names() -> None:
    frames: list[dict[str, Any]] = sound()
    del frames[0]["thread_id"]
    assert [breach.rule for breach in check_run(frames).breaches] == [Rule.FIELDS]


def test_tool_call_without_an_id_completes_nothing() -> None:
    frames = sound()
    frames[3]["payload"] = {"tool_name": "look_up"}
    assert breaches(check_run(frames)) == [
        (Rule.TOOL_CALLS, "call 'call 1' was never completed", 3),
        (Rule.FIELDS, "the payload of tool_completed says no tool_call_id", 4),
    ]


@pytest.mark.parametrize(("share", "text"), [(0.01, "1.0"), (0.00095, "0.095")])
def test_percent_has_more_digits_near_the_ends(share: float, text: str) -> None:
    assert percent(share) == text


def test_rate_is_known_from_one_trial_and_unknown_without_counts() -> None:
    assert Rate(0, 1).known
    assert Rate.of(None) == Rate(0, 0)


def test_part_of_a_history_contains_only_its_event_types() -> None:
    history = clean()
    started = EventKey("question of a1", EventType.AGENT_STARTED, 0)
    history.expected.append(Expectation(started, ALICES.thread_id, ALICES.user_id))
    history.acknowledged[started] = history.acknowledged[key(ALICES, 1)]
    history.arrivals += [arrival(ALICES, started, 6), arrival(ALICES, None, 7)]
    part = history.of({EventType.AGENT_STARTED})
    assert [each.key for each in part.expected] == [*part.acknowledged] == [started]
    assert [each.key for each in part.arrivals] == [started]
    assert part.sockets == history.sockets


def test_report_of_one_frame_is_known_and_lists_its_violations_in_one_line() -> None:
    report = check_run(sound()[1:2])
    assert report.known
    assert len(report.breaches) > 1
    assert str(report).split("; ") == [str(breach) for breach in report.breaches]


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
    lines = told(stream, check_stream(stream, required=())).splitlines()
    assert [line.split()[0] for line in lines[4:]] == shown


@pytest.mark.parametrize(
    ("bindings", "emitted", "reason"),
    [
        ((None, None, None), True, "the agent was given no bridge"),
        ((OTHER_BRIDGE,) * 3, True, "the agent was given another bridge"),
        ((RIGHT, None, None), True, "the agent did not bind its adapter"),
        ((RIGHT, OTHER_BRIDGE, OTHER_BRIDGE), True, "the agent bound its adapter to another bridge"),
        ((RIGHT, RIGHT, None), True, "the adapter does not hold bridge and run"),
        ((RIGHT, RIGHT, OTHER_BRIDGE), True, "the adapter holds another bridge"),
        ((RIGHT, RIGHT, RIGHT), False, "the agent did not call its adapter"),
        ((RIGHT, RIGHT, RIGHT), True, "the adapter did not reach the bridge"),
    ],
)
def test_loss_before_the_bridge_has_this_reason(
    bindings: tuple[BridgeBinding | None, ...], emitted: bool, reason: str
) -> None:
    history = recorded_history(Emission(*bindings), emitted=emitted)
    del history.acknowledged[EXPECTED.key]
    assert attribute_loss(history, EXPECTED).reason == reason


@pytest.mark.parametrize(
    ("bindings", "reason"),
    [
        ((OTHER_RUN,) * 3, "the agent emitted for another run"),
        ((RIGHT, OTHER_RUN, OTHER_RUN), "the agent bound its adapter to another run"),
        ((RIGHT, RIGHT, OTHER_THREAD), "the adapter holds another thread"),
    ],
)
def test_misroute_has_this_reason(bindings: tuple[BridgeBinding, ...], reason: str) -> None:
    assert attribute_misroute(recorded_history(Emission(*bindings)), EXPECTED).reason == reason


def test_misroute_by_the_adapter_has_this_reason() -> None:
    named = recorded_history(Emission(RIGHT, RIGHT, RIGHT))
    named.thread_on_event[EXPECTED.key] = BOBS.thread_id
    assert attribute_misroute(named, EXPECTED).reason == "the event names another thread"
    mismatched = recorded_history(Emission(RIGHT, RIGHT, RIGHT))
    mismatched.acknowledged[EXPECTED.key] = (RunId("run of b1"), mismatched.acknowledged[EXPECTED.key][1])
    assert attribute_misroute(mismatched, EXPECTED).reason == "the adapter named another run"


@pytest.mark.parametrize(("link", "caller"), [(3, "supervisor"), (4, "supervisor"), (5, "engine")])
def test_handover_with_another_thread_names_the_caller(link: int, caller: str) -> None:
    history = recorded_history(Emission(OTHER_THREAD, OTHER_THREAD, OTHER_THREAD))
    history.received_by[EXPECTED.key.request][link] = BOBS.thread_id
    assert attribute_misroute(history, EXPECTED).reason == f"the {caller} passed the run on with another thread"


@pytest.mark.parametrize(
    ("received_by", "reason"),
    [({2}, "the supervisor did not call the engine"), ({2, 4}, "the engine did not call the core")],
)
def test_missing_handover_names_the_caller(received_by: set[int], reason: str) -> None:
    history = clean()
    history.received_by[STARTED.key.request] = dict.fromkeys(received_by, ALICES.thread_id)
    assert attribute_loss(history, STARTED).reason == reason
