"""Findings of notebook 13: capacity of one process, memory, when to add workers, and which edge to choose."""

from __future__ import annotations

from collections.abc import Sequence

from bridgekit_verify.capacity.capacity import CapacityStudy
from bridgekit_verify.capacity.load_search import (
    ASGI,
    NATIVE,
    ON_TIME_SHARE,
    PEAK_SECONDS,
    WITHIN_SECONDS,
    LoadSearch,
    StepResult,
)
from bridgekit_verify.capacity.memory_scaling import RUNS, SOCKETS, THREADS, MemoryStudy
from bridgekit_verify.capacity.queueing import ONE_SERVICE
from bridgekit_verify.capacity.sizing import Demand, SharedStudy, Sizing
from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import OURS, Finding, Verdict

__all__ = ["capacity_claim", "edge_claim", "memory_claim", "workers_claim"]

MAX_RESIDUAL = 0.2
"""Allowed distance of a point from the fitted line, as a share of the highest point.

Memory is allocated in blocks, so the points do not lie exactly on a line."""
GROWTH = 2.0
"""Up to this ratio, the CPU time per event counts as constant, because CPU time varies between measurements."""


def capacity_claim(study: CapacityStudy) -> Finding:
    """Test that no event is lost or unaccounted for, at loads below and above the capacity of each edge."""
    steps = study.steps
    lost = sum(step.client.lost for step in steps)
    unaccounted = [step for step in steps if not step.accounted_for]
    heaviest = [search.tried[-1] for search in study.searches]
    known = all(search.best is not None for search in study.searches) and not any(step.carried for step in heaviest)
    holds = lost == 0 and not unaccounted
    return Finding(
        id="scale-capacity",
        title="No event is lost at any load",
        claim=f"Above the highest load at which {100 * ON_TIME_SHARE:g} % of the events reach their socket within"
        f" {WITHIN_SECONDS:g} s, events are late, but none is lost.",
        reported=OURS,
        verdict=verdict_of(holds) if known or not holds else "unknown",
        answer=f"{' '.join(_describe_capacity(search) for search in study.searches)}"
        f" Of {sum(s.client.expected for s in steps):,} events at all loads, {lost:,} were lost.",
        evidence=(
            *(_describe_runs(search.edge.name, search.best) for search in study.searches if search.best is not None),
            *(_describe_overload(search) for search in study.searches),
            *(_describe_core_capacity(search) for search in study.searches if search.best is not None),
            *(_describe_unaccounted(step) for step in unaccounted),
            "The 95 % interval assumes that the delays of events are independent. In fact, one pause of the process"
            " delays many events.",
        ),
        after=(sum(step.client.delivered for step in steps), sum(step.client.expected for step in steps)),
        labels=("before", "at all loads"),
        rule=f"A load is carried if at least {100 * ON_TIME_SHARE:g} % of its events are read within"
        f" {WITHIN_SECONDS:g} s (lower end of the 95 % interval), and its delay does not grow beyond"
        f" {WITHIN_SECONDS:g} s in a peak of {PEAK_SECONDS:g} s (extrapolated). The claim holds if no event is lost or"
        " unaccounted for at any load. The result is unknown if an edge carried no load, or every load.",
        sample=Sample(min(step.client.expected for step in steps), "events"),
        timing=f"whether an event was read within {WITHIN_SECONDS:g} s after it was due",
    )


def _describe_capacity(search: LoadSearch) -> str:
    best = search.best
    if best is None:
        return f"The {search.edge.name} edge carried none of the loads that were tried."
    more = f" or more ({search.underestimate_reason})" if search.underestimate_reason else ""
    return (
        f"The {search.edge.name} edge carries {best.events_per_second:,.0f} events per second{more}:"
        f" {best.on_time.estimate} events were read within {WITHIN_SECONDS:g} s."
    )


def _describe_runs(edge: str, best: StepResult) -> str:
    """State how many runs begin per second and how many are active at once, at the edge's highest load."""
    return (
        f"At the highest load that the {edge} edge carries, {best.wave.runs_per_second:,.0f} runs of"
        f" {best.wave.plan.events} events begin per second. In this test, a run takes {best.wave.plan.run_seconds:g} s,"
        f" so {best.runs_at_once:,.0f} runs are active at once. If each run emitted one event per second,"
        f" {best.events_per_second:,.0f} runs would be active at once."
    )


def _describe_overload(search: LoadSearch) -> str:
    last = search.tried[-1]
    return (
        f"On the {search.edge.name} edge, at {last.events_per_second:,.0f} events per second,"
        f" {last.on_time.estimate} events are read within {WITHIN_SECONDS:g} s. The longest delay is"
        f" {last.client.late_max:.1f} s."
    )


