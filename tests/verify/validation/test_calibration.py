"""The measuring, held against what is known beforehand."""

from __future__ import annotations

import math
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.ledger import Charge
from bridgekit_verify.measure.statistics import Rate, wilson
from bridgekit_verify.measure.workload import Away, Workload, family
from bridgekit_verify.validation.calibration import (
    CalibrationStudy,
    RateCheck,
    calibration_figure,
    coverage,
    coverage_table,
    exact_coverage,
    study_calibration,
)
from bridgekit_verify.validation.lossy import HubThatLoses, in_a_lossy_world
from bridgekit_verify.variants import SOUND

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn's own


@pytest.fixture(scope="module")
async def study() -> CalibrationStudy:
    return await study_calibration(threads=4, runs=15, seed=7, losses=[0, 0.1, 0.5, 1], away=[(2, 15), (1, 3), (1, 1)])


@pytest.mark.parametrize(("p", "n"), [(0.5, 1), (0.3, 2), (0.01, 10), (0.1, 10), (0.9, 25)])
def test_exact_coverage_is_the_sum_over_all_outcomes_one_by_one(p: float, n: int) -> None:
    """Every sequence of n trials, or the textbook's coefficient where there are too many of them."""
    covered = [k for k in range(n + 1) if wilson(k, n)[0] <= p <= wilson(k, n)[1]]
    assert exact_coverage(p, n) == pytest.approx(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in covered))


def test_exact_coverage_where_nothing_is_random() -> None:
    assert exact_coverage(0.0, 20) == exact_coverage(1.0, 20) == 1.0


def test_exact_coverage_of_many_trials_is_close_to_the_promise() -> None:
    assert exact_coverage(0.3, 3_000) == pytest.approx(0.95, abs=2e-3)


@given(st.floats(0.02, 0.98), st.integers(5, 60))
def test_exact_coverage_is_symmetric(p: float, n: int) -> None:
    """A draw that sits on the very end of an interval may fall to either side by rounding."""
    ends = [end for k in range(n + 1) for end in wilson(k, n)]
    if min(min(abs(end - p), abs(end - (1 - p))) for end in ends) > 1e-9:
        assert exact_coverage(p, n) == pytest.approx(exact_coverage(1 - p, n), abs=1e-9)


def test_simulated_coverage_agrees_with_the_exact_one() -> None:
    """Of 18 intervals at 95 %, three outside would be a surprise of 1 in 20."""
    table = coverage_table(seed=1, draws=1_000)
    assert len(table) == 18
    assert (~table["inside"]).sum() <= 2


def test_intervals_cover_about_as_often_as_they_promise_and_dip_where_events_are_few() -> None:
    """It keeps 95 % on average, not everywhere: Brown, Cai and DasGupta, Statistical Science 16 (2001), 101-133."""
    table = coverage_table(seed=1, draws=100)
    assert table["exact %"].mean() == pytest.approx(95, abs=1.5)
    assert table["exact %"].min() < 92
    assert table.loc[table["n"] == 300, "exact %"].min() > 94


def test_coverage_depends_on_the_seed_alone() -> None:
    one, again = ([coverage(p, 30, draws=500, seed=1) for p in (0.1, 0.2, 0.3)] for _ in range(2))
    assert one == again
    assert one != [coverage(p, 30, draws=500, seed=2) for p in (0.1, 0.2, 0.3)]
    assert {rate.n for rate in one} == {500}


