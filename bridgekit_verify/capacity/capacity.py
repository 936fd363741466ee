"""Find the highest load that each edge carries: double the load until it fails, then bisect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

import anyio
import msgspec
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from bridgekit.errors import unwrap_single_error
from bridgekit_verify.capacity.load_search import (
    EDGES,
    MIN_EVENTS,
    ON_TIME_SHARE,
    PEAK_SECONDS,
    WITHIN_SECONDS,
    Edge,
    LoadSearch,
    StepResult,
    failed_load,
    next_load,
    round_load,
)
from bridgekit_verify.capacity.schedule import LoadPlan
from bridgekit_verify.capacity.testbed import Testbed, start_testbed
from bridgekit_verify.measure.plots import BLUE, TEXT_COLOUR, VERMILLION, new_figure, percents

__all__ = ["STYLES", "CapacityStudy", "LineStyle", "study_capacity"]

OVERLOAD_FACTOR: Final = 2.0
"""The overload, as a multiple of the highest measured throughput."""
OVERLOAD_SECONDS: Final = 1.3
"""Minimum duration of the overload. At twice the capacity, events are late by about half the elapsed time."""
MAX_OVERLOAD_EVENTS: Final = 150_000
"""Maximum number of events in an overload, so that they fit into the client's memory."""
PAIRED_SHARE: Final = 0.4
"""The load that all edges get in turn, as a share of the smallest carried load of all edges."""
MAX_OVERLOAD_TRIES: Final = 2
"""Maximum number of overloads. If other programs used the CPUs during the search, the edge may carry the first
overload."""
STUDY_SECONDS: Final = 600.0


@dataclass(frozen=True)
class CapacityStudy:
    """The load searches of all edges."""

    searches: Sequence[LoadSearch]
    sockets: int
    paired: Mapping[str, Sequence[StepResult]] = field(default_factory=dict)
    """For each edge, the results of the rounds in which all edges get the same load."""

    def of(self, edge: Edge) -> LoadSearch:
        return next(search for search in self.searches if search.edge.name == edge.name)

    @property
    def steps(self) -> list[StepResult]:
        """All load steps, including repeated steps and the rounds with equal loads."""
        searched = [step for search in self.searches for step in search.steps]
        return searched + [step for steps in self.paired.values() for step in steps]

    def table(self) -> pd.DataFrame:
        """Return one row for each load."""
        return pd.DataFrame([_row(search.edge, step) for search in self.searches for step in search.tried])

    def summary(self) -> pd.DataFrame:
        """Return one row for each edge."""
        return pd.DataFrame([_summary(search) for search in self.searches])

    def figure(self) -> Figure:
        """Draw, over the load, the share of events that arrive within one second and the 99th percentile of delay.

        A line marks the carried load of each edge.
        """
        carried = [
            f"{'at least ' if each.underestimate_reason else ''}{each.carries:,.0f} ({each.edge.name})"
            for each in self.searches
            if each.carries is not None
        ]
        title = f"Events are on time up to {' and '.join(carried)}\nevents per second"
        if not carried:
            title = "No measured load was carried"
        with new_figure(title, 6.4, 6.0) as figure:
            above, below = figure.subplots(2, 1, sharex=True)
            for row, search in enumerate(self.searches):
                style = STYLES[row % len(STYLES)]
                _draw_on_time(above, search.edge.name, search.tried, style)
                _draw_lateness(below, search.tried, style)
            above.axhline(100 * ON_TIME_SHARE, color="#777777", linewidth=0.8, linestyle=":")
            above.set_ylabel("within one second, % of events\n(bar: 95 % Wilson interval)")
            lowest = min((100 * s.on_time.fraction for each in self.searches for s in each.tried), default=100.0)
            above.set_ylim(min(90.0, lowest - 3), 101)
            above.legend(frameon=False, loc="center left")
            handles = [
                Line2D([], [], color=TEXT_COLOUR, marker="s", linestyle="", label="carried"),
                Line2D(
                    [],
                    [],
                    color=TEXT_COLOUR,
                    marker="s",
                    markerfacecolor="white",
                    linestyle="",
                    label=f"not carried: events are late, or would be in a peak of {PEAK_SECONDS:.0f} s",
                ),
            ]
            figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
            below.axhline(1_000 * WITHIN_SECONDS, color="#777777", linewidth=0.8, linestyle=":")
            below.set_yscale("log")
            below.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            below.set_ylabel("delay from due to read, ms\n(99th percentile)")
            below.set_xscale("log")
            below.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            below.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            below.xaxis.set_minor_locator(NullLocator())
            below.set_xlabel("load, events per second")
            for row, search in enumerate(self.searches):
                _mark(above, below, search, STYLES[row % len(STYLES)], row)
            return figure

    def alt_text(self) -> str:
        """Return a text alternative of the figure: each load's share of events on time and 99th percentile of delay."""
        return "; ".join(
            f"{search.edge.name} edge at {step.events_per_second:,.0f} events per second: {step.on_time.counts} events"
            f" on time (95 % interval {step.on_time.bounds}), 99 % of the events within"
            f" {1_000 * step.client.late_p99:,.0f} ms"
            for search in self.searches
            for step in search.tried
        )


