"""One socket stops reading: a loop of sends delays all sockets, and the bridge delays none."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from bridgekit_verify.faults.trials.stall import (
    BRIDGEKIT,
    SERVERS,
    STILL_SECONDS,
    LoopTimeClock,
    StallStudy,
    study_stall,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study() -> StallStudy:
    return anyio.run(partial(study_stall, neighbours=2, events=80))


def test_clock_stops_while_the_loop_gets_no_cpu() -> None:
    now = 100.0
    clock = LoopTimeClock(lambda: now)
    for passed, counted in ((STILL_SECONDS, STILL_SECONDS), (3.0, STILL_SECONDS), (0.005, 0.005)):
        before = clock()
        now += passed
        assert clock() - before == pytest.approx(counted)
        clock.poll()
        assert clock() - before == pytest.approx(counted)


def test_agent_waits_for_loops_of_sends_but_not_for_the_bridge(study: StallStudy) -> None:
    """This does not measure speed: it distinguishes a stall of half a second from none."""
    held_up = {stall.server.name: stall.longest_wait > stall.stalled_seconds / 2 for stall in study.stalls}
    assert held_up == {server.name: server.name != BRIDGEKIT.name for server in SERVERS}


def test_neighbours_read_every_event_from_every_server(study: StallStudy) -> None:
    """The loops of sends also deliver every event, but late."""
    assert [len(stall.reads) for stall in study.stalls] == [2 * 80] * len(SERVERS)


def test_events_are_late_from_loops_of_sends_and_on_time_from_the_bridge(study: StallStudy) -> None:
    late = {stall.server.name: stall.during[len(stall.during) // 2] for stall in study.stalls}
    ours = late.pop(BRIDGEKIT.name)
    assert ours < min(late.values())


def test_panels_state_the_emissions_that_the_title_compares_and_no_tick_is_rounded_to_zero(study: StallStudy) -> None:
    figure = study.figure()
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes}
    longest = [title.rpartition("longest emission ")[2] for title in panels]
    assert [value for value in longest if value in study.title()] == [max(longest[:-1], key=_number), longest[-1]]
    figure.draw_without_rendering()
    labels = [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()]
    assert "0" not in labels
    assert "1,000" in labels


def _number(text: str) -> float:
    return float(text.removesuffix(" ms").replace(",", ""))
