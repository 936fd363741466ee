"""Compare measured rates with rates that are known in advance, and the coverage of intervals with its exact value.

The delivery rate is known if each frame is lost with a known probability, or if users are offline for a known part of
the time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.plots import BLUE, TEXT_COLOUR, VERMILLION, new_figure
from bridgekit_verify.measure.statistics import CONFIDENCE, Rate, wilson
from bridgekit_verify.measure.workload import OfflinePattern, Workload, thread_ids
from bridgekit_verify.validation.frame_loss import HubThatLoses, with_frame_loss
from bridgekit_verify.variants import SOUND

__all__ = [
    "CHANCE",
    "CalibrationStudy",
    "RateCheck",
    "allowed_misses",
    "calibration_figure",
    "coverage",
    "coverage_table",
    "exact_coverage",
    "study_calibration",
]


LOSS_PROBABILITIES: Final = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
"""The probabilities that a frame is lost."""
OFFLINE_PATTERNS: Final = ((1, 15), (2, 15), (1, 3), (1, 2), (4, 5), (1, 1))
"""Pairs (w, t): the users are offline for w of every t groups of runs. (2, 15) models 2 s in every 15 s."""

COVERED_P: Final = (0.01, 0.05, 2 / 15, 0.5, 0.9, 0.999)
COVERED_N: Final = (10, 60, 300)


CHANCE: Final = 0.001
"""Maximum probability that correct intervals miss the true rate more often than `allowed_misses`."""


def allowed_misses(intervals: int) -> int:
    """Return how many of these 95 % intervals may miss the true rate.

    The probability of more misses is at most CHANCE.
    """
    at_most = 0.0
    for misses in range(intervals + 1):
        at_most += _binomial(misses, intervals, 1 - CONFIDENCE)
        if at_most >= 1 - CHANCE:
            return misses
    return intervals


def coverage(p: float, n: int, *, draws: int, seed: int = 0) -> Rate:
    """Draw k of n events with probability p, `draws` times. Return how often Wilson's interval of k of n contains p."""
    source = random.Random(f"{seed}:{p}:{n}")
    contains = _contains(p, n)
    return Rate(sum(contains[sum(source.random() < p for _ in range(n))] for _ in range(draws)), draws)


def exact_coverage(p: float, n: int) -> float:
    """Return the exact coverage: the sum of the binomial probabilities of every k whose interval contains p."""
    return math.fsum(_binomial(k, n, p) for k, contained in enumerate(_contains(p, n)) if contained)


def _contains(p: float, n: int) -> list[bool]:
    """Return, for each k from 0 to n, whether Wilson's interval of k of n contains p."""
    return [low <= p <= high for low, high in (wilson(k, n) for k in range(n + 1))]


def _binomial(k: int, n: int, p: float) -> float:
    if p in (0.0, 1.0):
        return float(k == round(n * p))
    # Computed with logarithms, because the binomial coefficient exceeds the range of a float from n = 1,030.
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))


def coverage_table(
    probabilities: Iterable[float] = COVERED_P, trials: Iterable[int] = COVERED_N, *, draws: int = 2_000, seed: int = 0
) -> pd.DataFrame:
    """Return a table of how often Wilson's interval contains the true rate, one row per probability and number of
    trials.

    The column "inside" states whether the exact coverage lies in the interval of the simulated coverage.
    """
    return pd.DataFrame(_coverage_row(p, n, draws, seed) for p, n in product(probabilities, trials))


def _coverage_row(p: float, n: int, draws: int, seed: int) -> dict[str, object]:
    simulated, exact = coverage(p, n, draws=draws, seed=seed), exact_coverage(p, n)
    low, high = simulated.interval
    return {
        "p": p,
        "n": n,
        "contains p": f"{simulated.k:,} of {simulated.n:,}",
        "coverage %": round(100 * simulated.fraction, 2),
        "from %": round(100 * low, 2),
        "to %": round(100 * high, 2),
        "exact %": round(100 * exact, 2),
        "inside": low <= exact <= high,
    }


@dataclass(frozen=True)
class LossCalibration:
    """A measurement with random frame loss, and the number of frames that the hub dropped."""

    measurement: Measurement
    p: float
    dropped: int

    @property
    def rate_check(self) -> RateCheck:
        name, delivery = f"random frame loss of {100 * self.p:g} %", self.measurement.verdict.delivery
        return RateCheck(name, 1 - self.p, delivery, exact=self.p in (0, 1))


