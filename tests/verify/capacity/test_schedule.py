"""The load has the stated rate, is the same in both processes, and does not wait for the server."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.events import EventType
from bridgekit_verify.capacity.schedule import LoadPlan, LoadWave, owner
from bridgekit_verify.measure.history import EventKey


def wave(**changed: object) -> LoadWave:
    fields = {
        "name": "wave 1",
        "plan": LoadPlan(),
        "first": 0,
        "threads": 3,
        "runs_per_second": 100.0,
        "starts_at": 50.0,
    }
    return LoadWave(**{**fields, **changed})  # type: ignore[arg-type]


def test_every_process_computes_the_same_start_times() -> None:
    sent = wave()
    received = msgspec.json.decode(msgspec.json.encode(sent), type=LoadWave)
    assert received.starts == sent.starts


def test_seed_and_wave_name_change_the_start_times() -> None:
    assert len({tuple(each.starts) for each in (wave(), wave(name="wave 2"), wave(plan=LoadPlan(seed=1)))}) == 3


@given(st.floats(1, 500), st.floats(0.1, 5))
def test_stated_number_of_runs_starts_within_the_wave(runs_per_second: float, seconds: float) -> None:
    starts = wave(runs_per_second=runs_per_second, plan=LoadPlan(seconds=seconds)).starts
    assert len(starts) == round(runs_per_second * seconds)
    assert starts == sorted(starts)
    assert all(0 <= moment <= seconds for moment in starts)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_each_event_of_a_run_is_due_one_pause_after_its_predecessor(steps: int) -> None:
    asked = wave(plan=LoadPlan(steps=steps, pause_seconds=0.5))
    starts = 50.0 + asked.starts[7]
    due = [asked.due(key) for key in asked.keys(7)]
    assert due == pytest.approx([starts + 0.5 * position for position in range(asked.plan.events)])


def test_last_event_is_due_before_the_wave_ends() -> None:
    asked = wave()
    last = max(asked.due(expected.key) for expected in asked.expectations())
    assert last <= asked.ends_at


def test_every_event_is_expected_once_for_the_owner_of_its_thread() -> None:
    asked = wave(first=5)
    expected = asked.expectations()
    assert len({each.key for each in expected}) == len(expected) == asked.events
    assert {each.thread_id for each in expected} == {owner(number).thread_id for number in (5, 6, 7)}
    second = next(each for each in expected if each.key == EventKey("wave 1 1", EventType.AGENT_STARTED, 0))
    assert (second.thread_id, second.user_id) == (owner(6).thread_id, owner(6).user_id)
