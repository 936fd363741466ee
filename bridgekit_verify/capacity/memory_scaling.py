"""Measure the memory of idle sockets, of threads with a history and of waiting runs, and their effect on CPU time."""

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
from bridgekit_verify.harness.child_side import raise_file_limit
from bridgekit_verify.measure.plots import new_figure

__all__ = [
    "KIB_PER_GIB",
    "RUNS",
    "SOCKETS",
    "THREADS",
    "LinearFit",
    "MemoryScaling",
    "MemoryStudy",
    "TooManySockets",
    "edge_table",
    "study_memory",
]

KIB_PER_GIB: Final = 1_048_576
WARM_UP: Final = 50
"""How many sockets are opened before the measured ones, because the first sockets load shared code and buffers."""
UNCOUNTED: Final = 2_000
"""How many threads get a run in their log before the measurement, to use up the free memory of the process."""
SPARE_FILES: Final = 100
"""Upper bound on the open files of a process that are not sockets."""
BURST_SECONDS: Final = 0.25
BURST_EVENTS: Final = 4_000.0
"""Load of a burst in events per second. The runs of a burst have no pauses."""
STUDY_SECONDS: Final = 600.0

SOCKETS: Final = "idle sockets"
THREADS: Final = "threads with a run in their log"
RUNS: Final = "waiting runs"


class TooManySockets(BridgekitError):
    """Raised if the limit on open files is too low for the requested sockets."""

    def __init__(self, wanted: int, limit: int) -> None:
        super().__init__(
            f"{wanted:,} sockets need {wanted + SPARE_FILES:,} open files, and the limit of this process is {limit:,}:"
            " raise it (`ulimit -Hn` as root, LimitNOFILE under systemd, --ulimit nofile for a container)"
        )
        self.wanted = wanted
        self.limit = limit


@dataclass(frozen=True)
class LinearFit:
    """Memory as a linear function of the number of sockets, threads or runs, fitted by least squares."""

    of: str
    points: Sequence[tuple[int, int]]
    """For each measurement: the number of sockets, threads or runs, and their resident memory in KiB."""

    @property
    def most(self) -> int:
        """The largest number of sockets, threads or runs for which memory was measured."""
        return max(count for count, _ in self.points)

    @property
    def kib(self) -> float:
        """Memory that one more socket, thread or run needs, in KiB: the slope of the fit."""
        return self._line[0]

    @property
    def first_kib(self) -> float:
        """Intercept of the fit in KiB, which is negative if the first items used memory that was already free."""
        return self._line[1]

    @property
    def _line(self) -> tuple[float, float]:
        count, kib = zip(*self.points, strict=True)
        line = linear_regression(count, kib)
        return line.slope, line.intercept

    @property
    def max_residual(self) -> float:
        """Largest distance of a point from the fit, as a share of the highest point."""
        highest = max(kib for _, kib in self.points)
        farthest = max(abs(kib - self.first_kib - self.kib * count) for count, kib in self.points)
        return farthest / highest if highest else 0.0

    @property
    def per_gib(self) -> float:
        """Number of sockets, threads or runs per GiB, extrapolated from the fit."""
        return KIB_PER_GIB / self.kib if self.kib > 0 else float("inf")


@dataclass(frozen=True)
class MemoryScaling:
    """The memory fits of one edge, and the CPU time of bursts with and without many sockets, threads and runs."""

    edge: Edge
    base_kib: int
    """Memory of the process without the measured sockets, threads and runs, in KiB."""
    fits: Sequence[LinearFit]
    without_load: Sequence[StepResult]
    """Bursts in a process without the measured sockets, threads and runs."""
    with_load: Sequence[StepResult]
    """Bursts of the same load in a process with all measured sockets, threads and runs."""

    def of(self, what: str) -> LinearFit:
        return next(fit for fit in self.fits if fit.of == what)

    @property
    def burst_us(self) -> float:
        """CPU time per event in a burst, in µs: the lowest value of all rounds."""
        return min(step.cpu_us for step in self.without_load)

    @property
    def growth(self) -> float:
        """CPU time per event with all sockets, threads and runs, divided by the CPU time per event without them."""
        return min(step.cpu_us for step in self.with_load) / self.burst_us


