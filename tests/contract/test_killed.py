"""What acknowledged promises when the process is killed in the middle of it."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.signals import Cursor, GapReason
from bridgekit_verify.harness.processes import start_process
from tests.contract.conftest import placed
from tests.contract.publishing import KEEP, THREADS
from tests.contract.stores import KILLED, KINDS, Place, Worker, number_in, numbers

LINES = 500
"""Things that are acknowledged before the process is killed."""


@dataclass
class Acknowledged:
    """What a process said was acknowledged to it."""

    events: defaultdict[ThreadId, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    """By thread and number: which event."""
    epochs: dict[ThreadId, str] = field(default_factory=dict)
    routes: dict[RunId, ThreadId] = field(default_factory=dict)
    tickets: list[str] = field(default_factory=list)

    def heard(self, line: str) -> None:
        match line.split("\t"):
            case ["event", thread, epoch, seq, number]:
                assert self.epochs.setdefault(ThreadId(thread), epoch) == epoch
                self.events[ThreadId(thread)][int(seq)] = int(number)
            case ["route", run, thread]:
                self.routes[RunId(run)] = ThreadId(thread)
            case ["ticket", ticket]:
                self.tickets.append(ticket)
            case _:
                raise AssertionError(line)


@pytest.fixture(params=[pytest.param(kind, id=kind.name) for kind in KILLED])
async def killed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(request, request.param, tmp_path) as place:
        yield place


async def until_killed(url: str, backend: str) -> Acknowledged:
    """Let a process publish, and kill it in the midst of it."""
    said = Acknowledged()
    async with start_process([sys.executable, "-m", "tests.contract.publishing", url, backend]) as publishing:
        for _ in range(LINES):
            said.heard(await publishing.line())
        await publishing.kill()
        # What it said with its last breath is still in the pipe.
        async for line in publishing.lines():
            said.heard(line)
    return said


@pytest.mark.slow
async def test_nothing_that_was_acknowledged_is_lost_when_the_process_is_killed(
    killed: Place, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    said = await until_killed(killed.url, anyio_backend[0])
    assert set(said.events) == set(THREADS)
    async with killed.opened(KEEP) as stores:
        worker, mapping = Worker(stores.log), RunThreadMappingService(stores.routes)
        for thread, events in said.events.items():
            replay = await worker.join(thread, Cursor(said.epochs[thread], 0))
            assert replay.gap is None
            found = {frame.seq: number_in(frame) for frame in replay.frames}
            assert list(found) == list(range(1, len(found) + 1)), "in order, without holes"
            assert len(set(found.values())) == len(found), "each once"
            assert events.items() <= found.items(), "all that was acknowledged"
            after = await worker.publish(thread)
            assert (after.seq, after.epoch) == (len(found) + 1, said.epochs[thread])
        assert {run: await mapping.get_thread_id(run) for run in said.routes} == said.routes
        assert said.tickets
        assert [await stores.used_tickets.spend(ticket, 60.0) for ticket in said.tickets] == [False] * len(said.tickets)


@pytest.mark.slow
async def test_memory_ends_with_its_process_and_who_resumes_is_told(
    tmp_path: Path, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    (memory,) = (kind for kind in KINDS if kind.name == "memory")
    async with memory.place(tmp_path, "") as url:
        said = await until_killed(url, anyio_backend[0])
        async with Place(memory, url).worker(KEEP) as worker:
            for thread, events in said.events.items():
                await worker.publish(thread)
                replay = await worker.join(thread, Cursor(said.epochs[thread], min(events)))
                assert numbers(replay.frames) == [1], "the first of a new numbering"
                assert replay.cursor.epoch != said.epochs[thread]
                assert replay.gap is not None
                assert (replay.gap.first, replay.gap.last) == (min(events) + 1, None)
                assert replay.gap.reason is GapReason.RESTARTED
