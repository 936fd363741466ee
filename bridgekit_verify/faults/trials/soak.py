"""The fault matrix again and again, each round with another seed and other windows, and its counts added up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pandas as pd

from bridgekit_verify.faults.trials.acts import ACTS, Act
from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, DELIVERIES, Delivery
from bridgekit_verify.faults.trials.matrix import FaultMatrix, run_matrix
from bridgekit_verify.faults.trials.trial import Plan
from bridgekit_verify.measure.statistics import Rate

__all__ = ["Soak", "drawn_plan", "soak"]


def drawn_plan(seed: int) -> Plan:
    """A plan whose fault begins and ends where a seed puts it: a race that needs its moment gets many."""
    source = random.Random(seed)
    return Plan(
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
    say: Callable[[str], None] = print,
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
            say(breach)
        say(
            f"round {found.rounds}, {found.seconds / 60:.1f} min: lost in silence {found.silent},"
            f" {len(found.broken)} broken"
        )
    return found
