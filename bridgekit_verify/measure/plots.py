"""The figures: each shows one finding, stated in its title, with k of n; rates from samples have 95 % Wilson intervals.

The colours are those of Okabe and Ito, which remain distinguishable with any colour vision; hatching and labels carry
the same information without colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import fill
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.statistics import Rate

__all__ = [
    "OutcomeCounts",
    "delivery_figure",
    "draw_rates",
    "frame_grid",
    "kinds_figure",
    "matrix_figure",
    "new_figure",
    "outcome_counts",
    "outcome_legend",
    "panels_of_bars",
    "percents",
]

GREEN: Final = "#009E73"
VERMILLION: Final = "#D55E00"
SKY: Final = "#56B4E9"
BLUE: Final = "#0072B2"
LOST: Final = "#D9D9D9"
TEXT_COLOUR: Final = "#222222"

STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "text.color": TEXT_COLOUR,
    "axes.labelcolor": TEXT_COLOUR,
    "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR,
    "hatch.linewidth": 0.6,
    "font.family": "DejaVu Sans",
}


@contextmanager
def new_figure(title: str, width: float, height: float) -> Iterator[Figure]:
    """A context manager: yields a figure of that size in inches, to be drawn within the block in the suite's style."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        yield figure


def percents(rates: Sequence[Rate]) -> tuple[list[float], list[list[float]]]:
    """Return rates in percent, and the distance of their interval ends below and above, in the form of `errorbar`."""
    values = [100 * rate.fraction for rate in rates]
    below = [value - 100 * rate.interval[0] for value, rate in zip(values, rates, strict=True)]
    above = [100 * rate.interval[1] - value for value, rate in zip(values, rates, strict=True)]
    return values, [below, above]


def draw_rates(axis: Axes, xs: Sequence[float], rates: Sequence[Rate], colour: str, marker: str, size: float) -> None:
    """Draw each known rate in percent as a marker with its interval; unknown rates are left out."""
    known = [(x, rate) for x, rate in zip(xs, rates, strict=True) if rate.known]
    at, (values, bars) = [x for x, _ in known], percents([rate for _, rate in known])
    axis.errorbar(at, values, yerr=bars, fmt="none", ecolor=TEXT_COLOUR, elinewidth=1.3, capsize=3, zorder=4)
    axis.plot(at, values, marker=marker, color=colour, markersize=size, linestyle="", clip_on=False, zorder=3)


