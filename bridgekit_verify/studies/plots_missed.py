"""The figures of what the audit missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.plots import GREEN, INK, LOST, STYLE, VERMILLION, fate_of, panels_of_bars
from bridgekit_verify.measure.statistics import Rate

__all__ = ["ladder_figure", "sharing_figure", "truth_figure"]

GRIDS_ACROSS: Final = 3


def ladder_figure(panels: Mapping[str, Sequence[Measurement]], *, title: str) -> Figure:
    """One panel a way of running, one bar a rung, the lowest rung on top as it is climbed by reading on."""
    with mpl.rc_context(STYLE):
        rungs = [measurement.variant.name for measurement in next(iter(panels.values()))]
        fates = {heading: [fate_of([each]) for each in measurements] for heading, measurements in panels.items()}
        return panels_of_bars(fates, rungs, title=title)


def sharing_figure(at_once: Sequence[int], shared: Sequence[Rate], fresh: Sequence[Rate], *, title: str) -> Figure:
    """Share of the agents' events that another user read, by runs at once, on a scale of doublings."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.4), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axis = figure.subplots()
        axis.set_xscale("log", base=2)
        closed = [100 * (1 - 1 / c) for c in at_once]
        axis.plot(at_once, closed, color=INK, linestyle="--", linewidth=1, label="closed form, (c - 1) / c")
        _points(axis, at_once, shared, VERMILLION, "D", "one agent for all runs")
        _points(axis, at_once, fresh, GREEN, "o", "a fresh agent for each run")
        axis.set_xticks(at_once, [f"{c}" for c in at_once])
        axis.minorticks_off()
        axis.set_xlabel("runs at once (users)")
        axis.set_ylabel("read by another user, %")
        axis.set_ylim(-4, 104)
        axis.text(at_once[-1], 9, f"{fresh[-1].k:,} of {fresh[-1].n:,}", ha="right", fontsize=9)
        axis.text(at_once[-1], 88, f"{shared[-1].k:,} of {shared[-1].n:,}", ha="right", fontsize=9)
        axis.legend(frameon=False, loc="center right")
        return figure


def _points(axis: Axes, at_once: Sequence[int], rates: Sequence[Rate], colour: str, marker: str, label: str) -> None:
    values = [100 * rate.fraction for rate in rates]
    below = [value - 100 * rate.interval[0] for value, rate in zip(values, rates, strict=True)]
    above = [100 * rate.interval[1] - value for value, rate in zip(values, rates, strict=True)]
    axis.errorbar(
        at_once, values, yerr=[below, above], fmt=marker, color=colour, ecolor=INK, markersize=8, capsize=3, label=label
    )


def truth_figure(grids: Mapping[str, Counter[tuple[str, str]]], *, title: str) -> Figure:
    """One grid a variant: what was answered down, what arrived across. Only honest cells are green."""
    answers = ("sent", "not sent", "no answer")
    got = ("its user got it", "only another user got it", "nobody got it")
    with mpl.rc_context(STYLE):
        columns = min(len(grids), GRIDS_ACROSS)
        rows = -(-len(grids) // columns)
        figure = Figure(figsize=(1.2 + 3.0 * columns, 0.6 + 2.9 * rows), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for unused in axes[len(grids) :]:
            unused.set_visible(False)
        for axis, (name, counts) in zip(axes[: len(grids)], grids.items(), strict=True):
            for row, answer in enumerate(answers):
                for column, what in enumerate(got):
                    _truth_cell(axis, row, column, counts[answer, what], honest=_is_honest(answer, what))
            axis.set_title(name, fontsize=10.5)
            axis.set_xlim(0, len(got))
            axis.set_ylim(len(answers), 0)
            axis.set_xticks([n + 0.5 for n in range(len(got))], ["its user\ngot it", "only\nanother", "nobody\ngot it"])
            axis.set_yticks([n + 0.5 for n in range(len(answers))], [f"answered:\n{answer}" for answer in answers])
            axis.tick_params(length=0, labelsize=9)
            axis.spines[:].set_visible(False)
        return figure


def _is_honest(answer: str, got: str) -> bool:
    return (answer, got) in {("sent", "its user got it"), ("not sent", "nobody got it")}


def _truth_cell(axis: Axes, row: int, column: int, count: int, *, honest: bool) -> None:
    colour = LOST if not count else (GREEN if honest else VERMILLION)
    border = {"edgecolor": INK, "linewidth": 2.0} if count and not honest else {"edgecolor": "none"}
    axis.add_patch(Rectangle((column + 0.04, row + 0.05), 0.92, 0.9, facecolor=colour, **border))
    axis.text(
        column + 0.5, row + 0.5, f"{count:,}", ha="center", va="center", color="white" if count else INK, fontsize=11
    )
