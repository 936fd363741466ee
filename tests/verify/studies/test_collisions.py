"""Collisions: counted, compared with the birthday bound, and measured at the users' sockets."""

from __future__ import annotations

from io import BytesIO

import pytest

from bridgekit_verify.measure.statistics import Rate, collision_probability, runs_until_collision
from bridgekit_verify.measure.workload import seeded
from bridgekit_verify.studies.collisions import (
    CollisionStudy,
    collided,
    collision_figure,
    runs_to_collision,
    scheme_table,
    study_collisions,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


def test_collision_is_found_at_the_run_that_repeats_an_id() -> None:
    drawn = iter(["0001", "0002", "0003", "0002", "0004"])
    assert runs_to_collision(4, lambda digits: next(drawn), limit=5) == 4


def test_distinct_ids_have_no_collision() -> None:
    drawn = iter(["0001", "0002", "0003"])
    assert runs_to_collision(4, lambda digits: next(drawn), limit=3) is None


def test_one_digit_collides_after_seventeen_runs_at_the_latest() -> None:
    source = seeded(0)
    assert all((runs_to_collision(1, source, limit=17) or 99) <= 17 for _ in range(20))


def test_rates_follow_the_birthday_bound() -> None:
    curve = collided(3, trials=600)
    assert curve == collided(3, trials=600)
    assert curve != collided(3, trials=600, seed=1)
    assert list(curve)[3] == runs_until_collision(3)
    for runs, rate in curve.items():
        assert rate.fraction == pytest.approx(collision_probability(runs, 3), abs=0.06)


def test_trial_counts_from_the_run_that_repeats_an_id() -> None:
    """One digit has 16 ids, so that many trials collide exactly at a number of runs that is counted."""
    curve, source = collided(1, trials=300, seed=5), seeded(5)
    found = [runs_to_collision(1, source, limit=max(curve)) for _ in range(300)]
    assert {number: rate.k for number, rate in curve.items()} == {
        number: sum(at is not None and at <= number for at in found) for number in curve
    }
    assert all(number in found for number in curve)


def test_rates_of_shorter_ids_exceed_the_bound() -> None:
    """The comparison can fail: three digits exceed the bound of four."""
    assert collided(3, trials=100)[runs_until_collision(3)].interval[0] > collision_probability(
        runs_until_collision(3), 4
    )


def test_scheme_table_shows_when_ids_collide() -> None:
    table = scheme_table().set_index("run ids")["runs until probability 1/2"]
    assert table["EmbeddedRunIds"] == 77_164
    assert table["SignedRunIds"] > 10**14


@pytest.fixture(scope="module")
async def study() -> CollisionStudy:
    return await study_collisions(scaled_trials=40, trials=1)


def of_columns(study: CollisionStudy, *names: str) -> list[list[object]]:
    table = study.consequences()[["runs of", "chain", *names]]
    return [list(row) for row in table.itertuples(index=False)]


async def test_collision_delivers_one_users_run_to_another(study: CollisionStudy) -> None:
    assert of_columns(study, "expected", "delivered", "at another user's socket", "refused")[:2] == [
        ["two users", "fix 3", 10, 5, 4, 0],
        ["two users", "sound", 10, 5, 0, 1],
    ]
    assert set(study.misrouted()["event of"]) == {"alice"}
    assert set(study.misrouted()["socket of"]) == {"bob"}


async def test_collision_within_a_thread_makes_frames_ambiguous(study: CollisionStudy) -> None:
    # Registering the same route twice is accepted, so only longer ids protect the sound chain from this.
    assert of_columns(study, "delivered", "dropped", "frames of two runs")[2:] == [
        ["one user, one thread", "fixes 1, 2 and 3", 9, 1, 9],
        ["one user, one thread", "sound", 10, 0, 10],
    ]


async def test_study_shows_each_point_with_its_expectation(study: CollisionStudy) -> None:
    table = study.rates()
    assert set(table["digits"]) == {4, 8}
    assert ((table["from %"] <= table["collided %"]) & (table["collided %"] <= table["to %"])).all()
    assert "two of 77,164 runs share an id in" in study.alt_text()
    figure = study.figure()
    figure.savefig(BytesIO(), format="png")
    assert "8 digits; at each point k of 1 trials" in [axes.get_title(loc="left") for axes in figure.axes]


def test_collision_figure_prints_its_counts() -> None:
    figure = collision_figure({4: {151: Rate(3, 20), 302: Rate(11, 20)}}, title="title")
    figure.savefig(BytesIO(), format="png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["probability 1/2\nat 302 runs", "3", "11"]
