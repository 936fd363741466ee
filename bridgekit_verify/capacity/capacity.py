"""The highest load that is carried, found by doubling until one is not, and halving the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import anyio
import msgspec
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from bridgekit.errors import unwrap_single_error
from bridgekit_verify.capacity.load_search import (
    EDGES,
    LEAST_EVENTS,
    ON_TIME_SHARE,
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

__all__ = ["LOOKS", "CapacityStudy", "Look", "study_capacity"]

BEYOND: Final = 2.0
"""The last load, so many times what the process was seen to do: what happens there is part of the answer."""
BEYOND_SECONDS: Final = 1.3
"""Under twice what it can do, an event is late by as long as the load has lasted."""
BEYOND_EVENTS: Final = 150_000
"""More would not fit into a reader's memory well."""
BEYOND_TRIES: Final = 2
"""Where other programs stop using the processors, it can do more than was measured."""
STUDY_SECONDS: Final = 600.0


@dataclass(frozen=True)
class CapacityStudy:
    """The ladders of both edges."""

    ladders: Sequence[LoadSearch]
    sockets: int
    load_average: float
    """How many programs wanted a processor when it was over, on average over a minute."""

    def of(self, edge: Edge) -> LoadSearch:
        return next(ladder for ladder in self.ladders if ladder.edge.name == edge.name)

    @property
    def steps(self) -> list[StepResult]:
        """All of them, also those that were tried again."""
        return [step for ladder in self.ladders for step in ladder.steps]

    def table(self) -> pd.DataFrame:
        """One row a load.

        Columns: edge, events/s, runs at once, on time (k of n), on time %, from %, to %, lateness p50, p99 and max in
        ms, how far it falls behind (ms a second), of a core: what the measured process had, what it was kept waiting
        for by others, and what the reader had; CPU µs an event, lost, carried.
        """
        return pd.DataFrame([_row(ladder.edge, step) for ladder in self.ladders for step in ladder.climbed])

    def summary(self) -> pd.DataFrame:
        """One row an edge: what it carries, and why it may be more."""
        return pd.DataFrame([_summary(ladder) for ladder in self.ladders])

    def figure(self) -> Figure:
        """Above, the share within one second; below, the 99th percentile; both over load, what is carried marked."""
        carried = [f"{each.carries:,.0f} ({each.edge.name})" for each in self.ladders if each.carries is not None]
        title = f"In time up to {' and '.join(carried) or 'no load that was tried'}" + " events a second" * bool(
            carried
        )
        with new_figure(title, 7.6, 6.0) as figure:
            above, below = figure.subplots(2, 1, sharex=True)
            for row, ladder in enumerate(self.ladders):
                look = LOOKS[row % len(LOOKS)]
                _draw_on_time(above, ladder.edge.name, ladder.climbed, look)
                _draw_lateness(below, ladder.climbed, look)
                _mark(above, below, ladder.carries, look, row)
            above.axhline(100 * ON_TIME_SHARE, color="#777777", linewidth=0.8, linestyle=":")
            above.set_ylabel("within one second, % of events\n(bar: 95 % Wilson interval)")
            lowest = min((100 * s.on_time.fraction for each in self.ladders for s in each.climbed), default=100.0)
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

    def words(self) -> str:
        """The same in a sentence a load, for those who cannot see the figure."""
        return "; ".join(
            f"{ladder.edge.name}, {step.events_per_second:,.0f} events a second: {step.on_time} on time,"
            f" 99 % within {1_000 * step.client.late_p99:,.0f} ms"
            for ladder in self.ladders
            for step in ladder.climbed
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
        "falls behind ms/s": round(1_000 * step.falls_behind),
        "core %": round(100 * step.server.share),
        "kept waiting %": round(100 * step.server.run_queue_wait),
        "reader's core %": round(100 * step.client.share),
        "CPU µs/event": round(step.cpu_us, 1),
        "lost": step.client.lost,
        "carried": step.carried,
    }