@dataclass(frozen=True)
class OfflineCalibration:
    """A measurement whose users are offline for a known part of the time."""

    measurement: Measurement

    @property
    def offline(self) -> OfflinePattern:
        return self.measurement.workload.offline

    @property
    def offline_share(self) -> float:
        """The share of runs during which users are offline: w / t, if the number of runs is a multiple of t."""
        groups = list(self.measurement.workload.groups())
        missed = sum(len(group) for index, group in enumerate(groups) if self.offline.is_offline(index))
        return missed / sum(len(group) for group in groups)

    @property
    def rate_check(self) -> RateCheck:
        offline = self.offline
        return RateCheck(
            f"offline for {offline.groups} of {offline.of} {'run' if offline.of == 1 else 'runs'}",
            1 - self.offline_share,
            self.measurement.verdict.delivery,
            exact=True,
        )


@dataclass(frozen=True)
class CalibrationStudy:
    """Measurements whose rates are compared with known values."""

    losses: Sequence[LossCalibration]
    offline_runs: Sequence[OfflineCalibration]

    @property
    def rate_checks(self) -> list[RateCheck]:
        """Every measured delivery rate with its known value."""
        return [loss.rate_check for loss in self.losses] + [run.rate_check for run in self.offline_runs]

    @property
    def sampled_checks(self) -> list[RateCheck]:
        """The checks of rates that depend on chance. One in twenty intervals is expected to miss the known value."""
        return [check for check in self.rate_checks if not check.exact]

    @property
    def exact_checks(self) -> list[RateCheck]:
        """The checks of rates that involve no chance: with offline users, and where no frame or every frame is lost."""
        return [check for check in self.rate_checks if check.exact]

    def loss_table(self) -> pd.DataFrame:
        """Return one row per probability: the expected loss, the measured loss, and the frames that were dropped."""
        return pd.DataFrame(
            {"p": loss.p}
            | _comparison("known loss, %", loss.p, "lost", loss.measurement.verdict.drop, exact=loss.rate_check.exact)
            | {"frames dropped": loss.dropped}
            for loss in self.losses
        )

    def offline_table(self) -> pd.DataFrame:
        """Return one row per offline pattern: the known and the measured delivery to users who do not resume."""
        return pd.DataFrame(
            {"offline": f"{run.offline.groups} of {run.offline.of}"}
            | _comparison(
                "known delivery, %", run.rate_check.closed_form, "delivered", run.rate_check.measured, exact=True
            )
            | {"times connected": sum(online for online, _ in run.measurement.workload.online_periods())}
            for run in self.offline_runs
        )

    def title(self) -> str:
        """State how many of the measured rates agree with the known rates."""
        agree = sum(check.inside for check in self.rate_checks)
        return f"{agree} of {len(self.rate_checks)} measured rates agree with the rate that is known in advance"

    def figure(self) -> Figure:
        """Plot the measured rates against the known rates, and the differences between them."""
        return calibration_figure(self.rate_checks, title=self.title())

    def alt_text(self) -> str:
        """Return the text equivalent of the figure: the known and the measured delivery rate of each condition."""
        return "; ".join(
            f"{check.name}: known share of delivered events {100 * check.closed_form:.1f} %, measured share"
            f" {check.text}"
            for check in self.rate_checks
        )


def _comparison(
    closed_name: str, closed_form: float, name: str, measured: Rate, *, exact: bool = False
) -> dict[str, object]:
    low, high = (None, None) if exact else (round(100 * end, 2) for end in measured.interval)
    return {
        closed_name: round(100 * closed_form, 2),
        name: measured.counts,
        f"{name} %": round(100 * measured.fraction, 2),
        "from %": low,
        "to %": high,
        "agrees": RateCheck(name, closed_form, measured, exact=exact).inside,
    }


async def study_calibration(
    *,
    threads: int,
    runs: int,
    seed: int = 0,
    losses: Iterable[float] = LOSS_PROBABILITIES,
    offline: Iterable[tuple[int, int]] = OFFLINE_PATTERNS,
) -> CalibrationStudy:
    """Measure the sound chain over real sockets under conditions with a known delivery rate.

    There are `threads` concurrent users with `runs` runs each. A run has five events. All users go offline together and
    for whole runs. With a pattern (w, t), the users miss exactly w of every t runs, if `runs` is a multiple of t.
    """
    base = Workload(threads=thread_ids("thread_123", threads, seed=seed), runs_per_thread=runs, at_once=threads)
    return CalibrationStudy(
        losses=[await _run_with_loss(base, p, seed) for p in losses],
        offline_runs=[await _run_offline(base, OfflinePattern(w, t), seed) for w, t in offline],
    )


async def _run_with_loss(workload: Workload, p: float, seed: int) -> LossCalibration:
    hub = HubThatLoses(p, seed)
    return LossCalibration(await measure(with_frame_loss(SOUND, hub), workload, seed=seed), p, hub.dropped)


