"""Parts that the figures share: one row for each stack (bridgekit in blue and bold), and dots with ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.peers import BRIDGEKIT
from bridgekit_verify.measure.plots import BLUE, TEXT_COLOUR

__all__ = ["BRIDGEKIT_STACKS", "GREY", "Mark", "dots", "legend", "rows", "sheet", "stacks_of"]

GREY: Final = "#777777"
WIDTH: Final = 7.5
"""The width of a figure in inches. A wider figure has illegible text on a narrow screen."""
BRIDGEKIT_STACKS: Final = frozenset(each.name for each in BRIDGEKIT)


@dataclass(frozen=True)
class Mark:
    """The appearance and meaning of one kind of dot."""

    key: str
    """The measure or kind that the dot shows."""
    label: str
    marker: str
    filled: bool = True


def sheet(title: str, height: float, panels: int = 1, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure with a title and its panels side by side."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    axes = figure.subplots(1, panels, squeeze=False, sharey=sharey)[0]
    return figure, list(axes)


def stacks_of(series: Series, measure: str, kind: str | None = None) -> list[str]:
    """Return the stacks with values of this measure, in the order of measurement."""
    found = (key.stack for key in series if key.measure == measure and kind in (None, key.kind))
    return list(dict.fromkeys(found))


def rows(axis: Axes, stacks: Sequence[str], *, line_until: float = 1.0) -> None:
    """Label the rows from the top. The row lines end at the fraction `line_until` of the width."""
    axis.set_yticks(range(len(stacks)), stacks)
    axis.set_ylim(len(stacks) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    for label, stack in zip(axis.get_yticklabels(), stacks, strict=True):
        label.set_fontweight("bold" if stack in BRIDGEKIT_STACKS else "normal")
        label.set_color(BLUE if stack in BRIDGEKIT_STACKS else TEXT_COLOUR)
    for row in range(len(stacks)):
        axis.axhline(row, xmax=line_until, color="#EEEEEE", zorder=0)


def dots(axis: Axes, series: Series, stacks: Sequence[str], keys: Sequence[tuple[Mark, str, str]]) -> None:
    """Draw a dot at the median and a line over the range for each stack and key (mark, measure and kind)."""
    step = 0.5 / len(keys)
    for row, stack in enumerate(stacks):
        for position, (mark, measure, kind) in enumerate(keys):
            values = series[SeriesKey(measure, stack, kind)]
            if not values:
                continue
            y, colour = row + (position - (len(keys) - 1) / 2) * step, BLUE if stack in BRIDGEKIT_STACKS else GREY
            axis.plot([min(values), max(values)], [y, y], color=colour, linewidth=1.4, alpha=0.6, zorder=2)
            axis.plot(
                median(values),
                y,
                marker=mark.marker,
                markersize=7,
                color=colour,
                markerfacecolor=colour if mark.filled else "white",
                zorder=3,
            )


def legend(figure: Figure, marks: Sequence[Mark], extra: Sequence[Line2D] = ()) -> None:
    """Add a legend that explains the marks."""
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=mark.marker,
            markersize=7,
            color=TEXT_COLOUR,
            markerfacecolor=TEXT_COLOUR if mark.filled else "white",
            label=mark.label,
        )
        for mark in marks
    ]
    figure.legend(handles=[*handles, *extra], loc="outside lower left", ncols=4, frameon=False, fontsize=9)
