"""Draw the figures of a benchmark result. The title of each figure states its finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.figures.memory_and_growth import growth_figure, memory_figure
from benchmarks.figures.speeds import latency_figure, stall_figure, throughput_figure
from benchmarks.measured_values import Series
from benchmarks.results import Results
from bridgekit_verify.measure.plots import STYLE

__all__ = ["FIGURES", "draw"]

FIGURES: Final[Mapping[str, Callable[[Series], Figure | None]]] = {
    "throughput": throughput_figure,
    "latency": latency_figure,
    "growth": growth_figure,
    "memory": memory_figure,
    "stall": stall_figure,
}
DOTS_PER_INCH: Final = 110


def draw(found: Results, folder: Path) -> list[Path]:
    """Draw the figures as PNG files in the folder and return their paths. A figure without data is skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    series = found.series
    drawn = []
    for name, make in FIGURES.items():
        with mpl.rc_context(STYLE):
            figure = make(series)
            if figure is not None:
                drawn.append(folder / f"{name}.png")
                figure.savefig(drawn[-1], dpi=DOTS_PER_INCH, metadata={"Software": None})
    return drawn
