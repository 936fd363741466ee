"""Draw traces side by side: one row per link, one column per chain, and a mark where the event ended.

Borders, marks and words repeat the information that the colours carry. The text is large, so that the figure can be
read on a narrow screen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.textpath import text_to_path

from bridgekit_verify.measure.plots import STYLE, TEXT_COLOUR, printable
from bridgekit_verify.measure.trace_steps import LINK_NAMES, NOT_REACHED, REACHED, SOCKET, LinkStep
from bridgekit_verify.measure.tracing import Trace
from bridgekit_verify.measure.wording import capitalized

__all__ = ["trace_alt_text", "trace_figure"]

# Sizes in inches.
COLUMN: Final = 2.95
ONE_COLUMN: Final = 4.6
LABEL: Final = 0.66
MARGIN, GAP, PADDING = 0.1, 0.13, 0.06
LINE: Final = 0.158
HEADER: Final = 0.23
ARROW: Final = 0.13
# Sizes in points.
FONT: Final = 9.0
LABEL_FONT: Final = 8.0
TITLE_FONT: Final = 11.5

HINTING: Final = 0.97
"""Share of the width that text may fill. Glyphs are aligned to pixels, so drawn text is wider than measured text."""
ENDED_BORDER_POINTS: Final = 2.4

GREY: Final = "#666666"
FAINT: Final = "#F5F6F8"
ENDED: Final = "#9C3000"
CAUGHT: Final = "#6B4A00"
DELIVERED: Final = "#005F43"

_BREAK: Final = re.compile(r"(?<=[._(/…-])(?=.)")


@dataclass(frozen=True, slots=True)
class _Line:
    label: str
    text: str
    colour: str = TEXT_COLOUR
    bold: bool = False


@dataclass(frozen=True, slots=True)
class _Box:
    """The colours and the border of a drawn step."""

    face: str
    edge: str
    width: float
    dashed: bool = False


_BOXES: Final = {
    "passed": _Box(FAINT, "#A9B1BA", 0.8),
    "not reached": _Box("white", "#A9B1BA", 0.8, dashed=True),
    "caught": _Box("#FFF7E0", CAUGHT, 1.2),
    "ended": _Box("#FBE6DC", ENDED, ENDED_BORDER_POINTS),
    "delivered": _Box("#E3F2EC", DELIVERED, ENDED_BORDER_POINTS),
}


def trace_alt_text(traces: Sequence[Trace], request: str | Sequence[str], event: str, step: int = 1) -> str:
    """Return the text equivalent of the figure: for each trace, the sentences of `Trace.sentence`."""
    return " ".join(
        trace.sentence(each, event, step) for trace, each in zip(traces, _requests(traces, request), strict=True)
    )


def trace_figure(
    traces: Sequence[Trace], request: str | Sequence[str], event: str, step: int = 1, *, title: str = ""
) -> Figure:
    """Draw the path of one event through each traced chain, side by side.

    `request` is the request of a run: one for all traces, or a sequence with one for each trace. The default title
    states where the event ended in each chain.
    """
    requests = _requests(traces, request)
    columns = [
        _Column(trace, each, event, step, COLUMN if len(traces) > 1 else ONE_COLUMN)
        for trace, each in zip(traces, requests, strict=True)
    ]
    title = title or f"{event} " + " and ".join(f"{column.outcome} ({column.trace.name})" for column in columns)
    # Do not parse mathematical text, because a thread id may contain dollar signs.
    with mpl.rc_context({**STYLE, "text.parse_math": False}):
        return _drawn(columns, printable(title))


def _requests(traces: Sequence[Trace], request: str | Sequence[str]) -> list[str]:
    if not traces:
        raise ValueError("a figure needs at least one trace")
    return [request] * len(traces) if isinstance(request, str) else list(request)


class _Column:
    """One traced chain: for each link, the lines and the style of its box."""

    def __init__(self, trace: Trace, request: str, event: str, step: int, width: float) -> None:
        self.trace, self.width = trace, width
        self.steps = {each.link: each for each in trace.path(request, event, step)}
        self.ended = trace.ended_at(request, event, step)
        self.cause = trace.cause(request, event, step)
        self.readers = trace.read_by(request, event, step)
        several = len(trace.requests) > 1
        self.heading = capitalized(trace.name) + (f", {request}" if several else "")
        self.lines = {link: list(self._lines(each)) for link, each in self.steps.items()}

    @property
    def outcome(self) -> str:
        if self.ended is None:
            return "reaches its user"
        return f"reaches {', '.join(self.readers)} instead" if self.readers else f"ends at link {self.ended}"

    def style(self, link: int) -> str:
        """Return the style of the link's box, a key of `_BOXES`."""
        step = self.steps[link]
        if self.ends_in(link):
            return "ended"
        if step.state != REACHED:
            return "not reached"
        if link == SOCKET:
            return "delivered"
        is_cause = self.cause is not None and self.cause.link == link
        return "caught" if step.caught or is_cause else "passed"

    def ends_in(self, link: int) -> bool:
        """Return whether the event ended in this box: at its last link, or at the socket of another user."""
        return self.ended is not None and link == (SOCKET if self.readers else self.ended)

    def _lines(self, step: LinkStep) -> Iterator[_Line]:
        style = self.style(step.link)
        strong = {"ended": ENDED, "caught": CAUGHT, "delivered": DELIVERED}.get(style, TEXT_COLOUR)
        if step.state != REACHED:
            yield from self._wrapped("", step.state, GREY)
        yield from self._wrapped("received", step.received, TEXT_COLOUR)
        if step.state == REACHED and step.link != SOCKET:
            yield from self._wrapped("passed on", step.passed_on or "nothing", TEXT_COLOUR, bold=True)
        yield from self._wrapped("caught", step.caught, strong, bold=True)
        yield from self._wrapped("logged", _without_repetition(step), strong)
        yield from self._wrapped("returned", step.returned, TEXT_COLOUR)
        says_so = step.caught and self.ends_in(step.link)
        if self.cause is not None and self.cause.link == step.link and not says_so:
            yield from self._wrapped("wrong", self.cause.reason, strong, bold=True)
        if step.link == SOCKET:
            yield from self._wrapped("wrong", step.problem, strong, bold=True)
        elif self.ends_in(step.link):
            yield from self._wrapped("", "The event ends here.", strong, bold=True)

    def _wrapped(self, label: str, text: str, colour: str, *, bold: bool = False) -> Iterator[_Line]:
        room = 72 * (self.width - LABEL - 2 * PADDING)
        for number, part in enumerate(_wrap(printable(text), room, bold=bold)):
            yield _Line("" if number else label, part, colour, bold)


