"""Run every fault in every delivery mode: once for the notebook, or repeatedly as a soak test."""

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
from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, DELIVERY_MODES, DeliveryMode, deployed
from bridgekit_verify.faults.trials.fault_catalogue import FAULTS, Fault, FaultTarget
from bridgekit_verify.faults.trials.trial import Trial, TrialPlan, run_trial
from bridgekit_verify.measure.drop_figure import DELIVERED, DROPPED, LEAKED
from bridgekit_verify.measure.plots import TEXT_COLOUR, frame_grid, new_figure
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.thread_id_families import OwnedThread, thread_ids

__all__ = ["FaultMatrix", "Soak", "random_plan", "run_matrix", "soak"]

MAX_CONCURRENT_DEPLOYMENTS: Final = 8
"""How many deployments run concurrently. Two cores are enough, because most processes wait most of the time."""
MATRIX_SECONDS: Final = 600.0
"""The timeout of a fault matrix is MATRIX_SECONDS plus 20 times the duration of the plan."""

SIGNALLED: Final = "#A9B7C2"
"""The fill colour of cells with signalled losses: a shade between the colours of delivered and dropped events."""

OUTCOMES: Final = (
    ("misrouted", LEAKED, "white", "xx"),
    ("lost, silent", DROPPED, "white", ""),
    ("lost, signalled", SIGNALLED, TEXT_COLOUR, "//"),
    ("all delivered", DELIVERED, TEXT_COLOUR, ""),
)
"""Outcomes that colour a cell, worst first: name, fill colour, text colour, hatch."""


@dataclass(frozen=True)
class FaultMatrix:
    """One trial for each fault and each delivery mode that has the fault's target."""

    cells: Mapping[tuple[str, str], Trial]
    """Trials by the names of fault and delivery mode."""

    @property
    def faults(self) -> list[Fault]:
        """The faults of the matrix, in the order of FAULTS."""
        return [row for name, row in FAULTS.items() if any(name == fault for fault, _ in self.cells)]

    @property
    def injected(self) -> list[Fault]:
        """The faults without the baseline, which injects no fault."""
        return [fault for fault in self.faults if fault.target is not FaultTarget.NOTHING]

    @property
    def modes(self) -> list[DeliveryMode]:
        """The delivery modes of the matrix, weakest guarantee first."""
        return [row for name, row in DELIVERY_MODES.items() if any(name == delivery for _, delivery in self.cells)]

    def of(self, delivery: str) -> list[Trial]:
        """Return the trials of the delivery mode with this name."""
        return [trial for (_, name), trial in self.cells.items() if name == delivery]

    def named(self, *faults: str, delivery: str) -> list[Trial]:
        """Return the trials of these faults in one delivery mode, in the order of `faults`. Omits untried faults."""
        return [self.cells[fault, delivery] for fault in faults if (fault, delivery) in self.cells]

    @staticmethod
    def delays(trials: Sequence[Trial]) -> str:
        """Return a text alternative of the latency figure: for each trial, events read and lost, and latency."""
        clauses = "; ".join(
            f"fault {trial.fault.name!r} in the mode {trial.delivery.name!r}: {len(trial.first_copies):,} events read,"
            f" longest delay {trial.longest_latency:.2f} s, {len(trial.lost_moments):,} events lost"
            for trial in trials
        )
        return clauses or "no trial was made"

    @property
    def guaranteed(self) -> list[Trial]:
        """The trials of the delivery modes that rule out silent loss."""
        return [trial for trial in self.cells.values() if trial.delivery is not AT_MOST_ONCE]

    @property
    def silent_losses(self) -> Rate:
        """The rate of events lost silently in the delivery modes that rule out silent loss."""
        return Rate(
            sum(t.verdict.lost_silent for t in self.guaranteed), sum(t.verdict.expected for t in self.guaranteed)
        )

    @property
    def misrouted(self) -> int:
        """The number of frames that sockets of another thread or user read, in all trials."""
        return sum(trial.verdict.misrouted for trial in self.cells.values())

    def table(self) -> pd.DataFrame:
        """Return one row for each fault and delivery mode.

        There is no confidence interval, because the events lost in a fault are not a random sample.
        """
        return pd.DataFrame([_row(trial) for trial in self.cells.values()])

    def title(self) -> str:
        """State how many faults cause silent loss without a log, and how many events are lost silently with a log."""
        unprotected = [trial for trial in self.of(AT_MOST_ONCE.name) if trial.fault in self.injected]
        lossy = sum(trial.verdict.lost_silent > 0 for trial in unprotected)
        return (
            f"Without a log, {lossy} of {len(unprotected)} faults cause silent loss.\n"
            f"With a log, {self.silent_losses.counts} events are lost silently"
        )

    def figure(self) -> Figure:
        """Draw faults as rows and delivery modes as columns. Each cell has the colour of its worst outcome."""
        faults, modes = self.faults, self.modes
        with new_figure(self.title(), 1.6 + 1.22 * len(modes), 1.7 + 0.34 * len(faults)) as figure:
            axis = figure.subplots()
            for row, fault in enumerate(faults):
                for column, delivery in enumerate(modes):
                    _cell(axis, row, column, self.cells.get((fault.name, delivery.name)))
            frame_grid(axis, [each.name for each in modes], [fault.name for fault in faults])
            axis.xaxis.tick_top()
            handles = [
                Patch(facecolor=colour, edgecolor=TEXT_COLOUR, hatch=hatch, label=name)
                for name, colour, _, hatch in OUTCOMES
            ]
            if len(self.cells) < len(faults) * len(modes):
                handles.append(Patch(facecolor="none", label="–  the mode has no such target"))
            figure.legend(
                handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=9.5, columnspacing=1.2
            )
            return figure

    def alt_text(self) -> str:
        """Return a text alternative of the figure.

        The text states, for each delivery mode, how many events were expected, delivered, lost silently, lost with a
        signal and misrouted.
        """
        return "; ".join(
            f"mode {delivery.name!r}: {sum(t.verdict.delivered for t in self.of(delivery.name)):,} of"
            f" {sum(t.verdict.expected for t in self.of(delivery.name)):,} events delivered,"
            f" {sum(t.verdict.lost_silent for t in self.of(delivery.name)):,} lost silently,"
            f" {sum(t.verdict.lost_signalled for t in self.of(delivery.name)):,} lost with a gap,"
            f" {sum(t.verdict.misrouted for t in self.of(delivery.name)):,} misrouted"
            for delivery in self.modes
        )


