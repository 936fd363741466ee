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
from bridgekit_verify.capacity.capacity import LOOKS, CapacityStudy, Look
from bridgekit_verify.capacity.load_search import EDGES, Edge, StepResult
from bridgekit_verify.capacity.schedule import LoadPlan
from bridgekit_verify.capacity.testbed import Testbed, start_testbed
from bridgekit_verify.harness.messages import raise_file_limit
from bridgekit_verify.measure.plots import new_figure

__all__ = [
    "GIB_KIB",
    "RUNS",
    "SOCKETS",
    "THREADS",
    "CrowdStudy",
    "MemoryScaling",
    "TooManySockets",
    "Weight",
    "edge_table",
    "study_crowd",
]

GIB_KIB: Final = 1_048_576
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

    def __init__(self, wanted: int, at_most: int) -> None:
        super().__init__(
            f"{wanted:,} sockets need {wanted + SPARE_FILES:,} open files, and a process may have {at_most:,} here:"
            " raise the limit (`ulimit -Hn` as root, LimitNOFILE under systemd, --ulimit nofile for a container)"
        )
        self.wanted = wanted
        self.at_most = at_most


@dataclass(frozen=True)
class Weight:
    """How memory grows with the number of something: a straight line through what was measured."""

    of: str
    points: Sequence[tuple[int, int]]
    """How many there were, and KiB resident above what there was without any."""

    @property
    def most(self) -> int:
        """How many there were in the end."""
        return max(many for many, _ in self.points)

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
        many, kib = zip(*self.points, strict=True)
        line = linear_regression(many, kib)
        return line.slope, line.intercept

    @property
    def off_line(self) -> float:
        """How far the farthest point lies from the line, as a share of the highest."""
        highest = max(kib for _, kib in self.points)
        farthest = max(abs(kib - self.first_kib - self.kib * many) for many, kib in self.points)
        return farthest / highest if highest else 0.0

    @property
    def per_gib(self) -> float:
        """How many go into a GiB, if the line goes on."""
        return GIB_KIB / self.kib if self.kib > 0 else float("inf")


@dataclass(frozen=True)
class MemoryScaling:
    """One edge beside a crowd."""

    edge: Edge
    base_kib: int
    """The process without any of it."""
    weights: Sequence[Weight]
    alone: Sequence[StepResult]
    """Bursts with nothing besides."""
    beside: Sequence[StepResult]
    """The same bursts beside all of the crowd."""

    def of(self, what: str) -> Weight:
        return next(weight for weight in self.weights if weight.of == what)

    @property
    def burst_us(self) -> float:
        """CPU time an event of a run that never waits, in microseconds: the least of the rounds."""
        return min(step.cpu_us for step in self.alone)

    @property
    def growth(self) -> float:
        """CPU time an event beside the crowd, as a multiple of that without it."""
        return min(step.cpu_us for step in self.beside) / self.burst_us


@dataclass(frozen=True)
class CrowdStudy:
    """Both edges."""

    crowds: Sequence[MemoryScaling]

    def of(self, edge: Edge) -> MemoryScaling:
        return next(crowd for crowd in self.crowds if crowd.edge.name == edge.name)

    @property
    def steps(self) -> list[StepResult]:
        return [step for crowd in self.crowds for step in [*crowd.alone, *crowd.beside]]

    def table(self) -> pd.DataFrame:
        """One row an edge and kind: how many there were at most, KiB each, the worst point's distance, and per GiB."""
        return pd.DataFrame(
            {
                "edge": crowd.edge.name,
                "what": weight.of,
                "up to": weight.most,
                "KiB each": round(weight.kib, 2),
                "off the line %": round(100 * weight.off_line, 1),
                "in a GiB": round(weight.per_gib, -3) if weight.kib > 0 else None,
                "CPU beside them, times": round(crowd.growth, 2),
            }
            for crowd in self.crowds
            for weight in crowd.weights
        )

    def figure(self, title: str) -> Figure:
        """One panel a kind of thing: memory over how many there are, a line an edge."""
        kinds = [weight.of for weight in self.crowds[0].weights]
        with new_figure(title, 9.6, 3.8) as figure:
            axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
            for column, (axis, kind) in enumerate(zip(axes, kinds, strict=True)):
                for row, crowd in enumerate(self.crowds):
                    _weight(axis, crowd.edge.name, crowd.weights[column], LOOKS[row % len(LOOKS)], row)
                axis.set_title(kind, fontsize=10.5, fontweight="normal")
                axis.set_xlim(0, None)
                axis.set_ylim(0, None)
                axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                axis.xaxis.set_major_locator(MaxNLocator(4))
            axes[0].set_ylabel("memory of the process, MiB more")
            axes[0].legend(frameon=False, loc="upper left")
            figure.supxlabel("how many (line: least squares)", fontsize=10)
            return figure

    def words(self) -> str:
        """The same in a sentence a line, for those who cannot see the figure."""
        return "; ".join(
            f"{crowd.edge.name}: {weight.kib:.1f} KiB for each of up to {weight.most:,} {weight.of}"
            for crowd in self.crowds
            for weight in crowd.weights
        )


