"""Intervals and closed forms, compared with published numbers and tested for properties."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bridgekit_verify
from bridgekit_verify.measure.statistics import (
    Rate,
    Sample,
    collision_probability,
    percent,
    runs_until_collision,
    wilson,
)

counts = st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(k: int, n: int, low: float, high: float) -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3."""
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


@given(counts)
def test_wilson_contains_the_rate_and_stays_within_0_and_1(counted: tuple[int, int]) -> None:
    k, n = counted
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high


@given(counts)
def test_wilson_is_symmetric(counted: tuple[int, int]) -> None:
    k, n = counted
    low, high = wilson(k, n)
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(counts)
def test_wilson_ends_where_the_score_test_just_rejects(counted: tuple[int, int]) -> None:
    """Tests the definition and not the formula: at each end the rate is z standard errors away."""
    k, n = counted
    for end in wilson(k, n):
        if 0 < end < 1:
            z_squared = (k / n - end) ** 2 / (end * (1 - end) / n)
            assert z_squared == pytest.approx(1.959964**2, rel=1e-4)


@given(st.integers(0, 50), st.integers(2, 10))
def test_wilson_narrows_with_more_trials_of_the_same_rate(k: int, times: int) -> None:
    few, many = wilson(k, 50), wilson(k * times, 50 * times)
    assert many[1] - many[0] < few[1] - few[0]


def test_wilson_widens_with_confidence() -> None:
    narrow, wide = wilson(30, 100, confidence=0.5), wilson(30, 100, confidence=0.99)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


def test_wilson_ends_exactly_at_0_and_1() -> None:
    assert wilson(0, 30)[0] == 0.0
    assert wilson(30, 30)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (1, 0)])
def test_wilson_raises_for_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"but is {k} of {n}"):
        wilson(k, n)


def test_rate_without_trials_is_unknown_and_neither_0_nor_1() -> None:
    nothing = Rate(0, 0)
    assert not nothing.known
    assert math.isnan(nothing.fraction)
    assert nothing.interval == (0.0, 1.0)
    assert (str(nothing), nothing.estimate) == ("unknown", "unknown (nothing counted)")


def test_only_an_estimate_is_shown_with_its_interval() -> None:
    assert Rate(0, 20).estimate == "0 of 20 (0 to 16.1 %)"
    assert Rate(1_500, 1_500).estimate == "1,500 of 1,500 (99.74 to 100 %)"
    assert f"{Rate(0, 20)}, {Rate(0, 0)}" == "0 of 20, unknown"
    assert (Rate(1, 4).fraction, Rate(1, 4).known) == (0.25, True)


def test_only_what_samples_at_random_computes_intervals() -> None:
    """A deterministic result has counts only. Chance decides how soon ids collide, which frames are lost at random, and
    when the runs of a load begin; and a simulation tests the intervals themselves.
    """
    sampling = {"studies/collisions.py", "validation/calibration.py", "capacity/capacity.py", "capacity/load_search.py"}
    shown = {"report/scale_claims.py"} | sampling
    package = Path(bridgekit_verify.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\.(interval|estimate|bounds)\b|\bwilson\(|sampled=True", path.read_text(encoding="utf-8"))
    }
    assert found - {"measure/statistics.py", "measure/plots.py"} == shown


def test_eight_hex_digits_collide_after_77_thousand_runs() -> None:
    """The birthday bound for 32 bits and the exact product reach one half at the same run."""
    log_of_none, runs = 0.0, 1
    while log_of_none > math.log(0.5):
        log_of_none += math.log1p(-runs / 2**32)
        runs += 1
    assert runs_until_collision(8) == runs == 77_164
    assert collision_probability(77_163, 8) == pytest.approx(0.5, abs=1e-5)
    assert collision_probability(9_292, 8) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize(("digits", "runs"), [(0, 2), (1, 6), (2, 20)])
def test_few_digits_collide_soon(digits: int, runs: int) -> None:
    """The bound for 1, 16 and 256 values."""
    assert runs_until_collision(digits) == runs


def test_twelve_hex_digits_collide_after_twenty_million_runs() -> None:
    assert runs_until_collision(12) == pytest.approx(1.1774100 * 2**24, rel=1e-6)


@pytest.mark.parametrize("runs", [2, 10, 50, 200])
def test_collision_probability_is_close_to_the_exact_product(runs: int) -> None:
    none = Fraction(1)
    for drawn in range(runs):
        none *= Fraction(16**4 - drawn, 16**4)
    assert collision_probability(runs, 4) == pytest.approx(float(1 - none), rel=5e-3)


@given(st.integers(3, 12), st.floats(0.001, 0.999))
def test_runs_until_collision_is_the_first_number_that_reaches_the_probability(digits: int, probability: float) -> None:
    runs = runs_until_collision(digits, probability)
    assert collision_probability(runs, digits) >= probability * (1 - 1e-9)
    assert collision_probability(runs - 1, digits) < probability * (1 + 1e-9)


@pytest.mark.parametrize("runs", [0, 1])
def test_fewer_than_two_runs_never_collide(runs: int) -> None:
    assert collision_probability(runs, 8) == 0.0


def test_rate_without_counts_is_unknown_and_has_no_percentage() -> None:
    for rate in (Rate.of(None), Rate.of((0, 0))):
        assert rate.counts == "unknown"
        assert rate.bounds == "nothing counted"
        assert "%" not in str(rate)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0"),
        (1, "100"),
        (0.5, "50.0"),
        (0.9996, "99.960"),
        (0.00004, "0.0040"),
        (1e-9, "below 0.001"),
        (1 - 1e-9, "above 99.999"),
    ],
)
def test_only_exactly_0_and_1_are_printed_as_0_and_100(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(("share", "text"), [(0.01, "1.0"), (0.00095, "0.095")])
def test_percent_has_more_digits_near_the_ends(share: float, text: str) -> None:
    assert percent(share) == text


def test_rate_is_known_from_one_trial_and_unknown_without_counts() -> None:
    assert Rate(0, 1).known
    assert Rate.of(None) == Rate(0, 0)


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (Sample(2, "agents"), "2 agents"),
        (Sample(1, "calls per chain"), "1 call per chain"),
        (Sample(1_200, "events"), "1,200 events"),
    ],
)
def test_sample_is_written_in_singular_or_plural(sample: Sample, text: str) -> None:
    assert str(sample) == text


def test_smallest_sample_sorts_first() -> None:
    assert min(Sample(3, "agents"), Sample(2, "runs"), Sample(10, "events")) == Sample(2, "runs")