def _row(edge: Edge, step: StepResult) -> dict[str, object]:
    low, high = step.on_time.interval
    return {
        "edge": edge.name,
        "events/s": round(step.events_per_second),
        "runs at once": round(step.runs_at_once),
        "on time": step.on_time.counts,
        "on time %": round(100 * step.on_time.fraction, 2),
        "from %": round(100 * low, 2),
        "to %": round(100 * high, 2),
        "p50 ms": round(1_000 * step.client.late_p50, 1),
        "p99 ms": round(1_000 * step.client.late_p99, 1),
        "max ms": round(1_000 * step.client.late_max, 1),
        "delay grows by ms/s": round(1_000 * step.falls_behind),
        "core %": round(100 * step.server.share),
        "waited for a CPU %": round(100 * step.server.run_queue_wait),
        "client's core %": round(100 * step.client.share),
        "CPU µs/event": round(step.cpu_us, 1),
        "lost": step.client.lost,
        "carried": step.carried,
    }


def _summary(search: LoadSearch) -> dict[str, object]:
    best = search.best
    failed = failed_load(search.steps)
    return {
        "edge": search.edge.name,
        "carries events/s": None if best is None else round(best.events_per_second),
        "runs/s": None if best is None else round(best.wave.runs_per_second),
        "runs at once": None if best is None else round(best.runs_at_once),
        "on time": None if best is None else best.on_time.estimate,
        "not carried events/s": None if failed is None else round(failed),
        "CPU µs/event": None if best is None else round(best.cpu_us, 1),
        "one core, events/s at most": None if search.core_capacity is None else round_load(search.core_capacity),
        "may be higher because": search.underestimate_reason or None,
    }


async def study_capacity(
    plan: LoadPlan | None = None,
    *,
    sockets: int = 100,
    seconds: float = 12.0,
    max_load: float = 200_000.0,
    rounds: int = 4,
    edges: Sequence[Edge] = EDGES,
) -> CapacityStudy:
    """Find the highest load that each edge carries. The edges take turns, and the search ends after about `seconds`
    seconds.

    Each thread has one socket and gets an equal share of the runs. Loads are in events per second, up to `max_load`. If
    every edge carries a load, all edges then get the same load in turn, `rounds` times, because CPU times are
    comparable only at the same load. Finally, each edge is overloaded. Raises TimeoutError if the study takes too long.
    """
    plan = plan or LoadPlan()
    with unwrap_single_error(), anyio.fail_after(STUDY_SECONDS + 10 * seconds):
        async with AsyncExitStack() as stack:
            testbeds = {edge.name: await stack.enter_async_context(start_testbed(edge)) for edge in edges}
            for each in testbeds.values():
                await each.connect(sockets)
            searches = await _search_loads(testbeds, plan, anyio.current_time() + seconds, max_load)
            paired = await _paired_rounds(testbeds, searches, plan, rounds)
            for search in searches:
                await _overload(testbeds[search.edge.name], search, plan)
    return CapacityStudy(searches, sockets, paired)


async def _search_loads(
    testbeds: Mapping[str, Testbed], plan: LoadPlan, until: float, max_load: float
) -> list[LoadSearch]:
    """Alternate between the searches of all edges until every search is complete or the time is over."""
    min_load = MIN_EVENTS / plan.seconds
    searches = [LoadSearch(each.edge, [await _apply_load(each, min_load, plan)]) for each in testbeds.values()]
    while anyio.current_time() < until:
        asked = [(search, next_load(search.steps, min_load=min_load, max_load=max_load)) for search in searches]
        for search, load in asked:
            if load is not None:
                search.steps.append(await _apply_load(testbeds[search.edge.name], load, plan))
        if all(load is None for _, load in asked):
            break
    return searches