def _summary(ladder: LoadSearch) -> dict[str, object]:
    best = ladder.best
    failed = failed_load(ladder.steps)
    return {
        "edge": ladder.edge.name,
        "carries events/s": None if best is None else round(best.events_per_second),
        "runs/s": None if best is None else round(best.wave.runs_per_second),
        "runs at once": None if best is None else round(best.runs_at_once),
        "on time": None if best is None else str(best.on_time),
        "not carried events/s": None if failed is None else round(failed),
        "CPU µs/event": None if best is None else round(best.cpu_us, 1),
        "a core does at most, events/s": None if ladder.core_capacity is None else round_load(ladder.core_capacity),
        "may be more, for": ladder.at_least or None,
    }


async def study_capacity(
    plan: LoadPlan | None = None,
    *,
    sockets: int = 100,
    seconds: float = 12.0,
    at_most: float = 200_000.0,
    edges: Sequence[Edge] = EDGES,
) -> CapacityStudy:
    """Find what each edge carries, the edges taking turns, `seconds` for all of it but the loads under way.

    Each thread has one socket, and takes its share of the runs. Loads are events a second, up to `at_most`.
    """
    plan = plan or LoadPlan()
    with unwrap_single_error(), anyio.fail_after(STUDY_SECONDS + 10 * seconds):
        async with AsyncExitStack() as stack:
            testbeds = {edge.name: await stack.enter_async_context(start_testbed(edge)) for edge in edges}
            for each in testbeds.values():
                await each.connect(sockets)
            ladders = await _climb(testbeds, plan, anyio.current_time() + seconds, at_most)
            for ladder in ladders:
                await _go_beyond(testbeds[ladder.edge.name], ladder, plan)
    return CapacityStudy(ladders, sockets, os.getloadavg()[0])


async def _climb(testbeds: Mapping[str, Testbed], plan: LoadPlan, until: float, most: float) -> list[LoadSearch]:
    """All edges in turns, until nothing is left to ask or the time is over."""
    least = LEAST_EVENTS / plan.seconds
    ladders = [LoadSearch(each.edge, [await _try(each, least, plan)]) for each in testbeds.values()]
    while anyio.current_time() < until:
        asked = [(ladder, next_load(ladder.steps, least=least, most=most)) for ladder in ladders]
        for ladder, load in asked:
            if load is not None:
                ladder.steps.append(await _try(testbeds[ladder.edge.name], load, plan))
        if all(load is None for _, load in asked):
            break
    return ladders


async def _go_beyond(each: Testbed, ladder: LoadSearch, plan: LoadPlan) -> None:
    """Give it much more than it was seen to do, for long enough that lateness comes to more than a second."""
    longer = msgspec.structs.replace(plan, seconds=max(plan.seconds, BEYOND_SECONDS))
    for _ in range(BEYOND_TRIES):
        done = max(step.wave.events / step.server.seconds for step in ladder.steps)
        load = BEYOND * max(done, ladder.carries or 0)
        step = await _try(each, min(round_load(load), BEYOND_EVENTS / BEYOND_SECONDS), longer)
        ladder.steps.append(step)
        if step.on_time.fraction < ON_TIME_SHARE:
            break


async def _try(each: Testbed, load: float, plan: LoadPlan) -> StepResult:
    return await each.wave(load, plan, first=0, threads=each.sockets)


Look = tuple[str, str, str]

LOOKS: Final[tuple[Look, ...]] = ((VERMILLION, "s", "-"), (BLUE, "o", "--"))
"""Colour, marker and line of each edge: distinct without colour, too."""


def _draw_on_time(axis: Axes, name: str, steps: Sequence[StepResult], look: Look) -> None:
    colour, marker, line = look
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
    _dots(axis, list(zip(loads, shares, steps, strict=True)), look)
    axis.plot([], [], color=colour, marker=marker, linestyle=line, markersize=6, label=name)


def _draw_lateness(axis: Axes, steps: Sequence[StepResult], look: Look) -> None:
    points = [(step.events_per_second, 1_000 * step.client.late_p99, step) for step in steps]
    axis.plot([x for x, _, _ in points], [y for _, y, _ in points], color=look[0], linestyle=look[2], linewidth=1.2)
    _dots(axis, points, look)


def _dots(axis: Axes, points: Sequence[tuple[float, float, StepResult]], look: Look) -> None:
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
