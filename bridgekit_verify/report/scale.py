"""Findings of notebook 13: capacity of one process, memory, when to add workers, and which edge to choose."""

from __future__ import annotations

from collections.abc import Sequence

from bridgekit_verify.capacity.capacity import CapacityStudy
from bridgekit_verify.capacity.load_search import LoadSearch, StepResult
from bridgekit_verify.capacity.memory_scaling import RUNS, SOCKETS, THREADS, MemoryStudy
from bridgekit_verify.capacity.queueing import ONE_SERVICE
from bridgekit_verify.capacity.sizing import Demand, SharedStudy, Sizing
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import Finding, Verdict

__all__ = ["capacity_claim", "edge_claim", "memory_claim", "workers_claim"]

OURS = "ours"
"""Value of `Finding.reported` for a claim that is not from the audit."""
MAX_RESIDUAL = 0.2
"""Allowed distance of a point from its line, as a share of the highest point: memory is allocated in blocks."""
NOT_JUDGED = "Not judged, because other programs had the processors while it was late: {count} of the loads."
NOISE = 1.25
"""Ratio up to which two costs count as equal: CPU time depends on what else uses the CPU's caches."""
GROWTH = 2.0
"""Ratio up to which the cost counts as constant: CPU time is noisy, and real growth would be many times as much."""


def capacity_claim(study: CapacityStudy) -> Finding:
    """Test that events are on time up to some load and late beyond it, and that all are accounted for."""
    steps = study.steps
    lost = sum(step.client.lost for step in steps)
    unaccounted = [step for step in steps if not step.accounted_for]
    heaviest = [search.tried[-1] for search in study.searches]
    known = all(search.best is not None for search in study.searches) and not any(step.carried for step in heaviest)
    holds = lost == 0 and not unaccounted
    return Finding(
        id="scale-capacity",
        title="In time up to a load, late beyond it",
        claim="Up to some load 99 % of the events reach their socket within one second; beyond it they are late, and"
        " none is lost.",
        reported=OURS,
        verdict=verdict_of(holds) if known or not holds else "unknown",
        answer=f"{' '.join(_describe_capacity(search) for search in study.searches)}"
        f" Of {sum(s.client.expected for s in steps):,} events at every load, {lost:,} were lost.",
        evidence=(
            *(_describe_runs(search.edge.name, search.best) for search in study.searches if search.best is not None),
            *(_describe_overload(search) for search in study.searches),
            *(
                f"By CPU time, {_describe_core_capacity(search)}."
                for search in study.searches
                if search.best is not None
            ),
            *(_describe_unaccounted(step) for step in unaccounted),
            "The interval takes events to be late independently of each other, and they are not: a process that stands"
            " still makes all of them late.",
        ),
        after=(sum(step.client.delivered for step in steps), sum(step.client.expected for step in steps)),
    )


def _describe_capacity(search: LoadSearch) -> str:
    best = search.best
    if best is None:
        return f"The {search.edge.name} edge carried no load that was tried here."
    more = f" or more ({search.underestimate_reason})" if search.underestimate_reason else ""
    return (
        f"The {search.edge.name} edge carries {best.events_per_second:,.0f} events a second{more}: {best.on_time} of"
        " them came within one second."
    )


def _describe_runs(edge: str, best: StepResult) -> str:
    """Return a load of events as runs: the number of concurrent runs depends on the pauses between their events."""
    return (
        f"{edge}: that is {best.wave.runs_per_second:,.0f} runs of {best.wave.plan.events} events a second; as many as"
        f" {best.events_per_second:,.0f} at once if each says one event a second, or {best.runs_at_once:,.0f} if one"
        f" takes {best.wave.plan.run_seconds:g} s, as here."
    )


def _describe_overload(search: LoadSearch) -> str:
    last = search.tried[-1]
    return (
        f"{search.edge.name}, {last.events_per_second:,.0f} events a second: {last.on_time} within one second, the"
        f" latest after {last.client.late_max:.1f} s."
    )


def _describe_core_capacity(search: LoadSearch) -> str:
    return f"a whole core does at most {search.core_capacity or 0:,.0f} events a second on the {search.edge.name} edge"


def _describe_unaccounted(step: StepResult) -> str:
    client, server = step.client, step.server
    return (
        f"At {step.events_per_second:,.0f} events a second the books do not close: {step.wave.events:,} due,"
        f" {server.taken:,} taken and {server.refused:,} refused by the bridge, {client.delivered:,} read,"
        f" {client.misrouted:,} astray, {client.extra_copies:,} twice, {server.failed:,} runs failed."
    )


