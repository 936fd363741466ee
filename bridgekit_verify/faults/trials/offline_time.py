"""Measure how many events users lose while offline, and compare the loss with a prediction from the missed events.

`trial.missed_events` defines which events a user missed.
"""

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
from bridgekit_verify.faults.trials.trial import Trial, TrialPlan, run_trial
from bridgekit_verify.measure.plots import BLUE, GREEN, TEXT_COLOUR, VERMILLION, new_figure, percents
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.thread_id_families import OwnedThread, thread_ids

__all__ = ["Window", "WindowStudy", "predicted_loss", "study_windows"]

WINDOWS_SECONDS: Final = 120.0


def predicted_loss(delivery: DeliveryMode, missed: int) -> int:
    """Return how many events are lost if a user missed `missed` events.

    In mode "at most once", all missed events are lost. With a log that retains `h` events of a thread, no event is lost
    if at most `h` were missed. If more than `h` were missed, all missed events are lost, because a resume is
    all-or-nothing.
    """
    return 0 if delivery.resumes and missed <= delivery.keep_events else missed


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
    def predicted(self) -> Rate:
        """The predicted rate of lost events among all expected events."""
        lost = sum(predicted_loss(self.trial.delivery, missed) for missed in self.trial.missed)
        return Rate(min(lost, self.lost.n), self.lost.n)

    @property
    def lost(self) -> Rate:
        """The rate of lost events, both silent and signalled, among all expected events."""
        return self.trial.verdict.drop

    @property
    def tolerance(self) -> int:
        """The accepted difference between predicted and counted loss, in events: 0 if clients do not resume."""
        if not self.trial.delivery.resumes:
            return 0
        retained = self.trial.delivery.keep_events
        # If a user missed about as many events as the log retains, it is unknown whether the client could resume.
        return sum(
            missed + EVENTS_A_STEP if abs(missed - retained) <= EVENTS_A_STEP else EVENTS_A_STEP * (missed > retained)
            for missed in self.trial.missed
        )

    @property
    def agrees(self) -> bool:
        """Whether the counted loss equals the predicted loss within the tolerance."""
        return abs(self.lost.k - self.predicted.k) <= self.tolerance


@dataclass(frozen=True)
class WindowStudy:
    """The loss in offline windows of several lengths, for each delivery mode."""

    windows: Sequence[Window]

    def of(self, delivery: DeliveryMode) -> list[Window]:
        """Return the windows of one delivery mode, in the order of `windows`."""
        return [window for window in self.windows if window.trial.delivery.name == delivery.name]

    @property
    def modes(self) -> list[DeliveryMode]:
        return list(dict.fromkeys(window.trial.delivery for window in self.windows))

    def table(self) -> pd.DataFrame:
        """Return one row for each delivery mode and offline time."""
        return pd.DataFrame([_row(window) for window in self.windows])

    def title(self) -> str:
        """State the largest loss without a log, and the silent loss with a log."""
        without = [window.lost.fraction for window in self.windows if not window.trial.delivery.resumes]
        silent = sum(window.trial.verdict.lost_silent for window in self.windows if window.trial.delivery.resumes)
        return (
            f"Without a log, users who are offline lose up to {100 * max(without, default=0):.0f} % of the events.\n"
            f"With a log, {silent:,} events are lost silently"
        )

    def figure(self) -> Figure:
        """Draw counted and predicted loss over the offline time."""
        styles = ((VERMILLION, "D"), (BLUE, "s"), (GREEN, "o"))
        with new_figure(self.title(), 6.4, 4.2) as figure:
            axis = figure.subplots()
            for delivery, (colour, marker) in zip(self.modes, styles, strict=False):
                windows = sorted(self.of(delivery), key=lambda window: window.offline_seconds)
                offline = [window.offline_seconds for window in windows]
                predicted, _ = percents([window.predicted for window in windows])
                counted, _ = percents([window.lost for window in windows])
                axis.plot(offline, predicted, color=colour, linestyle="--", linewidth=1)
                axis.plot(
                    offline, predicted, color=TEXT_COLOUR, marker="_", markersize=18, linestyle="", markeredgewidth=1.4
                )
                axis.plot(offline, counted, marker, color=colour, markersize=7, label=_counted(windows))
            axis.plot(
                [], [], color=TEXT_COLOUR, marker="_", markersize=14, linestyle="--", linewidth=1, label="predicted"
            )
            axis.set_xlabel("time that users were offline, s")
            axis.set_ylabel("lost events, %")
            axis.set_ylim(-3, None)
            axis.legend(frameon=False, loc="upper left")
            return figure

    def alt_text(self) -> str:
        """Return a text alternative of the figure: each window's offline time, counted loss and predicted loss."""
        clauses = "; ".join(
            f"{window.trial.delivery.name}, offline for {window.offline_seconds:.2f} s: {window.lost.counts} events"
            f" lost, {window.predicted.k:,} predicted"
            for window in self.windows
        )
        return clauses or "no offline time was measured"


def _counted(windows: Sequence[Window]) -> str:
    """Return the label of one delivery mode's counted losses: whether all of them were silent or signalled."""
    silent = sum(window.trial.verdict.lost_silent for window in windows)
    signalled = sum(window.trial.verdict.lost_signalled for window in windows)
    manner = {(True, False): " silently", (False, True): " with a gap"}.get((silent > 0, signalled > 0), "")
    return f"{windows[0].trial.delivery.name}: lost{manner}, counted"


def _row(window: Window) -> dict[str, object]:
    return {
        "delivery": window.trial.delivery.name,
        "offline s": round(window.offline_seconds, 3),
        "expected": window.lost.n,
        "predicted lost": window.predicted.k,
        "lost": window.lost.k,
        "lost %": round(100 * window.lost.fraction, 1),
        "may differ by": window.tolerance,
        "lost silently": window.trial.verdict.lost_silent,
        "lost with a gap": window.trial.verdict.lost_signalled,
    }


async def study_windows(
    lengths: Sequence[float], *, users: int = 2, keep_events: int = 30, seed: int = 0, plan: TrialPlan | None = None
) -> WindowStudy:
    """Disconnect users for each of these times (seconds), in mode "at most once" and with a log of `keep_events`
    events.

    The trials of one delivery mode run concurrently on one worker, with `users` threads each. Raises TimeoutError if
    the trials take too long.
    """
    plan = plan or TrialPlan(steps=24)
    small = replace(RESUME, name=f"resume, {keep_events} events retained", keep_events=keep_events)
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
        trials[seconds] = await run_trial(
            fault, deployment, owned, plan=lasting, seed=seed, name=f"offline {seconds:g}"
        )

    async with deployed(delivery, threads) as deployment, anyio.create_task_group() as tasks:
        for number, seconds in enumerate(lengths):
            tasks.start_soon(run_one, seconds, threads[number * users : (number + 1) * users])
    return [Window(trials[seconds]) for seconds in lengths]