def _cell(axis: Axes, row: int, column: int, trial: Trial | None) -> None:
    if trial is None:
        axis.text(column + 0.5, row + 0.5, "–", ha="center", va="center", color="#777777")
        return
    verdict = trial.verdict
    costs = (verdict.misrouted, verdict.lost_silent, verdict.lost_signalled, 1)
    _, colour, text_colour, hatch = next(kind for kind, cost in zip(OUTCOMES, costs, strict=True) if cost)
    axis.add_patch(
        Rectangle(
            (column + 0.03, row + 0.06), 0.94, 0.88, facecolor=colour, edgecolor=TEXT_COLOUR, linewidth=0.4, hatch=hatch
        )
    )
    label = f"{verdict.delivered:,} of {verdict.expected:,}"
    axis.text(
        column + 0.5,
        row + 0.5,
        label,
        ha="center",
        va="center",
        color=text_colour,
        fontsize=9.5,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5} if hatch else None,
    )


def _row(trial: Trial) -> dict[str, object]:
    verdict = trial.verdict
    delays = sorted(1_000 * row.latency_seconds for row in trial.ledger if row.latency_seconds is not None)
    return {
        "fault": trial.fault.name,
        "acts on": str(trial.fault.target),
        "delivery": trial.delivery.name,
        "delivered": f"{verdict.delivered:,} of {verdict.expected:,}",
        "predicted": trial.predicted_delivered,
        "lost silently": verdict.lost_silent,
        "lost with a gap": verdict.lost_signalled,
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
    faults: Iterable[Fault] = tuple(FAULTS.values()),
    modes: Iterable[DeliveryMode] = tuple(DELIVERY_MODES.values()),
) -> FaultMatrix:
    """Run a trial of every fault in every delivery mode that has the fault's target.

    Each trial has `users` threads with one socket each. Network faults share a deployment, each with its own proxy and
    threads. A fault that targets a worker or the broker gets its own deployment. Raises TimeoutError if the trials take
    too long: see MATRIX_SECONDS.
    """
    chosen, plan = list(faults), plan or TrialPlan()
    groups = [(delivery, group) for delivery in modes for group in _group_by_deployment(chosen, delivery)]
    found: dict[tuple[str, str], Trial] = {}
    limiter = anyio.CapacityLimiter(MAX_CONCURRENT_DEPLOYMENTS)

    async def run_one(delivery: DeliveryMode, group: Sequence[Fault]) -> None:
        async with limiter:
            for trial in await _run_group(delivery, group, users, seed, plan):
                found[trial.fault.name, delivery.name] = trial

    with unwrap_single_error(), anyio.fail_after(MATRIX_SECONDS + 20 * plan.seconds):
        async with anyio.create_task_group() as tasks:
            for delivery, group in groups:
                tasks.start_soon(run_one, delivery, group)
    return FaultMatrix(
        {(fault.name, row.name): found[fault.name, row.name] for row, group in groups for fault in group}
    )


