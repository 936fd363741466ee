"""Counts of dropped and leaked events, and the figure that shows them."""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO

import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bridgekit.events import EventType
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.drop_figure import DELIVERED, DROPPED, LEAKED, DropPanel, drop_alt_text, drop_figure
from bridgekit_verify.measure.drops import NOTHING, DropCount, count_drops, have_equal_shares, total
from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.history import History
from bridgekit_verify.measure.workload import Workload
from bridgekit_verify.variants import SOUND
from tests.verify.measure.histories import ALICES, ALICES_OTHER, BOBS, arrival, clean, key, moved

EVENTS = 15
NUMBER = re.compile(r"[\d.]+ (?:of \d+|%|leaked)|unknown|it did not start")


def counted(history: History) -> DropCount:
    return count_drops(Measurement(SOUND, Workload(threads=()), 0, history, check(history)))


def dropped(count: int, *, leaked: int = 0, expected: int = 60) -> DropCount:
    return DropCount(expected, expected - count, count - leaked, leaked, 0, {9: count} if count else {}, frozenset())


def test_clean_history_drops_nothing() -> None:
    count = counted(clean())
    assert (count.expected, count.delivered, count.dropped, count.lost, count.leaked) == (EVENTS, EVENTS, 0, 0, 0)
    assert count.complete
    assert count.arriving == {EventType.AGENT_THINKING}


def test_unread_event_is_lost_and_not_leaked() -> None:
    history = clean()
    history.arrivals.remove(arrival(ALICES, key(ALICES, 2), 2))
    count = counted(history)
    assert (count.dropped, count.lost, count.leaked, count.dropped_and_leaked) == (1, 1, 0, 0)
    assert count.dropped_at == {10: 1}
    assert count.arriving == frozenset()
    assert not count.complete


def test_event_that_another_user_reads_is_dropped_and_leaked() -> None:
    history = clean()
    moved(history, 2, BOBS)
    count = counted(history)
    assert (count.dropped, count.lost, count.leaked, count.dropped_and_leaked) == (1, 0, 1, 1)


def test_event_at_another_thread_of_its_user_is_lost_and_not_leaked() -> None:
    history = clean()
    moved(history, 2, ALICES_OTHER)
    count = counted(history)
    assert (count.dropped, count.lost, count.leaked) == (1, 1, 0)


def test_event_that_both_users_read_is_delivered_and_leaked() -> None:
    history = clean()
    history.arrivals.append(arrival(BOBS, key(ALICES, 2), 9))
    count = counted(history)
    assert (count.dropped, count.leaked, count.dropped_and_leaked) == (0, 1, 0)
    assert not count.complete


def test_event_that_leaks_twice_counts_once() -> None:
    history = clean()
    moved(history, 2, BOBS)
    history.arrivals.append(arrival(BOBS, key(ALICES, 2), 9))
    assert counted(history).leaked == 1


def test_nothing_expected_is_neither_complete_nor_a_share() -> None:
    assert not NOTHING.complete
    assert NOTHING.shares is None


def test_total_adds_counts_and_keeps_the_types_that_always_arrive() -> None:
    both = frozenset({EventType.AGENT_STARTED, EventType.AGENT_THINKING})
    first = replace(dropped(10, leaked=4), arriving=both, false_success=1)
    second = replace(dropped(5, expected=20), dropped_at={8: 5}, arriving=frozenset({EventType.AGENT_STARTED}))
    added = total([first, second])
    assert (added.expected, added.delivered, added.lost, added.leaked, added.false_success) == (80, 65, 11, 4, 1)
    assert added.dropped_at == {8: 5, 9: 10}
    assert added.arriving == {EventType.AGENT_STARTED}
    assert total([]) == NOTHING


@pytest.mark.parametrize(
    ("counts", "equal"),
    [
        ([], True),
        ([dropped(30)], True),
        ([dropped(30), dropped(10, expected=20)], True),
        ([dropped(30), dropped(31)], False),
        ([dropped(30), dropped(30, leaked=1)], False),
        ([dropped(0), NOTHING], False),
    ],
)
def test_one_bar_represents_counts_with_equal_shares_only(counts: list[DropCount], equal: bool) -> None:
    assert have_equal_shares(counts) is equal


def drawn(*panels: DropPanel) -> tuple[dict[str, float], list[str], Figure]:
    """Return the drawn area by colour without the legend, the texts and the figure. Drawing detects layout errors."""
    figure = drop_figure(panels, title="The finding")
    figure.savefig(BytesIO(), format="png")
    [axis] = figure.axes
    areas = dict.fromkeys((DROPPED, LEAKED, DELIVERED), 0.0)
    bars = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    legend = 2 + any(patch.get_hatch() for patch in bars)
    colours = {to_rgba(colour): colour for colour in areas}
    for patch in bars[:-legend]:
        if patch.get_fill():
            colour = colours[to_rgba(patch.get_facecolor())]
            areas[colour] += patch.get_width() * patch.get_height()
            assert bool(patch.get_hatch()) == (colour == LEAKED)
    return areas, [text.get_text() for text in axis.texts], figure


