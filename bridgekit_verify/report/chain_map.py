"""Draws the map of notebook 00: the ten links in order, and what each link passes on."""

from __future__ import annotations

from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from bridgekit_verify.links import LINKS
from bridgekit_verify.measure.plots import STYLE, TEXT_COLOUR

__all__ = ["chain_map", "chain_map_text"]

HUB_AND_SOCKETS: Final = (10, "Hub and sockets", "the frame, to each socket of the thread", "not examined")
ROWS: Final = (*((link.number, link.name, link.output, link.reported) for link in LINKS), HUB_AND_SOCKETS)
WIDTH: Final = 6.1
HEIGHT: Final = 0.56
GAP: Final = 0.16
TOP: Final = 0.62


def chain_map_text() -> str:
    """Return the map as text: the number, name, output and audited status of each link."""
    return " ".join(
        f"Link {number} ({name}) passes on {output}; status in the audit: {reported}."
        for number, name, output, reported in ROWS
    )


def chain_map(title: str = "The ten links on an event's path, with their status in the audit") -> Figure:
    """Draw one box per link, from startup to the user's socket."""
    height = TOP + (len(ROWS) + 1) * (HEIGHT + GAP)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_xlim(0, WIDTH)
        axis.set_ylim(height, 0)
        axis.axis("off")
        axis.text(0.1, 0.22, title, fontsize=11.5, fontweight="bold", va="center")
        axis.text(WIDTH - 0.12, TOP - 0.12, "status in the audit", fontsize=8, color="#666666", ha="right", va="center")
        for index, (number, name, output, reported) in enumerate(ROWS):
            top = TOP + index * (HEIGHT + GAP)
            middle, broken = top + HEIGHT / 2, reported == "broken"
            box: dict[str, Any] = {"facecolor": "#FBE6DC", "edgecolor": "#9C3000", "linewidth": 2.4}
            if not broken:
                box = {"facecolor": "#F5F6F8", "edgecolor": "#A9B1BA", "linewidth": 0.8}
            axis.add_patch(
                FancyBboxPatch((0.1, top), WIDTH - 0.2, HEIGHT, boxstyle="round,pad=0,rounding_size=0.05", **box)
            )
            axis.add_patch(Circle((0.36, middle), 0.13, facecolor=TEXT_COLOUR, edgecolor="none"))
            axis.text(0.36, middle, str(number), color="white", fontsize=9, fontweight="bold", ha="center", va="center")
            axis.text(0.62, middle - 0.11, name, fontsize=9.5, fontweight="bold", va="center")
            axis.text(0.62, middle + 0.13, f"passes on {output}", fontsize=8.5, va="center")
            weight = "bold" if broken else "normal"
            axis.text(WIDTH - 0.22, middle, reported, fontsize=9, fontweight=weight, ha="right", va="center")
            x, bottom = WIDTH / 2, top + HEIGHT
            axis.add_patch(FancyArrowPatch((x, bottom), (x, bottom + GAP), arrowstyle="-|>", mutation_scale=8))
        axis.text(WIDTH / 2, height - 0.4, "the user's socket", fontsize=9.5, fontweight="bold", ha="center")
        return figure
