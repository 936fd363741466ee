"""The figure of the calibration: what was measured against what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridgekit_verify.measure.plots import BLUE, INK, STYLE, VERMILLION
from bridgekit_verify.measure.statistics import Rate

__all__ = ["Held", "calibration_figure"]


@dataclass(frozen=True)
class Held:
    """A measured rate, held against its closed form."""

    name: str
    closed_form: float
    """As a fraction of 1."""
    measured: Rate

    @property
    def inside(self) -> bool:
        """Whether the closed form is in the measured rate's interval."""
        low, high = self.measured.interval
        return low <= self.closed_form <= high


def calibration_figure(rows: Sequence[Held], *, title: str) -> Figure:
    """Left, measured against closed form: on the diagonal they agree. Right, row by row, by how much they differ."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 1.9 + 0.27 * len(rows)), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.35))
        _diagonal(left, rows)
        _differences(right, rows)
        return figure


def _diagonal(axis: Axes, rows: Sequence[Held]) -> None:
    axis.plot([0, 100], [0, 100], color=INK, linestyle="--", linewidth=1, zorder=0)
    axis.text(101, 4, "on the dashed line,\nmeasured = closed form", fontsize=9, ha="right")
    for held in rows:
        value, below, above = _percents(held)
        colour, marker = _looks(held)
        axis.errorbar(
            100 * held.closed_form, value, yerr=[[below], [above]], fmt=marker, color=colour, ecolor=INK,
            markersize=7, capsize=3, clip_on=False,
        )  # fmt: skip
    axis.set_xlim(-2, 102)
    axis.set_ylim(-2, 102)
    axis.set_aspect("equal", anchor="N")
    axis.set_title("delivery", fontsize=10.5, fontweight="normal")
    axis.set_xticks([0, 25, 50, 75, 100])
    axis.set_yticks([0, 25, 50, 75, 100])
    axis.set_xlabel("delivery by the closed form, %")
    axis.set_ylabel("delivery measured, %")


def _differences(axis: Axes, rows: Sequence[Held]) -> None:
    reach = 1.15 * max(max(_percents(held)[1:]) + abs(_difference(held)) for held in rows)
    for row, held in enumerate(rows):
        _, below, above = _percents(held)
        colour, marker = _looks(held)
        axis.axhline(row, color="#EEEEEE", zorder=0)
        axis.errorbar(
            _difference(held), row, xerr=[[below], [above]], fmt=marker, color=colour, ecolor=INK,
            markersize=7, capsize=3,
        )  # fmt: skip
        axis.text(1.02 * reach, row, f"{held.measured.k:,} of {held.measured.n:,}", va="center", fontsize=9)
    axis.axvline(0, color=INK, linestyle="--", linewidth=1, zorder=0)
    axis.set_yticks(range(len(rows)), [held.name for held in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(-reach, 1.5 * reach)
    axis.spines["bottom"].set_bounds(-reach, reach)
    axis.spines["left"].set_visible(False)
    axis.set_xticks([tick for tick in axis.get_xticks() if abs(tick) <= reach])
    axis.tick_params(axis="y", length=0)
    axis.set_title("by how much they differ", fontsize=10.5, fontweight="normal")
    axis.set_xlabel("measured - closed form, percentage points\n(bar: 95 % Wilson interval)")


def _difference(held: Held) -> float:
    return 100 * (held.measured.fraction - held.closed_form)


def _percents(held: Held) -> tuple[float, float, float]:
    """The measured rate, and how far its interval reaches below and above it, in percent."""
    low, high = held.measured.interval
    value = held.measured.fraction
    return 100 * value, 100 * (value - low), 100 * (high - value)


def _looks(held: Held) -> tuple[str, str]:
    return (BLUE, "o") if held.inside else (VERMILLION, "D")