def _describe_core_capacity(search: LoadSearch) -> str:
    return (
        f"The CPU time per event limits the {search.edge.name} edge to {search.core_capacity or 0:,.0f} events per"
        " second on one core."
    )


def _describe_unaccounted(step: StepResult) -> str:
    client, server = step.client, step.server
    return (
        f"At {step.events_per_second:,.0f} events per second, the counts do not add up: {step.wave.events:,} due,"
        f" {server.taken:,} accepted and {server.refused:,} refused by the bridge, {client.delivered:,} read,"
        f" {client.misrouted:,} misrouted, {client.extra_copies:,} duplicated, {server.failed:,} runs failed."
    )


def memory_claim(study: MemoryStudy) -> Finding:
    """Test that idle sockets, threads and waiting runs need memory in proportion to their number.

    Also test that the CPU time per event then grows by a factor of at most `GROWTH`.
    """
    nonlinear = [
        f"On the {scaling.edge.name} edge, {fit.of}: {100 * fit.max_residual:.0f} % off the line"
        for scaling in study.scalings
        for fit in scaling.fits
        if not (fit.kib > 0 and fit.max_residual <= MAX_RESIDUAL)
    ]
    grown = [
        f"On the {scaling.edge.name} edge, an event costs {scaling.growth:.2f} times as much CPU time with idle"
        f" sockets, threads and runs as without them"
        for scaling in study.scalings
        if scaling.growth > GROWTH
    ]
    lost = sum(step.client.lost for step in study.steps)
    return Finding(
        id="scale-crowd",
        title="Memory of idle sockets, threads and waiting runs",
        claim="The memory of the process grows linearly with the number of idle sockets, of threads with a run in"
        f" their log, and of waiting runs. An event costs at most {GROWTH:g} times as much CPU time with these"
        f" sockets, threads and runs as without them.",
        reported=OURS,
        verdict=verdict_of(not nonlinear and not grown and lost == 0),
        answer=" ".join(
            f"On the {scaling.edge.name} edge, a socket needs {scaling.of(SOCKETS).kib:.1f} KiB, a thread"
            f" {scaling.of(THREADS).kib:.1f} KiB and a waiting run {scaling.of(RUNS).kib:.1f} KiB. With"
            f" {scaling.of(SOCKETS).most:,} idle sockets, threads and waiting runs each, an event costs"
            f" {scaling.growth:.2f} times as much CPU time as without them."
            for scaling in study.scalings
        ),
        evidence=(
            *(
                f"On the {scaling.edge.name} edge, {scaling.of(SOCKETS).per_gib:,.0f} idle sockets need one GiB"
                f" (extrapolated). The process without any socket needs {scaling.base_kib / 1_024:.0f} MiB."
                for scaling in study.scalings
            ),
            *(f"{what}." for what in (*nonlinear, *grown)),
            *([f"{lost:,} events were lost."] if lost else []),
        ),
        rule=f"Holds if every point deviates from a rising line by at most {100 * MAX_RESIDUAL:g} % of the highest"
        f" value, an event costs at most {GROWTH:g} times as much CPU time with the idle sockets, threads and runs"
        f" as without them, and no"
        " event is lost.",
        sample=Sample(min(len(fit.points) for scaling in study.scalings for fit in scaling.fits), "points per line"),
        timing="CPU time of an event",
    )


def workers_claim(capacity: CapacityStudy, shared: SharedStudy, sized: Sequence[Sizing], demand: Demand) -> Finding:
    """Test that events are on time if a worker uses at most two thirds of a core."""
    light = [step for step in capacity.steps if step.server.share <= ONE_SERVICE]
    late = [step for step in light if not step.carried and not step.waited_for_cpu]
    judged = [step for step in light if step.carried or not step.waited_for_cpu]
    verdict: Verdict = verdict_of(not late) if judged else "unknown"
    unjudged = len(light) - len(judged)
    return Finding(
        id="scale-workers",
        title="When to add workers",
        claim="As long as a worker uses at most two thirds of a core, its events are on time.",
        reported=OURS,
        verdict=verdict,
        answer=f"The edges carried {len(judged) - len(late)} of {len(judged)} loads that used at most"
        " two thirds of a core."
        f" An example with {demand.users_online:,} users, {demand.runs_per_user_hour:g} runs per user and hour,"
        f" {demand.events_per_run} events per run, and a peak of {demand.peak_factor:g} times the usual load needs"
        f" {_describe_sizing(sized)}.",
        evidence=(
            "The queueing formula predicts that at two thirds of a core, an event waits on average as long as its"
            " processing takes. Plan for at most two thirds of a core per worker, also while a worker is down.",
            f"Workers that share a broker need {shared.extra_us:.0f} µs more CPU time per event. Therefore, use a"
            f" single worker with its own memory as long as one worker carries the load.",
            *(
                [
                    f"Loads that were not judged, because their events were late while other programs used the CPUs:"
                    f" {unjudged} of {len(light)}."
                ]
                if unjudged
                else []
            ),
        ),
        rule="Holds if every load that used at most two thirds of a core is carried. Unknown if there is no such load.",
        sample=Sample(len(judged), "loads") if judged else None,
        timing=f"whether an event was read within {WITHIN_SECONDS:g} s after it was due",
    )


