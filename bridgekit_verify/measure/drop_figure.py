"""Draw drop rates: one bar per chain, or one small bar per kind of thread id where the kinds differ.

Lost events are dark, leaked events hatched and delivered events pale, so that the figure is readable in greyscale.
Lengths are in inches, and vertical positions are measured down from the top. The figure is readable on a screen 400
pixels wide.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bridgekit_verify.measure.drops import DropCount, have_equal_shares
from bridgekit_verify.measure.plots import STYLE, TEXT_COLOUR, lines_of, printable
from bridgekit_verify.measure.statistics import percent

__all__ = ["DELIVERED", "DROPPED", "LEAKED", "DropPanel", "drop_alt_text", "drop_figure"]

DROPPED: Final = "#34404B"
LEAKED: Final = "#D2691E"
DELIVERED: Final = "#DCE5EB"
LEAKED_TEXT: Final = "#9A3B00"
FAINT: Final = "#5F6B76"
PARTS: Final[Mapping[str, dict[str, Any]]] = {
    "lost: no user read it": {"facecolor": DROPPED},
    "leaked: another user read it": {"facecolor": LEAKED, "hatch": "/////", "edgecolor": "white"},
    "delivered": {"facecolor": DELIVERED},
}

# All lengths are in inches.
WIDTH: Final = 5.4
LEFT: Final = 0.05
BARS: Final = 1.72
"""The left edge of the bars, just after the end of the labels."""
BARS_WIDTH: Final = 2.72
COUNTS: Final = BARS + BARS_WIDTH + 0.09
BAR: Final = 0.2
ROW: Final = 0.3
SMALL_BAR: Final = 0.178
SMALL_BAR_HEIGHT: Final = 0.3
SMALL_ROW: Final = 0.44
GROUP_COUNT: Final = 0.56
"""The width of the text beside a group of small bars."""
TITLE_CHARACTERS: Final = 52
LEGEND_CHARACTERS: Final = 78
_BEFORE_NUMBER: Final = re.compile(r"(?<=\blink) (?=\d)|(?<=\bFix) (?=\d)")
"""The space in "link 9" or "Fix 1", at which no line of a title may end."""
LABEL_CHARACTERS: Final = 21


@dataclass(frozen=True)
class DropPanel:
    """A group of chains under one heading, with one row for each chain."""

    heading: str
    rows: Mapping[str, Mapping[str, DropCount]]
    """The counts by row label, then by kind of thread id. All rows have the same kinds."""
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Groups of kinds of thread id, drawn with space between them. Groups are required unless each row has one bar."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """The note below a bar, by row label."""

    @property
    def has_one_bar_per_row(self) -> bool:
        """Whether all kinds of each row have the same shares, so that one bar can represent them."""
        return all(have_equal_shares(counts.values()) for counts in self.rows.values())


def drop_figure(panels: Sequence[DropPanel], *, title: str) -> Figure:
    """Draw the panels one below another."""
    with mpl.rc_context({**STYLE, "hatch.linewidth": 1.1, "hatch.color": "white", "text.parse_math": False}):
        figure = Figure(figsize=(WIDTH, 1.0))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        y = _title(axis, title, 0.14)
        for panel in panels:
            y = _panel(axis, panel, y)
        y = _legend(
            axis, y + 0.1, leaked=any(c.leaked for p in panels for row in p.rows.values() for c in row.values())
        )
        axis.set_xlim(0, WIDTH)
        axis.set_ylim(y, 0)
        figure.set_size_inches(WIDTH, y)
        return figure


def drop_alt_text(panels: Sequence[DropPanel]) -> str:
    """Return the text equivalent of the figure: each panel's heading and unit, each row's label, counts and note."""
    return " ".join(f"{_described(panel)}: {_rows(panel)}." for panel in panels)


def _described(panel: DropPanel) -> str:
    counted = _counted(panel)
    return f"{panel.heading}. {counted}" if panel.heading else counted


def _rows(panel: DropPanel) -> str:
    return "; ".join(
        f"{label}: {_numbers(panel, counts)}" + (f" ({panel.notes[label]})" if label in panel.notes else "")
        for label, counts in panel.rows.items()
    )


def _numbers(panel: DropPanel, counts: Mapping[str, DropCount]) -> str:
    if panel.has_one_bar_per_row:
        return ", ".join(filter(None, _bar_texts(counts)))
    return ", ".join(f"{group} {_affected(counts, kinds)}" for group, kinds in panel.groups.items())


def _text(axis: Axes, x: float, y: float, text: str, *, size: float = 9.5, **style: Any) -> None:
    axis.text(x, y, printable(text), fontsize=size, va="center", **{"color": TEXT_COLOUR, **style})


def _title(axis: Axes, title: str, y: float) -> float:
    title = _BEFORE_NUMBER.sub("\N{NO-BREAK SPACE}", title)
    for line in (line for part in title.splitlines() for line in lines_of(part, TITLE_CHARACTERS)):
        _text(axis, LEFT, y, line, size=11.5, fontweight="bold")
        y += 0.22
    return y + 0.06


def _panel(axis: Axes, panel: DropPanel, y: float) -> float:
    one_bar = panel.has_one_bar_per_row
    if panel.heading:
        _text(axis, LEFT, y + 0.06, panel.heading, size=10, fontweight="bold")
        y += 0.24
    _text(axis, LEFT, y + 0.02, _unit(panel), size=8.5, color=FAINT)
    y += 0.16
    if not one_bar:
        y = _group_headings(axis, panel.groups, y)
    for label, counts in panel.rows.items():
        note = panel.notes.get(label, "")
        y = (_row if one_bar else _small_bars)(axis, panel, label, counts, y)
        if note:
            _text(axis, BARS, y + 0.05, note, size=8.5, color=FAINT)
            y += 0.2
    return (y if one_bar else _key_to_kinds(axis, panel, y)) + 0.12


def _label(axis: Axes, y: float, label: str) -> None:
    _text(axis, BARS - 0.1, y, "\n".join(lines_of(label, LABEL_CHARACTERS)), ha="right", linespacing=1.0)


def _row(axis: Axes, panel: DropPanel, label: str, counts: Mapping[str, DropCount], y: float) -> float:
    """Draw one horizontal bar that represents all kinds of thread id."""
    height = max(ROW, 0.18 * len(lines_of(label, LABEL_CHARACTERS)))
    y += height / 2
    _label(axis, y, label)
    _draw_parts(axis, next(iter(counts.values())), BARS, y - BAR / 2, BARS_WIDTH, BAR, horizontal=True)
    dropped, leaked = _bar_texts(counts)
    _text(axis, COUNTS, y - (0.06 if leaked else 0.0), dropped, fontweight="bold")
    _text(axis, COUNTS, y + 0.08, leaked, size=8.5, color=LEAKED_TEXT)
    return y + height / 2


def _bar_texts(counts: Mapping[str, DropCount]) -> tuple[str, str]:
    """Return the texts for dropped and leaked events: counts, or percentages if kinds have different numbers of events.

    The second text is empty if no event leaked.
    """
    count = next(iter(counts.values()))
    if count.shares is None:
        return "unknown", ""
    if len({each.expected for each in counts.values()}) == 1:
        dropped, leaked = f"{count.dropped:,} of {count.expected:,}", f"{count.leaked:,} leaked"
    else:
        dropped, leaked = (f"{percent(float(share))} %" for share in count.shares[1:])
        leaked += " leaked"
    return dropped, leaked if count.leaked else ""


def _affected(counts: Mapping[str, DropCount], kinds: Sequence[str]) -> str:
    return f"{sum(not counts[kind].complete for kind in kinds)} of {len(kinds)}"


def _unit(panel: DropPanel) -> str:
    """Return the line of text above the bars, which explains the counts beside the bars."""
    counted = _counted(panel)
    return counted if panel.has_one_bar_per_row else f"Each bar: one kind of thread id. Numbers: {counted.lower()}"


def _counted(panel: DropPanel) -> str:
    if not panel.has_one_bar_per_row:
        return "Kinds that lose or leak events"
    kinds = len(next(iter(panel.rows.values())))
    return "Events dropped" + (f", the same for each of {kinds} kinds of thread id" if kinds > 1 else "")


def _group_headings(axis: Axes, groups: Mapping[str, Sequence[str]], y: float) -> float:
    x = BARS
    for group, kinds in groups.items():
        _text(axis, x, y + 0.04, group, size=8.5, color=FAINT)
        x += SMALL_BAR * len(kinds) + GROUP_COUNT
    return y + 0.12


def _small_bars(axis: Axes, panel: DropPanel, label: str, counts: Mapping[str, DropCount], y: float) -> float:
    """Draw one vertical bar per kind, and write for each group how many kinds lose or leak events."""
    y += SMALL_ROW / 2
    _label(axis, y, label)
    x = BARS
    for kinds in panel.groups.values():
        for kind in kinds:
            _draw_parts(axis, counts[kind], x, y - SMALL_BAR_HEIGHT / 2, SMALL_BAR - 0.03, SMALL_BAR_HEIGHT)
            x += SMALL_BAR
        _text(axis, x + 0.03, y, _affected(counts, kinds), size=9, fontweight="bold")
        x += GROUP_COUNT
    return y + SMALL_ROW / 2


def _key_to_kinds(axis: Axes, panel: DropPanel, y: float) -> float:
    """Draw a letter below each column, and a legend that explains the letters."""
    letters, x = iter(ascii_lowercase), BARS
    entries = []
    for group, kinds in panel.groups.items():
        named = []
        for kind in kinds:
            letter = next(letters)
            _text(axis, x + (SMALL_BAR - 0.03) / 2, y + 0.03, letter, size=8.5, ha="center", color=FAINT)
            named.append(f"{letter} {kind}".replace(" ", "\N{NO-BREAK SPACE}"))
            x += SMALL_BAR
        x += GROUP_COUNT
        entries.append(f"{group}: {', '.join(named)}")
    y += 0.22
    for line in (line for entry in entries for line in textwrap.wrap(entry, LEGEND_CHARACTERS)):
        _text(axis, LEFT, y, line, size=8.5, color=FAINT)
        y += 0.16
    return y


def _draw_parts(
    axis: Axes, count: DropCount, x: float, y: float, width: float, height: float, *, horizontal: bool = False
) -> None:
    """Draw one bar from the left or from the bottom: lost events first, then leaked, then delivered events."""
    if not count.expected:
        axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=FAINT, linewidth=0.8))
        return
    sizes = (count.lost, count.dropped_and_leaked, count.delivered)
    done = 0.0
    for size, style in zip(sizes, PARTS.values(), strict=True):
        share = size / count.expected
        if horizontal:
            at, extent = (x + done * width, y), (share * width, height)
        else:
            at, extent = (x, y + (1 - done - share) * height), (width, share * height)
        if size:
            axis.add_patch(Rectangle(at, *extent, linewidth=0, **style))
        done += share


def _legend(axis: Axes, y: float, *, leaked: bool) -> float:
    x = LEFT
    for label, style in PARTS.items():
        if "hatch" in style and not leaked:
            continue
        axis.add_patch(Rectangle((x, y - 0.07), 0.24, 0.14, linewidth=0, **style))
        _text(axis, x + 0.3, y, label, size=9)
        x += 0.46 + 0.068 * len(label)
    return y + 0.16