def memory_claim(study: MemoryStudy) -> Finding:
    """Test that idle sockets, threads and waiting runs cost memory in proportion, and no CPU time per event."""
    nonlinear = [
        f"{scaling.edge.name}, {fit.of}: {fit.max_residual:.0%} off the line"
        for scaling in study.scalings
        for fit in scaling.fits
        if not (fit.kib > 0 and fit.max_residual <= MAX_RESIDUAL)
    ]
    grown = [
        f"{scaling.edge.name}: an event costs {scaling.growth:.2f} times as much beside the crowd"
        for scaling in study.scalings
        if scaling.growth > GROWTH
    ]
    lost = sum(step.client.lost for step in study.steps)
    return Finding(
        id="scale-crowd",
        title="What a crowd weighs",
        claim="Idle sockets, threads with a history and runs that wait cost memory in proportion, and an event costs no"
        " more beside them.",
        reported=OURS,
        verdict=verdict_of(not nonlinear and not grown and lost == 0),
        answer="; ".join(
            f"{scaling.edge.name}: {scaling.of(SOCKETS).kib:.1f} KiB a socket, {scaling.of(THREADS).kib:.1f} a thread,"
            f" {scaling.of(RUNS).kib:.1f} a waiting run; beside {scaling.of(SOCKETS).most:,} of each an event costs"
            f" {scaling.growth:.2f} times what it costs alone"
            for scaling in study.scalings
        )
        + ".",
        evidence=(
            *(
                f"{scaling.edge.name}: if the line goes on, {scaling.of(SOCKETS).per_gib:,.0f} idle sockets are a GiB;"
                f" the process without any is {scaling.base_kib / 1_024:.0f} MiB."
                for scaling in study.scalings
            ),
            *(f"{what}." for what in (*nonlinear, *grown)),
        ),
    )


def workers_claim(capacity: CapacityStudy, shared: SharedStudy, sized: Sequence[Sizing], demand: Demand) -> Finding:
    """Test that events are on time up to two thirds of a core, the point at which to add a worker."""
    light = [step for step in capacity.steps if step.server.share <= ONE_SERVICE]
    late = [step for step in light if not step.carried and not step.waited_for_cpu]
    judged = [step for step in light if step.carried or not step.waited_for_cpu]
    verdict: Verdict = verdict_of(not late) if judged else "unknown"
    return Finding(
        id="scale-workers",
        title="When to add workers",
        claim="As long as a worker uses no more than two thirds of its core, its events are in time.",
        reported=OURS,
        verdict=verdict,
        answer=f"{len(judged) - len(late)} of {len(judged)} loads up to two thirds of a core were carried. There"
        " an event waits for its turn as long as it takes, on average (closed form); so plan for no more, with as many"
        f" workers gone as may be. {demand.users_online:,} users with {demand.runs_per_user_hour:g} runs an hour of"
        f" {demand.events_per_run} events, {demand.peak_factor:g} times that in a rush: {_describe_sizing(sized)}.",
        evidence=(
            f"Workers that share a broker pay {shared.extra_us:.0f} µs of CPU time more an event: one worker with its"
            " own memory does what several with a broker do.",
            *([NOT_JUDGED.format(count=len(light) - len(judged))] if len(light) > len(judged) else []),
        ),
    )


def _describe_sizing(sized: Sequence[Sizing]) -> str:
    return (
        ", or ".join(
            f"{each.workers} {'worker' if each.workers == 1 else 'workers'} on the {each.edge} edge,"
            f" {each.core_share:.0%} of a core and {each.mib:,.0f} MiB each"
            for each in sized
        )
        or "no edge carried a load to reckon with"
    )


def edge_claim(capacity: CapacityStudy, memory: MemoryStudy) -> Finding:
    """Test that the native edge needs less memory per socket than the ASGI edge and no more CPU time per event."""
    asgi, native = (memory.scalings[row] for row in (0, 1))
    lighter = native.of(SOCKETS).kib < asgi.of(SOCKETS).kib
    dearer = native.burst_us > asgi.burst_us * NOISE
    return Finding(
        id="scale-edges",
        title="Which edge to choose",
        claim="On the native edge an idle socket weighs less than on the ASGI edge, and an event costs no more.",
        reported=OURS,
        verdict=verdict_of(lighter and not dearer),
        answer=f"A socket weighs {native.of(SOCKETS).kib:.1f} KiB against {asgi.of(SOCKETS).kib:.1f}, an event of a"
        f" burst costs {native.burst_us:.0f} µs against {asgi.burst_us:.0f}, with pauses {_paused(capacity)}. Take"
        " the native edge unless middleware must see the sockets, or the server is yours.",
        evidence=("Beside other stacks: docs/results/bench.",),
    )


def _paused(capacity: CapacityStudy) -> str:
    costs = [f"{search.best.cpu_us:.0f}" for search in reversed(capacity.searches) if search.best is not None]
    return " against ".join(costs) if len(costs) > 1 else "unknown"
