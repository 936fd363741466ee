"""The figure of a trace: every text fits its box, the end of the event is marked, and the alt text is the sentences."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from bridgekit_verify.measure.trace_figure import ENDED_BORDER_POINTS, trace_alt_text, trace_figure
from bridgekit_verify.measure.trace_steps import LINK_NAMES
from bridgekit_verify.measure.tracing import Trace, trace_run
from bridgekit_verify.variants import AS_COMMITTED, BROKEN, SOUND

QUESTION, THOUGHT = "question 1", "agent_thinking"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def pair() -> list[Trace]:
    return [await trace_run(AS_COMMITTED), await trace_run(SOUND)]


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.axes[0].texts if text.get_text()]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts(figure)]


def boxes(figure: Figure) -> list[FancyBboxPatch]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


async def test_figure_states_where_the_event_ended_in_each_chain(pair: Sequence[Trace]) -> None:
    drawn = words(trace_figure(pair, QUESTION, THOUGHT))
    title = " ".join(drawn[: drawn.index("As committed")])
    assert title == "agent_thinking ends at link 8 (as committed) and reaches its user (sound)"
    assert drawn.count("The event ends here.") == 1
    assert {*LINK_NAMES.values(), "As committed", "Sound"} <= {*drawn}
    assert {"received", "passed on", "caught", "logged", "returned", "not reached"} <= {*drawn}


async def test_alt_text_is_the_sentence_of_each_trace(pair: Sequence[Trace]) -> None:
    assert trace_alt_text(pair, QUESTION, THOUGHT) == " ".join(trace.sentence(QUESTION, THOUGHT) for trace in pair)


async def test_end_is_marked_without_colour(pair: Sequence[Trace]) -> None:
    """A heavy border and a cross for the end, a heavy border for the user's socket, dashes for links not reached."""
    figure = trace_figure(pair, QUESTION, THOUGHT)
    widths = [box.get_linewidth() for box in boxes(figure)]
    assert widths.count(ENDED_BORDER_POINTS) == 2
    assert [line.get_marker() for line in figure.axes[0].lines] == ["X"]
    assert len([box for box in boxes(figure) if box.get_linestyle() != "solid"]) >= 3


@pytest.fixture(scope="module")
def sound() -> dict[str, Trace]:
    """The trace of the sound chain by thread, which each other chain is drawn beside."""
    return {}


@pytest.mark.short_form(8)
@pytest.mark.slow
@pytest.mark.parametrize("thread", ["thread_123", "W" * 1_024, "東京 $a_b$ \\alpha \U0001f642"])
@pytest.mark.parametrize("name", ["as committed", "fix 1", "link 2 broken", "link 5 broken", "link 9 broken"])
async def test_every_text_is_inside_the_figure_and_its_column(name: str, thread: str, sound: dict[str, Trace]) -> None:
    """Warnings are errors here, so that a character that the font lacks must not reach the figure."""
    if thread not in sound:
        sound[thread] = await trace_run(SOUND, [thread, "thread_b"])
    figure = trace_figure([await trace_run(name, [thread, "thread_b"]), sound[thread]], QUESTION, THOUGHT)
    figure.set_dpi(100)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * 100
    columns = sorted({box.get_window_extent().x1 for box in boxes(figure)})
    for text in texts(figure):
        extent = text.get_window_extent()
        assert 0 <= extent.x0 < extent.x1 <= width, text
        assert 0 <= extent.y0 < extent.y1 <= height, text
        if text.get_fontsize() == 9.0 and text.get_text() not in LINK_NAMES.values():
            assert extent.x1 <= min(x for x in columns if x > extent.x0), text


async def test_text_is_legible_when_the_figure_is_400_pixels_wide(pair: Sequence[Trace]) -> None:
    figure = trace_figure(pair, QUESTION, THOUGHT)
    pixels_per_point = 400 / (72 * figure.get_figwidth())
    assert min(float(text.get_fontsize()) for text in texts(figure)) * pixels_per_point >= 6.5


async def test_one_trace_and_two_runs_of_it_are_drawn() -> None:
    trace = await trace_run(BROKEN[5], ["thread_a", "thread_b"])
    assert len(boxes(trace_figure([trace], QUESTION, THOUGHT))) == len(LINK_NAMES)
    drawn = words(trace_figure([trace, trace], ["question 1", "question 2"], THOUGHT, title="Two runs"))
    assert drawn[:3] == ["Two runs", "Link 5 broken, question 1", "Link 5 broken, question 2"]


async def test_figure_of_no_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one trace"):
        trace_figure([], QUESTION, THOUGHT)