def share(areas: dict[str, float], colour: str) -> float:
    return areas[colour] / sum(areas.values())


def test_figure_draws_the_shares_of_one_bar() -> None:
    areas, texts, _ = drawn(DropPanel("panel", {"before": {"a": dropped(45, leaked=15), "b": dropped(45, leaked=15)}}))
    assert share(areas, DROPPED) == pytest.approx(0.5)
    assert share(areas, LEAKED) == pytest.approx(0.25)
    assert share(areas, DELIVERED) == pytest.approx(0.25)
    assert {"The finding", "panel", "before", "45 of 60", "15 leaked"} <= {*texts}
    assert "Events dropped, the same for each of 2 kinds of thread id" in texts


def test_figure_draws_a_bar_for_each_kind_if_one_differs() -> None:
    rows = {"fix": {"a": dropped(60), "b": dropped(0), "c": dropped(30, leaked=30)}}
    areas, texts, _ = drawn(DropPanel("panel", rows, {"documented": ["a", "b"], "stress": ["c"]}))
    assert share(areas, DROPPED) == pytest.approx(1 / 3)
    assert share(areas, LEAKED) == pytest.approx(1 / 6)
    assert {"1 of 2", "1 of 1"} <= {*texts}
    assert texts[-5:-3] == ["documented: a\N{NO-BREAK SPACE}a, b\N{NO-BREAK SPACE}b", "stress: c\N{NO-BREAK SPACE}c"]
    assert not any("of 60" in text for text in texts), "a single number for kinds that differ"


def test_figure_states_percent_where_kinds_have_different_sizes() -> None:
    _, texts, _ = drawn(DropPanel("", {"fix": {"a": dropped(30), "b": dropped(10, expected=20)}}))
    assert "50.0 %" in texts


def test_figure_leaves_a_chain_without_events_unknown() -> None:
    areas, texts, _ = drawn(DropPanel("", {"refused": {"a": NOTHING}, "sound": {"a": dropped(0)}}))
    assert "unknown" in texts
    assert share(areas, DELIVERED) == 1


@pytest.mark.parametrize(
    "panel",
    [
        DropPanel("panel", {"before": {"a": dropped(45, leaked=15), "b": dropped(45, leaked=15)}}),
        DropPanel("panel", {"before": {"a": dropped(30), "b": dropped(10, expected=20)}, "after": {"a": dropped(0)}}),
        DropPanel("", {"before": {"a": NOTHING}}, notes={"before": "it did not start"}),
        DropPanel("panel", {"fix": {"a": dropped(60), "b": dropped(1)}}, {"documented": ["a"], "stress": ["b"]}),
    ],
)
def test_alternative_text_has_the_numbers_of_the_picture(panel: DropPanel) -> None:
    _, texts, _ = drawn(panel)
    shown = [number for text in texts for number in NUMBER.findall(text)]
    described = NUMBER.findall(drop_alt_text([panel]))
    assert sorted(described) == sorted(shown)


def test_figure_without_a_leak_has_no_leak_in_its_legend() -> None:
    _, texts, _ = drawn(DropPanel("", {"before": {"a": dropped(60)}}))
    assert not any("leaked" in text for text in texts)


def test_texts_stay_within_the_figure() -> None:
    rows = {"fixes 1 and 2 with the method": {f"kind {n}": dropped(n) for n in range(13)}}
    groups = {"documented": [f"kind {n}" for n in range(6)], "stress": [f"kind {n}" for n in range(6, 13)]}
    figure = drop_figure([DropPanel("panel", rows, groups)], title="A long finding " * 5)
    figure.savefig(BytesIO(), format="png")
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width, text.get_text()  # noqa: PT018 - one condition
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height, text.get_text()  # noqa: PT018 - one condition


def test_remark_below_a_bar_covers_no_bar() -> None:
    rows = {step: {step: dropped(30)} for step in ("before", "after")}
    figure = drop_figure([DropPanel("", rows, notes=dict.fromkeys(rows, "at link 9: 30"))], title="Halves")
    figure.savefig(BytesIO(), format="png")
    notes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text() == "at link 9: 30"]
    bars = [patch.get_window_extent() for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert len(notes) == 2
    assert not any(note.overlaps(bar) for note in notes for bar in bars)