async def _paired_rounds(
    testbeds: Mapping[str, Testbed], searches: Sequence[LoadSearch], plan: LoadPlan, rounds: int
) -> dict[str, list[StepResult]]:
    """Apply a load well below the carried loads to all edges in turn. Do nothing if an edge carries no load."""
    carried = [search.carries for search in searches if search.carries is not None]
    found: dict[str, list[StepResult]] = {name: [] for name in testbeds}
    if len(carried) < len(searches):
        return found
    shorter = msgspec.structs.replace(plan, seconds=plan.seconds / 2)
    load = round_load(max(PAIRED_SHARE * min(carried), MIN_EVENTS / shorter.seconds))
    for _ in range(rounds):
        for name, each in testbeds.items():
            found[name].append(await _apply_load(each, load, shorter))
    return found


async def _overload(each: Testbed, search: LoadSearch, plan: LoadPlan) -> None:
    """Apply OVERLOAD_FACTOR times the measured throughput. If the edge carries this load, apply a higher load."""
    longer = msgspec.structs.replace(plan, seconds=max(plan.seconds, OVERLOAD_SECONDS))
    for _ in range(MAX_OVERLOAD_TRIES):
        done = max(step.wave.events / step.server.seconds for step in search.steps)
        load = OVERLOAD_FACTOR * max(done, search.carries or 0)
        step = await _apply_load(each, min(round_load(load), MAX_OVERLOAD_EVENTS / OVERLOAD_SECONDS), longer)
        search.steps.append(step)
        if step.on_time.fraction < ON_TIME_SHARE:
            break


async def _apply_load(each: Testbed, load: float, plan: LoadPlan) -> StepResult:
    return await each.wave(load, plan, first=0, threads=each.sockets)


LineStyle = tuple[str, str, str]

STYLES: Final[tuple[LineStyle, ...]] = ((VERMILLION, "s", "-"), (BLUE, "o", "--"))
"""Colour, marker and line of each edge. Markers and lines distinguish the edges without colour."""


def _draw_on_time(axis: Axes, name: str, steps: Sequence[StepResult], style: LineStyle) -> None:
    colour, marker, line = style
    loads = [step.events_per_second for step in steps]
    shares, bars = percents([step.on_time for step in steps])
    axis.errorbar(
        loads,
        shares,
        yerr=bars,
        color=colour,
        linestyle=line,
        linewidth=1.2,
        ecolor=TEXT_COLOUR,
        elinewidth=0.8,
        capsize=3,
    )
    _dots(axis, list(zip(loads, shares, steps, strict=True)), style)
    axis.plot([], [], color=colour, marker=marker, linestyle=line, markersize=6, label=name)


def _draw_lateness(axis: Axes, steps: Sequence[StepResult], style: LineStyle) -> None:
    points = [(step.events_per_second, 1_000 * step.client.late_p99, step) for step in steps]
    axis.plot([x for x, _, _ in points], [y for _, y, _ in points], color=style[0], linestyle=style[2], linewidth=1.2)
    _dots(axis, points, style)


def _dots(axis: Axes, points: Sequence[tuple[float, float, StepResult]], style: LineStyle) -> None:
    """Draw one marker for each load, filled if the edge carried the load."""
    colour, marker, _ = style
    for x, y, step in points:
        inside = colour if step.carried else "white"
        axis.plot(x, y, marker=marker, color=colour, markerfacecolor=inside, markersize=6)


def _mark(above: Axes, below: Axes, search: LoadSearch, style: LineStyle, row: int) -> None:
    """Mark the carried load with a line in both panels, and write its value at the bottom of the upper panel."""
    carries = search.carries
    if carries is None:
        return
    for axis in (above, below):
        axis.axvline(carries, color=style[0], linewidth=0.9, linestyle=style[2], alpha=0.6)
    left, right = above.get_xlim()
    in_left_half = carries * carries < left * right  # the axis is logarithmic
    above.annotate(
        f"{search.edge.name} carries {carries:,.0f}",
        (carries, 0),
        xycoords=("data", "axes fraction"),
        xytext=(6 if in_left_half else -6, 6 + 14 * row),
        textcoords="offset points",
        ha="left" if in_left_half else "right",
        fontsize=9.5,
        color=style[0],
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )
