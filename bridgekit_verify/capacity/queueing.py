"""How long events wait for a process that is busy: the closed form, beside what was measured.

One process serves one event after the other, and they become due at random: an M/G/1 queue. Its mean waiting time is
Pollaczek and Khinchine's (F. Pollaczek 1930, A. Khinchine 1932; L. Kleinrock, Queueing Systems I, 1975, section 5.6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from bridgekit_verify.capacity.capacity import LOOKS, CapacityStudy, Look
from bridgekit_verify.capacity.load_search import StepResult
from bridgekit_verify.measure.plots import TEXT_COLOUR, new_figure

__all__ = ["ONE_SERVICE", "Point", "WaitingStudy", "study_waiting", "utilisation_at", "waiting_seconds"]

ONE_SERVICE: Final = 2 / 3
"""Of a core: from here on an event waits longer for its turn, on average, than it takes."""
SETTLES_SHARE: Final = 0.95
"""Closer to a whole core, a wave is over long before its queue has settled: there the closed form does not apply."""


def waiting_seconds(utilisation: float, service_seconds: float, pauses_squared: float = 0.0) -> float:
    """Mean time that an event waits for its turn, where every event takes the same (M/D/1), pauses aside.

    `pauses_squared` is the sum over a second of the squares of what else holds the process up, in square seconds: it is
    work like any other, seldom and long, and part of the utilisation. ValueError unless 0 <= utilisation < 1.
    """
    if not 0 <= utilisation < 1:
        raise ValueError(f"a queue settles for utilisations from 0 to below 1, not {utilisation}")
    return (utilisation * service_seconds + pauses_squared) / (2 * (1 - utilisation))


def utilisation_at(waits: float) -> float:
    """At which utilisation the mean wait is so many times what an event takes (M/D/1)."""
    return 2 * waits / (1 + 2 * waits)


@dataclass(frozen=True)
class Point:
    """One load that was carried."""

    step: StepResult
    base_seconds: float
    """What an event takes from due to read when nothing is in its way: timers, the loop's turn, the two processes."""

    @property
    def utilisation(self) -> float:
        """Of a core, had or waited for."""
        return self.step.wanted

    @property
    def measured(self) -> float:
        """Mean lateness, in seconds."""
        return self.step.client.late_mean

    @property
    def measured_p99(self) -> float:
        return self.step.client.late_p99

    @property
    def service_seconds(self) -> float:
        return self.step.service_us / 1e6

    @property
    def predicted(self) -> float:
        """Mean lateness by the closed form, the collector's pauses as they were. Near a whole core, not a number."""
        return self._predicted(self.step.server.pauses_squared)

    @property
    def predicted_steady(self) -> float:
        """The same as if nothing paused."""
        return self._predicted(0.0)

    def _predicted(self, pauses_squared: float) -> float:
        if self.utilisation >= SETTLES_SHARE:
            return math.nan
        return self.base_seconds + waiting_seconds(self.utilisation, self.service_seconds, pauses_squared)


@dataclass(frozen=True)
class WaitingStudy:
    """Waiting over utilisation, for each edge."""

    points: Mapping[str, Sequence[Point]]

    def table(self) -> pd.DataFrame:
        """One row a load that was carried; times in ms, missing where the queue does not settle."""
        return pd.DataFrame(
            {
                "edge": name,
                "events/s": round(point.step.events_per_second),
                "core %": round(100 * point.utilisation),
                "an event takes, µs": round(1e6 * point.service_seconds, 1),
                "longest pause": round(1_000 * point.step.server.longest_pause, 1),
                "late, mean": round(1_000 * point.measured, 2),
                "closed form": round(1_000 * point.predicted, 2),
                "without pauses": round(1_000 * point.predicted_steady, 2),
                "99 % within": round(1_000 * point.measured_p99, 2),
            }
            for name, points in self.points.items()
            for point in points
        )

    def figure(self, title: str) -> Figure:
        """One panel an edge: lateness over utilisation, measured, and by the closed form with and without pauses."""
        with new_figure(title, 9.0, 4.0) as figure:
            axes = figure.subplots(1, len(self.points), sharey=True, sharex=True, squeeze=False)[0]
            for row, (axis, (name, points)) in enumerate(zip(axes, self.points.items(), strict=True)):
                _waiting(axis, points, _curve(points), LOOKS[row % len(LOOKS)])
                axis.set_title(name if points else f"{name}: no load was carried", fontsize=10.5)
                axis.set_xlabel("of a core, had or waited for, %")
            axes[0].set_yscale("log")
            axes[0].yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes[0].yaxis.set_minor_formatter(NullFormatter())
            axes[0].set_xlim(0, 100)
            axes[0].set_ylim(0.3, max(100.0, 2 * axes[0].get_ylim()[1]))
            axes[0].set_ylabel("from due to read, ms")
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
            return figure

    def words(self) -> str:
        """The same in a sentence a load, for those who cannot see the figure."""
        return "; ".join(
            f"{name} at {point.utilisation:.0%} of a core: {1_000 * point.measured:.2f} ms late on average,"
            f" {_milliseconds(point.predicted)} by the closed form, 99 % within {1_000 * point.measured_p99:.2f} ms"
            for name, points in self.points.items()
            for point in points
        )


def _curve(points: Sequence[Point]) -> list[tuple[float, float]]:
    """The closed form without pauses, for events that take as long as the middle one of these loads."""
    if not points:
        return []
    service = sorted(point.service_seconds for point in points)[len(points) // 2]
    shares = [share / 100 for share in range(int(100 * SETTLES_SHARE) + 1)]
    return [(share, points[0].base_seconds + waiting_seconds(share, service)) for share in shares]


def _milliseconds(seconds: float) -> str:
    return "unknown" if math.isnan(seconds) else f"{1_000 * seconds:.2f} ms"


def study_waiting(capacity: CapacityStudy) -> WaitingStudy:
    """The loads that were carried, by utilisation."""
    return WaitingStudy({ladder.edge.name: _points(ladder.climbed) for ladder in capacity.ladders})


def _points(steps: Sequence[StepResult]) -> list[Point]:
    carried = sorted((step for step in steps if step.carried), key=lambda step: step.wanted)
    base = min((step.client.late_p50 for step in carried), default=0.0)
    return [Point(step, base) for step in carried]


Curve = Sequence[tuple[float, float]]


def _waiting(axis: Axes, points: Sequence[Point], curve: Curve, look: Look) -> None:
    colour, marker, _ = look
    at = [100 * point.utilisation for point in points]
    p99, mean, closed = (
        [1_000 * value for value in values]
        for values in (
            [point.measured_p99 for point in points],
            [point.measured for point in points],
            [point.predicted for point in points],
        )
    )
    axis.plot(at, p99, marker=marker, color=colour, markerfacecolor="white", linestyle="", label="99 % within")
    axis.plot(at, mean, marker=marker, color=colour, linestyle="", label="mean")
    axis.plot(at, closed, color=TEXT_COLOUR, marker="_", markersize=16, linestyle="", label="mean, closed form")
    axis.plot(
        [100 * share for share, _ in curve],
        [1_000 * seconds for _, seconds in curve],
        color=TEXT_COLOUR,
        linewidth=1.2,
        linestyle=":",
        label="the same without the collector",
    )
