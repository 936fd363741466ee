"""Mapping lifecycles: the audit's Fix 3 as written beside the sound service, from a run's registration to its end.

A dict looks right for as long as one process lives, one run at a time ends, and nobody says anything afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from bridgekit.errors import RunAlreadyMapped
from bridgekit.ids import ThreadId, UserId
from bridgekit.mapping import MemoryStore, RunThreadMappingService
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.ledger import ledger
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.workload import Owned, family
from bridgekit_verify.studies.plots_lifecycles import late_events_figure
from bridgekit_verify.studies.processes import Asked, ask_processes, process_table
from bridgekit_verify.studies.retention import Held, hold, retention_table
from bridgekit_verify.studies.stage import Clock, stage
from bridgekit_verify.variants import FIX_3, SOUND, Variant

__all__ = ["LATENESS_SECONDS", "Late", "LifecycleStudy", "Rerouted", "reroute", "say_late", "study_lifecycles"]

LATENESS_SECONDS: Final = (-1.0, 0.0, 1.0, 5.0, 15.0, 29.0, 30.0, 60.0)
"""When an event is emitted, in seconds after its run has ended; below zero the run is still under way."""


@dataclass(frozen=True)
class Late:
    """Events of ended runs, by how late they were emitted."""

    variant: str
    says: str
    """What the event says of where it belongs."""
    verdict: Verdict
    by_lateness: Mapping[float, Rate]
    """Delivered, by seconds after the end."""


async def say_late(
    variant: Variant,
    clock: Clock,
    *,
    carried: bool = False,
    lateness: Sequence[float] = LATENESS_SECONDS,
    users: int = 5,
    runs: int = 20,
    seed: int = 0,
) -> Late:
    """Open runs, end them all at second 0 of `clock`, and emit one event of each at every lateness; over real sockets.

    By run id through the bridge, as a caller outside the run does, or `carried` by the run's own agent.
    """
    threads = family("thread_123", users, seed=seed)
    async with stage(variant, threads, seed=seed) as live:
        opened = [await live.open_run(threads[number % users], f"question {number + 1}") for number in range(runs)]
        ended = False
        for step, seconds in enumerate(sorted(lateness), start=1):
            if seconds >= 0 and not ended:
                clock.now, ended = 0.0, True
                for run in opened:
                    await live.close_run(run)
            clock.now = seconds
            for run in opened:
                await (live.emit if carried else live.notify)(run, step)
    delivered = dict.fromkeys(range(1, len(lateness) + 1), 0)
    for row in ledger(live.history):
        delivered[row.expectation.key.step] += row.copies > 0
    rates = {seconds: Rate(delivered[step], runs) for step, seconds in enumerate(sorted(lateness), start=1)}
    return Late(variant.name, "run id and thread" if carried else "run id", check(live.history), rates)


async def _each_late(users: int, runs: int, seed: int) -> tuple[Late, ...]:
    clock = Clock()
    sound = replace(SOUND, mapping=lambda _: RunThreadMappingService(MemoryStore(clock)))
    return tuple(
        [
            await say_late(variant, clock, carried=carried, users=users, runs=runs, seed=seed)
            for variant in (FIX_3, sound)
            for carried in (False, True)
        ]
    )


@dataclass(frozen=True)
class Rerouted:
    """Alice's run, registered a second time for Bob's thread when half of its events are out."""

    variant: str
    verdict: Verdict
    refused: RunAlreadyMapped | None
    """What the second registration was answered with; None when it was taken."""


async def reroute(variant: Variant, *, events: int = 20, seed: int = 0) -> Rerouted:
    """Emit that many events of one run by its run id, over real sockets, with a second registration in the middle."""
    alice = Owned(ThreadId("thread_123"), UserId("alice"))
    bob = Owned(ThreadId("thread_124"), UserId("bob"))
    refused = None
    async with stage(variant, (alice, bob), seed=seed) as live:
        run = await live.open_run(alice, "question 1")
        for step in range(1, events + 1):
            if step == events // 2 + 1:
                try:
                    await live.application.bridge.mapping.register_mapping(run.run_id, bob.thread_id)
                except RunAlreadyMapped as error:
                    refused = error
            await live.notify(run, step)
    return Rerouted(variant.name, check(live.history), refused)


@dataclass(frozen=True)
class LifecycleStudy:
    """Five ways in which a route may outlive its use, or fail to last."""

    held: tuple[Held, ...]
    late: tuple[Late, ...]
    asked: tuple[Asked, ...]
    rerouted: tuple[Rerouted, ...]
    """Fix 3 and the sound chain."""

    def retention(self) -> pd.DataFrame:
        """What is held after so many runs: the columns of `retention_table`."""
        return retention_table(self.held)

    def late_events(self) -> pd.DataFrame:
        """One row a chain, a way and a lateness.

        Columns: chain, the event says, seconds after the end, delivered, of, from %, to % (95 % Wilson interval).
        """
        return pd.DataFrame(
            {
                "chain": late.variant,
                "the event says": late.says,
                "seconds after the end": seconds,
                "delivered": rate.k,
                "of": rate.n,
                "from %": round(100 * rate.interval[0], 1),
                "to %": round(100 * rate.interval[1], 1),
            }
            for late in self.late
            for seconds, rate in late.by_lateness.items()
        )

    def processes(self) -> pd.DataFrame:
        """Who finds a run's thread, here, in a second process and after a restart: see `process_table`."""
        return process_table(self.asked)

    def rerouting(self) -> pd.DataFrame:
        """One row a chain. Columns: chain, events of Alice's run, at her socket, at Bob's socket, registered again."""
        return pd.DataFrame(
            {
                "chain": row.variant,
                "events of Alice's run": row.verdict.expected,
                "at her socket": row.verdict.delivered,
                "at Bob's socket": row.verdict.wrong_user,
                "registered again": type(row.refused).__name__ if row.refused else "taken",
            }
            for row in self.rerouted
        )

    def table(self) -> pd.DataFrame:
        """The whole in one table. Columns: what, fix 3 as written, sound."""
        return pd.DataFrame([*self._kept(), *self._late(), *self._asked(), self._moved()])

    def _kept(self) -> list[dict[str, str]]:
        says = {
            cleaned_up: {
                row.mapping: f"{row.routes:,} routes, {row.held_bytes / 1_024:,.0f} KiB"
                for row in self.held
                if row.cleaned_up is cleaned_up
            }
            for cleaned_up in (False, True)
        }
        runs = max(row.runs for row in self.held)
        return [
            _beside(f"held after {runs:,} runs, {words}", says[cleaned_up]["fix 3"], says[cleaned_up]["sound"])
            for cleaned_up, words in ((False, "none cleaned up"), (True, "each cleaned up at its end"))
        ]

    def _late(self) -> list[dict[str, str]]:
        shown = {"run id": LATENESS_SECONDS[1:3] + LATENESS_SECONDS[-1:], "run id and thread": LATENESS_SECONDS[-1:]}
        return [
            _beside(f"delivered, {_when(at)}; the event says {says}", *(str(late[at]) for late in pair))
            for says, seconds in shown.items()
            if (pair := [late.by_lateness for late in self.late if late.says == says])
            for at in seconds
        ]

    def _asked(self) -> list[dict[str, str]]:
        by_chain: dict[tuple[str, str], dict[str, str]] = {}
        for row in self.asked:
            by_chain.setdefault((row.process, row.says), {})[row.variant] = str(row.arrived)
        return [
            _beside(f"delivered, process: {process}; the event says {says}", rates["fix 3"], rates["sound"])
            for (process, says), rates in by_chain.items()
        ]

    def _moved(self) -> dict[str, str]:
        as_written, sound = (
            f"{row.verdict.wrong_user:,} of {row.verdict.expected:,}, "
            + (f"refused: {type(row.refused).__name__}" if row.refused else "taken")
            for row in self.rerouted
        )
        return _beside("Alice's events at Bob's socket after a second registration", as_written, sound)

    def words(self) -> str:
        """The figure in a sentence, for those who cannot see it."""
        return "; ".join(
            f"{heading}: " + ", ".join(f"{rate.k} of {rate.n} {_when(at)}" for at, rate in rates.items())
            for heading, rates in self._panels().items()
        )

    def figure(self, title: str) -> Figure:
        """Delivered against how late, a panel each way; Fix 3 reads no thread, so it has one."""
        return late_events_figure(self._panels(), title=title)

    def _panels(self) -> dict[str, Mapping[float, Rate]]:
        shown = [late for late in self.late if (late.variant, late.says) != ("fix 3", "run id and thread")]
        return {f"{late.variant}: the event says its {late.says}": late.by_lateness for late in shown}


def _beside(what: str, as_written: str, sound: str) -> dict[str, str]:
    return {"what": what, "fix 3 as written": as_written, "sound": sound}


def _when(seconds: float) -> str:
    return f"{seconds:g} s after the end" if seconds >= 0 else "before the end"


async def study_lifecycles(
    *, users: int = 5, runs: int = 20, held_runs: Sequence[int] = (1_000, 10_000), events: int = 20, seed: int = 0
) -> LifecycleStudy:
    """Measure it all: memory after each of `held_runs`, `runs` runs of `users` users late and elsewhere, one re-routed.

    Starts one process, kills it, and starts it again. TimeoutError or WorkerGone where that does not go well.
    """
    held = [
        row
        for mapping in ("fix 3", "sound")
        for cleaned_up in (False, True)
        for row in await hold(mapping, cleaned_up=cleaned_up, after=held_runs, seed=seed)
    ]
    return LifecycleStudy(
        tuple(held),
        await _each_late(users, runs, seed),
        tuple(await ask_processes(users=users, runs=runs, seed=seed)),
        tuple([await reroute(row, events=events, seed=seed) for row in (FIX_3, SOUND)]),
    )
