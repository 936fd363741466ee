"""The figures: one message each, said in the title; k of n and 95 % Wilson intervals in the picture.

Colours are Okabe and Ito's, told apart by every kind of sight; hatching and words say the same without colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.statistics import Rate

__all__ = [
    "Fate",
    "before_after_figure",
    "delivery_figure",
    "draw_rates",
    "fate_of",
    "fates_legend",
    "frame_grid",
    "matrix_figure",
    "new_figure",
    "panels_of_bars",
    "percents",
]

GREEN: Final = "#009E73"
VERMILLION: Final = "#D55E00"
SKY: Final = "#56B4E9"
BLUE: Final = "#0072B2"
LOST: Final = "#D9D9D9"
INK: Final = "#222222"

STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.linewidth": 0.6,
    "font.family": "DejaVu Sans",
}


@contextmanager
def new_figure(title: str, width: float, height: float) -> Iterator[Figure]:
    """A figure of this size, in inches, in the style of the suite: draw it within the block."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        yield figure


def percents(rates: Sequence[Rate]) -> tuple[list[float], list[list[float]]]:
    """Rates in percent, and how far their intervals reach below and above them, as `errorbar` takes them."""
    values = [100 * rate.fraction for rate in rates]
    below = [value - 100 * rate.interval[0] for value, rate in zip(values, rates, strict=True)]
    above = [100 * rate.interval[1] - value for value, rate in zip(values, rates, strict=True)]
    return values, [below, above]


def draw_rates(axis: Axes, xs: Sequence[float], rates: Sequence[Rate], colour: str, marker: str, size: float) -> None:
    """Draw each known rate in percent as a marker, with its interval."""
    known = [(x, rate) for x, rate in zip(xs, rates, strict=True) if rate.known]
    at, (values, bars) = [x for x, _ in known], percents([rate for _, rate in known])
    axis.errorbar(at, values, yerr=bars, fmt="none", ecolor=INK, elinewidth=1.3, capsize=3, zorder=4)
    axis.plot(at, values, marker=marker, color=colour, markersize=size, linestyle="", clip_on=False, zorder=3)