def _without_repetition(step: LinkStep) -> str:
    """Return the step's log lines, with "…" in place of the message of a caught exception."""
    logged = step.logged
    for caught in step.caught.split("; "):
        message = caught.partition(": ")[2]
        if message:
            logged = logged.replace(message, "…")
    return logged


def _wrap(text: str, room: float, size: float = FONT, *, bold: bool = False) -> list[str]:
    """Return lines that fit into `room` points. Long names are broken after punctuation, or anywhere if necessary."""
    room *= HINTING
    font = _font(size, bold=bold)
    lines = [""]
    for word in text.split():
        parts = [word] if _width(word, font) <= room else _BREAK.split(word)
        for number, part in enumerate(parts):
            space = " " if number == 0 and lines[-1] else ""
            if lines[-1] and _width(lines[-1] + space + part, font) > room:
                lines.append("")
                space = ""
            while _width(part, font) > room:
                fitting = next(n for n in range(len(part), 0, -1) if n == 1 or _width(part[:n], font) <= room)
                lines[-1:] = [part[:fitting], ""]
                part = part[fitting:]
            lines[-1] += space + part
    return [line for line in lines if line]


@cache
def _font(size: float, *, bold: bool) -> FontProperties:
    return FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")


@lru_cache(maxsize=4096)
def _width(text: str, font: FontProperties) -> float:
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) if text else 0.0


def _drawn(columns: Sequence[_Column], title: str) -> Figure:
    width = MARGIN + sum(column.width + GAP for column in columns) - GAP + MARGIN
    heading = _wrap(title, 72 * (width - 2 * MARGIN), TITLE_FONT, bold=True)
    heights = {link: max(len(column.lines[link]) for column in columns) * LINE + 2 * PADDING for link in LINK_NAMES}
    top = MARGIN + len(heading) * 0.2 + 0.32
    height = top + sum(heights.values()) + len(LINK_NAMES) * (HEADER + ARROW) + MARGIN - ARROW
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.axis("off")
    for number, line in enumerate(heading):
        axis.text(MARGIN, MARGIN + 0.1 + number * 0.2, line, fontsize=TITLE_FONT, fontweight="bold", va="center")
    lefts = [MARGIN + sum(column.width + GAP for column in columns[:number]) for number in range(len(columns))]
    for left, column in zip(lefts, columns, strict=True):
        axis.text(left, top - 0.14, column.heading, fontsize=TITLE_FONT - 1.5, fontweight="bold", va="center")
    for link, name in LINK_NAMES.items():
        _draw_header(axis, link, name, top + HEADER / 2)
        top += HEADER
        for left, column in zip(lefts, columns, strict=True):
            _draw_box(axis, column, link, left, top, heights[link])
        top += heights[link] + ARROW
    return figure


def _draw_header(axis: Axes, link: int, name: str, middle: float) -> None:
    if link != SOCKET:
        axis.add_patch(Circle((MARGIN + 0.09, middle), 0.088, facecolor=TEXT_COLOUR, edgecolor="none"))
        number: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": "white", "fontweight": "bold"}
        axis.text(MARGIN + 0.09, middle, str(link), fontsize=7.5, **number)
    axis.text(MARGIN + (0 if link == SOCKET else 0.24), middle, name, fontsize=FONT, fontweight="bold", va="center")


def _draw_box(axis: Axes, column: _Column, link: int, left: float, top: float, height: float) -> None:
    style = _BOXES[column.style(link)]
    box = FancyBboxPatch(
        (left, top),
        column.width,
        height,
        boxstyle="round,pad=0,rounding_size=0.05",
        facecolor=style.face,
        edgecolor=style.edge,
        linewidth=style.width,
        linestyle=(0, (3, 3)) if style.dashed else "-",
    )
    axis.add_patch(box)
    for number, line in enumerate(column.lines[link]):
        y = top + PADDING + (number + 0.5) * LINE
        axis.text(left + PADDING, y, line.label, fontsize=LABEL_FONT, color=GREY, va="center")
        weight = "bold" if line.bold else "normal"
        axis.text(
            left + PADDING + LABEL, y, line.text, fontsize=FONT, color=line.colour, fontweight=weight, va="center"
        )
    if link == SOCKET:
        return
    x, bottom = left + column.width - 0.25, top + height
    if column.ends_in(link):
        axis.plot([x], [bottom], marker="X", color=ENDED, markersize=11, markeredgecolor="white", zorder=5)
    elif column.steps[link].state != NOT_REACHED:
        arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 8, "color": GREY, "shrinkA": 0, "shrinkB": 0}
        axis.add_patch(FancyArrowPatch((x, bottom), (x, bottom + ARROW + 0.08), **arrow))
