"""Figures are drawn for measured values and skipped without data."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest

from benchmarks.__main__ import RESULTS
from benchmarks.figures import FIGURES, draw
from benchmarks.figures.speeds import throughput_figure
from benchmarks.measured_values import Series, SeriesKey
from benchmarks.results import machine, read, results
from bridgekit_verify.measure.plots import STYLE


def measured(native: float) -> Series:
    series = Series()
    for stack, kind, rate in (
        ("Starlette by hand", "burst", 40_000.0),
        ("Starlette by hand", "yielding", 40_000.0),
        ("bridgekit native", "burst", native),
        ("bridgekit native", "yielding", native / 2),
    ):
        series.add(SeriesKey("events/s", stack, kind), rate)
        series.add(SeriesKey("CPU µs/event", stack, kind), 1e6 / rate)
    return series


def test_only_figures_with_data_are_drawn(tmp_path: Path) -> None:
    found = results("quick", measured(80_000.0), [], missing={}, minutes=1.0, where=machine())
    assert [path.name for path in draw(found, tmp_path / "figures")] == ["throughput.png"]
    assert (tmp_path / "figures" / "throughput.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FIGURES)
def test_figure_without_data_is_none(name: str) -> None:
    assert FIGURES[name](Series()) is None


@pytest.mark.parametrize(("native", "expected"), [(80_000.0, ["2.0 times", "1.0 times"]), (20_000.0, ["50 %", "25 %"])])
def test_title_states_the_finding(native: float, expected: list[str]) -> None:
    figure = throughput_figure(measured(native))
    assert figure is not None
    title = figure.get_suptitle()
    assert all(words in title for words in expected)


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off_at_the_edge_of_a_figure(name: str) -> None:
    with mpl.rc_context(STYLE):
        figure = FIGURES[name](read(RESULTS).series)
        assert figure is not None
        figure.draw_without_rendering()
        drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height