def test_interval_that_is_too_narrow_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted mistake: intervals at 80 % that are called 95 %."""
    monkeypatch.setattr("bridgekit_verify.validation.calibration.wilson", lambda k, n: wilson(k, n, confidence=0.8))
    assert exact_coverage(0.3, 200) < 0.85
    assert coverage(0.3, 200, draws=500).interval[1] < 0.9


async def test_every_frame_that_the_world_drops_is_counted_and_no_other(study: CalibrationStudy) -> None:
    lost = [loss.measurement.verdict.lost for loss in study.losses]
    assert lost == [loss.dropped for loss in study.losses]
    assert lost[0] == 0 < lost[1] < lost[2] < lost[3] == 300


async def test_frame_that_is_dropped_is_told_to_be_missing_as_soon_as_another_comes(study: CalibrationStudy) -> None:
    """Of a world that drops the last frames too nobody hears."""
    verdicts = [loss.measurement.verdict for loss in study.losses]
    assert [verdict.lost_silent < 10 for verdict in verdicts] == [True, True, True, False]
    assert verdicts[-1].lost_silent == 300


async def test_dropped_frames_were_called_sent(study: CalibrationStudy) -> None:
    for loss in study.losses:
        verdict = loss.measurement.verdict
        assert verdict.false_success == loss.dropped
        assert set(verdict.losses) <= {Charge(10, "called sent, and no socket read it")}
        assert (verdict.misrouted, verdict.extra_copies, verdict.reordered) == (0, 0, 0)


async def test_measured_rates_agree_with_their_closed_forms(study: CalibrationStudy) -> None:
    assert study.outside == []
    assert study.loss_table()["inside"].all()
    assert study.absence_table()["inside"].all()


async def test_absence_costs_exactly_its_share(study: CalibrationStudy) -> None:
    """Offline for 2 of 15, at most once: 1 - 2/15, to the last event, since whole periods are measured."""
    assert [absence.measurement.verdict.delivery for absence in study.absences] == [
        Rate(260, 300),
        Rate(200, 300),
        Rate(0, 300),
    ]


async def test_events_of_those_who_are_away_are_not_called_sent(study: CalibrationStudy) -> None:
    for absence in study.absences:
        verdict = absence.measurement.verdict
        assert verdict.false_success == 0
        assert verdict.losses == {Charge(10, "no socket of the thread accepted it"): verdict.lost}


async def test_users_really_leave_and_connect_again(study: CalibrationStudy) -> None:
    assert list(study.absence_table()["times connected"]) == [1, 5, 0]


async def test_tables_and_figure_show_the_counts(study: CalibrationStudy) -> None:
    table = study.loss_table()
    assert list(table.columns) == [
        "p", "closed form p, %", "lost", "lost %", "from %", "to %", "inside", "dropped by the world",
    ]  # fmt: skip
    assert list(table["lost"])[-1] == "300 of 300"
    assert list(study.absence_table()["closed form 1 - w/t, %"]) == [86.67, 66.67, 0.0]
    figure = study.figure("t")
    figure.savefig(BytesIO(), format="png")
    assert "260 of 300" in [text.get_text() for axis in figure.axes for text in axis.texts]
    assert "away 2 of 15: 86.7% expected, 260 of 300" in study.words()


async def test_same_seed_drops_the_same_frames_and_another_seed_others() -> None:
    workload = Workload(threads=family("chat_<n>", 3), runs_per_thread=4, at_once=3)
    seeds: dict[int, list[tuple[int, int]]] = {}
    for seed in (1, 1, 2):
        hub = HubThatLoses(0.5, seed)
        arrived = [
            (arrival.socket.number, arrival.seq)
            for arrival in (await measure(in_a_lossy_world(SOUND, hub), workload)).history.arrivals
        ]
        assert seeds.setdefault(seed, sorted(arrived)) == sorted(arrived)
    assert seeds[1] != seeds[2]


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_loss_that_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        HubThatLoses(p)


def test_closed_form_outside_the_interval_is_said_and_drawn() -> None:
    held = RateCheck("off by ten", 0.5, Rate(600, 1_000))
    assert not held.inside
    calibration_figure([held], title="t").savefig(BytesIO(), format="png")


@pytest.mark.parametrize(
    ("away", "there"),
    [
        (Away(0, of=1), [True] * 6),
        (Away(1, of=3), [True, True, False] * 2),
        (Away(2, of=3), [True, False, False] * 2),
        (Away(1, of=1), [False] * 6),
    ],
)
def test_users_are_away_at_the_end_of_each_period(away: Away, there: list[bool]) -> None:
    workload = Workload(threads=family("chat_<n>", 2), runs_per_thread=6, at_once=2, away=away)
    assert [here for here, groups in workload.sittings() for _ in groups] == there
    assert [group for _, groups in workload.sittings() for group in groups] == list(workload.groups())
