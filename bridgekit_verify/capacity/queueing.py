"""Predict the waiting times of events in a busy process with queueing theory, and compare them with measured ones.

One process serves the events one after the other, and events become due at random times: an M/G/1 queue. The
Pollaczek-Khinchine formula gives the mean waiting time in such a queue (Pollaczek 1930, Khinchine 1932;
Kleinrock, Queueing Systems I, 1975, section 5.6).
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

from bridgekit_verify.capacity.capacity import STYLES, CapacityStudy, LineStyle
from bridgekit_verify.capacity.load_search import StepResult
from bridgekit_verify.measure.plots import TEXT_COLOUR, new_figure

__all__ = ["ONE_SERVICE", "Point", "WaitingStudy", "study_waiting", "waiting_seconds"]

ONE_SERVICE: Final = 2 / 3
"""Above this utilisation, an event waits on average longer than its own service takes."""
SETTLES_SHARE: Final = 0.95
"""Above this utilisation, a wave ends before its queue reaches the steady state, so the Pollaczek-Khinchine formula
does not apply."""


def waiting_seconds(utilisation: float, service_seconds: float, pauses_squared: float = 0.0) -> float:
    """Return the mean waiting time of an event in seconds, if service times are equal (M/D/1), except for pauses.

    `pauses_squared` is the sum of the squared durations of pauses (such as garbage collections) in s² per second.
    Pauses count as rare, long jobs and are part of the utilisation. Raises ValueError unless 0 <= utilisation < 1.
    """
    if not 0 <= utilisation < 1:
        raise ValueError(f"utilisation is {utilisation}, but must be at least 0 and below 1 for a steady state")
    return (utilisation * service_seconds + pauses_squared) / (2 * (1 - utilisation))


@dataclass(frozen=True)
class Point:
    """One carried load, with its measured and predicted lateness."""

    step: StepResult
    base_seconds: float
    """Lateness without queueing, in seconds: the lowest median lateness of the edge's carried loads."""

    @property
    def utilisation(self) -> float:
        """The share of a core that the process used or waited for."""
        return self.step.utilisation

    @property
    def measured(self) -> float:
        """Measured mean lateness, in seconds."""
        return self.step.client.late_mean

    @property
    def measured_p99(self) -> float:
        return self.step.client.late_p99

    @property
    def service_seconds(self) -> float:
        return self.step.service_us / 1e6

    @property
    def predicted(self) -> float:
        """Predicted mean lateness in seconds, with the measured garbage collections.

        NaN at 95 % utilisation or more.
        """
        return self._predicted(self.step.server.pauses_squared)

    @property
    def predicted_steady(self) -> float:
        """Predicted mean lateness in seconds, without garbage collections. NaN at 95 % utilisation or more."""
        return self._predicted(0.0)

    def _predicted(self, pauses_squared: float) -> float:
        if self.utilisation >= SETTLES_SHARE:
            return math.nan
        return self.base_seconds + waiting_seconds(self.utilisation, self.service_seconds, pauses_squared)


