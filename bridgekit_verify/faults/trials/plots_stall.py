"""The figure of one socket that stops reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bridgekit_verify.faults.trials.peers import Peer
from bridgekit_verify.measure.plots import BLUE, LOST, STYLE

__all__ = ["stall_figure"]


class Shown(Protocol):
    """What the figure needs of a stall."""

    @property
    def peer(self) -> Peer: ...

    @property
    def lates(self) -> list[tuple[float, float]]: ...

    @property
    def window(self) -> tuple[float, float]: ...


def stall_figure(stalls: Sequence[Shown], *, title: str) -> Figure:
    """One panel a server: how late its neighbours read each event; the time in which one socket read nothing shaded."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 1.7 * len(stalls)), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axes = figure.subplots(len(stalls), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axis, stall in zip(axes, stalls, strict=True):
            axis.axvspan(*stall.window, color=LOST, linewidth=0, label="one socket reads nothing")
            axis.scatter(
                [due for due, _ in stall.lates],
                [1_000 * late for _, late in stall.lates],
                s=7,
                color=BLUE,
                label="read by a neighbour",
            )
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axis.set_ylim(0.3, 3_000)
            axis.set_title(stall.peer.name, fontsize=10.5)
        axes[0].legend(frameon=False, fontsize=8.5, loc="upper left")
        axes[-1].set_xlabel("event due, s after the first")
        figure.supylabel("neighbours read it later by, ms", fontsize=10)
        return figure