async def _run_offline(workload: Workload, offline: OfflinePattern, seed: int) -> OfflineCalibration:
    return OfflineCalibration(await measure(SOUND, replace(workload, offline=offline), seed=seed))


@dataclass(frozen=True)
class RateCheck:
    """A measured rate and its known value."""

    name: str
    closed_form: float
    """The known value, as a fraction of 1."""
    measured: Rate
    exact: bool = False
    """Whether the rate involves no chance, so that it must equal the known value."""

    @property
    def text(self) -> str:
        """The measured share and counts, with their interval if the rate involves chance."""
        interval = "" if self.exact else f", 95 % interval {self.measured.bounds}"
        return f"{100 * self.measured.fraction:.1f} % ({self.measured.counts}{interval})"

    @property
    def inside(self) -> bool:
        """Whether the interval contains the known value. An exact rate must equal the known value."""
        if self.exact:
            return self.measured.k == round(self.closed_form * self.measured.n)
        low, high = self.measured.interval
        return low <= self.closed_form <= high


def calibration_figure(rows: Sequence[RateCheck], *, title: str) -> Figure:
    """Plot measured against known rates in the upper panel, and their differences in the lower panel."""
    with new_figure(title, 6.4, 5.6 + 0.25 * len(rows)) as figure:
        above, below = figure.subplots(2, 1, height_ratios=(3.6, 1.0 + 0.25 * len(rows)))
        _diagonal(above, rows)
        _differences(below, rows)
        return figure


def _diagonal(axis: Axes, rows: Sequence[RateCheck]) -> None:
    axis.plot([0, 100], [0, 100], color=TEXT_COLOUR, linestyle="--", linewidth=1, zorder=0)
    axis.text(101, 4, "on the dashed line,\nmeasured = known", fontsize=9, ha="right")
    for check in rows:
        value, below, above = _percents(check)
        colour, marker = _style(check)
        axis.errorbar(
            100 * check.closed_form, value, yerr=[[below], [above]], fmt=marker, color=colour, ecolor=TEXT_COLOUR,
            markersize=7, capsize=3, clip_on=False,
        )  # fmt: skip
    axis.set_xlim(-2, 102)
    axis.set_ylim(-2, 102)
    axis.set_aspect("equal", anchor="N")
    axis.set_title("delivery", fontsize=10.5, fontweight="normal")
    axis.set_xticks([0, 25, 50, 75, 100])
    axis.set_yticks([0, 25, 50, 75, 100])
    axis.set_xlabel("known delivery, %")
    axis.set_ylabel("measured delivery, %")


def _differences(axis: Axes, rows: Sequence[RateCheck]) -> None:
    reach = 1.15 * max(max(_percents(check)[1:]) + abs(_difference(check)) for check in rows) or 1.0
    for row, check in enumerate(rows):
        _, below, above = _percents(check)
        colour, marker = _style(check)
        axis.plot([-reach, reach], [row, row], color="#EEEEEE", zorder=0)
        axis.errorbar(
            _difference(check), row, xerr=[[below], [above]], fmt=marker, color=colour, ecolor=TEXT_COLOUR,
            markersize=7, capsize=3,
        )  # fmt: skip
        axis.text(1.02 * reach, row, f"{check.measured.k:,} of {check.measured.n:,}", va="center", fontsize=9)
    axis.axvline(0, color=TEXT_COLOUR, linestyle="--", linewidth=1, zorder=0)
    axis.set_yticks(range(len(rows)), [check.name for check in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(-reach, 1.5 * reach)
    axis.spines["bottom"].set_bounds(-reach, reach)
    axis.spines["left"].set_visible(False)
    axis.set_xticks([tick for tick in axis.get_xticks() if abs(tick) <= reach])
    axis.tick_params(axis="y", length=0)
    axis.set_title("difference", fontsize=10.5, fontweight="normal")
    axis.set_xlabel("measured − known, percentage points\n(bar: 95 % Wilson interval)")


def _difference(check: RateCheck) -> float:
    return 100 * (check.measured.fraction - check.closed_form)


def _percents(check: RateCheck) -> tuple[float, float, float]:
    """Return the measured rate in percent, and the distances to the lower and upper end of its interval."""
    low, high = check.measured.interval
    value = check.measured.fraction
    if check.exact:  # an exact rate has no interval
        return 100 * value, 0.0, 0.0
    return 100 * value, 100 * (value - low), 100 * (high - value)


def _style(check: RateCheck) -> tuple[str, str]:
    return (BLUE, "o") if check.inside else (VERMILLION, "D")
