"""The measurement, compared with rates that are known beforehand."""

from __future__ import annotations

import math
from dataclasses import replace
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.ledger import Attribution
from bridgekit_verify.measure.statistics import Rate, wilson
from bridgekit_verify.measure.workload import OfflinePattern, Workload, thread_ids
from bridgekit_verify.validation.calibration import (
    CalibrationStudy,
    RateCheck,
    allowed_misses,
    calibration_figure,
    coverage,
    coverage_table,
    exact_coverage,
    study_calibration,
)
from bridgekit_verify.validation.frame_loss import HubThatLoses, with_frame_loss
from bridgekit_verify.variants import SOUND

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def study() -> CalibrationStudy:
    return await study_calibration(
        threads=4, runs=15, seed=7, losses=[0, 0.1, 0.5, 1], offline=[(2, 15), (1, 3), (1, 1)]
    )


@pytest.mark.parametrize(("p", "n"), [(0.5, 1), (0.3, 2), (0.01, 10), (0.1, 10), (0.9, 25)])
def test_exact_coverage_is_the_sum_over_all_outcomes(p: float, n: int) -> None:
    """Compared with the textbook binomial coefficient."""
    covered = [k for k in range(n + 1) if wilson(k, n)[0] <= p <= wilson(k, n)[1]]
    assert exact_coverage(p, n) == pytest.approx(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in covered))


def test_exact_coverage_is_1_if_nothing_is_random() -> None:
    assert exact_coverage(0.0, 20) == exact_coverage(1.0, 20) == 1.0


def test_exact_coverage_of_many_trials_is_close_to_the_nominal_value() -> None:
    assert exact_coverage(0.3, 3_000) == pytest.approx(0.95, abs=2e-3)


@given(st.floats(0.02, 0.98), st.integers(5, 60))
def test_exact_coverage_is_symmetric(p: float, n: int) -> None:
    """Probabilities at the very end of an interval are skipped, because rounding decides on which side they fall."""
    ends = [end for k in range(n + 1) for end in wilson(k, n)]
    if min(min(abs(end - p), abs(end - (1 - p))) for end in ends) > 1e-9:
        assert exact_coverage(p, n) == pytest.approx(exact_coverage(1 - p, n), abs=1e-9)


def test_simulated_coverage_agrees_with_the_exact_one() -> None:
    """Of 18 intervals at 95 %, three or more outside have a probability of about 1 in 20."""
    table = coverage_table(seed=1, draws=1_000)
    assert len(table) == 18
    assert (~table["inside"]).sum() <= 2 < allowed_misses(18)


def test_coverage_is_nominal_on_average_and_lower_for_rare_events() -> None:
    """Coverage is 95 % on average, not everywhere: Brown, Cai and DasGupta, Statistical Science 16 (2001), 101-133."""
    table = coverage_table(seed=1, draws=100)
    assert table["exact %"].mean() == pytest.approx(95, abs=1.5)
    assert table["exact %"].min() < 92
    assert table.loc[table["n"] == 300, "exact %"].min() > 94


def test_coverage_depends_on_the_seed_alone() -> None:
    one, again = ([coverage(p, 30, draws=500, seed=1) for p in (0.1, 0.2, 0.3)] for _ in range(2))
    assert one == again
    assert one != [coverage(p, 30, draws=500, seed=2) for p in (0.1, 0.2, 0.3)]
    assert {rate.n for rate in one} == {500}


