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
from bridgekit_verify.measure.wording import capitalized
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
        f" {WITHIN_SECONDS:g} s, events are late, but no event is lost.",
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
        rule=f"A load is carried if it meets two conditions. The 95 % interval of the share of events read within"
        f" {WITHIN_SECONDS:g} s begins at {100 * ON_TIME_SHARE:g} % or above. The delay grows so slowly that, by"
        f" extrapolation, it does not exceed {WITHIN_SECONDS:g} s during a peak of {PEAK_SECONDS:g} s. The claim holds"
        " if no event is lost or unaccounted for at any load. The result is unknown if an edge carried no load, or"
        " every load.",
        sample=Sample(min(step.client.expected for step in steps), "events"),
        timing="the delay from the time when an event is due until it is read",
    )


def _describe_capacity(search: LoadSearch) -> str:
    best = search.best
    if best is None:
        return f"The {search.edge.name} edge carried none of the loads that were tried."
    more = (
        f" The {search.edge.name} edge may carry more, because {search.underestimate_reason}."
        if search.underestimate_reason
        else ""
    )
    return (
        f"The {search.edge.name} edge carries {best.events_per_second:,.0f} events per second: at this load,"
        f" {best.on_time.counts} events were read within {WITHIN_SECONDS:g} s (95 % interval"
        f" {best.on_time.bounds}).{more}"
    )


def _describe_runs(edge: str, best: StepResult) -> str:
    """State how many runs begin per second and how many are active at once, at the edge's highest load."""
    return (
        f"At the highest load that the {edge} edge carries, {best.wave.runs_per_second:,.0f} runs of"
        f" {best.wave.plan.events} events begin per second. In the test of the {edge} edge, a run takes"
        f" {best.wave.plan.run_seconds:g} s, so {best.runs_at_once:,.0f} runs are active at once. If each run emitted"
        f" one event per second, {best.events_per_second:,.0f} runs would be active at once at the highest load of the"
        f" {edge} edge."
    )


def _describe_overload(search: LoadSearch) -> str:
    last = search.tried[-1]
    return (
        f"On the {search.edge.name} edge, at {last.events_per_second:,.0f} events per second,"
        f" {last.on_time.counts} events are read within {WITHIN_SECONDS:g} s (95 % interval {last.on_time.bounds}), and"
        f" the longest delay is {last.client.late_max:.1f} s."
    )


def _describe_core_capacity(search: LoadSearch) -> str:
    per_second = search.core_capacity or 0.0
    best, text = search.best, "According to the lowest CPU time per event, one core processes"
    text += f" {per_second:,.0f} events per second on the {search.edge.name} edge in the long run."
    if best is not None and best.events_per_second > per_second:
        text += f" The {search.edge.name} edge carried a higher load for a short time, with delays of up to"
        text += f" {best.client.late_max:.1f} s."
    return text


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
        f"On the {scaling.edge.name} edge, {fit.of}: {100 * fit.max_residual:.0f} % deviation from the line"
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
        f" their log, and of waiting runs. With idle sockets, threads and waiting runs, an event"
        f" costs at most {GROWTH:g} times as much CPU time as without them.",
        reported=OURS,
        verdict=verdict_of(not nonlinear and not grown and lost == 0),
        answer=" ".join(
            f"On the {scaling.edge.name} edge, a socket needs {scaling.of(SOCKETS).kib:.1f} KiB, a thread"
            f" {scaling.of(THREADS).kib:.1f} KiB and a waiting run {scaling.of(RUNS).kib:.1f} KiB. On the"
            f" {scaling.edge.name} edge with {scaling.of(SOCKETS).most:,} idle sockets,"
            f" {scaling.of(THREADS).most:,} threads and {scaling.of(RUNS).most:,} waiting runs, an event costs"
            f" {scaling.growth:.2f} times as much CPU time as without them."
            for scaling in study.scalings
        ),
        evidence=(
            *(
                f"On the {scaling.edge.name} edge, by extrapolation, {scaling.of(SOCKETS).per_gib:,.0f} idle sockets"
                f" need one GiB. The process of the {scaling.edge.name} edge without any socket needs"
                f" {scaling.base_kib / 1_024:.0f} MiB."
                for scaling in study.scalings
            ),
            *(f"{what}." for what in (*nonlinear, *grown)),
            *([f"{lost:,} events were lost."] if lost else []),
        ),
        rule="The claim holds under three conditions. Every measured point deviates from a rising line by at most"
        f" {100 * MAX_RESIDUAL:g} % of the highest value. With the idle sockets, threads and runs, an event costs at"
        f" most {GROWTH:g} times as much CPU time as without them. No event is lost.",
        sample=Sample(min(len(fit.points) for scaling in study.scalings for fit in scaling.fits), "points per line"),
        timing="the CPU time of an event",
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
        f" Example: {demand.users_online:,} users start {demand.runs_per_user_hour:g} runs per hour each, a run has"
        f" {demand.events_per_run} events, and the peak is {demand.peak_factor:g} times the usual load. The example"
        f" needs {_describe_sizing(sized)}.",
        evidence=(
            "The queueing formula predicts that at two thirds of a core, an event waits on average as long as its"
            " processing takes. Plan for at most two thirds of a core per worker, even while another worker is down.",
            f"Workers that share a broker need {shared.extra_us:.0f} µs more CPU time per event than a worker with"
            " the memory store. Use a single worker with the memory store as long as it carries the load.",
            *(
                [
                    f"Of {len(light)} loads up to two thirds of a core, {unjudged} {'was' if unjudged == 1 else 'were'}"
                    " not judged, because events were late while other programs used the CPUs."
                ]
                if unjudged
                else []
            ),
        ),
        rule="The claim holds if every judged load up to two thirds of a core is carried. The result is unknown if no"
        " such load was judged.",
        sample=Sample(len(judged), "loads") if judged else None,
        timing="the delay from the time when an event is due until it is read",
    )