@dataclass(frozen=True)
class WaitingStudy:
    """The carried loads of each edge, in order of utilisation."""

    points: Mapping[str, Sequence[Point]]

    def table(self) -> pd.DataFrame:
        """Return one row for each carried load.

        Times without a unit are in milliseconds. A load without a steady state has no predictions.
        """
        return pd.DataFrame(
            {
                "edge": name,
                "events/s": round(point.step.events_per_second),
                "core %": round(100 * point.utilisation),
                "processing time, µs": round(1e6 * point.service_seconds, 1),
                "longest pause": round(1_000 * point.step.server.longest_pause, 1),
                "late, mean": round(1_000 * point.measured, 2),
                "predicted": round(1_000 * point.predicted, 2),
                "predicted without pauses": round(1_000 * point.predicted_steady, 2),
                "99 % within": round(1_000 * point.measured_p99, 2),
            }
            for name, points in self.points.items()
            for point in points
        )

    def title(self) -> str:
        """State the largest mean lateness at a utilisation of at most two thirds of a core."""
        light = {
            name: [point.measured for point in points if point.utilisation <= ONE_SERVICE]
            for name, points in self.points.items()
        }
        measured = {name: max(delays) for name, delays in light.items() if delays}
        if not any(self.points.values()):
            return "No load was carried"
        if not measured:
            return "Each carried load used, or waited for, more than two thirds of a core"
        # The title leaves out an edge that carried only higher loads.
        edges = "" if len(measured) == len(light) else f" ({' and '.join(measured)})"
        return f"Up to two thirds of a core, the mean delay is at most {1_000 * max(measured.values()):.1f} ms{edges}"

    def figure(self) -> Figure:
        """Draw measured lateness over utilisation, and the predictions with and without pauses.

        Each edge has a panel. Each load has a marker for its mean and one for its 99th percentile.
        """
        with new_figure(self.title(), 6.2, 1.2 + 2.6 * len(self.points)) as figure:
            axes = figure.subplots(len(self.points), 1, sharey=True, sharex=True, squeeze=False)[:, 0]
            for row, (axis, (name, points)) in enumerate(zip(axes, self.points.items(), strict=True)):
                _waiting(axis, points, _curve(points), STYLES[row % len(STYLES)])
                axis.axvline(100 * ONE_SERVICE, color="#777777", linewidth=0.8, linestyle="--", zorder=0)
                axis.set_title(name if points else f"{name}: no load was carried", fontsize=10.5)
            axes[0].set_yscale("log")
            axes[0].yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes[0].yaxis.set_minor_formatter(NullFormatter())
            axes[0].set_xlim(0, 105)  # room for the marker of a process that uses a whole core
            axes[0].set_ylim(0.3, max(100.0, 2 * axes[0].get_ylim()[1]))
            for axis in axes:
                axis.text(100 * ONE_SERVICE - 1, 0.36, "two thirds of a core", ha="right", fontsize=9)
            axes[-1].set_xlabel("share of a core used or waited for, %")
            figure.supylabel("delay from due to read, ms", fontsize=10)
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
            return figure

    def alt_text(self) -> str:
        """Return a text alternative of the figure.

        The text states, for each load, the utilisation, the measured and predicted mean delay, and the 99th percentile.
        """
        return "; ".join(
            f"{name} edge at {100 * point.utilisation:.0f} % of a core: mean delay {1_000 * point.measured:.2f} ms,"
            f" predicted {_milliseconds(point.predicted)}, 99 % of the events within {1_000 * point.measured_p99:.2f}"
            " ms"
            for name, points in self.points.items()
            for point in points
        )


def _curve(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return points of the prediction without pauses, computed with the median service time of these loads."""
    if not points:
        return []
    service = sorted(point.service_seconds for point in points)[len(points) // 2]
    shares = [share / 100 for share in range(int(100 * SETTLES_SHARE) + 1)]
    return [(share, points[0].base_seconds + waiting_seconds(share, service)) for share in shares]


def _milliseconds(seconds: float) -> str:
    return "unknown" if math.isnan(seconds) else f"{1_000 * seconds:.2f} ms"


def study_waiting(capacity: CapacityStudy) -> WaitingStudy:
    """Compare measured and predicted waiting for the carried loads of a capacity study."""
    return WaitingStudy({search.edge.name: _points(search.tried) for search in capacity.searches})


def _points(steps: Sequence[StepResult]) -> list[Point]:
    carried = sorted((step for step in steps if step.carried), key=lambda step: step.utilisation)
    base = min((step.client.late_p50 for step in carried), default=0.0)
    return [Point(step, base) for step in carried]


Curve = Sequence[tuple[float, float]]


def _waiting(axis: Axes, points: Sequence[Point], curve: Curve, style: LineStyle) -> None:
    colour, marker, _ = style
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
    axis.plot(at, closed, color=TEXT_COLOUR, marker="_", markersize=16, linestyle="", label="mean, predicted")
    axis.plot(
        [100 * share for share, _ in curve],
        [1_000 * seconds for _, seconds in curve],
        color=TEXT_COLOUR,
        linewidth=1.2,
        linestyle=":",
        label="mean, predicted without garbage collection",
    )