def _group_by_deployment(faults: Sequence[Fault], delivery: DeliveryMode) -> list[list[Fault]]:
    """Return the groups of faults that share a deployment."""
    concerned = [fault for fault in faults if fault.applies_to(delivery)]
    shared = [fault for fault in concerned if not fault.needs_own_deployment]
    return ([shared] if shared else []) + [[fault] for fault in concerned if fault.needs_own_deployment]


async def _run_group(
    delivery: DeliveryMode, group: Sequence[Fault], users: int, seed: int, plan: TrialPlan
) -> list[Trial]:
    threads = thread_ids("thread_<16 hex>", users * len(group), seed=seed)
    trials: list[Trial] = []

    async def run_one(fault: Fault, owned: Sequence[OwnedThread]) -> None:
        trials.append(await run_trial(fault, deployment, owned, plan=plan, seed=seed))

    cut_broker = any(fault.cuts_broker for fault in group)
    async with deployed(delivery, threads, cut_broker=cut_broker) as deployment, anyio.create_task_group() as tasks:
        for number, fault in enumerate(group):
            tasks.start_soon(run_one, fault, threads[number * users : (number + 1) * users])
    return sorted(trials, key=lambda trial: list(FAULTS).index(trial.fault.name))


def random_plan(seed: int) -> TrialPlan:
    """Return a plan with random timing, so that many rounds can provoke race conditions."""
    source = random.Random(seed)
    return TrialPlan(
        steps=source.randint(16, 32),
        pace_seconds=source.uniform(0.01, 0.06),
        start_seconds=source.uniform(0.05, 0.5),
        duration_seconds=source.uniform(0.05, 0.9),
    )


@dataclass
class Soak:
    """The accumulated result of many rounds of the fault matrix."""

    rounds: int = 0
    seconds: float = 0.0
    cells: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """The sums of the counts, by the names of fault and delivery mode."""
    violations: list[str] = field(default_factory=list)
    """Each cell that violated a guarantee, with the seed that reproduces its round."""

    def add(self, seed: int, matrix: FaultMatrix) -> None:
        """Add the counts of one round."""
        self.rounds += 1
        for name, trial in matrix.cells.items():
            verdict = trial.verdict
            counts = {
                "expected": verdict.expected,
                "delivered": verdict.delivered,
                "lost silently": verdict.lost_silent,
                "lost with a gap": verdict.lost_signalled,
                "duplicated": verdict.extra_copies + trial.sent_twice,
                "misrouted": verdict.misrouted,
                "unanswered": trial.unanswered,
            }
            so_far = self.cells.setdefault(name, dict.fromkeys(counts, 0))
            for what, count in counts.items():
                so_far[what] += count
            promised = trial.delivery is not AT_MOST_ONCE
            if verdict.misrouted or not trial.quiesced or (promised and (verdict.lost_silent or counts["duplicated"])):
                self.violations.append(f"seed {seed}: {name[0]}, {name[1]}: {counts}, quiesced: {trial.quiesced}")

    @property
    def silent_losses(self) -> Rate:
        """The rate of events lost silently in the delivery modes that have a log."""
        guaranteed = [counts for (_, delivery), counts in self.cells.items() if delivery != AT_MOST_ONCE.name]
        return Rate(sum(each["lost silently"] for each in guaranteed), sum(each["expected"] for each in guaranteed))

    def table(self) -> pd.DataFrame:
        """Return one row for each cell: fault, delivery mode, and the counts summed over all rounds."""
        return pd.DataFrame({"fault": fault, "delivery": name} | counts for (fault, name), counts in self.cells.items())


async def soak(
    *,
    minutes: float,
    seed: int = 0,
    users: int = 2,
    faults: Iterable[Fault] = tuple(FAULTS.values()),
    modes: Iterable[DeliveryMode] = tuple(DELIVERY_MODES.values()),
    print_line: Callable[[str], None] = print,
) -> Soak:
    """Run at least one round of the fault matrix, and start new rounds until `minutes` have passed."""
    all_faults, all_modes = tuple(faults), tuple(modes)
    found, started = Soak(), time.monotonic()
    while not found.rounds or time.monotonic() - started < 60 * minutes:
        number, violations = seed + found.rounds, len(found.violations)
        found.add(
            number,
            await run_matrix(users=users, seed=number, plan=random_plan(number), faults=all_faults, modes=all_modes),
        )
        found.seconds = time.monotonic() - started
        for violation in found.violations[violations:]:
            print_line(violation)
        print_line(
            f"round {found.rounds}, {found.seconds / 60:.1f} min: lost silently {found.silent_losses},"
            f" {len(found.violations)} violations"
        )
    return found
