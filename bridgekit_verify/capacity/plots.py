"""The figures of scale: what is on time over load, what sockets weigh, and how waiting grows with utilisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from bridgekit_verify.capacity.step import ON_TIME_SHARE, WITHIN_SECONDS, Step
from bridgekit_verify.measure.plots import BLUE, INK, STYLE, VERMILLION

__all__ = ["capacity_figure", "waiting_figure", "weight_figure"]

Look = tuple[str, str, str]

LOOKS: Final[tuple[Look, ...]] = ((VERMILLION, "s", "-"), (BLUE, "o", "--"))
"""Colour, marker and line of each edge: told apart without colour, too."""


def capacity_figure(ladders: Mapping[str, tuple[Sequence[Step], float | None]], title: str) -> Figure:
    """Above, the share within one second; below, the 99th percentile; both over load, what is carried marked."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 6.0), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        above, below = figure.subplots(2, 1, sharex=True)
        for row, (name, (steps, carries)) in enumerate(ladders.items()):
            look = LOOKS[row % len(LOOKS)]
            _on_time(above, name, steps, look)
            _lateness(below, steps, look)
            _mark(above, below, carries, look, row)
        above.axhline(100 * ON_TIME_SHARE, color="#777777", linewidth=0.8, linestyle=":")
        above.set_ylabel("within one second, % of events\n(bar: 95 % Wilson interval)")
        lowest = min((100 * s.on_time.fraction for steps, _ in ladders.values() for s in steps), default=100.0)
        above.set_ylim(min(90.0, lowest - 3), 101)
        above.legend(frameon=False, loc="center left")
        below.axhline(1_000 * WITHIN_SECONDS, color="#777777", linewidth=0.8, linestyle=":")
        below.set_yscale("log")
        below.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        below.set_ylabel("from due to read, ms\n(99th percentile)")
        below.set_xscale("log")
        below.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        below.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        below.xaxis.set_minor_locator(NullLocator())
        below.set_xlabel("load, events a second")
        return figure


def _on_time(axis: Axes, name: str, steps: Sequence[Step], look: Look) -> None:
    colour, marker, line = look
    loads = [step.events_per_second for step in steps]
    shares = [100 * step.on_time.fraction for step in steps]
    ends = [step.on_time.interval for step in steps]
    axis.errorbar(
        loads,
        shares,
        yerr=[
            [share - 100 * low for share, (low, _) in zip(shares, ends, strict=True)],
            [100 * high - share for share, (_, high) in zip(shares, ends, strict=True)],
        ],
        color=colour,
        linestyle=line,
        linewidth=1.2,
        ecolor=INK,
        elinewidth=0.8,
        capsize=3,
    )
    _dots(axis, list(zip(loads, shares, steps, strict=True)), look)
    axis.plot([], [], color=colour, marker=marker, linestyle=line, markersize=6, label=name)


def _lateness(axis: Axes, steps: Sequence[Step], look: Look) -> None:
    points = [(step.events_per_second, 1_000 * step.heard.late_p99, step) for step in steps]
    axis.plot([x for x, _, _ in points], [y for _, y, _ in points], color=look[0], linestyle=look[2], linewidth=1.2)
    _dots(axis, points, look)


def _dots(axis: Axes, points: Sequence[tuple[float, float, Step]], look: Look) -> None:
    """Filled where the load was carried."""
    colour, marker, _ = look
    for x, y, step in points:
        inside = colour if step.carried else "white"
        axis.plot(x, y, marker=marker, color=colour, markerfacecolor=inside, markersize=6)


def _mark(above: Axes, below: Axes, carries: float | None, look: Look, row: int) -> None:
    """A line through both panels at what is carried, and its number at the foot of the upper one."""
    if carries is None:
        return
    for axis in (above, below):
        axis.axvline(carries, color=look[0], linewidth=0.9, linestyle=look[2], alpha=0.6)
    above.annotate(
        f"carries {carries:,.0f}",
        (carries, 0),
        xycoords=("data", "axes fraction"),
        xytext=(-6, 6 + 14 * row),
        textcoords="offset points",
        ha="right",
        fontsize=9.5,
        color=look[0],
    )


class Weighed(Protocol):
    """What the figure of weights needs of one."""

    @property
    def of(self) -> str: ...

    @property
    def points(self) -> Sequence[tuple[int, int]]: ...

    @property
    def kib(self) -> float: ...

    @property
    def first_kib(self) -> float: ...


def weight_figure(edges: Mapping[str, Sequence[Weighed]], title: str) -> Figure:
    """One panel a kind of thing: memory over how many there are, a line an edge."""
    with mpl.rc_context(STYLE):
        kinds = [weight.of for weight in next(iter(edges.values()))]
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for column, (axis, kind) in enumerate(zip(axes, kinds, strict=True)):
            for row, (name, weights) in enumerate(edges.items()):
                _weight(axis, name, weights[column], LOOKS[row % len(LOOKS)], row)
            axis.set_title(kind, fontsize=10.5, fontweight="normal")
            axis.set_xlim(0, None)
            axis.set_ylim(0, None)
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axis.xaxis.set_major_locator(MaxNLocator(4))
        axes[0].set_ylabel("memory of the process, MiB more")
        axes[0].legend(frameon=False, loc="upper left")
        figure.supxlabel("how many (line: least squares)", fontsize=10)
        return figure


def _weight(axis: Axes, name: str, weight: Weighed, look: Look, row: int) -> None:
    colour, marker, line = look
    many = [n for n, _ in weight.points]
    axis.plot(many, [kib / 1_024 for _, kib in weight.points], marker=marker, color=colour, linestyle="", label=name)
    ends = (min(many), max(many))
    mib = [(weight.first_kib + weight.kib * n) / 1_024 for n in ends]
    axis.plot(ends, mib, color=colour, linestyle=line, linewidth=1.2)
    axis.text(
        0.05,
        0.72 - 0.09 * row,
        f"{name}: {weight.kib:.1f} KiB each",
        transform=axis.transAxes,
        fontsize=9,
        color=colour,
    )


class Waiting(Protocol):
    """What the figure of waiting needs of a point."""

    @property
    def utilisation(self) -> float: ...

    @property
    def measured(self) -> float: ...

    @property
    def measured_p99(self) -> float: ...

    @property
    def predicted(self) -> float: ...


Curve = Sequence[tuple[float, float]]


def waiting_figure(edges: Mapping[str, tuple[Sequence[Waiting], Curve]], title: str) -> Figure:
    """One panel an edge: lateness over utilisation, measured, and by the closed form with and without pauses.

    The curve, without pauses, is pairs of utilisation and seconds.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.0), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axes = figure.subplots(1, len(edges), sharey=True, sharex=True, squeeze=False)[0]
        for row, (axis, (name, (points, curve))) in enumerate(zip(axes, edges.items(), strict=True)):
            _waiting(axis, points, curve, LOOKS[row % len(LOOKS)])
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


def _waiting(axis: Axes, points: Sequence[Waiting], curve: Curve, look: Look) -> None:
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
    axis.plot(at, closed, color=INK, marker="_", markersize=16, linestyle="", label="mean, closed form")
    axis.plot(
        [100 * share for share, _ in curve],
        [1_000 * seconds for _, seconds in curve],
        color=INK,
        linewidth=1.2,
        linestyle=":",
        label="the same without the collector",
    )
