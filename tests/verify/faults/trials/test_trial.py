"""One fault in one deployment: what is counted, and the closed form beside it."""

from __future__ import annotations

import pytest

from bridgekit_verify.faults.trials.acts import ACTS, FaultTarget
from bridgekit_verify.faults.trials.deployment import (
    AT_MOST_ONCE,
    DELIVERIES,
    REDIS,
    RESUME,
    SQLITE,
    Delivery,
    deployed,
)
from bridgekit_verify.faults.trials.trial import TrialPlan, try_act
from bridgekit_verify.measure.families import thread_ids
from tests.verify.faults.trials.trials import trial

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""Workers are asyncio's own; the experiment around them need not be tried twice."""

QUICK = TrialPlan(steps=10, pace_seconds=0.03, begins_seconds=0.1, lasts_seconds=0.15, after_steps=1)


def test_closed_form_is_the_share_of_the_time_that_a_socket_was_there() -> None:
    """Events from second 1 to second 5; the socket is away from 2 to 3."""
    found = trial(AT_MOST_ONCE, events=5, online=[(0, 2), (3, 9)])
    assert found.emission_window == (1.0, 5.0)
    assert found.closed_form == pytest.approx(1 - 1 / 4)


@pytest.mark.parametrize(
    ("online", "share"),
    [([(0, 9)], 1.0), ([(3, 9)], 0.5), ([(0, 2)], 0.25), ([], 0.0), ([(0, 2), (2, 9)], 1.0), ([(6, 9)], 0.0)],
)
def test_closed_form_counts_what_lies_between_first_and_last_event(
    online: list[tuple[float, float]], share: float
) -> None:
    assert trial(AT_MOST_ONCE, events=5, online=online).closed_form == pytest.approx(share)


def test_closed_form_of_a_black_hole_counts_its_window_though_the_socket_looks_open() -> None:
    found = trial(AT_MOST_ONCE, act="timeout", events=5, online=[(0, 3), (3, 9)], window=(2, 3))
    assert found.closed_form == pytest.approx(0.75)


@pytest.mark.parametrize(("delivery", "act"), [(RESUME, "down"), (AT_MOST_ONCE, "kill"), (AT_MOST_ONCE, "slow_reader")])
def test_closed_form_is_none_where_none_is_known(delivery: Delivery, act: str) -> None:
    assert trial(delivery, act=act).closed_form is None


def test_lost_events_stand_at_the_moment_when_they_were_asked_for() -> None:
    assert trial(AT_MOST_ONCE, lost=[2, 4]).lost_moments == [2.0, 4.0]


def test_only_what_workers_share_has_a_broker_and_agents_apart_to_hurt() -> None:
    for act in ACTS.values():
        apart = act.target in (FaultTarget.AGENTS, FaultTarget.BROKER)
        assert [act.concerns(row) for row in (AT_MOST_ONCE, RESUME, SQLITE, REDIS)] == [*[not apart] * 3, True]


def test_acts_and_deliveries_are_named_once() -> None:
    assert list(ACTS) == [act.name for act in ACTS.values()]
    assert list(DELIVERIES) == [row.name for row in DELIVERIES.values()]


@pytest.mark.slow
@on_asyncio
@pytest.mark.parametrize(("delivery", "loses"), [(AT_MOST_ONCE, True), (RESUME, False)])
async def test_users_who_lose_their_connection_lose_events_unless_they_resume(delivery: Delivery, loses: bool) -> None:
    owned = thread_ids("prefixes of one another", 3)
    async with deployed(delivery, owned) as deployment:
        found = await try_act(ACTS["down"], deployment, owned, plan=QUICK)
    assert found.settled
    # At least: where the machine holds things up, there is another run before the fault, or after it.
    assert found.verdict.expected == len(found.asked_at) >= 3 * (2 + 3 * QUICK.steps + 2 + 3 * QUICK.after_steps)
    assert (found.verdict.lost_silent > 0) is loses
    assert found.verdict.lost_signalled == found.verdict.misrouted == found.verdict.extra_copies == 0
    assert found.verdict.reordered == found.verdict.unexpected == found.unanswered == 0


@pytest.mark.slow
@on_asyncio
async def test_events_of_a_worker_that_was_killed_are_not_expected_unless_they_were_answered_or_came() -> None:
    owned = thread_ids("chat_<n>", 2)
    async with deployed(RESUME, owned) as deployment:
        found = await try_act(ACTS["kill"], deployment, owned, plan=QUICK)
    assert found.settled
    cut_short = sum(":during" in key.request for key in found.asked_at) % (2 * (2 + 3 * QUICK.steps))
    assert cut_short > 0
    assert 0 < found.verdict.expected <= len(found.asked_at)
    assert found.verdict.lost_silent == found.verdict.unexpected == 0