def _describe_sizing(sized: Sequence[Sizing]) -> str:
    return (
        ", or ".join(
            f"{each.workers} {'worker' if each.workers == 1 else 'workers'} on the {each.edge} edge"
            f" ({100 * each.core_share:.0f} % of a core and {each.mib:,.0f} MiB per worker)"
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
            _describe_costs(kind, of_native, of_asgi, verdict)
            for (kind, (of_asgi, of_native)), verdict in zip(costs.items(), cheaper, strict=True)
        ),
        evidence=(
            *_paired_load(capacity),
            "The native edge runs under `bridgekit serve`. Use the ASGI edge if middleware must handle the sockets, or"
            " if you need a server other than uvicorn.",
            "The folder docs/results/bench compares the two edges of bridgekit with other servers.",
        ),
        rule="Both edges get the same load in several rounds. The claim holds if two conditions are met. First, a"
        " socket needs less memory on the native edge than on the ASGI edge. Second, both in a burst and with pauses,"
        " the native edge's highest CPU time per event is at most the ASGI edge's lowest. The claim does"
        " not hold if a socket needs at least as much memory on the native edge as on the ASGI edge. The claim also"
        " does not hold if the native edge's lowest CPU time per event is above the ASGI edge's highest. In all other"
        " cases, the result is unknown.",
        sample=Sample(min(rounds), "rounds"),
        timing="the CPU time of an event",
    )


def _paired_load(capacity: CapacityStudy) -> list[str]:
    """State the load with pauses, which the table of the edges does not show, or return an empty list."""
    loads = {round(step.events_per_second) for steps in capacity.paired.values() for step in steps}
    if len(loads) != 1:
        return []
    return [
        f"In the comparison with pauses, each edge gets {loads.pop():,} events per second. The table 'The two edges'"
        " shows the CPU time at the highest load that each edge carried."
    ]


def _describe_costs(kind: str, native: Costs | None, asgi: Costs | None, verdict: Verdict) -> str:
    """State the CPU time per event on both edges for one kind of load, such as "in a burst"."""
    if native is None or asgi is None:
        return f"The CPU time of an event {kind} was not measured."
    return (
        f"{capitalized(kind)}, an event costs {_micros(native)} of CPU time on the native edge and {_micros(asgi)} on"
        f" the ASGI edge: {_comparison(verdict)}."
    )


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


def _micros(costs: Costs) -> str:
    return f"{costs[0]:.1f} to {costs[1]:.1f} µs"


def _comparison(verdict: Verdict) -> str:
    return {
        "holds": "the native edge needs no more CPU time",
        "does not hold": "the native edge needs more CPU time",
        "unknown": "the difference between the edges is not clear",
    }[verdict]
