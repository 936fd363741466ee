"""Figures of speed: events per second, latency, and the effect of a subscriber that stops reading."""

from __future__ import annotations

from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.figures.dot_plots import BRIDGEKIT_STACKS, GREY, Mark, dots, legend, rows, sheet, stacks_of
from benchmarks.measured_values import Series, SeriesKey
from benchmarks.targets import NATIVE, STARLETTE
from benchmarks.workload import BURST, RUN, YIELDING
from bridgekit_verify.measure.plots import BLUE, LOST

__all__ = ["latency_figure", "stall_figure", "throughput_figure"]

KINDS: Final = (
    Mark(BURST, "agents never wait", "o"),
    Mark(RUN, "wait after each run of five events", "s"),
    Mark(YIELDING, "wait after each event", "D", filled=False),
)
QUANTILES: Final = (
    Mark("latency p50, µs", "half of the events", "o"),
    Mark("latency p99, µs", "99 of 100", "D", filled=False),
    Mark("latency p99.9, µs", "999 of 1,000", "|"),
)


def _numbers(axis: Axes) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def throughput_figure(series: Series) -> Figure | None:
    """Draw events per second and CPU time per event. Return None without data."""
    stacks = stacks_of(series, "events/s")
    if not stacks:
        return None
    figure, (left, right) = sheet(_throughput_title(series), 1.6 + 0.38 * len(stacks), 2, sharey=True)
    marks = [mark for mark in KINDS if any(key.kind == mark.key for key in series)]
    dots(left, series, stacks, [(mark, "events/s", mark.key) for mark in marks])
    dots(right, series, stacks, [(mark, "CPU µs/event", mark.key) for mark in marks])
    rows(left, stacks)
    right.tick_params(axis="y", length=0)
    right.spines["left"].set_visible(False)
    for row in range(len(stacks)):
        right.axhline(row, color="#EEEEEE", zorder=0)
    _numbers(left)
    _numbers(right)
    left.set_xlabel("events per second\n(log; more is better)")
    right.set_xlabel("server CPU, µs per event\n(log; less is better)")
    legend(figure, marks)
    return figure


def _throughput_title(series: Series) -> str:
    burst, yielding = (
        series.ratio(SeriesKey("events/s", NATIVE, kind), SeriesKey("events/s", STARLETTE, kind))
        for kind in (BURST, YIELDING)
    )
    if burst is None or yielding is None:
        return "Events from agents to sockets"
    return (
        f"The native edge carries {_times(burst)} what a Starlette loop carries,\n"
        f"and {_times(yielding).removesuffix(' of')} if the agents wait after each event"
    )


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio >= 1 else f"{100 * ratio:.0f} % of"


def latency_figure(series: Series) -> Figure | None:
    """Draw the latency of single events at a fixed rate. Return None without data."""
    rates = list(dict.fromkeys(key.kind for key in series if key.measure == QUANTILES[0].key))
    if not rates:
        return None
    stacks = stacks_of(series, QUANTILES[0].key, rates[0])
    ratio = series.ratio(
        SeriesKey(QUANTILES[0].key, NATIVE, rates[0]), SeriesKey(QUANTILES[0].key, STARLETTE, rates[0])
    )
    title = "From emission to the client's read" + (
        "" if ratio is None else f",\nthe median delay on the native edge is {ratio:.2f} times that of a Starlette loop"
    )
    figure, [axis] = sheet(title, 1.7 + 0.36 * len(stacks))
    dots(axis, series, stacks, [(mark, mark.key, rates[0]) for mark in QUANTILES])
    rows(axis, stacks)
    _numbers(axis)
    axis.set_xlabel(f"µs, at {rates[0].replace('/s', ' events per second')} (log; less is better)")
    legend(figure, QUANTILES)
    return figure


def stall_figure(series: Series) -> Figure | None:
    """Draw how a subscriber that stops reading affects the other subscribers. Return None without data."""
    measure = "stall: neighbours' events, %"
    stacks = stacks_of(series, measure)
    if not stacks:
        return None
    stopped = sum((series.median(SeriesKey(measure, stack)) or 0) < 99 for stack in stacks)
    title = f"One of ten subscribers stops reading:\nin {stopped} of {len(stacks)} stacks, the others miss events"
    figure, [axis] = sheet(title, 1.5 + 0.42 * len(stacks))
    for row, stack in enumerate(stacks):
        got = series.median(SeriesKey(measure, stack)) or 0.0
        axis.barh(row, got, color=BLUE if stack in BRIDGEKIT_STACKS else GREY, height=0.6, zorder=2)
        axis.barh(row, 100 - got, left=got, color=LOST, height=0.6, zorder=1)
        axis.text(102, row, _stall_label(series, stack), va="center", fontsize=8.5)
    rows(axis, stacks, line_until=0.0)
    axis.set_xlim(0, 245)
    axis.set_xticks([0, 25, 50, 75, 100])
    axis.spines["bottom"].set_bounds(0, 100)
    axis.set_xlabel("events that the other nine read in time, %", loc="left")
    return figure


def _stall_label(series: Series, stack: str) -> str:
    def median_of(what: str) -> float:
        return series.median(SeriesKey(f"stall: {what}", stack)) or 0.0

    held_up, piled_up = median_of("emitter held up at most, ms"), median_of("piled up, KiB") / 1_024
    label = (
        "the agent was blocked" if median_of("events said, %") < 99 else f"the agent waited {held_up:,.0f} ms at most"
    )
    if median_of("cut off"):
        return f"{label};\nthe slow subscriber was disconnected and can resume"
    return f"{label}; {piled_up:.1f} MiB buffered" if median_of("events said, %") >= 99 else label
