"""The repairs that lead from the chain as committed to a working one, measured step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from bridgekit_verify.measure.attribution import EMITTED_BY_CORE
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.plots import outcome_counts, panels_of_bars
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.repairs import REPAIR_SEQUENCE
from bridgekit_verify.studies.shared_agent import EMITTED_BY_AGENTS
from bridgekit_verify.studies.study import EXAMPLE

__all__ = ["RepairStudy", "study_repairs"]


@dataclass(frozen=True)
class RepairStudy:
    """Each step of the repair sequence, with one run at a time and with several at once."""

    alone: Sequence[Measurement]
    together: Sequence[Measurement]

    def table(self) -> pd.DataFrame:
        """Return one row per repair and number of concurrent runs.

        Delivery is shown separately for events that the core emits and events that agents emit.
        """
        return pd.DataFrame(
            [_repair_row(measurement) for pair in zip(self.alone, self.together, strict=True) for measurement in pair]
        )

    def figure(self, title: str) -> Figure:
        """Draw two panels with one bar per repair."""
        together = self.together[0].workload.at_once
        panels = {"one run at a time": self.alone, f"{together} runs at once": self.together}
        outcomes = {
            heading: [outcome_counts([each]) for each in measurements] for heading, measurements in panels.items()
        }
        return panels_of_bars(outcomes, [each.variant.name for each in self.alone], title=title)

    def first_delivery(self) -> str:
        """Return the first repair with which any event arrives, with one run at a time; "none" if there is none."""
        return next((m.variant.name for m in self.alone if m.verdict.delivered), "none")

    def alt_text(self) -> str:
        """Describe the figure in text, one sentence per repair."""
        return "; ".join(
            f"{alone.variant.name}: {alone.verdict.delivered} of {alone.verdict.expected} alone,"
            f" {together.verdict.delivered} of {together.verdict.expected} and {together.verdict.misrouted} misrouted"
            " together"
            for alone, together in zip(self.alone, self.together, strict=True)
        )


def _repair_row(measurement: Measurement) -> dict[str, object]:
    whole = measurement.verdict
    core, agents = (check(measurement.history.of(types)) for types in (EMITTED_BY_CORE, EMITTED_BY_AGENTS))
    low, high = whole.delivery.interval
    return {
        "repair": measurement.variant.name,
        "runs at once": measurement.workload.at_once,
        "expected": whole.expected,
        "delivered": whole.delivered,
        "from %": round(100 * low, 1),
        "to %": round(100 * high, 1),
        "emitted by the core": _delivered_of_expected(core),
        "emitted by agents": _delivered_of_expected(agents),
        "misrouted": whole.misrouted,
        "false success": whole.false_success,
        "stops at link": ", ".join(map(str, whole.lost_at)) or "none",
    }


def _delivered_of_expected(verdict: Verdict) -> str:
    return f"{verdict.delivered:,} of {verdict.expected:,}"


async def study_repairs(
    *, threads: int, users_without_socket: int, runs: int, at_once: int, seed: int = 0
) -> RepairStudy:
    """Measure every step from the chain as committed to a repaired one, with one run at a time and with `at_once`.

    The first `users_without_socket` users have no socket, so that receipts about them can be wrong as well.
    """
    owned = thread_ids(EXAMPLE, threads, seed=seed)
    workloads = [
        Workload(threads=owned, runs_per_thread=runs, at_once=c, users_without_socket=users_without_socket)
        for c in (1, at_once)
    ]
    measured = [[await measure(repair, workload, seed=seed) for repair in REPAIR_SEQUENCE] for workload in workloads]
    return RepairStudy(alone=measured[0], together=measured[1])
