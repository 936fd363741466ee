"""The figures of what the audit missed: events that come late, and run ids that come twice.

One message each, in the manner of `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bridgekit.mapping.service import GRACE_SECONDS
from bridgekit_verify.measure.plots import BLUE, GREEN, INK, STYLE, VERMILLION
from bridgekit_verify.measure.statistics import Rate, collision_probability, runs_until_collision

__all__ = ["collision_figure", "late_events_figure"]

LOOKS: Final = ((VERMILLION, "D"), (BLUE, "s"), (GREEN, "o"))
PLATE: Final = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
"""Behind a number that may stand on a line."""


def late_events_figure(panels: Mapping[str, Mapping[float, Rate]], *, title: str) -> Figure:
    """One panel a way to find the route: which part of the events is delivered, by how late they are emitted.

    `panels` maps a panel's title to rates by seconds after the run's end, negative before it; panels share them.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 1.4 + 1.45 * len(panels)), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        seconds = list(next(iter(panels.values())))
        for axis, (heading, rates), (colour, marker) in zip(axes, panels.items(), LOOKS, strict=False):
            _spans(axis, seconds, words=axis is axes[-1])
            _points(axis, range(len(seconds)), list(rates.values()), colour, marker)
            for place, rate in enumerate(rates.values()):
                _label(axis, place, rate)
            axis.set_title(heading, fontsize=10.5, fontweight="normal")
        axes[0].set_ylim(-10, 112)
        axes[0].set_yticks([0, 50, 100])
        axes[0].set_xlim(-0.5, len(seconds) - 0.5)
        axes[-1].set_xticks(range(len(seconds)), ["before" if at < 0 else f"{at:g}" for at in seconds])
        axes[-1].set_xlabel("when the event is emitted, in seconds after its run has ended")
        figure.supylabel("delivered, % (bar: 95 % Wilson interval)", fontsize=10)
        return figure


def _spans(axis: Axes, seconds: Sequence[float], *, words: bool) -> None:
    """The run, and its grace: where an event is emitted, not how much time lies between."""
    end = sum(at < 0 for at in seconds) - 0.5
    over = sum(at < GRACE_SECONDS for at in seconds) - 0.5
    axis.axvspan(end, over, color="#F0F0F0", zorder=0)
    for place in (end, over):
        axis.axvline(place, color=INK, linewidth=0.9, linestyle="--", zorder=1)
    if words:
        axis.text(end, 10, " the run ends", fontsize=9, va="center")
        axis.text(over, 16, f" the service's grace\n of {GRACE_SECONDS:g} s is over", fontsize=9, va="center")


def _label(axis: Axes, place: float, rate: Rate) -> None:
    if rate.known:
        away = -30 if rate.fraction > 0.5 else 30
        axis.text(place, 100 * rate.fraction + away, f"{rate.k} of {rate.n}", fontsize=9, ha="center", va="center")


def _points(
    axis: Axes, places: Sequence[float], rates: Sequence[Rate], colour: str, marker: str, size: float = 8
) -> None:
    for place, rate in zip(places, rates, strict=True):
        if not rate.known:
            continue
        middle, (low, high) = 100 * rate.fraction, (100 * end for end in rate.interval)
        whisker = [[middle - low], [high - middle]]
        axis.errorbar(place, middle, yerr=whisker, fmt="none", ecolor=INK, elinewidth=1.3, capsize=3, zorder=4)
        axis.plot(place, middle, marker=marker, color=colour, markersize=size, clip_on=False, zorder=3)


def collision_figure(panels: Mapping[int, Mapping[int, Rate]], *, title: str) -> Figure:
    """One panel a number of hexadecimal digits: how often some two of that many run ids were equal.

    `panels` maps digits to rates by runs of one thread. The line is the birthday bound's approximation.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 4.3), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (digits, rates), (colour, marker) in zip(axes, panels.items(), LOOKS[1:], strict=False):
            _birthday(axis, digits, max(rates))
            _points(axis, list(rates), list(rates.values()), colour, marker, size=6)
            for runs, rate in rates.items():
                away = runs + 0.025 * max(rates)
                axis.text(away, 100 * rate.fraction, f"{rate.k:,}", fontsize=8.5, va="top", bbox=PLATE)
            trials = " or ".join(f"{n:,}" for n in sorted({rate.n for rate in rates.values()}))
            axis.set_title(f"{digits} digits; at each point k of {trials} trials", fontsize=10.5, fontweight="normal")
            axis.set_xlim(0, 1.08 * max(rates))
            axis.set_xlabel("runs of one thread")
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.xaxis.set_major_formatter("{x:,.0f}")
        axes[0].set_ylim(-2, 104)
        axes[0].set_ylabel("trials in which two runs had\none id, % (bar: 95 % Wilson interval)")
        axes[0].legend(loc="upper left", frameon=False, fontsize=9)
        return figure


def _birthday(axis: Axes, digits: int, most: int) -> None:
    runs = [max(1, round(1.08 * most * step / 200)) for step in range(201)]
    expected = [100 * collision_probability(number, digits) for number in runs]
    axis.plot(runs, expected, color=INK, linewidth=1.4, label="birthday bound, expected")
    even = runs_until_collision(digits)
    axis.plot([0, even, even], [50, 50, 0], color=INK, linewidth=0.9, linestyle=":")
    axis.text(1.03 * even, 3, f"even odds at\n{even:,} runs", fontsize=9, va="bottom")
