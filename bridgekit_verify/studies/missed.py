"""What the audit missed, in three comparisons: repairs step by step, shared agents, and receipts against arrivals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bridgekit.events import CRITICAL, EventType
from bridgekit_verify.measure.attribution import EMITTED_BY_CORE
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.experiment import Measurement, measure, measure_each
from bridgekit_verify.measure.history import EventKey, History
from bridgekit_verify.measure.plots import (
    GREEN,
    LOST,
    TEXT_COLOUR,
    VERMILLION,
    frame_grid,
    new_figure,
    outcome_counts,
    panels_of_bars,
    percents,
)
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.tables import transcript
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.repairs import REPAIR_SEQUENCE
from bridgekit_verify.studies.study import EXAMPLE
from bridgekit_verify.variants import BROKEN, SOUND, VARIANTS

__all__ = ["RepairStudy", "SharingStudy", "measure_receipts", "receipt_table", "study_repairs", "study_sharing"]

EMITTED_BY_AGENTS = frozenset(EventType) - EMITTED_BY_CORE


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

    def receipts_table(self, *repairs: str) -> pd.DataFrame:
        """Return what receipts reported against what arrived, with several runs at once.

        All repairs if none is named.
        """
        return pd.concat(
            [receipt_table(m) for m in self.together if m.variant.name in repairs or not repairs], ignore_index=True
        )

    def figure(self, title: str) -> Figure:
        """Draw two panels with one bar per repair."""
        together = self.together[0].workload.at_once
        panels = {"one run at a time": self.alone, f"{together} runs at once": self.together}
        outcomes = {
            heading: [outcome_counts([each]) for each in measurements] for heading, measurements in panels.items()
        }
        return panels_of_bars(outcomes, [each.variant.name for each in self.alone], title=title)

    def receipts_figure(self, *repairs: str, title: str) -> Figure:
        """Draw one grid per repair, several runs at once: receipts as rows, arrivals as columns.

        Only cells with truthful receipts are green.
        """
        grids = {m.variant.name: _receipt_counts(m.history) for m in self.together if m.variant.name in repairs}
        columns = min(len(grids), GRIDS_ACROSS)
        rows = -(-len(grids) // columns)
        with new_figure(title, 1.2 + 3.0 * columns, 0.6 + 2.9 * rows) as figure:
            axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
            for unused in axes[len(grids) :]:
                unused.set_visible(False)
            for axis, (name, counts) in zip(axes[: len(grids)], grids.items(), strict=True):
                for row, receipt in enumerate(RECEIPTS):
                    for column, what in enumerate(ARRIVALS):
                        _receipt_cell(axis, row, column, counts[receipt, what], accurate=_is_accurate(receipt, what))
                axis.set_title(name, fontsize=10.5)
                labels = [f"receipt:\n{receipt}" for receipt in RECEIPTS]
                frame_grid(axis, ["its user\nread it", "only\nanother", "no user\nread it"], labels)
                axis.tick_params(labelsize=9)
            return figure

    def receipts_alt_text(self, *repairs: str) -> str:
        """Describe the figure in text, one sentence per repair."""
        counts_by_repair = {
            m.variant.name: _receipt_counts(m.history) for m in self.together if m.variant.name in repairs
        }
        return "; ".join(
            f"{repair}: " + ", ".join(f"receipt {receipt}, {got}: {count}" for (receipt, got), count in counts.items())
            for repair, counts in counts_by_repair.items()
        )

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


@dataclass(frozen=True)
class SharingStudy:
    """One agent for all runs, compared with a new agent for each run, by number of concurrent runs."""

    shared: Sequence[Measurement]
    fresh: Sequence[Measurement]

    def table(self) -> pd.DataFrame:
        """Return one row per number of concurrent runs.

        It has agents' events that reached another user, with a shared and with new agents, and the expected number.
        """
        return pd.DataFrame(
            {
                "runs at once": shared.workload.at_once,
                "events of agents": _misrouted(shared).n,
                "shared: to others": _misrouted(shared).k,
                "from %": round(100 * _misrouted(shared).interval[0], 1),
                "to %": round(100 * _misrouted(shared).interval[1], 1),
                "closed form (c - 1) / c, %": round(100 * (1 - 1 / shared.workload.at_once), 1),
                "fresh: to others": _misrouted(fresh).k,
                "fresh, at most %": round(100 * _misrouted(fresh).interval[1], 1),
            }
            for shared, fresh in zip(self.shared, self.fresh, strict=True)
        )

    def misrouted_shared(self) -> list[Rate]:
        """Return the share of agents' events that another user read, by concurrent runs.

        All runs share one agent.
        """
        return [_misrouted(measurement) for measurement in self.shared]

    def misrouted_fresh(self) -> list[Rate]:
        """Return the same with a new agent for each run."""
        return [_misrouted(measurement) for measurement in self.fresh]

    def is_closed_form(self) -> bool:
        """Return whether every count with the shared agent equals the events of all but one run of each group."""
        per_run = len(EMITTED_BY_AGENTS & set(CRITICAL))
        return all(
            rate.k == per_run * sum(len(group) - 1 for group in measurement.workload.groups())
            for rate, measurement in zip(self.misrouted_shared(), self.shared, strict=True)
        )

    def transcript(self, at_once: int, frames: int = 8) -> pd.DataFrame:
        """Return the first frames that sockets read with that many runs at once and one agent for all, in order."""
        return transcript(next(m for m in self.shared if m.workload.at_once == at_once), frames=frames)

    def alt_text(self) -> str:
        """Describe the figure in text."""
        return "; ".join(
            f"{measurement.workload.at_once} at once: {shared.counts} with one agent, {fresh.counts} with fresh ones"
            for measurement, shared, fresh in zip(
                self.shared, self.misrouted_shared(), self.misrouted_fresh(), strict=True
            )
        )

    def figure(self, title: str) -> Figure:
        """Draw the share of agents' events that another user read, by concurrent runs, on a logarithmic scale."""
        at_once = [measurement.workload.at_once for measurement in self.shared]
        shared, fresh = self.misrouted_shared(), self.misrouted_fresh()
        with new_figure(title, 8.6, 4.4) as figure:
            axis = figure.subplots()
            axis.set_xscale("log", base=2)
            closed = [100 * (1 - 1 / c) for c in at_once]
            axis.plot(at_once, closed, color=TEXT_COLOUR, linestyle="--", linewidth=1, label="closed form, (c - 1) / c")
            _draw_shares(axis, at_once, shared, (VERMILLION, "D", "one agent for all runs"))
            _draw_shares(axis, at_once, fresh, (GREEN, "o", "a fresh agent for each run"))
            axis.set_xticks(at_once, [f"{c}" for c in at_once])
            axis.minorticks_off()
            axis.set_xlabel("runs at once (users)")
            axis.set_ylabel("read by another user, %")
            axis.set_ylim(-4, 104)
            axis.text(at_once[-1], 9, f"{fresh[-1].k:,} of {fresh[-1].n:,}", ha="right", fontsize=9)
            axis.text(at_once[-1], 88, f"{shared[-1].k:,} of {shared[-1].n:,}", ha="right", fontsize=9)
            axis.legend(frameon=False, loc="center right")
            return figure


