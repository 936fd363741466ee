"""Findings of notebook 14: each verdict follows from the measurements, in both directions."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bridgekit_verify.measure.statistics import Rate, Sample
from bridgekit_verify.report.measurement_trust import calibration_claim, coverage_claim, mutation_claim
from bridgekit_verify.validation.calibration import (
    CalibrationStudy,
    allowed_misses,
    coverage_table,
    study_calibration,
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def calibration() -> CalibrationStudy:
    return await study_calibration(threads=2, runs=3, losses=[0.0, 1.0], offline=[(1, 2)])


@pytest.mark.slow
async def test_known_rates_hold_also_when_the_runs_are_no_multiple_of_the_pattern(
    calibration: CalibrationStudy,
) -> None:
    finding = calibration_claim(calibration)
    assert finding.verdict == "holds", finding
    assert (
        "In 3 of 3 cases that do not depend on chance, the number of delivered events equals the known"
        in finding.answer
    )
    assert finding.sample == Sample(30, "events")


@pytest.mark.slow
async def test_wrong_known_rate_contradicts_the_claim(calibration: CalibrationStudy) -> None:
    mistaken = replace(calibration, losses=[replace(loss, p=1 - loss.p) for loss in calibration.losses])
    assert calibration_claim(mistaken).verdict == "does not hold"


@pytest.mark.slow
async def test_single_miscounted_frame_contradicts_the_claim(calibration: CalibrationStudy) -> None:
    miscounted = replace(calibration, losses=[replace(each, dropped=each.dropped + 1) for each in calibration.losses])
    assert calibration_claim(miscounted).verdict == "does not hold"
    [run] = calibration.offline_runs
    wrong = replace(run.measurement.workload, offline=replace(run.offline, groups=0))
    other = replace(run, measurement=replace(run.measurement, workload=wrong))
    assert calibration_claim(replace(calibration, offline_runs=[other])).verdict == "does not hold"


def test_nothing_measured_is_unknown() -> None:
    assert calibration_claim(CalibrationStudy([], [])).verdict == "unknown"
    assert coverage_claim(pd.DataFrame()).verdict == "unknown"


def test_mutation_that_is_not_reported_exactly_contradicts_the_claim() -> None:
    mutations = pd.DataFrame({"expected": ["1 dropped", "1 extra copy"], "exactly": ["yes", "no"]})
    finding = mutation_claim(mutations)
    assert finding.verdict == "does not hold"
    assert finding.evidence == ("The checker does not report exactly this expected verdict: 1 extra copy.",)
    assert mutation_claim(mutations[:1]).verdict == "holds"
    assert mutation_claim(mutations[:0]).verdict == "unknown"


def test_coverage_holds_and_a_wrong_simulation_contradicts_it() -> None:
    table = coverage_table(draws=100)
    assert coverage_claim(table).verdict == "holds"
    assert coverage_claim(table.assign(inside=False)).verdict == "does not hold"
    assert coverage_claim(table.assign(**{"exact %": 90.0})).verdict == "does not hold"


@pytest.mark.parametrize(("intervals", "allowed"), [(0, 0), (1, 1), (8, 3), (18, 5)])
def test_allowed_misses_are_those_that_chance_explains(intervals: int, allowed: int) -> None:
    assert allowed_misses(intervals) == allowed


def test_allowed_misses_are_exceeded_with_the_stated_probability() -> None:
    assert all(allowed_misses(n) <= allowed_misses(n + 1) for n in range(40))
    assert Rate(allowed_misses(1_000), 1_000).fraction < 0.08
