"""What a crowd weighs: idle sockets, threads with a history, runs that wait; and what an event costs beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import linear_regression
from typing import Final

import anyio
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from bridgekit.errors import BridgekitError, unwrap_single_error
from bridgekit_verify.capacity.capacity import STYLES, CapacityStudy, LineStyle
from bridgekit_verify.capacity.load_search import EDGES, Edge, StepResult
from bridgekit_verify.capacity.schedule import LoadPlan
from bridgekit_verify.capacity.testbed import Testbed, start_testbed
from bridgekit_verify.harness.messages import raise_file_limit
from bridgekit_verify.measure.plots import new_figure

__all__ = [
    "KIB_PER_GIB",
    "RUNS",
    "SOCKETS",
    "THREADS",
    "MemoryStudy",
    "MemoryScaling",
    "TooManySockets",
    "LinearFit",
    "edge_table",
    "study_memory",
]

KIB_PER_GIB: Final = 1_048_576
WARM_UP: Final = 50
"""Sockets before those that are counted: the first ones load code and buffers that all share."""
UNCOUNTED: Final = 2_000
"""Threads with a run in their log that fill what is free before anything is weighed."""
SPARE_FILES: Final = 100
"""What a process has open besides its sockets."""
BURST_SECONDS: Final = 0.25
BURST_EVENTS: Final = 4_000.0
"""A second, in runs without pauses."""
STUDY_SECONDS: Final = 600.0

SOCKETS: Final = "idle sockets"
THREADS: Final = "threads with a run in their log"
RUNS: Final = "runs that wait"


class TooManySockets(BridgekitError):
    """The system does not let a process have so many files open."""

    def __init__(self, wanted: int, limit: int) -> None:
        super().__init__(
            f"{wanted:,} sockets need {wanted + SPARE_FILES:,} open files, and a process may have {limit:,} here:"
            " raise the limit (`ulimit -Hn` as root, LimitNOFILE under systemd, --ulimit nofile for a container)"
        )
        self.wanted = wanted
        self.limit = limit


@dataclass(frozen=True)
class LinearFit:
    """How memory grows with the number of something: a straight line through what was measured."""

    of: str
    points: Sequence[tuple[int, int]]
    """How many there were, and KiB resident above what there was without any."""

    @property
    def most(self) -> int:
        """How many there were in the end."""
        return max(count for count, _ in self.points)

    @property
    def kib(self) -> float:
        """One more: the slope of the line of least squares."""
        return self._line[0]

    @property
    def first_kib(self) -> float:
        """Where the line begins. Below zero where the first of them went into memory that was free already."""
        return self._line[1]

    @property
    def _line(self) -> tuple[float, float]:
        count, kib = zip(*self.points, strict=True)
        line = linear_regression(count, kib)
        return line.slope, line.intercept

    @property
    def max_residual(self) -> float:
        """How far the farthest point lies from the line, as a share of the highest."""
        highest = max(kib for _, kib in self.points)
        farthest = max(abs(kib - self.first_kib - self.kib * count) for count, kib in self.points)
        return farthest / highest if highest else 0.0

    @property
    def per_gib(self) -> float:
        """How many go into a GiB, if the line goes on."""
        return KIB_PER_GIB / self.kib if self.kib > 0 else float("inf")


@dataclass(frozen=True)
class MemoryScaling:
    """One edge beside a crowd."""

    edge: Edge
    base_kib: int
    """The process without any of it."""
    fits: Sequence[LinearFit]
    without_load: Sequence[StepResult]
    """Bursts with nothing besides."""
    with_load: Sequence[StepResult]
    """The same bursts beside all of the crowd."""

    def of(self, what: str) -> LinearFit:
        return next(fit for fit in self.fits if fit.of == what)

    @property
    def burst_us(self) -> float:
        """CPU time an event of a run that never waits, in microseconds: the least of the rounds."""
        return min(step.cpu_us for step in self.without_load)

    @property
    def growth(self) -> float:
        """CPU time an event beside the crowd, as a multiple of that without it."""
        return min(step.cpu_us for step in self.with_load) / self.burst_us


@dataclass(frozen=True)
class MemoryStudy:
    """Both edges."""

    scalings: Sequence[MemoryScaling]

    def of(self, edge: Edge) -> MemoryScaling:
        return next(scaling for scaling in self.scalings if scaling.edge.name == edge.name)

    @property
    def steps(self) -> list[StepResult]:
        return [step for scaling in self.scalings for step in [*scaling.without_load, *scaling.with_load]]

    def table(self) -> pd.DataFrame:
        """One row an edge and kind: how many there were at most, KiB each, the worst point's distance, and per GiB."""
        return pd.DataFrame(
            {
                "edge": scaling.edge.name,
                "what": fit.of,
                "up to": fit.most,
                "KiB each": round(fit.kib, 2),
                "off the line %": round(100 * fit.max_residual, 1),
                "in a GiB": round(fit.per_gib, -3) if fit.kib > 0 else None,
                "CPU beside them, times": round(scaling.growth, 2),
            }
            for scaling in self.scalings
            for fit in scaling.fits
        )

    def figure(self, title: str) -> Figure:
        """One panel a kind of thing: memory over how many there are, a line an edge."""
        kinds = [fit.of for fit in self.scalings[0].fits]
        with new_figure(title, 9.6, 3.8) as figure:
            axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
            for column, (axis, kind) in enumerate(zip(axes, kinds, strict=True)):
                for row, scaling in enumerate(self.scalings):
                    _draw_fit(axis, scaling.edge.name, scaling.fits[column], STYLES[row % len(STYLES)], row)
                axis.set_title(kind, fontsize=10.5, fontweight="normal")
                axis.set_xlim(0, None)
                axis.set_ylim(0, None)
                axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                axis.xaxis.set_major_locator(MaxNLocator(4))
            axes[0].set_ylabel("memory of the process, MiB more")
            axes[0].legend(frameon=False, loc="upper left")
            figure.supxlabel("how many (line: least squares)", fontsize=10)
            return figure

    def alt_text(self) -> str:
        """The same in a sentence a line, for those who cannot see the figure."""
        return "; ".join(
            f"{scaling.edge.name}: {fit.kib:.1f} KiB for each of up to {fit.most:,} {fit.of}"
            for scaling in self.scalings
            for fit in scaling.fits
        )


