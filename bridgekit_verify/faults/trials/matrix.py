"""Every fault against every way to deliver, and what each cell cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import pandas as pd
from matplotlib.figure import Figure

from bridgekit.errors import first_error
from bridgekit_verify.faults.trials.acts import ACTS, Act
from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, DELIVERIES, Delivery, deployed
from bridgekit_verify.faults.trials.plots import matrix_figure
from bridgekit_verify.faults.trials.trial import Plan, Trial, try_act
from bridgekit_verify.measure.families import Owned, family
from bridgekit_verify.measure.statistics import Rate

__all__ = ["FaultMatrix", "run_matrix"]

AT_ONCE: Final = 4
"""Deployments that run side by side: two cores, and most of the time everybody waits."""
MATRIX_SECONDS: Final = 600.0
"""A matrix that takes longer is stuck, and ends with a TimeoutError. A longer plan moves it out."""


@dataclass(frozen=True)
class FaultMatrix:
    """One trial a fault and way to deliver, where the fault concerns it."""

    cells: Mapping[tuple[str, str], Trial]
    """By names of fault and delivery."""

    @property
    def acts(self) -> list[Act]:
        """The faults, in their order."""
        return [act for name, act in ACTS.items() if any(name == fault for fault, _ in self.cells)]

    @property
    def deliveries(self) -> list[Delivery]:
        """The ways to deliver, weakest first."""
        return [row for name, row in DELIVERIES.items() if any(name == delivery for _, delivery in self.cells)]

    def of(self, delivery: str) -> list[Trial]:
        """The trials of one way to deliver."""
        return [trial for (_, name), trial in self.cells.items() if name == delivery]

    def named(self, *acts: str, delivery: str) -> list[Trial]:
        """The trials of these faults with one way to deliver, in that order."""
        return [self.cells[act, delivery] for act in acts]

    @staticmethod
    def delays(trials: Sequence[Trial]) -> str:
        """How late the latest event of each trial was, in a sentence, for those who cannot see the figure."""
        return "; ".join(
            f"{trial.act.name} with {trial.delivery.name}: {len(trial.firsts):,} events read, the latest"
            f" {max(arrival.read_at - arrival.emitted_at for arrival in trial.firsts):.2f} s after it was emitted,"
            f" {len(trial.lost_moments):,} lost"
            for trial in trials
        )

    @property
    def sound(self) -> list[Trial]:
        """The trials of every way that promises something."""
        return [trial for trial in self.cells.values() if trial.delivery is not AT_MOST_ONCE]

    @property
    def silent(self) -> Rate:
        """Events lost in silence by a way to deliver that promises something."""
        return Rate(sum(t.verdict.lost_silent for t in self.sound), sum(t.verdict.expected for t in self.sound))

    @property
    def misrouted(self) -> int:
        """Frames at a socket of another thread, in any cell."""
        return sum(trial.verdict.misrouted for trial in self.cells.values())

    def table(self) -> pd.DataFrame:
        """One row a cell.

        Columns: fault, delivery, delivered (k of n), from and to (Wilson, %), closed form (% delivered, where there is
        one), lost silent, lost signalled, duplicated, misrouted, unanswered, median and longest latency (ms).
        """
        return pd.DataFrame([_row(trial) for trial in self.cells.values()])

    def figure(self, title: str) -> Figure:
        """One cell a fault and way to deliver: green where all arrived, with the counts."""
        return matrix_figure(self.acts, self.deliveries, self.cells, title=title)

    def words(self) -> str:
        """The same in a sentence a way, for those who cannot see the figure."""
        return "; ".join(
            f"{delivery.name}: {sum(t.verdict.delivered for t in self.of(delivery.name)):,} of"
            f" {sum(t.verdict.expected for t in self.of(delivery.name)):,} delivered,"
            f" {sum(t.verdict.lost_silent for t in self.of(delivery.name)):,} lost in silence,"
            f" {sum(t.verdict.lost_signalled for t in self.of(delivery.name)):,} with a word,"
            f" {sum(t.verdict.misrouted for t in self.of(delivery.name)):,} misrouted"
            for delivery in self.deliveries
        )


def _row(trial: Trial) -> dict[str, object]:
    verdict = trial.verdict
    low, high = verdict.delivery.interval
    delays = sorted(1_000 * row.latency_seconds for row in trial.ledger if row.latency_seconds is not None)
    return {
        "fault": trial.act.name,
        "hurts": str(trial.act.target),
        "delivery": trial.delivery.name,
        "delivered": f"{verdict.delivered:,} of {verdict.expected:,}",
        "from %": round(100 * low, 2),
        "to %": round(100 * high, 2),
        "closed form %": None if trial.closed_form is None else round(100 * trial.closed_form, 1),
        "lost silent": verdict.lost_silent,
        "lost signalled": verdict.lost_signalled,
        "duplicated": verdict.extra_copies + trial.sent_twice,
        "misrouted": verdict.misrouted,
        "unanswered": trial.unanswered,
        "median ms": round(delays[len(delays) // 2], 1) if delays else None,
        "longest ms": round(delays[-1], 1) if delays else None,
    }


async def run_matrix(
    *,
    users: int = 2,
    seed: int = 0,
    plan: Plan | None = None,
    acts: Iterable[Act] = tuple(ACTS.values()),
    deliveries: Iterable[Delivery] = tuple(DELIVERIES.values()),
) -> FaultMatrix:
    """Try every fault with every way to deliver that it concerns: `users` threads a cell, each with one socket.

    Faults of the network share one deployment, each with a proxy and threads of its own; a fault that hurts processes
    has a deployment to itself.
    """
    chosen, plan = list(acts), plan or Plan()
    rooms = [(delivery, room) for delivery in deliveries for room in _rooms(chosen, delivery)]
    found: dict[tuple[str, str], Trial] = {}
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def one(delivery: Delivery, room: Sequence[Act]) -> None:
        async with limiter:
            for trial in await _share(delivery, room, users, seed, plan):
                found[trial.act.name, delivery.name] = trial

    with first_error(), anyio.fail_after(MATRIX_SECONDS + 20 * plan.seconds):
        async with anyio.create_task_group() as tasks:
            for delivery, room in rooms:
                tasks.start_soon(one, delivery, room)
    return FaultMatrix({(act.name, row.name): found[act.name, row.name] for row, room in rooms for act in room})


def _rooms(acts: Sequence[Act], delivery: Delivery) -> list[list[Act]]:
    """Which faults share a deployment."""
    concerned = [act for act in acts if act.concerns(delivery)]
    shared = [act for act in concerned if not act.alone]
    return ([shared] if shared else []) + [[act] for act in concerned if act.alone]


async def _share(delivery: Delivery, room: Sequence[Act], users: int, seed: int, plan: Plan) -> list[Trial]:
    threads = family("thread_<16 hex>", users * len(room), seed=seed)
    trials: list[Trial] = []

    async def one(act: Act, owned: Sequence[Owned]) -> None:
        trials.append(await try_act(act, deployment, owned, plan=plan, seed=seed))

    cut_broker = any(act.cuts_broker for act in room)
    async with deployed(delivery, threads, cut_broker=cut_broker) as deployment, anyio.create_task_group() as tasks:
        for number, act in enumerate(room):
            tasks.start_soon(one, act, threads[number * users : (number + 1) * users])
    return sorted(trials, key=lambda trial: list(ACTS).index(trial.act.name))