def _describe_sizing(sized: Sequence[Sizing]) -> str:
    return (
        ", or ".join(
            f"{each.workers} {'worker' if each.workers == 1 else 'workers'} on the {each.edge} edge"
            f" ({100 * each.core_share:.0f} % of a core and {each.mib:,.0f} MiB each)"
            for each in sized
        )
        or "an unknown number of workers, because no edge carried a load"
    )


def edge_claim(capacity: CapacityStudy, memory: MemoryStudy) -> Finding:
    """Test that the native edge needs less memory per socket than the ASGI edge and no more CPU time per event."""
    asgi, native = memory.of(ASGI), memory.of(NATIVE)
    costs = {
        "in a burst": (_range(asgi.without_load), _range(native.without_load)),
        "with pauses": (_range(capacity.paired.get(ASGI.name, ())), _range(capacity.paired.get(NATIVE.name, ()))),
    }
    lighter = native.of(SOCKETS).kib < asgi.of(SOCKETS).kib
    cheaper = [_costs_no_more(*pair) for pair in costs.values()]
    rounds = [len(steps) for steps in (asgi.without_load, native.without_load, *capacity.paired.values())]
    return Finding(
        id="scale-edges",
        title="Which edge to choose",
        claim="An idle socket needs less memory on the native edge than on the ASGI edge. An event needs no more CPU"
        " time on the native edge than on the ASGI edge, in a burst and with pauses.",
        reported=OURS,
        verdict=_all_of([verdict_of(lighter), *cheaper]),
        answer=f"An idle socket needs {native.of(SOCKETS).kib:.1f} KiB on the native edge and"
        f" {asgi.of(SOCKETS).kib:.1f} KiB on the ASGI edge. "
        + " ".join(
            f"CPU time per event {kind}: {_micros(of_native)} (native) and {_micros(of_asgi)} (ASGI)."
            f" {_comparison(verdict)}."
            for (kind, (of_asgi, of_native)), verdict in zip(costs.items(), cheaper, strict=True)
        ),
        evidence=(
            *_paired_load(capacity),
            "The native edge runs under `bridgekit serve`. Use the ASGI edge if middleware must handle the sockets, or"
            " if you need a server other than uvicorn.",
            "docs/results/bench compares both edges with other servers.",
        ),
        rule="Both edges get the same load in several rounds. Holds if the native edge needs less memory, and, for each"
        " kind of load, its highest CPU time per event is at most the ASGI edge's lowest. Does not hold if the native"
        " edge needs as much memory, or its lowest CPU time is above the ASGI edge's highest. Otherwise unknown.",
        sample=Sample(min(rounds), "rounds"),
        timing="CPU time of an event",
    )


def _paired_load(capacity: CapacityStudy) -> list[str]:
    """State the load with pauses, which the table of the edges does not show, or return an empty list."""
    loads = {round(step.events_per_second) for steps in capacity.paired.values() for step in steps}
    if len(loads) != 1:
        return []
    return [
        f"In the comparison with pauses, both edges get {loads.pop():,} events per second. The table 'The two edges'"
        " shows the CPU time at the highest load that each edge carried."
    ]


Costs = tuple[float, float]
"""The lowest and the highest CPU time per event in several rounds, in µs."""


def _range(steps: Sequence[StepResult]) -> Costs | None:
    return (min(step.cpu_us for step in steps), max(step.cpu_us for step in steps)) if steps else None


def _costs_no_more(asgi: Costs | None, native: Costs | None) -> Verdict:
    if asgi is None or native is None:
        return "unknown"
    if native[1] <= asgi[0]:
        return "holds"
    return "does not hold" if native[0] > asgi[1] else "unknown"


def _all_of(verdicts: Sequence[Verdict]) -> Verdict:
    if "does not hold" in verdicts:
        return "does not hold"
    return "unknown" if "unknown" in verdicts else "holds"


def _micros(costs: Costs | None) -> str:
    return "not measured" if costs is None else f"{costs[0]:.1f} to {costs[1]:.1f} µs"


def _comparison(verdict: Verdict) -> str:
    return {
        "holds": "The native edge needs no more CPU time",
        "does not hold": "The native edge needs more CPU time",
        "unknown": "The difference between the edges is not clear",
    }[verdict]
