"""Every fault against every delivery mode, once for the notebook, and again and again as a soak test."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from bridgekit.errors import unwrap_single_error
from bridgekit_verify.faults.trials.acts import ACTS, Act
from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, DELIVERIES, Delivery, deployed
from bridgekit_verify.faults.trials.trial import Trial, TrialPlan, try_act
from bridgekit_verify.measure.families import OwnedThread, thread_ids
from bridgekit_verify.measure.plots import GREEN, SKY, TEXT_COLOUR, VERMILLION, frame_grid, new_figure
from bridgekit_verify.measure.statistics import Rate

__all__ = ["FaultMatrix", "Soak", "drawn_plan", "run_matrix", "soak"]

AT_ONCE: Final = 4
"""Deployments that run side by side: two cores, and most of the time everybody waits."""
MATRIX_SECONDS: Final = 600.0
"""A matrix that takes longer is stuck, and ends with a TimeoutError. A longer plan moves it out."""

WORST: Final = (
    ("misrouted", VERMILLION, "white", "xx"),
    ("lost in silence", VERMILLION, "white", "\\\\"),
    ("lost, and told", SKY, TEXT_COLOUR, "//"),
    ("all delivered", GREEN, "white", ""),
)
"""What a cell is coloured by, worst first: name, colour, ink, hatch."""


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
        """Faults down, delivery modes across; a cell has the counts, and the colour of its worst outcome."""
        acts, deliveries = self.acts, self.deliveries
        with new_figure(title, 2.0 + 1.65 * len(deliveries), 1.7 + 0.42 * len(acts)) as figure:
            axis = figure.subplots()
            for row, act in enumerate(acts):
                for column, delivery in enumerate(deliveries):
                    _cell(axis, row, column, self.cells.get((act.name, delivery.name)))
            frame_grid(axis, [each.name for each in deliveries], [act.name for act in acts])
            axis.xaxis.tick_top()
            handles = [
                Patch(facecolor=colour, edgecolor=TEXT_COLOUR, hatch=hatch, label=name)
                for name, colour, _, hatch in WORST
            ]
            figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=9.5)
            return figure

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


def _cell(axis: Axes, row: int, column: int, trial: Trial | None) -> None:
    if trial is None:
        axis.text(column + 0.5, row + 0.5, "–", ha="center", va="center", color="#777777")
        return
    verdict = trial.verdict
    costs = (verdict.misrouted, verdict.lost_silent, verdict.lost_signalled, 1)
    _, colour, ink, hatch = next(kind for kind, cost in zip(WORST, costs, strict=True) if cost)
    axis.add_patch(
        Rectangle(
            (column + 0.03, row + 0.06), 0.94, 0.88, facecolor=colour, edgecolor=TEXT_COLOUR, linewidth=0.4, hatch=hatch
        )
    )
    says = f"{verdict.delivered:,} of {verdict.expected:,}"
    axis.text(
        column + 0.5,
        row + 0.5,
        says,
        ha="center",
        va="center",
        color=ink,
        fontsize=9.5,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5} if hatch else None,
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
    plan: TrialPlan | None = None,
    acts: Iterable[Act] = tuple(ACTS.values()),
    deliveries: Iterable[Delivery] = tuple(DELIVERIES.values()),
) -> FaultMatrix:
    """Try every fault with every way to deliver that it concerns: `users` threads a cell, each with one socket.

    Faults of the network share one deployment, each with a proxy and threads of its own; a fault that hurts processes
    has a deployment to itself.
    """
    chosen, plan = list(acts), plan or TrialPlan()
    rooms = [(delivery, room) for delivery in deliveries for room in _rooms(chosen, delivery)]
    found: dict[tuple[str, str], Trial] = {}
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def one(delivery: Delivery, room: Sequence[Act]) -> None:
        async with limiter:
            for trial in await _share(delivery, room, users, seed, plan):
                found[trial.act.name, delivery.name] = trial

    with unwrap_single_error(), anyio.fail_after(MATRIX_SECONDS + 20 * plan.seconds):
        async with anyio.create_task_group() as tasks:
            for delivery, room in rooms:
                tasks.start_soon(one, delivery, room)
    return FaultMatrix({(act.name, row.name): found[act.name, row.name] for row, room in rooms for act in room})


def _rooms(acts: Sequence[Act], delivery: Delivery) -> list[list[Act]]:
    """Which faults share a deployment."""
    concerned = [act for act in acts if act.concerns(delivery)]
    shared = [act for act in concerned if not act.alone]
    return ([shared] if shared else []) + [[act] for act in concerned if act.alone]


async def _share(delivery: Delivery, room: Sequence[Act], users: int, seed: int, plan: TrialPlan) -> list[Trial]:
    threads = thread_ids("thread_<16 hex>", users * len(room), seed=seed)
    trials: list[Trial] = []

    async def one(act: Act, owned: Sequence[OwnedThread]) -> None:
        trials.append(await try_act(act, deployment, owned, plan=plan, seed=seed))

    cut_broker = any(act.cuts_broker for act in room)
    async with deployed(delivery, threads, cut_broker=cut_broker) as deployment, anyio.create_task_group() as tasks:
        for number, act in enumerate(room):
            tasks.start_soon(one, act, threads[number * users : (number + 1) * users])
    return sorted(trials, key=lambda trial: list(ACTS).index(trial.act.name))


def drawn_plan(seed: int) -> TrialPlan:
    """A plan whose fault begins and ends where a seed puts it: a race that needs its moment gets many."""
    source = random.Random(seed)
    return TrialPlan(
        steps=source.randint(16, 32),
        pace_seconds=source.uniform(0.01, 0.06),
        begins_seconds=source.uniform(0.05, 0.5),
        lasts_seconds=source.uniform(0.05, 0.9),
    )


@dataclass
class Soak:
    """What many rounds came to."""

    rounds: int = 0
    seconds: float = 0.0
    cells: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """By fault and delivery: counts, added up."""
    broken: list[str] = field(default_factory=list)
    """Each cell of a round that broke a promise, with its seed, so that it can be run again."""

    def add(self, seed: int, matrix: FaultMatrix) -> None:
        """Count one round."""
        self.rounds += 1
        for name, trial in matrix.cells.items():
            verdict = trial.verdict
            counts = {
                "expected": verdict.expected,
                "delivered": verdict.delivered,
                "lost silent": verdict.lost_silent,
                "lost signalled": verdict.lost_signalled,
                "duplicated": verdict.extra_copies + trial.sent_twice,
                "misrouted": verdict.misrouted,
                "unanswered": trial.unanswered,
            }
            so_far = self.cells.setdefault(name, dict.fromkeys(counts, 0))
            for what, count in counts.items():
                so_far[what] += count
            promised = trial.delivery is not AT_MOST_ONCE
            if verdict.misrouted or not trial.settled or (promised and (verdict.lost_silent or counts["duplicated"])):
                self.broken.append(f"seed {seed}: {name[0]}, {name[1]}: {counts}, settled: {trial.settled}")

    @property
    def silent(self) -> Rate:
        """Events lost in silence where a log is kept."""
        sound = [counts for (_, delivery), counts in self.cells.items() if delivery != AT_MOST_ONCE.name]
        return Rate(sum(each["lost silent"] for each in sound), sum(each["expected"] for each in sound))

    def table(self) -> pd.DataFrame:
        """One row a cell, its counts added up."""
        return pd.DataFrame({"fault": act, "delivery": name} | counts for (act, name), counts in self.cells.items())


async def soak(
    *,
    minutes: float,
    seed: int = 0,
    users: int = 2,
    acts: Iterable[Act] = tuple(ACTS.values()),
    deliveries: Iterable[Delivery] = tuple(DELIVERIES.values()),
    print_line: Callable[[str], None] = print,
) -> Soak:
    """Run the matrix until so many minutes are over, at least once; the round under way is finished."""
    chosen, ways = tuple(acts), tuple(deliveries)
    found, begins = Soak(), time.monotonic()
    while not found.rounds or time.monotonic() - begins < 60 * minutes:
        number, broken = seed + found.rounds, len(found.broken)
        found.add(
            number, await run_matrix(users=users, seed=number, plan=drawn_plan(number), acts=chosen, deliveries=ways)
        )
        found.seconds = time.monotonic() - begins
        for breach in found.broken[broken:]:
            print_line(breach)
        print_line(
            f"round {found.rounds}, {found.seconds / 60:.1f} min: lost in silence {found.silent},"
            f" {len(found.broken)} broken"
        )
    return found