@dataclass(frozen=True)
class MemoryStudy:
    """The memory scaling of all edges."""

    scalings: Sequence[MemoryScaling]

    def of(self, edge: Edge) -> MemoryScaling:
        return next(scaling for scaling in self.scalings if scaling.edge.name == edge.name)

    @property
    def steps(self) -> list[StepResult]:
        return [step for scaling in self.scalings for step in [*scaling.without_load, *scaling.with_load]]

    def table(self) -> pd.DataFrame:
        """Return one row for each edge and each kind of item (socket, thread or run)."""
        return pd.DataFrame(
            {
                "edge": scaling.edge.name,
                "what": fit.of,
                "up to": fit.most,
                "KiB each": round(fit.kib, 2),
                "largest deviation, %": round(100 * fit.max_residual, 1),
                "in a GiB": round(fit.per_gib, -3) if fit.kib > 0 else None,
                "CPU per event, ratio": round(scaling.growth, 2),
            }
            for scaling in self.scalings
            for fit in scaling.fits
        )

    def title(self) -> str:
        """State the memory of an idle socket on each edge."""
        each = " and ".join(f"{scaling.of(SOCKETS).kib:.1f} KiB ({scaling.edge.name})" for scaling in self.scalings)
        return f"An idle socket needs {each} of memory"

    def figure(self) -> Figure:
        """Draw memory over the number of items, one panel for each kind of item and one line for each edge."""
        kinds = [fit.of for fit in self.scalings[0].fits]
        with new_figure(self.title(), 6.2, 1.0 + 2.0 * len(kinds)) as figure:
            axes = figure.subplots(len(kinds), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
            for column, (axis, kind) in enumerate(zip(axes, kinds, strict=True)):
                for row, scaling in enumerate(self.scalings):
                    _draw_fit(axis, scaling.edge.name, scaling.fits[column], STYLES[row % len(STYLES)], row)
                axis.set_title(kind, fontsize=10.5, fontweight="normal")
                axis.set_xlim(0, None)
                axis.set_ylim(0, None)
                axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                axis.xaxis.set_major_locator(MaxNLocator(4))
            figure.supylabel("additional memory of the process, MiB", fontsize=10)
            axes[-1].set_xlabel("number (line: least squares)")
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
            return figure

    def alt_text(self) -> str:
        """Return a text alternative of the figure: each line's memory per item and largest number of items."""
        return "; ".join(
            f"{scaling.edge.name} edge: {fit.kib:.1f} KiB for each of up to {fit.most:,} {fit.of}"
            for scaling in self.scalings
            for fit in scaling.fits
        )


async def study_memory(
    sizes: Sequence[int] = (100, 500, 1_000), *, rounds: int = 4, seed: int = 0, edges: Sequence[Edge] = EDGES
) -> MemoryStudy:
    """Measure memory for each number of sockets, threads and runs in `sizes`, and CPU time with and without them.

    Raises TooManySockets if the file limit is too low, and ValueError for fewer than two different sizes.
    """
    if len(set(sizes)) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes are {list(sizes)}: give at least two different numbers of 1 or more, to fit a line")
    if max(sizes) + WARM_UP + SPARE_FILES > (limit := raise_file_limit()):
        raise TooManySockets(max(sizes), limit)
    found: dict[str, MemoryScaling] = {}

    async def one(edge: Edge) -> None:
        found[edge.name] = await _measure_edge(edge, sizes, rounds, seed)

    # The edges run concurrently, because memory and CPU time depend little on other processes.
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
        # A process reuses freed memory, so the first measured items would appear to need no memory.
        await full.fill_logs(UNCOUNTED)
        # Sockets are measured last, because opening them leaves free memory that new threads or runs would use.
        threads = await _measure_growth(full, THREADS, sizes, full.fill_logs)
        runs = await _measure_growth(full, RUNS, sizes, full.start_waiting_runs)
        sockets = await _measure_growth(full, SOCKETS, sizes, full.connect)
        for _ in range(rounds):
            without_load.append(await _burst(empty, plan))
            with_load.append(await _burst(full, plan))
    return MemoryScaling(edge, base, [sockets, threads, runs], without_load, with_load)


async def _burst(each: Testbed, plan: LoadPlan) -> StepResult:
    return await each.wave(BURST_EVENTS, plan, first=0, threads=WARM_UP)


async def _measure_growth(
    each: Testbed, what: str, sizes: Sequence[int], grow: Callable[[int], Awaitable[None]]
) -> LinearFit:
    points, before, current = list[tuple[int, int]](), await each.resident_kib(), 0
    for size in sorted(sizes):
        await grow(size - current)
        current = size
        points.append((size, await each.resident_kib() - before))
    return LinearFit(what, points)


def _draw_fit(axis: Axes, name: str, fit: LinearFit, style: LineStyle, row: int) -> None:
    colour, marker, line = style
    count = [n for n, _ in fit.points]
    axis.plot(
        count,
        [kib / 1_024 for _, kib in fit.points],
        marker=marker,
        color=colour,
        linestyle="",
        label=name,
        clip_on=False,
    )
    ends = (min(count), max(count))
    mib = [(fit.first_kib + fit.kib * n) / 1_024 for n in ends]
    axis.plot(ends, mib, color=colour, linestyle=line, linewidth=1.2)
    axis.text(
        0.05,
        0.85 - 0.14 * row,
        f"{name}: {fit.kib:.1f} KiB each",
        transform=axis.transAxes,
        fontsize=9,
        color=colour,
    )


def edge_table(capacity: CapacityStudy, memory: MemoryStudy) -> pd.DataFrame:
    """Return one row for each edge."""
    return pd.DataFrame(
        {
            "edge": search.edge.name,
            "carries events/s": None if search.carries is None else round(search.carries),
            "CPU µs/event, at the carried load": None if search.best is None else round(search.best.cpu_us, 1),
            "CPU µs/event, in a burst": round(memory.of(search.edge).burst_us, 1),
            "KiB/idle socket": round(memory.of(search.edge).of(SOCKETS).kib, 1),
            "available with": search.edge.available_with,
        }
        for search in capacity.searches
    )
