"""Compare one agent object for all runs with a new agent for each run, by the number of concurrent runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridgekit.events import EventType
from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.measure.attribution import EMITTED_BY_CORE
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.plots import GREEN, TEXT_COLOUR, VERMILLION, new_figure, percents
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.tables import transcript
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.studies.links_and_fixes import EXAMPLE
from bridgekit_verify.variants import BROKEN, SOUND

__all__ = ["EMITTED_BY_AGENTS", "SharedAgentStudy", "concurrency_levels", "study_shared_agent"]

EMITTED_BY_AGENTS = frozenset(EventType) - EMITTED_BY_CORE


def concurrency_levels(runs: int) -> list[int]:
    """Return 1, 2, 4, … and `runs`, the numbers of concurrent runs to measure.

    Raises InvalidParameter if `runs` is less than 2.
    """
    if runs < 2:
        raise InvalidParameter("runs", runs, "at least 2, so that runs can be concurrent")
    return sorted({runs, *(2**power for power in range(runs.bit_length()) if 2**power <= runs)})


@dataclass(frozen=True)
class SharedAgentStudy:
    """Measurements of the same runs with a shared agent and with new agents, by number of concurrent runs."""

    shared: Sequence[Measurement]
    fresh: Sequence[Measurement]

    def table(self) -> pd.DataFrame:
        """Return one row per number of concurrent runs: measured and predicted events that another user read."""
        return pd.DataFrame(
            {
                "runs at once": shared.workload.at_once,
                "events of agents": _misrouted(shared).n,
                "one shared agent: read by another user": _misrouted(shared).k,
                "predicted": shared.workload.misroutes_of_shared_agent(),
                "a new agent per run: read by another user": _misrouted(fresh).k,
            }
            for shared, fresh in zip(self.shared, self.fresh, strict=True)
        )

    def misrouted_shared(self) -> list[Rate]:
        """Return the rate of agents' events that another user read, for each measurement with a shared agent."""
        return [_misrouted(measurement) for measurement in self.shared]

    def misrouted_fresh(self) -> list[Rate]:
        """Return the rate of agents' events that another user read, for each measurement with new agents."""
        return [_misrouted(measurement) for measurement in self.fresh]

    def is_closed_form(self) -> bool:
        """Return whether every count with the shared agent equals `Workload.misroutes_of_shared_agent`."""
        return all(
            rate.k == measurement.workload.misroutes_of_shared_agent()
            for rate, measurement in zip(self.misrouted_shared(), self.shared, strict=True)
        )

    def transcript(self, at_once: int, frames: int = 8) -> pd.DataFrame:
        """Return the first frames that sockets read in the measurement in which `at_once` runs share one agent."""
        return transcript(next(m for m in self.shared if m.workload.at_once == at_once), frames=frames)

    def title(self) -> str:
        """State the result for the largest number of concurrent runs."""
        at_once, shared, fresh = self.shared[-1].workload.at_once, self.misrouted_shared()[-1], self.misrouted_fresh()
        return (
            f"With {at_once} runs at once, another user reads {shared.counts} events\n"
            f"of a shared agent, and {fresh[-1].counts} events of new agents"
        )

    def alt_text(self) -> str:
        """Return the figure as text: for each number of concurrent runs, the events that another user read."""
        return "; ".join(
            f"{_runs_at_once(measurement.workload.at_once)}: another user read {shared.counts} events with one shared"
            f" agent, {fresh.counts} with a new agent per run"
            for measurement, shared, fresh in zip(
                self.shared, self.misrouted_shared(), self.misrouted_fresh(), strict=True
            )
        )

    def figure(self) -> Figure:
        """Draw the share of agents' events that another user read, by concurrent runs, on a logarithmic scale."""
        at_once = [measurement.workload.at_once for measurement in self.shared]
        shared, fresh = self.misrouted_shared(), self.misrouted_fresh()
        with new_figure(self.title(), 6.2, 4.4) as figure:
            axis = figure.subplots()
            axis.set_xscale("log", base=2)
            closed = [
                100 * m.workload.misroutes_of_shared_agent() / rate.n
                for m, rate in zip(self.shared, shared, strict=True)
            ]
            axis.plot(at_once, closed, color=TEXT_COLOUR, linestyle="--", linewidth=1, label="predicted")
            _draw_shares(axis, at_once, shared, (VERMILLION, "D", "one agent for all runs"))
            _draw_shares(axis, at_once, fresh, (GREEN, "o", "a new agent for each run"))
            axis.set_xticks(at_once, [f"{c}" for c in at_once])
            axis.minorticks_off()
            axis.set_xlabel("runs at once, each of a different user")
            axis.set_ylabel("agents' events that another user read, %")
            axis.set_ylim(-4, 104)
            axis.text(at_once[-1], 5, f"{fresh[-1].k:,} of {fresh[-1].n:,}", ha="right", fontsize=10)
            axis.text(at_once[-1], 88, f"{shared[-1].k:,} of {shared[-1].n:,}", ha="right", fontsize=10)
            axis.legend(frameon=False, loc="center right")
            return figure


def _runs_at_once(count: int) -> str:
    return f"{count} {'run' if count == 1 else 'runs'} at once"


def _misrouted(measurement: Measurement) -> Rate:
    verdict = check(measurement.history.of(EMITTED_BY_AGENTS))
    return Rate(verdict.wrong_user, verdict.expected)


def _draw_shares(axis: Axes, at_once: Sequence[int], rates: Sequence[Rate], style: tuple[str, str, str]) -> None:
    (colour, marker, label), (values, _) = style, percents(rates)
    axis.plot(at_once, values, marker=marker, color=colour, markersize=8, linestyle="", label=label, clip_on=False)


async def study_shared_agent(*, runs: int, at_once: Iterable[int] | None = None, seed: int = 0) -> SharedAgentStudy:
    """Measure `runs` runs, each of a different user, at each number of concurrent runs in `at_once`.

    The default of `at_once` is `concurrency_levels(runs)`. Concurrent runs take each step together. In this
    worst case, the runs overlap from the first event to the last.
    """
    owned = thread_ids(EXAMPLE, runs, seed=seed)
    levels = concurrency_levels(runs) if at_once is None else list(at_once)
    workloads = [Workload(threads=owned, at_once=level) for level in levels]
    return SharedAgentStudy(
        shared=[await measure(BROKEN[5], workload, seed=seed) for workload in workloads],
        fresh=[await measure(SOUND, workload, seed=seed) for workload in workloads],
    )
