"""Loss as a function of the time that users are offline: measured, and predicted by a closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import anyio
import pandas as pd
from matplotlib.figure import Figure

from bridgekit.errors import unwrap_single_error
from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, RESUME, DeliveryMode, deployed
from bridgekit_verify.faults.trials.fault_catalogue import FAULTS
from bridgekit_verify.faults.trials.load import EVENTS_A_STEP
from bridgekit_verify.faults.trials.recorder import Reader
from bridgekit_verify.faults.trials.trial import Trial, TrialPlan, run_trial
from bridgekit_verify.measure.families import OwnedThread, thread_ids
from bridgekit_verify.measure.plots import BLUE, GREEN, TEXT_COLOUR, VERMILLION, new_figure, percents
from bridgekit_verify.measure.statistics import Rate

__all__ = ["Window", "WindowStudy", "predicted_loss", "study_windows"]

WINDOWS_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Window:
    """A trial in which users were offline for a time, in one delivery mode."""

    trial: Trial

    @property
    def offline_seconds(self) -> float:
        """Mean offline time of the users in seconds: the window of the fault plus the time to reconnect."""
        spans = [last - first for reader in self.trial.readers for first, last in reader.offline]
        return sum(spans) / len(self.trial.readers)

    @property
    def emission_seconds(self) -> float:
        """Time between the first and the last emission, in seconds."""
        start, end = self.trial.emission_window
        return end - start

    @property
    def predicted(self) -> float:
        """The predicted share of lost events, with time measured in steps of one pace each.

        On a busy machine, agents do not emit evenly, so clock times for `w` and `T` would mislead.
        """
        shares = [self._predicted_for(reader) for reader in self.trial.readers]
        return sum(shares) / len(shares)

    def _predicted_for(self, reader: Reader) -> float:
        trial = self.trial
        asked = [
            trial.attempted_at[each.key] for each in trial.history.expected if each.thread_id == reader.socket.thread_id
        ]
        missed = sum(any(first <= moment <= last for first, last in reader.offline) for moment in asked)
        a_pace = trial.plan.pace_seconds / EVENTS_A_STEP
        return predicted_loss(trial.delivery, trial.plan, missed * a_pace, len(asked) * a_pace)

    @property
    def lost(self) -> Rate:
        """Lost events, silent and signalled."""
        return self.trial.verdict.drop


def predicted_loss(delivery: DeliveryMode, plan: TrialPlan, offline_seconds: float, emission_seconds: float) -> float:
    """Return the share of events lost by a user who is offline for `w` of the `T` seconds in which agents emit evenly.

    At most once: the events emitted while the user is offline, `w / T`. With a log that retains `h` events of a thread:
    none if at most `h` events are emitted meanwhile, otherwise all of those (resume is all-or-nothing).
    """
    missed = offline_seconds / plan.pace_seconds * EVENTS_A_STEP
    if delivery.resumes and missed <= delivery.keep_events:
        return 0.0
    return offline_seconds / emission_seconds


@dataclass(frozen=True)
class WindowStudy:
    """The loss in offline windows of several lengths, for each delivery mode."""

    windows: Sequence[Window]

    def of(self, delivery: DeliveryMode) -> list[Window]:
        """Return the windows of one delivery mode, shortest first."""
        return [window for window in self.windows if window.trial.delivery.name == delivery.name]

    def predicted(self, delivery: DeliveryMode, offline_seconds: float) -> float:
        """Return the predicted share lost by a user who is offline for this many seconds."""
        windows = self.of(delivery)
        emission_seconds = sum(window.emission_seconds for window in windows) / len(windows)
        return predicted_loss(delivery, windows[0].trial.plan, offline_seconds, emission_seconds)

    @property
    def modes(self) -> list[DeliveryMode]:
        return list(dict.fromkeys(window.trial.delivery for window in self.windows))

    def table(self) -> pd.DataFrame:
        """Return one row for each window.

        Columns: delivery mode, offline time (s), predicted loss (%), lost (k of n), lost (%), Wilson interval (%),
        lost silently, lost with a signalled gap.
        """
        return pd.DataFrame([_row(window) for window in self.windows])

    def figure(self, title: str) -> Figure:
        """Draw measured and predicted loss over the offline time."""
        styles = ((VERMILLION, "D"), (GREEN, "o"), (BLUE, "s"))
        with new_figure(title, 8.0, 4.2) as figure:
            axis = figure.subplots()
            for delivery, (colour, marker) in zip(self.modes, styles, strict=False):
                windows = self.of(delivery)
                offline = [window.offline_seconds for window in windows]
                grid = [max(offline) * step / 400 for step in range(401)]
                predicted = [100 * self.predicted(delivery, seconds) for seconds in grid]
                axis.plot(grid, predicted, color=colour, linestyle="--", linewidth=1)
                shares, bars = percents([window.lost for window in windows])
                axis.errorbar(
                    offline, shares, yerr=bars, fmt=marker, color=colour, ecolor=TEXT_COLOUR, capsize=3, markersize=7,
                    elinewidth=0.8, label=delivery.name,
                )  # fmt: skip
            axis.plot([], [], color=TEXT_COLOUR, linestyle="--", linewidth=1, label="closed form")
            axis.set_xlabel("users away, s")
            axis.set_ylabel("lost, % of the events (95 % Wilson interval)")
            axis.set_ylim(-3, None)
            axis.legend(frameon=False, loc="upper left")
            return figure

    def alt_text(self) -> str:
        """Return a text alternative of the figure, one clause for each window."""
        return "; ".join(
            f"{window.trial.delivery.name}, away {window.offline_seconds:.2f} s: {window.lost} lost,"
            f" {window.predicted:.0%} predicted"
            for window in self.windows
        )


def _row(window: Window) -> dict[str, object]:
    low, high = window.lost.interval
    return {
        "delivery": window.trial.delivery.name,
        "away s": round(window.offline_seconds, 3),
        "predicted lost %": round(100 * window.predicted, 1),
        "lost": f"{window.lost.k:,} of {window.lost.n:,}",
        "lost %": round(100 * window.lost.fraction, 1),
        "from %": round(100 * low, 1),
        "to %": round(100 * high, 1),
        "in silence": window.trial.verdict.lost_silent,
        "with a word": window.trial.verdict.lost_signalled,
    }


async def study_windows(
    lengths: Sequence[float], *, users: int = 2, keep_events: int = 30, seed: int = 0, plan: TrialPlan | None = None
) -> WindowStudy:
    """Disconnect users for each of these lengths (seconds), in mode "at most once" and with a log of `keep_events`.

    All lengths of one mode run concurrently on one worker, each with `users` threads. Raises TimeoutError.
    """
    plan = plan or TrialPlan(steps=24)
    small = replace(RESUME, name=f"resume, {keep_events} events kept", keep_events=keep_events)
    found: list[Window] = []
    with unwrap_single_error(), anyio.fail_after(WINDOWS_SECONDS + 10 * plan.seconds):
        for delivery in (AT_MOST_ONCE, small):
            found += await _windows(delivery, lengths, users, seed, plan)
    return WindowStudy(found)


async def _windows(
    delivery: DeliveryMode, lengths: Sequence[float], users: int, seed: int, plan: TrialPlan
) -> list[Window]:
    threads = thread_ids("thread_<16 hex>", users * len(lengths), seed=seed)
    trials: dict[float, Trial] = {}

    async def run_one(seconds: float, owned: Sequence[OwnedThread]) -> None:
        lasting = replace(plan, duration_seconds=seconds)
        fault = FAULTS["down"] if seconds else FAULTS["none"]
        trials[seconds] = await run_trial(fault, deployment, owned, plan=lasting, seed=seed, name=f"away {seconds:g}")

    async with deployed(delivery, threads) as deployment, anyio.create_task_group() as tasks:
        for number, seconds in enumerate(lengths):
            tasks.start_soon(run_one, seconds, threads[number * users : (number + 1) * users])
    return [Window(trials[seconds]) for seconds in lengths]