async def study_memory(
    sizes: Sequence[int] = (100, 500, 1_000), *, rounds: int = 4, seed: int = 0, edges: Sequence[Edge] = EDGES
) -> MemoryStudy:
    """Let sockets, threads and runs grow to each of these sizes, and weigh the process; TooManySockets."""
    if max(sizes) + WARM_UP + SPARE_FILES > (limit := raise_file_limit()):
        raise TooManySockets(max(sizes), limit)
    found: dict[str, MemoryScaling] = {}

    async def one(edge: Edge) -> None:
        found[edge.name] = await _measure_edge(edge, sizes, rounds, seed)

    # Side by side: what is measured is memory and CPU time, and neither hangs on who else is at work.
    with unwrap_single_error(), anyio.fail_after(STUDY_SECONDS):
        async with anyio.create_task_group() as tasks:
            for edge in edges:
                tasks.start_soon(one, edge)
    return MemoryStudy([found[edge.name] for edge in edges])


async def _measure_edge(edge: Edge, sizes: Sequence[int], rounds: int, seed: int) -> MemoryScaling:
    plan = LoadPlan(pause_seconds=0, seconds=BURST_SECONDS, seed=seed)
    without_load, with_load = list[StepResult](), list[StepResult]()
    async with AsyncExitStack() as stack:
        empty, full = [await stack.enter_async_context(start_testbed(edge)) for _ in range(2)]
        for each in (empty, full):
            await each.connect(WARM_UP)
            await _burst(each, plan)
        base = await full.resident_kib()
        # A process has memory that was used once and is free. What is weighed would go there first, and weigh nothing.
        await full.fill_logs(UNCOUNTED)
        # Sockets last: what opening them needed for a moment, and gave back, is such memory too.
        threads = await _measure_growth(full, THREADS, sizes, full.fill_logs)
        runs = await _measure_growth(full, RUNS, sizes, full.start_waiting_runs)
        sockets = await _measure_growth(full, SOCKETS, sizes, full.connect)
        for _ in range(rounds):
            without_load.append(await _burst(empty, plan))
            with_load.append(await _burst(full, plan))
    return MemoryScaling(edge, base, [sockets, threads, runs], without_load, with_load)


async def _burst(each: Testbed, plan: LoadPlan) -> StepResult:
    return await each.wave(BURST_EVENTS, plan, first=0, threads=WARM_UP)


async def _measure_growth(each: Testbed, what: str, sizes: Sequence[int], grow: Callable[[int], Awaitable[None]]) -> LinearFit:
    points, before, current = list[tuple[int, int]](), await each.resident_kib(), 0
    for size in sorted(sizes):
        await grow(size - current)
        current = size
        points.append((size, await each.resident_kib() - before))
    return LinearFit(what, points)


def _draw_fit(axis: Axes, name: str, fit: LinearFit, style: LineStyle, row: int) -> None:
    colour, marker, line = style
    count = [n for n, _ in fit.points]
    axis.plot(count, [kib / 1_024 for _, kib in fit.points], marker=marker, color=colour, linestyle="", label=name)
    ends = (min(count), max(count))
    mib = [(fit.first_kib + fit.kib * n) / 1_024 for n in ends]
    axis.plot(ends, mib, color=colour, linestyle=line, linewidth=1.2)
    axis.text(
        0.05,
        0.72 - 0.09 * row,
        f"{name}: {fit.kib:.1f} KiB each",
        transform=axis.transAxes,
        fontsize=9,
        color=colour,
    )


def edge_table(capacity: CapacityStudy, scaling: MemoryStudy) -> pd.DataFrame:
    """One row an edge: what it carries, what an event costs, what a socket weighs, and what it can stand beside."""
    return pd.DataFrame(
        {
            "edge": search.edge.name,
            "carries events/s": None if search.carries is None else round(search.carries),
            "CPU µs/event, with pauses": None if search.best is None else round(search.best.cpu_us, 1),
            "CPU µs/event, in a burst": round(scaling.of(search.edge).burst_us, 1),
            "KiB/idle socket": round(scaling.of(search.edge).of(SOCKETS).kib, 1),
            "can be had with": search.edge.available_with,
        }
        for search in capacity.searches
    )
