"""Figures of costs: memory, and the cost of an event under background load."""

from __future__ import annotations

from statistics import median
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from benchmarks.figures.dot_plots import BRIDGEKIT_STACKS, GREY, rows, sheet, stacks_of
from benchmarks.measured_values import Series, SeriesKey
from benchmarks.measures.growth import FULL_BACKGROUND, NO_BACKGROUND
from benchmarks.page import memory_growth
from benchmarks.targets import ASGI, NATIVE
from bridgekit_verify.measure.plots import BLUE, GREEN, TEXT_COLOUR, VERMILLION

__all__ = ["growth_figure", "memory_figure"]

COST: Final = "CPU µs/event"
LINES: Final = {
    "live threads": (BLUE, "o", "-"),
    "mappings": (VERMILLION, "s", "--"),
    "idle sockets": (GREEN, "D", ":"),
}
GROWTH_ALLOWED: Final = 1.25
FLAT: Final = 1.05


def growth_figure(series: Series) -> Figure | None:
    """Draw CPU time per event over background load, relative to the CPU time without background load. Return None
    without data."""
    edges = [stack for stack in (NATIVE, ASGI) if series[SeriesKey(COST, stack, str(NO_BACKGROUND))]]
    if not any(key.kind.endswith(tuple(LINES)) and key.kind != str(FULL_BACKGROUND) for key in series):
        return None
    together = {edge: _ratio(series, edge, str(FULL_BACKGROUND)) for edge in edges}
    worst = max((ratio for ratio in together.values() if ratio is not None), default=None)
    title = "CPU time per event under background load"
    if worst is not None:
        title = (
            f"An event costs at most {worst:.2f} times as much CPU time\n"
            "with 10,000 live threads, 1,000,000 mappings and 10,000 sockets"
        )
    figure, axes = sheet(title, 4.0, len(edges), sharey=True)
    for axis, edge in zip(axes, edges, strict=True):
        _grown(axis, series, edge)
        if (ratio := together[edge]) is not None:
            axis.text(0.03, 0.06, f"the largest of each, together: {ratio:.2f}", fontsize=9.5, transform=axis.transAxes)
    axes[0].set_ylabel("CPU time per event, as a multiple\nof the time without load")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    return figure


def _ratio(series: Series, edge: str, background: str) -> float | None:
    """Return the CPU time per event under this background load, as a multiple of the time without load."""
    return series.ratio(SeriesKey(COST, edge, background), SeriesKey(COST, edge, str(NO_BACKGROUND)))


def _grown(axis: Axes, series: Series, edge: str) -> None:
    for what, (colour, marker, line) in LINES.items():
        sizes: list[int] = []
        ratios: list[float] = []
        for key in series:
            count, _, rest = key.kind.partition(" ")
            if key.measure == COST and key.stack == edge and rest == what:
                ratio = _ratio(series, edge, key.kind)
                if ratio is not None:
                    sizes.append(int(count.replace(",", "")))
                    ratios.append(ratio)
        axis.plot(sizes, ratios, color=colour, marker=marker, linestyle=line, label=what)
    axis.axhline(
        GROWTH_ALLOWED, color=TEXT_COLOUR, linewidth=1, linestyle=(0, (4, 3)), label=f"target: {GROWTH_ALLOWED}"
    )
    axis.set_xscale("log")
    axis.set_ylim(0, 2)
    # Every second power of ten has a label, so that the labels need no rotation.
    axis.xaxis.set_major_locator(FixedLocator([10, 1_000, 100_000]))
    axis.xaxis.set_minor_locator(LogLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_title(edge, fontsize=10.5)
    axis.set_xlabel("number (log)")


def memory_figure(series: Series) -> Figure | None:
    """Draw the memory of an idle connection, and memory against the number of events. Return None if the series has no
    data on idle connections."""
    measure = "KiB/idle connection"
    stacks = stacks_of(series, measure)
    if not stacks:
        return None
    figure, (left, right) = sheet(memory_growth(series), max(3.6, 1.5 + 0.36 * len(stacks)), 2)
    for row, stack in enumerate(stacks):
        values = series[SeriesKey(measure, stack)]
        left.barh(row, median(values), color=BLUE if stack in BRIDGEKIT_STACKS else GREY, height=0.6, zorder=2)
        left.text(median(values) + 0.5, row, f"{median(values):.1f}", va="center", fontsize=9)
    rows(left, stacks)
    left.set_xlim(right=1.15 * left.get_xlim()[1])
    left.set_title("An idle connection", fontsize=10.5)
    left.set_xlabel("KiB in the server process")
    for stack, colour, line in ((NATIVE, BLUE, "-"), (ASGI, VERMILLION, "--")):
        events = series[SeriesKey("memory, events so far", stack)]
        share = series[SeriesKey("memory, share of the settled", stack)]
        right.plot([0, *events], [1.0, *share][: len(events) + 1], color=colour, linestyle=line, label=stack)
    right.axhline(FLAT, color=TEXT_COLOUR, linewidth=1, linestyle=(0, (4, 3)), label=f"target: {FLAT}")
    right.set_ylim(0, 1.3)
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g}"))
    right.set_title("A server that sends events", fontsize=10.5)
    right.set_xlabel("events so far, in millions")
    right.set_ylabel("memory, as a multiple of that at the start")
    right.legend(frameon=False, fontsize=9.5, loc="lower right")
    return figure
