"""Loss against the length of being away: measured, and predicted by a closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import anyio
import pandas as pd
from matplotlib.figure import Figure

from bridgekit.errors import unwrap_single_error
from bridgekit_verify.faults.trials.acts import ACTS
from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, RESUME, Delivery, deployed
from bridgekit_verify.faults.trials.load import EVENTS_A_STEP
from bridgekit_verify.faults.trials.recorder import Reader
from bridgekit_verify.faults.trials.trial import Trial, TrialPlan, try_act
from bridgekit_verify.measure.families import OwnedThread, thread_ids
from bridgekit_verify.measure.plots import BLUE, GREEN, TEXT_COLOUR, VERMILLION, new_figure, percents
from bridgekit_verify.measure.statistics import Rate

__all__ = ["Window", "WindowStudy", "predicted_loss", "study_windows"]

WINDOWS_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Window:
    """Users who were away for a while, with one way to deliver."""

    trial: Trial

    @property
    def away_seconds(self) -> float:
        """How long they were away, on average: the window, and what it took to come back."""
        spans = [last - first for reader in self.trial.readers for first, last in reader.offline]
        return sum(spans) / len(self.trial.readers)

    @property
    def emission_seconds(self) -> float:
        """How long their agents emitted in all."""
        begins, ends = self.trial.emission_window
        return ends - begins

    @property
    def predicted(self) -> float:
        """The share lost, by the closed form, with time as agents tell it: a step is one pace, however long it took.

        On a busy machine they do not emit evenly, so that clock times for `w` and `T` mean little.
        """
        shares = [self._predicted_for(reader) for reader in self.trial.readers]
        return sum(shares) / len(shares)

    def _predicted_for(self, reader: Reader) -> float:
        trial = self.trial
        asked = [
            trial.asked_at[each.key] for each in trial.history.expected if each.thread_id == reader.socket.thread_id
        ]
        missed = sum(any(first <= moment <= last for first, last in reader.offline) for moment in asked)
        a_pace = trial.plan.pace_seconds / EVENTS_A_STEP
        return predicted_loss(trial.delivery, trial.plan, missed * a_pace, len(asked) * a_pace)

    @property
    def lost(self) -> Rate:
        """What was lost, in silence or with a word."""
        return self.trial.verdict.drop


def predicted_loss(delivery: Delivery, plan: TrialPlan, away_seconds: float, emission_seconds: float) -> float:
    """The share of events lost by a user who is away for `w` of the `T` seconds in which agents emit evenly.

    At most once: what is emitted while the user is offline, `w / T`. With a log that holds `h` events of a thread:
    nothing while no more than `h` are emitted meanwhile, and else all of these.
    """
    missed = away_seconds / plan.pace_seconds * EVENTS_A_STEP
    if delivery.resumes and missed <= delivery.keep_events:
        return 0.0
    return away_seconds / emission_seconds


@dataclass(frozen=True)
class WindowStudy:
    """A row of windows for each way to deliver."""

    windows: Sequence[Window]

    def of(self, delivery: Delivery) -> list[Window]:
        """Those of one way to deliver, shortest first."""
        return [window for window in self.windows if window.trial.delivery.name == delivery.name]

    def predicted(self, delivery: Delivery, away_seconds: float) -> float:
        """The share lost by a user who is away for so long, by the closed form."""
        windows = self.of(delivery)
        emitting = sum(window.emission_seconds for window in windows) / len(windows)
        return predicted_loss(delivery, windows[0].trial.plan, away_seconds, emitting)

    @property
    def deliveries(self) -> list[Delivery]:
        return list(dict.fromkeys(window.trial.delivery for window in self.windows))

    def table(self) -> pd.DataFrame:
        """One row a window.

        Columns: delivery, away (s), predicted lost (%), lost (k of n), lost (%), from, to, in silence, with a word.
        """
        return pd.DataFrame([_row(window) for window in self.windows])

    def figure(self, title: str) -> Figure:
        """Measured and predicted loss, by how long users were away."""
        looks = ((VERMILLION, "D"), (GREEN, "o"), (BLUE, "s"))
        with new_figure(title, 8.0, 4.2) as figure:
            axis = figure.subplots()
            for delivery, (colour, marker) in zip(self.deliveries, looks, strict=False):
                windows = self.of(delivery)
                away = [window.away_seconds for window in windows]
                grid = [max(away) * step / 400 for step in range(401)]
                predicted = [100 * self.predicted(delivery, seconds) for seconds in grid]
                axis.plot(grid, predicted, color=colour, linestyle="--", linewidth=1)
                shares, bars = percents([window.lost for window in windows])
                axis.errorbar(
                    away, shares, yerr=bars, fmt=marker, color=colour, ecolor=TEXT_COLOUR, capsize=3, markersize=7,
                    elinewidth=0.8, label=delivery.name,
                )  # fmt: skip
            axis.plot([], [], color=TEXT_COLOUR, linestyle="--", linewidth=1, label="closed form")
            axis.set_xlabel("users away, s")
            axis.set_ylabel("lost, % of the events (95 % Wilson interval)")
            axis.set_ylim(-3, None)
            axis.legend(frameon=False, loc="upper left")
            return figure

    def words(self) -> str:
        """The same in a sentence a window, for those who cannot see the figure."""
        return "; ".join(
            f"{window.trial.delivery.name}, away {window.away_seconds:.2f} s: {window.lost} lost,"
            f" {window.predicted:.0%} predicted"
            for window in self.windows
        )


def _row(window: Window) -> dict[str, object]:
    low, high = window.lost.interval
    return {
        "delivery": window.trial.delivery.name,
        "away s": round(window.away_seconds, 3),
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
    """Take the users' connection away for each of these lengths, at most once and with a log of that many events.

    All lengths of one way to deliver run side by side on one worker, each with `users` threads of its own.
    """
    plan = plan or TrialPlan(steps=24)
    small = replace(RESUME, name=f"resume, {keep_events} events kept", keep_events=keep_events)
    found: list[Window] = []
    with unwrap_single_error(), anyio.fail_after(WINDOWS_SECONDS + 10 * plan.seconds):
        for delivery in (AT_MOST_ONCE, small):
            found += await _windows(delivery, lengths, users, seed, plan)
    return WindowStudy(found)


async def _windows(
    delivery: Delivery, lengths: Sequence[float], users: int, seed: int, plan: TrialPlan
) -> list[Window]:
    threads = thread_ids("thread_<16 hex>", users * len(lengths), seed=seed)
    trials: dict[float, Trial] = {}

    async def one(seconds: float, owned: Sequence[OwnedThread]) -> None:
        lasting = replace(plan, lasts_seconds=seconds)
        act = ACTS["down"] if seconds else ACTS["none"]
        trials[seconds] = await try_act(act, deployment, owned, plan=lasting, seed=seed, name=f"away {seconds:g}")

    async with deployed(delivery, threads) as deployment, anyio.create_task_group() as tasks:
        for number, seconds in enumerate(lengths):
            tasks.start_soon(one, seconds, threads[number * users : (number + 1) * users])
    return [Window(trials[seconds]) for seconds in lengths]