async def study_crowd(
    sizes: Sequence[int] = (100, 500, 1_000), *, rounds: int = 4, seed: int = 0, edges: Sequence[Edge] = EDGES
) -> CrowdStudy:
    """Let sockets, threads and runs grow to each of these sizes, and weigh the process; TooManySockets."""
    if max(sizes) + WARM_UP + SPARE_FILES > (at_most := raise_file_limit()):
        raise TooManySockets(max(sizes), at_most)
    found: dict[str, MemoryScaling] = {}

    async def one(edge: Edge) -> None:
        found[edge.name] = await _crowd(edge, sizes, rounds, seed)

    # Side by side: what is measured is memory and CPU time, and neither hangs on who else is at work.
    with unwrap_single_error(), anyio.fail_after(STUDY_SECONDS):
        async with anyio.create_task_group() as tasks:
            for edge in edges:
                tasks.start_soon(one, edge)
    return CrowdStudy([found[edge.name] for edge in edges])


async def _crowd(edge: Edge, sizes: Sequence[int], rounds: int, seed: int) -> MemoryScaling:
    plan = LoadPlan(pause_seconds=0, seconds=BURST_SECONDS, seed=seed)
    alone, beside = list[StepResult](), list[StepResult]()
    async with AsyncExitStack() as stack:
        empty, full = [await stack.enter_async_context(start_testbed(edge)) for _ in range(2)]
        for each in (empty, full):
            await each.connect(WARM_UP)
            await _burst(each, plan)
        base = await full.resident_kib()
        # A process has memory that was used once and is free. What is weighed would go there first, and weigh nothing.
        await full.fill_logs(UNCOUNTED)
        # Sockets last: what opening them needed for a moment, and gave back, is such memory too.
        threads = await _weigh(full, THREADS, sizes, full.fill_logs)
        runs = await _weigh(full, RUNS, sizes, full.start_waiting_runs)
        sockets = await _weigh(full, SOCKETS, sizes, full.connect)
        for _ in range(rounds):
            alone.append(await _burst(empty, plan))
            beside.append(await _burst(full, plan))
    return MemoryScaling(edge, base, [sockets, threads, runs], alone, beside)


async def _burst(each: Testbed, plan: LoadPlan) -> StepResult:
    return await each.wave(BURST_EVENTS, plan, first=0, threads=WARM_UP)


async def _weigh(each: Testbed, what: str, sizes: Sequence[int], grow: Callable[[int], Awaitable[None]]) -> Weight:
    points, before, there = list[tuple[int, int]](), await each.resident_kib(), 0
    for size in sorted(sizes):
        await grow(size - there)
        there = size
        points.append((size, await each.resident_kib() - before))
    return Weight(what, points)


def _weight(axis: Axes, name: str, weight: Weight, look: Look, row: int) -> None:
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


def edge_table(capacity: CapacityStudy, crowd: CrowdStudy) -> pd.DataFrame:
    """One row an edge: what it carries, what an event costs, what a socket weighs, and what it can stand beside."""
    return pd.DataFrame(
        {
            "edge": ladder.edge.name,
            "carries events/s": None if ladder.carries is None else round(ladder.carries),
            "CPU µs/event, with pauses": None if ladder.best is None else round(ladder.best.cpu_us, 1),
            "CPU µs/event, in a burst": round(crowd.of(ladder.edge).burst_us, 1),
            "KiB/idle socket": round(crowd.of(ladder.edge).of(SOCKETS).kib, 1),
            "can be had with": ladder.edge.stands,
        }
        for ladder in capacity.ladders
    )
