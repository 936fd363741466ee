"""What an acknowledgement guarantees when the process is killed during publishing."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridgekit.cursors_and_gaps import Cursor, GapReason
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit_verify.harness.processes import start_process
from tests.contract.conftest import open_location
from tests.contract.publishing import RETENTION, THREADS
from tests.contract.stores import KILLED, KINDS, StoreLocation, Worker, number_in, numbers

LINES = 500
"""Number of acknowledgements before the process is killed."""


@dataclass
class Acknowledged:
    """The acknowledgements that a process received, as it printed them."""

    events: defaultdict[ThreadId, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    """The event by thread and `seq`."""
    epochs: dict[ThreadId, str] = field(default_factory=dict)
    routes: dict[RunId, ThreadId] = field(default_factory=dict)
    generations: set[str] = field(default_factory=set)

    def parse_line(self, line: str) -> None:
        match line.split("\t"):
            case ["event", thread, epoch, seq, number]:
                assert self.epochs.setdefault(ThreadId(thread), epoch) == epoch
                self.events[ThreadId(thread)][int(seq)] = int(number)
            case ["route", run, thread]:
                self.routes[RunId(run)] = ThreadId(thread)
            case ["ticket", generation]:
                self.generations.add(generation)
            case _:
                raise AssertionError(line)


@pytest.fixture(params=[pytest.param(kind, id=kind.name) for kind in KILLED])
async def killed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreLocation]:
    async with open_location(request, request.param, tmp_path) as location:
        yield location


async def publish_until_killed(url: str, backend: str) -> Acknowledged:
    """Start a process that publishes, and kill it while it does."""
    acknowledged = Acknowledged()
    async with start_process([sys.executable, "-m", "tests.contract.publishing", url, backend]) as publishing:
        for _ in range(LINES):
            acknowledged.parse_line(await publishing.line())
        await publishing.kill()
        # The pipe still contains the last printed lines.
        async for line in publishing.lines():
            acknowledged.parse_line(line)
    return acknowledged


@pytest.mark.short_form(4)
@pytest.mark.slow
async def test_acknowledged_data_survives_when_the_process_is_killed(
    killed: StoreLocation, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    acknowledged = await publish_until_killed(killed.url, anyio_backend[0])
    assert set(acknowledged.events) == set(THREADS)
    async with killed.opened(RETENTION) as stores:
        worker, mapping = Worker(stores.log), RunThreadMappingService(stores.routes)
        for thread, events in acknowledged.events.items():
            replay = await worker.join(thread, Cursor(acknowledged.epochs[thread], 0))
            assert replay.gap is None
            found = {frame.seq: number_in(frame) for frame in replay.frames}
            assert list(found) == list(range(1, len(found) + 1)), "in order, without gaps"
            assert len(set(found.values())) == len(found), "each once"
            assert events.items() <= found.items(), "every acknowledged event"
            after = await worker.publish(thread)
            assert (after.seq, after.epoch) == (len(found) + 1, acknowledged.epochs[thread])
        assert {run: await mapping.get_thread_id(run) for run in acknowledged.routes} == acknowledged.routes
        assert acknowledged.generations
        assert stores.used_tickets.generation not in acknowledged.generations, "earlier tickets are refused"


@pytest.mark.slow
async def test_memory_store_is_lost_with_its_process_and_a_resuming_client_gets_a_gap(
    tmp_path: Path, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    (memory,) = (kind for kind in KINDS if kind.name == "memory")
    async with memory.create(tmp_path, "") as url:
        acknowledged = await publish_until_killed(url, anyio_backend[0])
        async with StoreLocation(memory, url).worker(RETENTION) as worker:
            for thread, events in acknowledged.events.items():
                await worker.publish(thread)
                replay = await worker.join(thread, Cursor(acknowledged.epochs[thread], min(events)))
                assert numbers(replay.frames) == [1], "the first event of a new epoch"
                assert replay.cursor.epoch != acknowledged.epochs[thread]
                assert replay.gap is not None
                assert (replay.gap.first, replay.gap.last) == (min(events) + 1, None)
                assert replay.gap.reason is GapReason.RESTARTED
