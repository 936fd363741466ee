"""The invariants on what real sockets read of sound and broken chains: each socket judged from its own view alone."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bridgekit.events import RoutedEvent
from bridgekit.ids import RunId, ThreadId
from bridgekit.invariants.reports import Rule, RunReport, check_stream
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.history import Socket
from bridgekit_verify.measure.workload import FAMILIES, Workload, thread_ids
from bridgekit_verify.variants import variant

pytestmark = pytest.mark.slow

SMALL = Workload(threads=thread_ids("thread_123", 2), at_once=2)

Reports = Mapping[RunId | None, RunReport]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def judged(name: str, workload: Workload, *, knowing: bool = True) -> dict[ThreadId, Reports]:
    """Each thread's socket's reports; `knowing` the runs that its owner asked for, or not."""
    recordings: defaultdict[ThreadId, list[tuple[RoutedEvent, float]]] = defaultdict(list)

    def watch(socket: Socket, event: RoutedEvent) -> None:
        recordings[socket.thread_id].append((event, time.time()))

    measurement = await measure(variant(name), workload, on_event=watch)
    asked = defaultdict(list)
    for group in workload.groups():
        for run in group:
            asked[run.owned.thread_id].append(measurement.history.handovers[run.request].run_id)
    return {
        owned.thread_id: check_stream(recordings[owned.thread_id], runs=asked[owned.thread_id] if knowing else None)
        for owned in workload.threads
    }


def holding(reports: Reports) -> list[bool]:
    return [report.holds for report in reports.values()]


async def test_sound_chain_holds_at_every_socket_with_runs_interleaved_and_latencies_known() -> None:
    threads = tuple(owned for name in FAMILIES for owned in thread_ids(name, 1))
    everywhere = await judged("sound", Workload(threads=threads, runs_per_thread=3, steps=2, at_once=len(threads) * 3))
    assert [holding(reports) for reports in everywhere.values()] == [[True] * 3] * len(threads)
    for report in everywhere[threads[0].thread_id].values():
        assert report.latency is not None
        assert 0 <= report.latency.p50 <= report.latency.p99 < 60


@pytest.mark.parametrize("knowing", [True, False])
async def test_as_reported_is_unknown_at_every_socket(knowing: bool) -> None:
    """Nothing arrives. Only who knows which runs he asked for can say of which."""
    for reports in (await judged("as reported", SMALL, knowing=knowing)).values():
        assert [(report.run_id is not None, report.known, report.holds) for report in reports.values()] == [
            (knowing, False, False)
        ]


async def test_link_8_broken_is_caught_at_every_socket_by_the_types_that_agents_say() -> None:
    """The bridge numbered nothing of what was lost, so `seq` has no hole: the types alone tell."""
    for reports in (await judged("link 8 broken", SMALL)).values():
        [report] = reports.values()
        assert [breach.rule for breach in report.breaches] == [Rule.CRITICAL_TYPES] * 3


async def test_link_5_broken_is_caught_at_the_socket_that_lost_and_not_at_the_one_that_gained() -> None:
    """What one user's agent says comes under the other's run, thread and `seq`: nothing in the frames gives it away."""
    loser, winner = (await judged("link 5 broken", SMALL)).values()
    assert [breach.rule for report in loser.values() for breach in report.breaches] == [Rule.CRITICAL_TYPES] * 3
    [report] = winner.values()
    assert report.holds
    assert report.frames == 8


@pytest.mark.parametrize("knowing", [True, False])
async def test_fix_1_is_caught_at_the_socket_that_was_sent_runs_of_others_if_it_knows_its_own(knowing: bool) -> None:
    """Two runs of other users arrive whole and in order, under this thread's name. Unasked, they look like its own."""
    workload = replace(SMALL, threads=thread_ids("prefixes of one another", 3))
    shortest, *others = (await judged("fix 1", workload, knowing=knowing)).values()
    assert holding(shortest) == [True, not knowing, not knowing]
    foreign = [breach.rule for report in shortest.values() for breach in report.breaches]
    assert foreign == ([Rule.ONE_RUN] * 2 if knowing else [])
    assert [holding(reports) for reports in others] == [[False], [False]]
    assert not any(report.known for reports in others for report in reports.values())