def frame_grid(axis: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Label a grid of cells of size 1, the first row on top, and draw no lines."""
    axis.set_xlim(0, len(columns))
    axis.set_ylim(len(rows), 0)
    axis.set_xticks([column + 0.5 for column in range(len(columns))], columns)
    axis.set_yticks([row + 0.5 for row in range(len(rows))], rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


@dataclass(frozen=True)
class Fate:
    """What became of the events of some measurements: three parts of a whole."""

    expected: int
    delivered: int
    astray: int
    """Reached another user's socket, and not their own."""

    @property
    def lost(self) -> int:
        """Reached nobody."""
        return self.expected - self.delivered - self.astray


def fate_of(measurements: Sequence[Measurement]) -> Fate:
    """Add measurements up. An event that somebody else read counts once, however often it was read."""
    expected = delivered = astray = 0
    for measurement in measurements:
        expected += measurement.verdict.expected
        delivered += measurement.verdict.delivered
        read = {arrival.key for arrival in measurement.history.arrivals}
        astray += sum(row.copies == 0 and row.expectation.key in read for row in measurement.ledger)
    return Fate(expected, delivered, astray)


def before_after_figure(panels: Mapping[str, Mapping[str, Sequence[Measurement]]], *, title: str) -> Figure:
    """One panel a set of thread ids, one bar a variant: which part of the events was delivered, lost, or astray.

    `panels` maps a panel's title to measurements by variant name; panels share their variants.
    """
    with mpl.rc_context(STYLE):
        names = list(next(iter(panels.values())))
        fates = {heading: [fate_of(by_variant[name]) for name in names] for heading, by_variant in panels.items()}
        return panels_of_bars(fates, names, title=title)


def panels_of_bars(panels: Mapping[str, Sequence[Fate]], names: Sequence[str], *, title: str) -> Figure:
    """Panels one above the other, so that a phone shows them whole; in each one bar a name."""
    figure = Figure(figsize=(7.4, 1.5 + len(panels) * (0.62 + 0.38 * len(names))), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (heading, fates) in zip(axes, panels.items(), strict=True):
        _stacked_bars(axis, heading, fates)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
    axes[-1].set_xlabel("share of the events that users wait for, %  (whisker: 95 % Wilson interval)")
    figure.legend(handles=fates_legend(), loc="outside lower left", ncols=3, frameon=False, fontsize=9.5)
    return figure


def _stacked_bars(axis: Axes, heading: str, fates: Sequence[Fate]) -> None:
    """One bar a fate, from the top: delivered, astray, lost, with the interval of the delivered and the counts."""
    for row, fate in enumerate(fates):
        left = 0.0
        for part, (colour, hatch) in zip(
            (fate.delivered, fate.astray, fate.lost),
            ((GREEN, ""), (VERMILLION, "xxx"), (LOST, "")),
            strict=True,
        ):
            width = 100 * part / fate.expected if fate.expected else 0
            axis.barh(row, width, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.66)
            left += width
        _interval(axis, row, Rate(fate.delivered, fate.expected))
        axis.text(102, row, _says(fate), va="center", fontsize=9)
    axis.set_title(heading, fontsize=10.5)
    axis.set_xlim(0, 128)
    axis.spines["bottom"].set_bounds(0, 100)
    axis.set_xticks([0, 25, 50, 75, 100])
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)


def _interval(axis: Axes, row: float, rate: Rate) -> None:
    low, high = (100 * end for end in rate.interval)
    axis.errorbar(
        100 * rate.fraction if rate.known else 50,
        row,
        xerr=[[100 * rate.fraction - low], [high - 100 * rate.fraction]] if rate.known else [[50], [50]],
        fmt="none",
        ecolor=INK,
        elinewidth=1.3,
        capsize=3,
    )


def _says(fate: Fate) -> str:
    if not fate.expected:
        return "unknown"
    says = f"{fate.delivered:,} of {fate.expected:,}"
    return says + (f"\n{fate.astray:,} to others" if fate.astray else "")


def fates_legend(leak: Patch | None = None) -> list[Patch]:
    """What the colours of a fate mean."""
    leak = leak or Patch(facecolor=VERMILLION, hatch="xxx", edgecolor="white")
    leak.set_label("reached another user")
    return [
        Patch(facecolor=GREEN, label="reached their user"),
        leak,
        Patch(facecolor=LOST, label="reached nobody"),
    ]


def delivery_figure(measurements: Sequence[Measurement], labels: Sequence[str], *, title: str) -> Figure:
    """Delivered and misrouted, side by side: one dot a measurement, with its interval and its count."""
    with new_figure(title, 9.0, 1.75 + 0.5 * len(labels)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        fates = [fate_of([measurement]) for measurement in measurements]
        _dots(left, "reached their user", [Rate(fate.delivered, fate.expected) for fate in fates], GREEN, "o")
        _dots(
            right,
            "reached another user",
            [Rate(fate.astray, fate.expected) for fate in fates],
            VERMILLION,
            "D",
        )
        left.set_yticks(range(len(labels)), labels)
        left.set_ylim(len(labels) - 0.5, -0.5)
        return figure


def _dots(axis: Axes, heading: str, rates: Sequence[Rate], colour: str, marker: str) -> None:
    for row, rate in enumerate(rates):
        _interval(axis, row, rate)
        if rate.known:
            axis.plot(100 * rate.fraction, row, marker=marker, color=colour, markersize=9, clip_on=False)
        axis.text(106, row, f"{rate.k:,} of {rate.n:,}" if rate.known else "unknown", va="center", fontsize=9)
        axis.axhline(row, color="#EEEEEE", zorder=0)
    axis.set_title(heading, fontsize=10.5, fontweight="normal")
    axis.set_xlim(-3, 140)
    axis.spines["bottom"].set_bounds(0, 100)
    axis.spines["left"].set_visible(False)
    axis.set_xticks([0, 25, 50, 75, 100])
    axis.set_xlabel("events, % (bar: 95 % Wilson interval)")
    axis.tick_params(axis="y", length=0)


def matrix_figure(cells: dict[tuple[str, str], Measurement], *, title: str) -> Figure:
    """Families of thread ids down, variants across; each cell says how many of its events were delivered.

    `cells` maps (family, variant name) to a measurement; rows and columns keep their first order.
    """
    families = list(dict.fromkeys(family for family, _ in cells))
    names = list(dict.fromkeys(name for _, name in cells))
    with new_figure(title, 2.9 + 1.12 * len(names), 1.5 + 0.4 * len(families)) as figure:
        axis = figure.subplots()
        for row, family in enumerate(families):
            for column, name in enumerate(names):
                _cell(axis, row, column, fate_of([cells[family, name]]))
        frame_grid(axis, names, families)
        axis.xaxis.tick_top()
        figure.legend(
            handles=fates_legend(leak=Patch(facecolor=VERMILLION, edgecolor=INK, linewidth=1.6)),
            loc="outside lower left",
            ncols=3,
            frameon=False,
            fontsize=9,
        )
        return figure


def _cell(axis: Axes, row: int, column: int, fate: Fate) -> None:
    colour, ink, says = LOST, INK, f"0 of {fate.expected:,}"
    if fate.astray:
        colour, ink = VERMILLION, "white"
        says = f"{fate.delivered:,} of {fate.expected:,}\n{fate.astray:,} to others"
    elif fate.delivered:
        colour, ink, says = GREEN, "white", f"{fate.delivered:,} of {fate.expected:,}"
    # The border tells what leaks from what does not, also in grey.
    border = {"edgecolor": INK, "linewidth": 2.2} if fate.astray else {"edgecolor": "none"}
    axis.add_patch(Rectangle((column + 0.03, row + 0.05), 0.94, 0.9, facecolor=colour, **border))
    axis.text(
        column + 0.5,
        row + 0.5,
        says,
        ha="center",
        va="center",
        color=ink,
        fontsize=9.5 if "\n" not in says else 8,
        linespacing=0.95,
        fontweight="bold" if fate.astray else "normal",
    )
