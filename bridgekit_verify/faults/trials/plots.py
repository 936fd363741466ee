"""The figures of the faults: what each cost, how late events came, and what being away longer costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import StrMethodFormatter

from bridgekit_verify.faults.trials.acts import Act
from bridgekit_verify.faults.trials.deployment import Delivery
from bridgekit_verify.faults.trials.trial import Trial
from bridgekit_verify.measure.plots import BLUE, GREEN, INK, LOST, SKY, STYLE, VERMILLION
from bridgekit_verify.measure.statistics import Rate

__all__ = ["latency_figure", "matrix_figure", "windows_figure"]


class Windows(Protocol):
    """What the figure of the windows needs of a study."""

    @property
    def deliveries(self) -> list[Delivery]: ...

    def of(self, delivery: Delivery) -> Sequence[Window]: ...

    def predicted(self, delivery: Delivery, away_seconds: float) -> float: ...


class Window(Protocol):
    """One point of it."""

    @property
    def away_seconds(self) -> float: ...

    @property
    def lost(self) -> Rate: ...


WORST: Final = (
    ("misrouted", VERMILLION, "white", "xx"),
    ("lost in silence", VERMILLION, "white", "\\\\"),
    ("lost, and told", SKY, INK, "//"),
    ("all delivered", GREEN, "white", ""),
)
"""What a cell is coloured by, worst first: name, colour, ink, hatch."""


def matrix_figure(
    acts: Sequence[Act],
    deliveries: Sequence[Delivery],
    cells: Mapping[tuple[str, str], Trial],
    *,
    title: str,
) -> Figure:
    """Faults down, ways to deliver across. A cell says how many of how many arrived, and is coloured by its worst."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.0 + 1.65 * len(deliveries), 1.7 + 0.42 * len(acts)), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axis = figure.subplots()
        for row, act in enumerate(acts):
            for column, delivery in enumerate(deliveries):
                _cell(axis, row, column, cells.get((act.name, delivery.name)))
        axis.set_xlim(0, len(deliveries))
        axis.set_ylim(len(acts), 0)
        axis.set_xticks([n + 0.5 for n in range(len(deliveries))], [each.name for each in deliveries])
        axis.set_yticks([n + 0.5 for n in range(len(acts))], [act.name for act in acts])
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        handles = [Patch(facecolor=colour, edgecolor=INK, hatch=hatch, label=name) for name, colour, _, hatch in WORST]
        figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=9.5)
        return figure


def _cell(axis: Axes, row: int, column: int, trial: Trial | None) -> None:
    if trial is None:
        axis.text(column + 0.5, row + 0.5, "–", ha="center", va="center", color="#777777")
        return
    verdict = trial.verdict
    costs = (verdict.misrouted, verdict.lost_silent, verdict.lost_signalled, 1)
    _, colour, ink, hatch = next(kind for kind, cost in zip(WORST, costs, strict=True) if cost)
    axis.add_patch(
        Rectangle((column + 0.03, row + 0.06), 0.94, 0.88, facecolor=colour, edgecolor=INK, linewidth=0.4, hatch=hatch)
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


def windows_figure(study: Windows, *, title: str) -> Figure:
    """Share lost by seconds away: a marker with its interval for what was measured, a line for the closed form."""
    looks = ((VERMILLION, "D"), (GREEN, "o"), (BLUE, "s"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 4.2), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axis = figure.subplots()
        for delivery, (colour, marker) in zip(study.deliveries, looks, strict=False):
            windows = study.of(delivery)
            away = [window.away_seconds for window in windows]
            grid = [max(away) * step / 400 for step in range(401)]
            predicted = [100 * study.predicted(delivery, seconds) for seconds in grid]
            axis.plot(grid, predicted, color=colour, linestyle="--", linewidth=1)
            shares = [100 * window.lost.fraction for window in windows]
            below = [share - 100 * window.lost.interval[0] for share, window in zip(shares, windows, strict=True)]
            above = [100 * window.lost.interval[1] - share for share, window in zip(shares, windows, strict=True)]
            axis.errorbar(
                away, shares, yerr=[below, above], fmt=marker, color=colour, ecolor=INK, capsize=3, markersize=7,
                elinewidth=0.8, label=delivery.name,
            )  # fmt: skip
        axis.plot([], [], color=INK, linestyle="--", linewidth=1, label="closed form")
        axis.set_xlabel("users away, s")
        axis.set_ylabel("lost, % of the events (95 % Wilson interval)")
        axis.set_ylim(-3, None)
        axis.legend(frameon=False, loc="upper left")
        return figure


def latency_figure(trials: Sequence[Trial], *, title: str) -> Figure:
    """One panel a trial: each event's latency by when it was emitted, and the window of the fault shaded.

    What was lost stands at the foot of its panel, as a cross.
    """
    with mpl.rc_context(STYLE):
        columns = 2 if len(trials) > 1 else 1
        rows = -(-len(trials) // columns)
        figure = Figure(figsize=(4.6 * columns, 0.9 + 2.1 * rows), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for unused in axes[len(trials) :]:
            unused.set_visible(False)
        for axis, trial in zip(axes[: len(trials)], trials, strict=True):
            _latencies(axis, trial)
        figure.supxlabel("emitted, s after the first event", fontsize=10)
        figure.supylabel("from emission to the user, ms", fontsize=10)
        return figure


def _latencies(axis: Axes, trial: Trial) -> None:
    begins = trial.spoken[0]
    axis.axvspan(trial.window[0] - begins, trial.window[1] - begins, color=LOST, linewidth=0, label="fault")
    points = [(arrival.emitted_at - begins, 1_000 * (arrival.read_at - arrival.emitted_at)) for arrival in trial.firsts]
    axis.scatter([x for x, _ in points], [y for _, y in points], s=9, color=BLUE, label="read")
    if lost := trial.lost_moments:
        # At the foot of the panel, whatever its scale.
        axis.scatter(
            [moment - begins for moment in lost],
            [0.06] * len(lost),
            s=24,
            marker="x",
            color=VERMILLION,
            label="lost",
            transform=axis.get_xaxis_transform(),
        )
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_ylim(0.3, 5_000)
    axis.set_title(f"{trial.act.name}, {trial.delivery.name}", fontsize=10.5)
    axis.legend(frameon=False, fontsize=8.5, loc="upper right")
