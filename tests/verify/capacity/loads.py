"""Literal load results: reports of both processes for a wave, so that tests can assert exact conclusions."""

from __future__ import annotations

from typing import Any

from bridgekit_verify.capacity.capacity import CapacityStudy
from bridgekit_verify.capacity.load_search import ASGI, NATIVE, Edge, LoadSearch, StepResult
from bridgekit_verify.capacity.memory_scaling import RUNS, SOCKETS, THREADS, LinearFit, MemoryScaling, MemoryStudy
from bridgekit_verify.capacity.messages import ClientReport, ServerReport
from bridgekit_verify.capacity.schedule import LoadPlan, LoadWave
from bridgekit_verify.capacity.sizing import SharedStudy

PLAN = LoadPlan(seconds=1.0, pause_seconds=0.05)


def step(load: float, *, late: int = 0, us: float = 50.0, **changed: Any) -> StepResult:
    """Return a load in events per second with `late` late events and `us` of CPU time per event.

    `changed` overrides fields of ServerReport and ClientReport, and `reader_share` and `reader_waiting` of the client.
    """
    wave = LoadWave(name="wave", plan=PLAN, first=0, threads=10, runs_per_second=load / PLAN.events, starts_at=0.0)
    server: dict[str, Any] = {
        "runs": len(wave.starts),
        "failed": 0,
        "taken": wave.events,
        "refused": 0,
        "at_once": 1,
        "seconds": 1.2,
        "cpu_seconds": wave.events * us / 1e6,
        "share": min(load * us / 1e6, 1.0),
        "run_queue_wait": 0.0,
        "pauses": 0,
        "longest_pause": 0.0,
        "pauses_squared": 0.0,
    }
    client: dict[str, Any] = {
        "expected": wave.events,
        "delivered": wave.events,
        "within": wave.events - late,
        "lost": 0,
        "signalled": 0,
        "misrouted": 0,
        "extra_copies": 0,
        "unexpected": 0,
        "reordered": 0,
        "closed": 0,
        "late_p50": 0.001,
        "late_p99": 0.002,
        "late_max": 0.003,
        "late_mean": 0.001,
        "late_first": 0.001,
        "late_last": 0.001,
        "apart_seconds": 0.7,
        "emitted_p50": 0.0005,
        "emitted_p99": 0.001,
        "reader_share": 0.05,
        "reader_waiting": 0.0,
    }
    server |= {name: value for name, value in changed.items() if name in server}
    client |= {name: value for name, value in changed.items() if name in client}
    client["share"], client["run_queue_wait"] = client.pop("reader_share"), client.pop("reader_waiting")
    return StepResult(wave, ServerReport(**server), ClientReport(**client))


def carried(load: float, **changed: Any) -> StepResult:
    return step(load, **changed)


def failed(load: float, **changed: Any) -> StepResult:
    """Return a load of which a tenth was late, from a process that used a full core."""
    return step(load, late=int(load / 10), **{"share": 1.0, **changed})


def capacity(
    asgi: list[StepResult], native: list[StepResult], *, paired: tuple[float, float] = (60.0, 50.0)
) -> CapacityStudy:
    """Return a study in which an event costs these µs at the paired load, on the ASGI and on the native edge."""
    rounds = {edge.name: [step(1_000, us=us)] for edge, us in zip((ASGI, NATIVE), paired, strict=True)}
    return CapacityStudy([LoadSearch(ASGI, asgi), LoadSearch(NATIVE, native)], sockets=10, paired=rounds)


def memory_scaling_of(
    edge: Edge, *, socket_kib: float, growth: float = 1.0, us: float = 40.0, deviation: int = 0, lost: int = 0
) -> MemoryScaling:
    def line(of: str, kib: float) -> LinearFit:
        return LinearFit(
            of, [(100, round(100 * kib)), (500, round(500 * kib) + deviation), (1_000, round(1_000 * kib))]
        )

    without_load = [step(1_000, us=us)]
    with_load = [step(1_000, us=us * growth, lost=lost)]
    fits = [line(SOCKETS, socket_kib), line(THREADS, 5.0), line(RUNS, 10.0)]
    return MemoryScaling(edge, 40 * 1_024, fits, without_load, with_load)


def memory_study(**changed: Any) -> MemoryStudy:
    """Return a study in which the native edge needs less memory and CPU time, unless `changed` alters the ASGI edge."""
    asgi = {"socket_kib": 30.0, "us": 50.0, **changed}
    return MemoryStudy([memory_scaling_of(ASGI, **asgi), memory_scaling_of(NATIVE, socket_kib=15.0, us=40.0)])


def shared(extra_us: float = 100.0) -> SharedStudy:
    return SharedStudy(NATIVE, [step(2_000, us=50.0)], [step(2_000, us=50.0 + extra_us)])
