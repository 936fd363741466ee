"""The figure of localization: which link was broken, and which one was named."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bridgekit_verify.measure.plots import GREEN, INK, STYLE, VERMILLION

__all__ = ["Cell", "localization_figure"]

EMPTY: Final = "#F2F2F2"
LINE_CHARACTERS: Final = 108


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix: on the diagonal the counts, beside it a letter."""

    tried: int = 0
    """How many ways the link was broken in."""
    named: int = 0
    """In how many of them it was named, by the probes or by the ledger."""
    by_probes: int = 0
    by_ledger: int = 0
    note: str = ""
    """The letter of an explanation."""

    def __str__(self) -> str:
        return self.note or "\n".join([f"{self.named} of {self.tried}", *self.fewer])

    @property
    def fewer(self) -> list[str]:
        """Who of the two named it less often than both together."""
        counts = (("probes", self.by_probes), ("ledger", self.by_ledger))
        return [f"{who} {count}" for who, count in counts if count < self.named]


def localization_figure(
    cells: Mapping[tuple[int, int], Cell], names: Mapping[int, str], notes: Mapping[str, str], *, title: str
) -> Figure:
    """Broken links down, named links across. `cells` by (broken, named), `names` by number, `notes` by letter."""
    lines = [line for letter, text in notes.items() for line in _wrapped(f"{letter}:  {text}")]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.2, 6.9 + 0.19 * len(lines)), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13.5, fontweight="bold")
        axis = figure.subplots()
        for row, broken in enumerate(names):
            for column, named in enumerate(names):
                _draw(axis, row, column, cells.get((broken, named)), on_diagonal=broken == named)
        axis.set_xlim(0, len(names))
        axis.set_ylim(len(names), 0)
        axis.set_xticks([column + 0.5 for column in range(len(names))], [str(number) for number in names], fontsize=12)
        axis.set_yticks(
            [row + 0.5 for row in range(len(names))],
            [f"{name}  {number}" for number, name in names.items()],
            fontsize=11.5,
        )
        axis.xaxis.tick_top()
        axis.xaxis.set_label_position("top")
        axis.set_xlabel("named: by the probes or by the ledger", fontsize=11.5)
        axis.set_ylabel("broken: one link at a time", fontsize=11.5)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        figure.supxlabel(
            "\n".join(
                [
                    "Numbers: ways in which it was named, of ways in which it was broken; who named fewer, below.",
                    "Empty: never named.",
                    *lines,
                ]
            ),
            x=0.01,
            ha="left",
            fontsize=10.5,
        )
        return figure


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, LINE_CHARACTERS, subsequent_indent="     ")


def _draw(axis: Axes, row: int, column: int, cell: Cell | None, *, on_diagonal: bool) -> None:
    colour, ink, says = EMPTY, INK, "" if cell is None else str(cell)
    if cell is not None and on_diagonal:
        colour, ink = (GREEN if cell.named == cell.tried else VERMILLION), "white"
    # A border tells a note from an empty cell, also in grey.
    edge = {"edgecolor": INK, "linewidth": 1.8} if says and not on_diagonal else {"edgecolor": "none"}
    axis.add_patch(Rectangle((column + 0.04, row + 0.05), 0.92, 0.9, facecolor=colour, **edge))
    first, *rest = says.split("\n")
    middle: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "fontweight": "bold"}
    axis.text(column + 0.5, row + (0.36 if rest else 0.5), first, fontsize=11.5, **middle)
    axis.text(column + 0.5, row + 0.7, "\n".join(rest), fontsize=9, **middle)
