"""Draw figures. The title of each figure states one finding. Sampled rates have 95 % Wilson intervals.

The palette of Okabe and Ito remains distinguishable with any colour vision. Hatching and labels carry the same
information without colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from bridgekit_verify.measure.statistics import Rate

__all__ = [
    "draw_rates",
    "frame_grid",
    "lines_of",
    "new_figure",
    "percents",
    "printable",
]

GREEN: Final = "#009E73"
VERMILLION: Final = "#D55E00"
BLUE: Final = "#0072B2"
LOST: Final = "#D9D9D9"
TEXT_COLOUR: Final = "#222222"
TITLE_CHARACTERS_PER_INCH: Final = 10.0

STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "text.color": TEXT_COLOUR,
    "axes.labelcolor": TEXT_COLOUR,
    "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR,
    "hatch.linewidth": 0.6,
    "font.family": "DejaVu Sans",
}


@contextmanager
def new_figure(title: str, width: float, height: float) -> Iterator[Figure]:
    """Context manager: yields a figure of this size in inches, and applies the suite's style in the `with` block.

    A figure that is at most 6.5 inches wide is readable on a screen of 400 pixels. A long title is wrapped.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        lines = lines_of(title, round(TITLE_CHARACTERS_PER_INCH * width))
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=12, fontweight="bold")
        yield figure


def lines_of(text: str, limit: int) -> list[str]:
    """Return the lines of a text, or the text in as few lines as possible if a line has more than `limit` characters.

    The new lines have about the same length.
    """
    own = text.splitlines()
    if all(len(line) <= limit for line in own):
        return own
    text = " ".join(own)
    count = len(textwrap.wrap(text, limit))
    widths = range(len(text) // count, limit + 1)
    return next(even for width in widths if len(even := textwrap.wrap(text, width)) == count)


def printable(text: str) -> str:
    """Return the text. Each character that the font lacks is replaced by its escape, such as \\u6771.

    Without the escape, matplotlib would draw a box and print a warning.
    """
    known = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(
        each if ord(each) in known or each == "\n" else each.encode("ascii", "backslashreplace").decode()
        for each in text
    )


def percents(rates: Sequence[Rate]) -> tuple[list[float], list[list[float]]]:
    """Return rates in percent, and the distances to the ends of their intervals, as `errorbar` expects."""
    values = [100 * rate.fraction for rate in rates]
    below = [value - 100 * rate.interval[0] for value, rate in zip(values, rates, strict=True)]
    above = [100 * rate.interval[1] - value for value, rate in zip(values, rates, strict=True)]
    return values, [below, above]


def draw_rates(
    axis: Axes,
    xs: Sequence[float],
    rates: Sequence[Rate],
    colour: str,
    marker: str,
    size: float,
    *,
    sampled: bool = False,
) -> None:
    """Draw each known rate in percent as a marker, with its interval if `sampled`. Unknown rates are left out."""
    known = [(x, rate) for x, rate in zip(xs, rates, strict=True) if rate.known]
    at, (values, bars) = [x for x, _ in known], percents([rate for _, rate in known])
    if sampled:
        axis.errorbar(at, values, yerr=bars, fmt="none", ecolor=TEXT_COLOUR, elinewidth=1.3, capsize=3, zorder=4)
    axis.plot(at, values, marker=marker, color=colour, markersize=size, linestyle="", clip_on=False, zorder=3)


def frame_grid(axis: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Label the rows and columns of a grid whose cells have size 1, and draw no ticks. The first row is at the top."""
    axis.set_xlim(0, len(columns))
    axis.set_ylim(len(rows), 0)
    axis.set_xticks([column + 0.5 for column in range(len(columns))], columns)
    # Names are not parsed: a reader's own name may contain `$`, which matplotlib would interpret as a formula.
    axis.set_yticks([row + 0.5 for row in range(len(rows))], rows, parse_math=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
