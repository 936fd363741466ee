"""The invariants of streams that real sockets read from sound and broken chains. Each socket is checked separately."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bridgekit.events import RoutedEvent
from bridgekit.ids import RunId, ThreadId
from bridgekit.invariants.reports import Invariant, RunReport, check_stream
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
    """Run the workload and return the reports of each thread's socket. With `knowing`, pass the expected runs."""
    recordings: defaultdict[ThreadId, list[tuple[RoutedEvent, float]]] = defaultdict(list)

    def watch(socket: Socket, event: RoutedEvent) -> None:
        recordings[socket.thread_id].append((event, time.time()))

    measurement = await measure(variant(name), workload, on_event=watch)
    expected_runs = defaultdict(list)
    for group in workload.groups():
        for run in group:
            expected_runs[run.owned.thread_id].append(measurement.history.handovers[run.request].run_id)
    return {
        owned.thread_id: check_stream(
            recordings[owned.thread_id], runs=expected_runs[owned.thread_id] if knowing else None
        )
        for owned in workload.threads
    }


def holding(reports: Reports) -> list[bool]:
    return [report.holds for report in reports.values()]


async def test_invariants_hold_at_every_socket_when_the_chain_is_sound() -> None:
    threads = tuple(owned for name in FAMILIES for owned in thread_ids(name, 1))
    everywhere = await judged("sound", Workload(threads=threads, runs_per_thread=3, steps=2, at_once=len(threads) * 3))
    assert [holding(reports) for reports in everywhere.values()] == [[True] * 3] * len(threads)
    for report in everywhere[threads[0].thread_id].values():
        assert report.latency is not None
        assert 0 <= report.latency.p50 <= report.latency.p99 < 60


@pytest.mark.parametrize("knowing", [True, False])
async def test_result_is_unknown_at_every_socket_when_the_chain_is_as_reported(knowing: bool) -> None:
    """Nothing arrives, so the report names the missing runs only if the expected runs are given."""
    for reports in (await judged("as reported", SMALL, knowing=knowing)).values():
        assert [(report.run_id is not None, report.known, report.holds) for report in reports.values()] == [
            (knowing, False, False)
        ]


async def test_missing_types_are_reported_at_every_socket_when_link_8_is_broken() -> None:
    """The lost events got no `seq`, so there is no gap; only the missing types reveal the loss."""
    for reports in (await judged("link 8 broken", SMALL)).values():
        [report] = reports.values()
        assert [violation.invariant for violation in report.violations] == [Invariant.CRITICAL_TYPES] * 3


async def test_only_the_socket_that_lost_events_reports_it_when_link_5_is_broken() -> None:
    """One user's events arrive with the other user's run, thread and `seq`, so the frames do not reveal the leak."""
    loser, winner = (await judged("link 5 broken", SMALL)).values()
    lost = [violation.invariant for report in loser.values() for violation in report.violations]
    assert lost == [Invariant.CRITICAL_TYPES] * 3
    [report] = winner.values()
    assert report.holds
    assert report.frames == 8


@pytest.mark.parametrize("knowing", [True, False])
async def test_other_users_runs_are_reported_when_fix_1_leaks_them_and_runs_are_given(knowing: bool) -> None:
    """Two runs of other users arrive completely and in order in this thread. They look valid without expected runs."""
    workload = replace(SMALL, threads=thread_ids("starts with another id", 3))
    shortest, *others = (await judged("fix 1", workload, knowing=knowing)).values()
    assert holding(shortest) == [True, not knowing, not knowing]
    foreign = [violation.invariant for report in shortest.values() for violation in report.violations]
    assert foreign == ([Invariant.ONE_RUN] * 2 if knowing else [])
    assert [holding(reports) for reports in others] == [[False], [False]]
    assert not any(report.known for reports in others for report in reports.values())
