"""Run a plan: one measurement after another, most of them with interleaved stacks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from benchmarks.measured_values import Series
from benchmarks.measures.growth import flatness, growth
from benchmarks.measures.imports import imports
from benchmarks.measures.interleaving import Interleaving, interleaving, log_progress
from benchmarks.measures.latency import latency
from benchmarks.measures.memory import idle_connections, idle_work
from benchmarks.measures.own_cost import own_cost
from benchmarks.measures.stall import stall
from benchmarks.measures.throughput import fan_out, throughput
from benchmarks.peers import BRIDGEKIT, Peer, peer
from benchmarks.plans import Plan
from benchmarks.results import Results, machine, results
from benchmarks.stack_session import Session
from benchmarks.targets import ASGI, NATIVE

__all__ = ["run_plan"]


class _Run:
    """The state of one benchmark run: its plan, the measured series, and the failed stacks."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.series = Series()
        self.failed: dict[str, str] = {}
        self._begun = time.monotonic()
        for each in map(peer, plan.stacks):
            if each.missing:
                self.failed[each.name] = f"not installed: {each.missing}"
                log_progress(f"  {each.name} is missing: {each.missing}")

    def peers(self, names: Sequence[str]) -> list[Peer]:
        """Return the named stacks that are in the plan and have not failed."""
        return [peer(name) for name in names if name in self.plan.stacks and name not in self.failed]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def heading(self, what: str) -> None:
        log_progress(f"{self.seconds:4.0f} s  {what}")

    async def throughput(self, interleaved: Interleaving) -> None:
        plan = self.plan
        self.heading("throughput")

        async def measure(opened: Session) -> None:
            kinds = plan.bridgekit_kinds if opened.peer in BRIDGEKIT else plan.kinds
            await throughput(self.series, opened, runs=plan.runs, kinds=kinds)

        await interleaved.each(self.peers(plan.stacks), measure, rounds=plan.rounds, fresh=plan.fresh)

    async def latency(self, interleaved: Interleaving) -> None:
        plan = self.plan
        for rate in plan.rates:
            self.heading(f"latency at {rate:g} events/s")
            measure = partial(latency, self.series, per_second=rate, seconds=plan.latency_seconds)
            peers = self.peers(plan.latency_stacks)
            await interleaved.each(peers, measure, rounds=plan.latency_rounds, fresh=plan.fresh)

    async def memory(self, interleaved: Interleaving) -> None:
        plan = self.plan
        self.heading("idle connections")
        for _ in range(plan.idle_rounds):
            for each in self.peers(plan.idle_stacks):
                measure = partial(idle_connections, self.series, each, connections=plan.idle_connections)
                await interleaved.guarded(each, measure)
        if plan.idle_seconds:
            self.heading("the work of keeping idle connections alive")
            peers = self.peers(plan.idle_stacks)
            await idle_work(self.series, peers, connections=plan.idle_connections, seconds=plan.idle_seconds)

    async def fan_out(self, interleaved: Interleaving) -> None:
        plan = self.plan
        if not plan.subscribers:
            return
        self.heading(f"one thread, {plan.subscribers} subscribers")
        for _ in range(plan.idle_rounds):
            for each in self.peers(plan.idle_stacks):
                measure = partial(fan_out, self.series, each, subscribers=plan.subscribers, runs=plan.runs)
                await interleaved.guarded(each, measure)

    async def stall(self, interleaved: Interleaving) -> None:
        plan = self.plan
        if not plan.stall_seconds:
            return
        self.heading("one subscriber stops reading")
        for each in self.peers(plan.idle_stacks):
            measure = partial(stall, self.series, each, per_second=500, seconds=plan.stall_seconds)
            await interleaved.guarded(each, measure)

    async def growth(self, interleaved: Interleaving) -> None:
        plan = self.plan
        for each in self.peers((NATIVE, ASGI)):
            self.heading(f"growth, {each.name}")
            measure = partial(
                growth, self.series, each, plan.background_loads, rounds=plan.growth_rounds, runs=plan.growth_runs
            )
            await interleaved.guarded(each, measure)
            self.heading(f"memory over {plan.flat_events:,} events, {each.name}")
            await interleaved.guarded(each, partial(flatness, self.series, each, events=plan.flat_events))

    async def alone(self) -> None:
        plan = self.plan
        self.heading("the bridge alone")
        await own_cost(self.series, rounds=plan.own_rounds, runs=plan.runs, mappings=plan.mappings)
        imports(self.series, rounds=plan.import_rounds)


async def run_plan(plan: Plan) -> Results:
    """Run all measurements of the plan. The results list missing and failed stacks. The other stacks continue."""
    where, run = machine(), _Run(plan)
    async with interleaving(run.failed) as interleaved:
        await run.throughput(interleaved)
        await run.latency(interleaved)
    async with interleaving(run.failed) as interleaved:
        await run.memory(interleaved)
        await run.fan_out(interleaved)
        await run.stall(interleaved)
        await run.growth(interleaved)
    await run.alone()
    peers = [peer(name) for name in plan.stacks]
    run.heading("done")
    return results(plan.name, run.series, peers, missing=run.failed, minutes=run.seconds / 60, where=where)
