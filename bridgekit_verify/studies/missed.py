"""What the audit missed, in three comparisons: the ladder of repairs, shared agents, and what an answer is worth."""

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
from bridgekit_verify.measure.attribution import SAID_BY_CORE
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.experiment import Measurement, measure, measure_each
from bridgekit_verify.measure.history import History, Key
from bridgekit_verify.measure.plots import (
    GREEN,
    INK,
    LOST,
    VERMILLION,
    fate_of,
    frame_grid,
    new_figure,
    panels_of_bars,
    percents,
)
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.tables import transcript
from bridgekit_verify.measure.workload import Workload, family
from bridgekit_verify.repairs import REPAIR_SEQUENCE
from bridgekit_verify.studies.study import EXAMPLE
from bridgekit_verify.variants import BROKEN, SOUND, VARIANTS

__all__ = ["LadderStudy", "SharingStudy", "study_ladder", "study_sharing", "truth", "truths"]

SAID_BY_AGENTS = frozenset(EventType) - SAID_BY_CORE


@dataclass(frozen=True)
class LadderStudy:
    """Each rung of the ladder, with one run at a time and with several at once."""

    alone: Sequence[Measurement]
    together: Sequence[Measurement]

    def table(self) -> pd.DataFrame:
        """One row a rung and way of running. Delivery is told apart by who says an event: the core, or an agent."""
        return pd.DataFrame(
            [_rung(measurement) for pair in zip(self.alone, self.together, strict=True) for measurement in pair]
        )

    def truths(self, *rungs: str) -> pd.DataFrame:
        """What was answered against what arrived, with several runs at once, of those rungs, or of all."""
        return pd.concat([truth(m) for m in self.together if m.variant.name in rungs or not rungs], ignore_index=True)

    def figure(self, title: str) -> Figure:
        """Two panels, one bar a rung."""
        together = self.together[0].workload.at_once
        panels = {"one run at a time": self.alone, f"{together} runs at once": self.together}
        fates = {heading: [fate_of([each]) for each in measurements] for heading, measurements in panels.items()}
        return panels_of_bars(fates, [each.variant.name for each in self.alone], title=title)

    def truth_figure(self, *rungs: str, title: str) -> Figure:
        """One grid a rung, several runs at once: answers down, arrivals across. Only truthful cells are green."""
        grids = {m.variant.name: _counted(m.history) for m in self.together if m.variant.name in rungs}
        columns = min(len(grids), GRIDS_ACROSS)
        rows = -(-len(grids) // columns)
        with new_figure(title, 1.2 + 3.0 * columns, 0.6 + 2.9 * rows) as figure:
            axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
            for unused in axes[len(grids) :]:
                unused.set_visible(False)
            for axis, (name, counts) in zip(axes[: len(grids)], grids.items(), strict=True):
                for row, answer in enumerate(ANSWERS):
                    for column, what in enumerate(GOT):
                        _truth_cell(axis, row, column, counts[answer, what], honest=_is_honest(answer, what))
                axis.set_title(name, fontsize=10.5)
                answered = [f"answered:\n{answer}" for answer in ANSWERS]
                frame_grid(axis, ["its user\ngot it", "only\nanother", "nobody\ngot it"], answered)
                axis.tick_params(labelsize=9)
            return figure

    def truth_words(self, *rungs: str) -> str:
        """The same in a sentence a rung, for those who cannot see the figure."""
        counted = {m.variant.name: _counted(m.history) for m in self.together if m.variant.name in rungs}
        return "; ".join(
            f"{rung}: " + ", ".join(f"answered {answer}, {got}: {count}" for (answer, got), count in counts.items())
            for rung, counts in counted.items()
        )

    def first_delivery(self) -> str:
        """The first rung at which anything at all arrives, with one run at a time; "none" if there is none."""
        return next((m.variant.name for m in self.alone if m.verdict.delivered), "none")

    def words(self) -> str:
        """The same in a sentence a rung, for those who cannot see the figure."""
        return "; ".join(
            f"{alone.variant.name}: {alone.verdict.delivered} of {alone.verdict.expected} alone,"
            f" {together.verdict.delivered} of {together.verdict.expected} and {together.verdict.misrouted} misrouted"
            " together"
            for alone, together in zip(self.alone, self.together, strict=True)
        )


def _rung(measurement: Measurement) -> dict[str, object]:
    whole = measurement.verdict
    core, agents = (check(measurement.history.of(types)) for types in (SAID_BY_CORE, SAID_BY_AGENTS))
    low, high = whole.delivery.interval
    return {
        "rung": measurement.variant.name,
        "runs at once": measurement.workload.at_once,
        "expected": whole.expected,
        "delivered": whole.delivered,
        "from %": round(100 * low, 1),
        "to %": round(100 * high, 1),
        "said by the core": _of(core),
        "said by agents": _of(agents),
        "misrouted": whole.misrouted,
        "false success": whole.false_success,
        "stops at link": ", ".join(map(str, whole.lost_at)) or "none",
    }


def _of(verdict: Verdict) -> str:
    return f"{verdict.delivered:,} of {verdict.expected:,}"


async def study_ladder(*, threads: int, absent: int, runs: int, at_once: int, seed: int = 0) -> LadderStudy:
    """Climb from the chain as committed to one that is repaired, measuring every rung alone and `at_once`.

    The first `absent` of the threads' users have no socket, so that an answer can be wrong about them too.
    """
    owned = family(EXAMPLE, threads, seed=seed)
    workloads = [Workload(threads=owned, runs_per_thread=runs, at_once=c, absent=absent) for c in (1, at_once)]
    climbed = [[await measure(rung, workload, seed=seed) for rung in REPAIR_SEQUENCE] for workload in workloads]
    return LadderStudy(alone=climbed[0], together=climbed[1])


@dataclass(frozen=True)
class SharingStudy:
    """One agent for all runs beside a fresh agent for each, by how many runs are under way at once."""

    shared: Sequence[Measurement]
    fresh: Sequence[Measurement]

    def table(self) -> pd.DataFrame:
        """One row a number of runs at once: agents' events handed to another user, shared and fresh, and expected."""
        return pd.DataFrame(
            {
                "runs at once": shared.workload.at_once,
                "events of agents": _strays(shared).n,
                "shared: to others": _strays(shared).k,
                "from %": round(100 * _strays(shared).interval[0], 1),
                "to %": round(100 * _strays(shared).interval[1], 1),
                "closed form (c - 1) / c, %": round(100 * (1 - 1 / shared.workload.at_once), 1),
                "fresh: to others": _strays(fresh).k,
                "fresh, at most %": round(100 * _strays(fresh).interval[1], 1),
            }
            for shared, fresh in zip(self.shared, self.fresh, strict=True)
        )

    def strays_shared(self) -> list[Rate]:
        """Of what agents said, how much another user read, with one agent for all; by runs at once."""
        return [_strays(measurement) for measurement in self.shared]

    def strays_fresh(self) -> list[Rate]:
        """The same with a fresh agent for each run."""
        return [_strays(measurement) for measurement in self.fresh]

    def is_closed_form(self) -> bool:
        """Whether every count with the shared agent is exactly what all but one run of each group say."""
        said = len(SAID_BY_AGENTS & set(CRITICAL))
        return all(
            rate.k == said * sum(len(group) - 1 for group in measurement.workload.groups())
            for rate, measurement in zip(self.strays_shared(), self.shared, strict=True)
        )

    def transcript(self, at_once: int, frames: int = 8) -> pd.DataFrame:
        """The first frames that sockets read with so many runs at once and one agent for all, in order."""
        return transcript(next(m for m in self.shared if m.workload.at_once == at_once), frames=frames)

    def words(self) -> str:
        """The figure in a sentence, for those who cannot see it."""
        return "; ".join(
            f"{measurement.workload.at_once} at once: {shared.counts} with one agent, {fresh.counts} with fresh ones"
            for measurement, shared, fresh in zip(self.shared, self.strays_shared(), self.strays_fresh(), strict=True)
        )

    def figure(self, title: str) -> Figure:
        """Share of the agents' events that another user read, by runs at once, on a scale of doublings."""
        at_once = [measurement.workload.at_once for measurement in self.shared]
        shared, fresh = self.strays_shared(), self.strays_fresh()
        with new_figure(title, 8.6, 4.4) as figure:
            axis = figure.subplots()
            axis.set_xscale("log", base=2)
            closed = [100 * (1 - 1 / c) for c in at_once]
            axis.plot(at_once, closed, color=INK, linestyle="--", linewidth=1, label="closed form, (c - 1) / c")
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


def _strays(measurement: Measurement) -> Rate:
    """Of what agents said, how much another user read."""
    verdict = check(measurement.history.of(SAID_BY_AGENTS))
    return Rate(verdict.wrong_user, verdict.expected)


async def study_sharing(at_once: Iterable[int], *, runs: int, seed: int = 0) -> SharingStudy:
    """Let `runs` runs go through both, so many of them at once; each run has a user of its own."""
    workloads = [Workload(threads=family(EXAMPLE, runs, seed=seed), at_once=c) for c in at_once]
    return SharingStudy(
        shared=[await measure(BROKEN[5], workload, seed=seed) for workload in workloads],
        fresh=[await measure(SOUND, workload, seed=seed) for workload in workloads],
    )


def truth(measurement: Measurement) -> pd.DataFrame:
    """What `notify` answered, down, against what sockets read, across: a count of events in each cell."""
    counts = _counted(measurement.history)
    return pd.DataFrame(
        {"variant": measurement.variant.name, "answer": answer} | {got: counts[answer, got] for got in GOT}
        for answer in ANSWERS
    )


async def truths(*, threads: int, absent: int, at_once: int, seed: int = 0) -> pd.DataFrame:
    """What was answered against what arrived, of every variant: the columns of `truth`."""
    workload = Workload(threads=family(EXAMPLE, threads, seed=seed), at_once=at_once, absent=absent)
    measured = await measure_each(VARIANTS.values(), [workload], seed=seed)
    return pd.concat([truth(measurement) for measurement in measured], ignore_index=True)


ANSWERS = ("sent", "not sent", "no answer")
GOT = ("its user got it", "only another user got it", "nobody got it")


def _counted(history: History) -> Counter[tuple[str, str]]:
    owners = {expectation.key: expectation.user_id for expectation in history.expected}
    readers: dict[Key, set[str]] = {key: set() for key in owners}
    for arrival in history.arrivals:
        if arrival.key in readers:
            readers[arrival.key].add(arrival.socket.user_id)
    return Counter((_answer(history, key), _got(owner, readers[key])) for key, owner in owners.items())


def _answer(history: History, key: Key) -> str:
    if key not in history.acknowledged:
        return "no answer"
    return "sent" if history.acknowledged[key][1] else "not sent"


def _got(owner: str, readers: set[str]) -> str:
    if owner in readers:
        return GOT[0]
    return GOT[1] if readers else GOT[2]


GRIDS_ACROSS: Final = 3


def _draw_shares(axis: Axes, at_once: Sequence[int], rates: Sequence[Rate], look: tuple[str, str, str]) -> None:
    (colour, marker, label), (values, bars) = look, percents(rates)
    axis.errorbar(
        at_once, values, yerr=bars, fmt=marker, color=colour, ecolor=INK, markersize=8, capsize=3, label=label
    )


def _is_honest(answer: str, got: str) -> bool:
    return (answer, got) in {("sent", "its user got it"), ("not sent", "nobody got it")}


def _truth_cell(axis: Axes, row: int, column: int, count: int, *, honest: bool) -> None:
    colour = LOST if not count else (GREEN if honest else VERMILLION)
    border = {"edgecolor": INK, "linewidth": 2.0} if count and not honest else {"edgecolor": "none"}
    axis.add_patch(Rectangle((column + 0.04, row + 0.05), 0.92, 0.9, facecolor=colour, **border))
    axis.text(
        column + 0.5, row + 0.5, f"{count:,}", ha="center", va="center", color="white" if count else INK, fontsize=11
    )
