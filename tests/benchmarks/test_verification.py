"""The verification detects and names each kind of error in the received events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from benchmarks.verification import LoadVerdict, judge
from benchmarks.workload import EVENTS, AgentRun, EnvelopeFactory

RUNS = [AgentRun(7, number) for number in range(3)]
COUNT = EVENTS * len(RUNS)


def arrived() -> list[bytes]:
    envelopes = EnvelopeFactory()
    return [
        msgspec.json.encode(envelopes.envelope(run.thread_id, run.run_id, body, "2026-11-24T12:00:00.5+00:00"))
        for run in RUNS
        for body in run.bodies()
    ]


def edited(data: bytes, **fields: object) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(data), **fields})


ARRIVED = arrived()
FIRST_ID = msgspec.json.decode(ARRIVED[0])["event_id"]


def test_exact_events_are_sound() -> None:
    verdict = judge(RUNS, arrived())
    assert verdict == LoadVerdict(expected=COUNT)
    assert verdict.sound


def test_seq_may_start_at_any_number() -> None:
    data = [edited(each, seq=msgspec.json.decode(each)["seq"] + 1_000) for each in arrived()]
    assert judge(RUNS, data).sound


@pytest.mark.parametrize("position", [0, 7, COUNT - 1])
def test_lost_event_is_lost(position: int) -> None:
    data = arrived()
    del data[position]
    assert judge(RUNS, data) == LoadVerdict(expected=COUNT, lost=1)


def test_duplicated_event_is_counted() -> None:
    data = arrived()
    data.insert(5, data[3])
    assert judge(RUNS, data) == LoadVerdict(expected=COUNT, duplicated=1)


def test_reordered_event_is_counted() -> None:
    data = arrived()
    data[3], data[4] = data[4], data[3]
    assert judge(RUNS, data) == LoadVerdict(expected=COUNT, reordered=1)


def test_changed_text_is_corrupted_and_the_original_lost() -> None:
    data = arrived()
    data[6] = data[6].replace(b"agree", b"argue")
    assert judge(RUNS, data) == LoadVerdict(expected=COUNT, lost=1, corrupted=1)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda data: edited(data, seq=99), id="wrong seq"),
        pytest.param(lambda data: edited(data, agent_name="somebody"), id="wrong agent"),
        pytest.param(
            lambda data: edited(data, event_id=msgspec.json.decode(ARRIVED[0])["event_id"]), id="repeated event id"
        ),
    ],
)
def test_changed_envelope_is_corrupted(edit: Callable[[bytes], bytes]) -> None:
    data = list(ARRIVED)
    data[6] = edit(data[6])
    assert judge(RUNS, data) == LoadVerdict(expected=COUNT, corrupted=1)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(b"{", id="invalid JSON"),
        pytest.param(edited(ARRIVED[6], surprise=1), id="unknown field"),
        pytest.param(edited(ARRIVED[6], timestamp="yesterday"), id="invalid timestamp"),
        pytest.param(
            msgspec.json.encode(
                {field: value for field, value in msgspec.json.decode(ARRIVED[6]).items() if field != "seq"}
            ),
            id="missing field",
        ),
    ],
)
def test_invalid_event_is_corrupted(wrong: bytes) -> None:
    data = list(ARRIVED)
    data[6] = wrong
    assert judge(RUNS, data) == LoadVerdict(expected=COUNT, lost=1, corrupted=1)


def test_event_of_another_thread_is_misrouted() -> None:
    data = arrived()
    data.insert(4, edited(data[4], thread_id="thread_00008"))
    assert judge(RUNS, data) == LoadVerdict(expected=COUNT, misrouted=1)


def test_verdict_without_events_is_not_sound() -> None:
    assert not LoadVerdict().sound
    assert judge(RUNS, []) == LoadVerdict(expected=COUNT, lost=COUNT)


@pytest.mark.parametrize("mistake", ["lost", "duplicated", "reordered", "corrupted", "misrouted"])
def test_one_error_in_any_socket_makes_the_sum_unsound(mistake: str) -> None:
    sound = LoadVerdict(expected=COUNT)
    assert not (sound + replace(sound, **{mistake: 1}) + sound).sound
    assert (sound + sound).sound


def test_execution_time_measured_by_the_bridge_is_not_compared() -> None:
    data = arrived()
    payload = msgspec.json.decode(data[4])["payload"]
    data[4] = edited(data[4], payload={**payload, "execution_time_ms": 0.25})
    assert judge(RUNS, data).sound


def test_every_event_of_a_workload_is_unique() -> None:
    bodies = [each for thread in range(3) for number in range(3) for each in AgentRun(thread, number).bodies()]
    assert len({msgspec.json.encode((each.type, each.payload)) for each in bodies}) == len(bodies)