def test_interval_that_is_too_narrow_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation: intervals at 80 % that are labelled 95 %."""
    monkeypatch.setattr("bridgekit_verify.validation.calibration.wilson", lambda k, n: wilson(k, n, confidence=0.8))
    assert exact_coverage(0.3, 200) < 0.85
    assert coverage(0.3, 200, draws=500).interval[1] < 0.9


async def test_exactly_the_dropped_frames_are_counted_as_lost(study: CalibrationStudy) -> None:
    lost = [loss.measurement.verdict.lost for loss in study.losses]
    assert lost == [loss.dropped for loss in study.losses]
    assert lost[0] == 0 < lost[1] < lost[2] < lost[3] == 300


async def test_loss_of_a_frame_is_signalled_when_a_later_frame_arrives(study: CalibrationStudy) -> None:
    """If the last frames are lost too, no gap is signalled."""
    verdicts = [loss.measurement.verdict for loss in study.losses]
    assert [verdict.lost_silent < 10 for verdict in verdicts] == [True, True, True, False]
    assert verdicts[-1].lost_silent == 300


async def test_dropped_frames_were_reported_as_sent(study: CalibrationStudy) -> None:
    for loss in study.losses:
        verdict = loss.measurement.verdict
        assert verdict.false_success == loss.dropped
        assert set(verdict.losses) <= {Attribution(10, "reported as sent, but read by no socket")}
        assert (verdict.misrouted, verdict.extra_copies, verdict.reordered) == (0, 0, 0)


async def test_measured_rates_agree_with_their_closed_forms(study: CalibrationStudy) -> None:
    assert [check.name for check in study.rate_checks if not check.inside] == []
    assert study.loss_table()["agrees"].all()
    assert study.offline_table()["agrees"].all()


async def test_being_offline_loses_exactly_its_share(study: CalibrationStudy) -> None:
    """Offline for 2 of 15, at most once: 1 - 2/15, to the last event, because whole periods are measured."""
    assert [run.measurement.verdict.delivery for run in study.offline_runs] == [
        Rate(260, 300),
        Rate(200, 300),
        Rate(0, 300),
    ]


async def test_events_for_offline_users_are_not_reported_as_sent(study: CalibrationStudy) -> None:
    for run in study.offline_runs:
        verdict = run.measurement.verdict
        assert verdict.false_success == 0
        assert verdict.losses == {Attribution(10, "no socket of the thread accepted it"): verdict.lost}


async def test_users_disconnect_and_connect_again(study: CalibrationStudy) -> None:
    assert list(study.offline_table()["times connected"]) == [1, 5, 0]


async def test_tables_and_figure_show_the_counts(study: CalibrationStudy) -> None:
    table = study.loss_table()
    assert list(table.columns) == [
        "p", "known loss, %", "lost", "lost %", "from %", "to %", "agrees", "frames dropped",
    ]  # fmt: skip
    assert list(table["lost"])[-1] == "300 of 300"
    assert list(study.offline_table()["known delivery, %"]) == [86.67, 66.67, 0.0]
    figure = study.figure()
    figure.savefig(BytesIO(), format="png")
    assert "260 of 300" in [text.get_text() for axis in figure.axes for text in axis.texts]
    assert (
        "offline for 2 of 15 runs: known share of delivered events 86.7 %, measured share 86.7 % (260 of 300)"
        in study.alt_text()
    )


async def test_same_seed_drops_the_same_frames_and_another_seed_others() -> None:
    workload = Workload(threads=thread_ids("chat_<n>", 3), runs_per_thread=4, at_once=3)
    seeds: dict[int, list[tuple[int, int]]] = {}
    for seed in (1, 1, 2):
        hub = HubThatLoses(0.5, seed)
        arrived = [
            (arrival.socket.number, arrival.seq)
            for arrival in (await measure(with_frame_loss(SOUND, hub), workload)).history.arrivals
        ]
        assert seeds.setdefault(seed, sorted(arrived)) == sorted(arrived)
    assert seeds[1] != seeds[2]


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_loss_that_is_no_probability_raises_an_error(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        HubThatLoses(p)


def test_closed_form_outside_the_interval_is_reported_and_drawn() -> None:
    check = RateCheck("off by ten", 0.5, Rate(600, 1_000))
    assert not check.inside
    assert not replace(check, measured=Rate(501, 1_000), exact=True).inside
    assert replace(check, measured=Rate(500, 1_000), exact=True).inside
    calibration_figure([check], title="t").savefig(BytesIO(), format="png")


@pytest.mark.parametrize(
    ("offline", "online"),
    [
        (OfflinePattern(0, of=1), [True] * 6),
        (OfflinePattern(1, of=3), [True, True, False] * 2),
        (OfflinePattern(2, of=3), [True, False, False] * 2),
        (OfflinePattern(1, of=1), [False] * 6),
    ],
)
def test_users_are_offline_at_the_end_of_each_period(offline: OfflinePattern, online: list[bool]) -> None:
    workload = Workload(threads=thread_ids("chat_<n>", 2), runs_per_thread=6, at_once=2, offline=offline)
    assert [is_online for is_online, groups in workload.online_periods() for _ in groups] == online
    assert [group for _, groups in workload.online_periods() for group in groups] == list(workload.groups())
