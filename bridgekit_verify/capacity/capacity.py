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
from matplotlib.figure import Figure

from bridgekit.errors import first_error
from bridgekit_verify.capacity.edges import EDGES, Edge
from bridgekit_verify.capacity.ladder import LEAST_EVENTS, Ladder, failed_load, next_load, round_load
from bridgekit_verify.capacity.plots import capacity_figure
from bridgekit_verify.capacity.schedule import Plan
from bridgekit_verify.capacity.site import Site, site
from bridgekit_verify.capacity.step import ON_TIME_SHARE, Step

__all__ = ["CapacityStudy", "study_capacity"]

BEYOND: Final = 2.0
"""The last load, so many times what the process was seen to do: what happens there is part of the answer."""
BEYOND_SECONDS: Final = 1.3
"""Under twice what it can do, an event is late by as long as the load has lasted."""
BEYOND_EVENTS: Final = 150_000
"""More would not fit into a reader's memory well."""
BEYOND_TRIES: Final = 2
"""Where other programs let go of the processors, it can do more than it was seen to."""
STUDY_SECONDS: Final = 600.0


@dataclass(frozen=True)
class CapacityStudy:
    """The ladders of both edges."""

    ladders: Sequence[Ladder]
    sockets: int
    load_average: float
    """How many programs wanted a processor when it was over, on average over a minute."""

    def of(self, edge: Edge) -> Ladder:
        return next(ladder for ladder in self.ladders if ladder.edge.name == edge.name)

    @property
    def steps(self) -> list[Step]:
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
        """One row an edge: what it carries, and what is to be said about that."""
        return pd.DataFrame([_summary(ladder) for ladder in self.ladders])

    def figure(self) -> Figure:
        """Share on time and p99 over load, the knee marked; the title says where it is."""
        carried = [f"{each.carries:,.0f} ({each.edge.name})" for each in self.ladders if each.carries is not None]
        title = f"In time up to {' and '.join(carried) or 'no load that was tried'}" + " events a second" * bool(
            carried
        )
        return capacity_figure({ladder.edge.name: (ladder.climbed, ladder.carries) for ladder in self.ladders}, title)

    def words(self) -> str:
        """The same in a sentence a load, for those who cannot see the figure."""
        return "; ".join(
            f"{ladder.edge.name}, {step.events_per_second:,.0f} events a second: {step.on_time} on time,"
            f" 99 % within {1_000 * step.heard.late_p99:,.0f} ms"
            for ladder in self.ladders
            for step in ladder.climbed
        )


def _row(edge: Edge, step: Step) -> dict[str, object]:
    low, high = step.on_time.interval
    return {
        "edge": edge.name,
        "events/s": round(step.events_per_second),
        "runs at once": round(step.runs_at_once),
        "on time": step.on_time.counts,
        "on time %": round(100 * step.on_time.fraction, 2),
        "from %": round(100 * low, 2),
        "to %": round(100 * high, 2),
        "p50 ms": round(1_000 * step.heard.late_p50, 1),
        "p99 ms": round(1_000 * step.heard.late_p99, 1),
        "max ms": round(1_000 * step.heard.late_max, 1),
        "falls behind ms/s": round(1_000 * step.falls_behind),
        "core %": round(100 * step.spoke.share),
        "kept waiting %": round(100 * step.spoke.kept_waiting),
        "reader's core %": round(100 * step.heard.share),
        "CPU µs/event": round(step.cpu_us, 1),
        "lost": step.heard.lost,
        "carried": step.carried,
    }


def _summary(ladder: Ladder) -> dict[str, object]:
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
        "a core does at most, events/s": None if ladder.core_does is None else round_load(ladder.core_does),
        "may be more, for": ladder.at_least or None,
    }


async def study_capacity(
    plan: Plan | None = None,
    *,
    sockets: int = 100,
    seconds: float = 12.0,
    at_most: float = 200_000.0,
    edges: Sequence[Edge] = EDGES,
) -> CapacityStudy:
    """Find what each edge carries, the edges taking turns, `seconds` for all of it but the loads under way.

    Each thread has one socket, and takes its share of the runs. Loads are events a second, up to `at_most`.
    """
    plan = plan or Plan()
    with first_error(), anyio.fail_after(STUDY_SECONDS + 10 * seconds):
        async with AsyncExitStack() as stack:
            sites = {edge.name: await stack.enter_async_context(site(edge)) for edge in edges}
            for each in sites.values():
                await each.connect(sockets)
            ladders = await _climb(sites, plan, anyio.current_time() + seconds, at_most)
            for ladder in ladders:
                await _go_beyond(sites[ladder.edge.name], ladder, plan)
    return CapacityStudy(ladders, sockets, os.getloadavg()[0])


async def _climb(sites: Mapping[str, Site], plan: Plan, until: float, most: float) -> list[Ladder]:
    """All edges in turns, until nothing is left to ask or the time is over."""
    least = LEAST_EVENTS / plan.seconds
    ladders = [Ladder(each.edge, [await _try(each, least, plan)]) for each in sites.values()]
    while anyio.current_time() < until:
        asked = [(ladder, next_load(ladder.steps, least=least, most=most)) for ladder in ladders]
        for ladder, load in asked:
            if load is not None:
                ladder.steps.append(await _try(sites[ladder.edge.name], load, plan))
        if all(load is None for _, load in asked):
            break
    return ladders


async def _go_beyond(each: Site, ladder: Ladder, plan: Plan) -> None:
    """Give it much more than it was seen to do, for long enough that lateness comes to more than a second."""
    longer = msgspec.structs.replace(plan, seconds=max(plan.seconds, BEYOND_SECONDS))
    for _ in range(BEYOND_TRIES):
        done = max(step.wave.events / step.spoke.seconds for step in ladder.steps)
        load = BEYOND * max(done, ladder.carries or 0)
        step = await _try(each, min(round_load(load), BEYOND_EVENTS / BEYOND_SECONDS), longer)
        ladder.steps.append(step)
        if step.on_time.fraction < ON_TIME_SHARE:
            break


async def _try(each: Site, load: float, plan: Plan) -> Step:
    return await each.wave(load, plan, first=0, threads=each.sockets)
