"""Two real processes: every due event is read, late or not, and counted once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from bridgekit_verify.capacity import testbed
from bridgekit_verify.capacity.capacity import study_capacity
from bridgekit_verify.capacity.load_search import EDGES, NATIVE, Edge
from bridgekit_verify.capacity.memory_scaling import RUNS, SOCKETS, THREADS, study_memory
from bridgekit_verify.capacity.schedule import LoadPlan
from bridgekit_verify.capacity.sizing import study_shared
from bridgekit_verify.harness.processes import ProcessExited

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("anyio_backend", ["asyncio"], scope="module")]

PLAN = LoadPlan(seconds=0.4, pause_seconds=0.02)


@pytest.fixture(scope="module", params=EDGES, ids=lambda edge: edge.key)
async def opened(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[testbed.Testbed]:
    async with testbed.start_testbed(request.param) as served:
        await served.connect(6)
        yield served


async def test_every_due_event_is_read_once_at_its_own_socket(opened: testbed.Testbed) -> None:
    found = await opened.wave(400, PLAN, first=0, threads=6)
    assert found.accounted_for
    assert found.client.delivered == found.wave.events == 160
    assert found.client.lost == found.client.closed == found.client.signalled == 0


async def test_agents_emit_events_when_they_are_due_and_not_before(opened: testbed.Testbed) -> None:
    found = await opened.wave(400, PLAN, first=0, threads=6)
    assert found.client.emitted_p50 >= 0
    assert found.client.late_p50 >= found.client.emitted_p50
    assert found.server.seconds >= PLAN.run_seconds + found.wave.starts[-1]


async def test_runs_overlap_because_none_waits_for_another(opened: testbed.Testbed) -> None:
    slow = LoadPlan(seconds=0.4, pause_seconds=0.2)
    found = await opened.wave(400, slow, first=0, threads=6)
    assert found.server.at_once == found.server.runs == len(found.wave.starts)


async def test_overload_makes_events_late_and_loses_none(opened: testbed.Testbed) -> None:
    """The load is far above the capacity of a core; lateness counts from the due times."""
    found = await opened.wave(100_000, LoadPlan(seconds=0.2, pause_seconds=0), first=0, threads=6)
    assert found.accounted_for
    assert found.client.lost == 0
    assert found.client.late_max > 0.2
    assert not found.carried


async def test_runs_in_threads_without_sockets_expect_no_events(opened: testbed.Testbed) -> None:
    first = opened.threads
    await opened.open(2)
    found = await opened.wave(50, PLAN, first=first, threads=2)
    assert (found.client.expected, found.server.taken) == (0, found.wave.events)


async def test_failed_server_process_is_reported_with_its_error_output(anyio_backend: str) -> None:
    with pytest.raises(ProcessExited, match=r"(?s)server process \(nothing\).*nothing"):
        async with testbed.start_testbed(Edge("nothing", "nothing", "")):
            raise AssertionError("it serves")


@pytest.mark.acceptance
async def test_capacity_of_both_edges_is_positive_and_share_falls_under_overload(anyio_backend: str) -> None:
    """Only asserts that a capacity is found, that the overload is late, and that all events are accounted for."""
    study = await study_capacity(PLAN, sockets=10, seconds=1.0, max_load=4_000, rounds=1)
    assert all(each.accounted_for and each.client.lost == 0 for each in study.steps)
    assert len(study.table()) == sum(len(search.tried) for search in study.searches)
    assert list(study.summary()["edge"]) == ["ASGI", "native"]
    assert all(json.dumps(row) for row in study.summary().to_dict("records"))
    assert study.figure().axes[0].get_ylim()[0] <= 90
    rounds = {name: {step.events_per_second for step in steps} for name, steps in study.paired.items()}
    assert rounds["ASGI"] == rounds["native"]
    assert len(rounds["ASGI"]) == all(search.carries is not None for search in study.searches)
    assert study.alt_text().count(" on time") == len(study.table())


async def test_idle_sockets_threads_and_runs_use_memory(anyio_backend: str) -> None:
    [scaling] = (await study_memory([20, 60], rounds=1, edges=[NATIVE])).scalings
    assert [fit.of for fit in scaling.fits] == [SOCKETS, THREADS, RUNS]
    assert scaling.of(SOCKETS).points[-1][1] > 0
    assert all(each.accounted_for for each in (*scaling.without_load, *scaling.with_load))


@pytest.mark.acceptance
async def test_worker_with_a_broker_delivers_every_event(anyio_backend: str) -> None:
    study = await study_shared(PLAN, events_per_second=300)
    assert all(each.accounted_for and each.client.lost == 0 for each in study.steps)
    assert list(study.table()["lost"]) == [0, 0]