def _misrouted(measurement: Measurement) -> Rate:
    """Return the share of agents' events that another user read."""
    verdict = check(measurement.history.of(EMITTED_BY_AGENTS))
    return Rate(verdict.wrong_user, verdict.expected)


async def study_sharing(at_once: Iterable[int], *, runs: int, seed: int = 0) -> SharingStudy:
    """Measure `runs` runs with a shared agent and with new agents, that many at once; each run has its own user."""
    workloads = [Workload(threads=thread_ids(EXAMPLE, runs, seed=seed), at_once=c) for c in at_once]
    return SharingStudy(
        shared=[await measure(BROKEN[5], workload, seed=seed) for workload in workloads],
        fresh=[await measure(SOUND, workload, seed=seed) for workload in workloads],
    )


def receipt_table(measurement: Measurement) -> pd.DataFrame:
    """Return what `notify` reported, as rows, against what sockets read, as columns: counts of events."""
    counts = _receipt_counts(measurement.history)
    return pd.DataFrame(
        {"variant": measurement.variant.name, "receipt": receipt} | {got: counts[receipt, got] for got in ARRIVALS}
        for receipt in RECEIPTS
    )


async def measure_receipts(*, threads: int, users_without_socket: int, at_once: int, seed: int = 0) -> pd.DataFrame:
    """Return what receipts reported against what arrived, for every variant, with the columns of `receipt_table`."""
    workload = Workload(
        threads=thread_ids(EXAMPLE, threads, seed=seed), at_once=at_once, users_without_socket=users_without_socket
    )
    measured = await measure_each(VARIANTS.values(), [workload], seed=seed)
    return pd.concat([receipt_table(measurement) for measurement in measured], ignore_index=True)


RECEIPTS = ("sent", "not sent", "no receipt")
ARRIVALS = ("its user read it", "only another user read it", "no user read it")


def _receipt_counts(history: History) -> Counter[tuple[str, str]]:
    owners = {expectation.key: expectation.user_id for expectation in history.expected}
    readers: dict[EventKey, set[str]] = {key: set() for key in owners}
    for arrival in history.arrivals:
        if arrival.key in readers:
            readers[arrival.key].add(arrival.socket.user_id)
    return Counter((_receipt_label(history, key), _arrival_label(owner, readers[key])) for key, owner in owners.items())


def _receipt_label(history: History, key: EventKey) -> str:
    if key not in history.acknowledged:
        return "no receipt"
    return "sent" if history.acknowledged[key][1] else "not sent"


def _arrival_label(owner: str, readers: set[str]) -> str:
    if owner in readers:
        return ARRIVALS[0]
    return ARRIVALS[1] if readers else ARRIVALS[2]


GRIDS_ACROSS: Final = 3


def _draw_shares(axis: Axes, at_once: Sequence[int], rates: Sequence[Rate], style: tuple[str, str, str]) -> None:
    (colour, marker, label), (values, bars) = style, percents(rates)
    axis.errorbar(
        at_once, values, yerr=bars, fmt=marker, color=colour, ecolor=TEXT_COLOUR, markersize=8, capsize=3, label=label
    )


def _is_accurate(receipt: str, got: str) -> bool:
    return (receipt, got) in {("sent", "its user read it"), ("not sent", "no user read it")}


def _receipt_cell(axis: Axes, row: int, column: int, count: int, *, accurate: bool) -> None:
    colour = LOST if not count else (GREEN if accurate else VERMILLION)
    border = {"edgecolor": TEXT_COLOUR, "linewidth": 2.0} if count and not accurate else {"edgecolor": "none"}
    axis.add_patch(Rectangle((column + 0.04, row + 0.05), 0.92, 0.9, facecolor=colour, **border))
    axis.text(
        column + 0.5,
        row + 0.5,
        f"{count:,}",
        ha="center",
        va="center",
        color="white" if count else TEXT_COLOUR,
        fontsize=11,
    )