def frame_grid(axis: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Label a grid of cells of size 1, the first row at the top, without lines."""
    axis.set_xlim(0, len(columns))
    axis.set_ylim(len(rows), 0)
    axis.set_xticks([column + 0.5 for column in range(len(columns))], columns)
    # Names are shown as they are: a reader's own may contain `$`, which matplotlib would take for a formula.
    axis.set_yticks([row + 0.5 for row in range(len(rows))], rows, parse_math=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


@dataclass(frozen=True)
class OutcomeCounts:
    """How many events of some measurements were delivered, misrouted or lost; the three add up to `expected`."""

    expected: int
    delivered: int
    misrouted: int
    """Reached another user's socket and not their own."""

    @property
    def lost(self) -> int:
        """Reached no socket."""
        return self.expected - self.delivered - self.misrouted


def outcome_counts(measurements: Sequence[Measurement]) -> OutcomeCounts:
    """Add up measurements. A misrouted event counts once, however often it was read."""
    expected = delivered = misrouted = 0
    for measurement in measurements:
        expected += measurement.verdict.expected
        delivered += measurement.verdict.delivered
        read = {arrival.key for arrival in measurement.history.arrivals}
        misrouted += sum(row.copies == 0 and row.expectation.key in read for row in measurement.ledger)
    return OutcomeCounts(expected, delivered, misrouted)


def kinds_figure(panels: Mapping[str, Sequence[OutcomeCounts]], names: Sequence[str], *, title: str) -> Figure:
    """Draw one panel per group of kinds and one bar per name: how many kinds deliver all events, lose and leak."""
    with mpl.rc_context(STYLE):
        figure = panels_of_bars(panels, names, title=title, leak="leak")
        figure.axes[-1].set_xlabel("share of the kinds of thread ids, %")
        labels = ("every event delivered", "some events reach another user", "some events lost, none leaked")
        for text, label in zip(figure.legends[0].get_texts(), labels, strict=True):
            text.set_text(label)
        return figure


def panels_of_bars(
    panels: Mapping[str, Sequence[OutcomeCounts]], names: Sequence[str], *, title: str, leak: str = "to others"
) -> Figure:
    """Draw panels one below another, so that they fit a narrow screen; each has one bar per name.

    The counts come from chosen cases and not from samples, so they have no intervals.
    """
    figure = Figure(figsize=(7.4, 1.5 + len(panels) * (0.62 + 0.38 * len(names))), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (heading, outcomes) in zip(axes, panels.items(), strict=True):
        _stacked_bars(axis, heading, outcomes, leak)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
    axes[-1].set_xlabel("share of the events that users wait for, %")
    figure.legend(handles=outcome_legend(), loc="outside lower left", ncols=3, frameon=False, fontsize=9.5)
    return figure


def _stacked_bars(axis: Axes, heading: str, outcomes: Sequence[OutcomeCounts], leak: str) -> None:
    """Draw one bar per outcome with its counts, from the top: delivered, misrouted, lost."""
    for row, outcome in enumerate(outcomes):
        left = 0.0
        for part, (colour, hatch) in zip(
            (outcome.delivered, outcome.misrouted, outcome.lost),
            ((GREEN, ""), (VERMILLION, "xxx"), (LOST, "")),
            strict=True,
        ):
            width = 100 * part / outcome.expected if outcome.expected else 0
            axis.barh(row, width, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.66)
            left += width
        axis.text(102, row, _label(outcome, leak), va="center", fontsize=9)
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
        ecolor=TEXT_COLOUR,
        elinewidth=1.3,
        capsize=3,
    )


def _label(outcome: OutcomeCounts, leak: str) -> str:
    if not outcome.expected:
        return "unknown"
    label = f"{outcome.delivered:,} of {outcome.expected:,}"
    return label + (f"\n{outcome.misrouted:,} {leak}" if outcome.misrouted else "")


def outcome_legend(leak: Patch | None = None) -> list[Patch]:
    """Return legend entries for the three outcomes."""
    leak = leak or Patch(facecolor=VERMILLION, hatch="xxx", edgecolor="white")
    leak.set_label("reached another user")
    return [
        Patch(facecolor=GREEN, label="reached their user"),
        leak,
        Patch(facecolor=LOST, label="reached no user"),
    ]


def delivery_figure(measurements: Sequence[Measurement], labels: Sequence[str], *, title: str) -> Figure:
    """Draw delivered and misrouted side by side: one dot per measurement, with its interval and its count."""
    with new_figure(title, 9.0, 1.75 + 0.5 * len(labels)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        outcomes = [outcome_counts([measurement]) for measurement in measurements]
        _dots(
            left, "reached their user", [Rate(outcome.delivered, outcome.expected) for outcome in outcomes], GREEN, "o"
        )
        _dots(
            right,
            "reached another user",
            [Rate(outcome.misrouted, outcome.expected) for outcome in outcomes],
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
    """Draw families of thread ids as rows and variants as columns; each cell shows its delivered events.

    `cells` maps (family, variant name) to a measurement; rows and columns appear in their first order.
    """
    families = list(dict.fromkeys(family for family, _ in cells))
    names = list(dict.fromkeys(name for _, name in cells))
    with new_figure(title, 2.9 + 1.12 * len(names), 1.8 + 0.4 * len(families)) as figure:
        axis = figure.subplots()
        for row, family in enumerate(families):
            for column, name in enumerate(names):
                _cell(axis, row, column, outcome_counts([cells[family, name]]))
        frame_grid(axis, [fill(name, 13) for name in names], families)
        axis.xaxis.tick_top()
        figure.legend(
            handles=outcome_legend(leak=Patch(facecolor=VERMILLION, edgecolor=TEXT_COLOUR, linewidth=1.6)),
            loc="outside lower left",
            ncols=3,
            frameon=False,
            fontsize=9,
        )
        return figure


def _cell(axis: Axes, row: int, column: int, outcome: OutcomeCounts) -> None:
    colour, text_colour, label = LOST, TEXT_COLOUR, f"0 of {outcome.expected:,}"
    if outcome.misrouted:
        colour, text_colour = VERMILLION, "white"
        label = f"{outcome.delivered:,} of {outcome.expected:,}\n{outcome.misrouted:,} to others"
    elif outcome.delivered:
        colour, text_colour, label = GREEN, "white", f"{outcome.delivered:,} of {outcome.expected:,}"
    # The border distinguishes leaking cells without colour.
    border = {"edgecolor": TEXT_COLOUR, "linewidth": 2.2} if outcome.misrouted else {"edgecolor": "none"}
    axis.add_patch(Rectangle((column + 0.03, row + 0.05), 0.94, 0.9, facecolor=colour, **border))
    axis.text(
        column + 0.5,
        row + 0.5,
        label,
        ha="center",
        va="center",
        color=text_colour,
        fontsize=9.5 if "\n" not in label else 8,
        linespacing=0.95,
        fontweight="bold" if outcome.misrouted else "normal",
    )
