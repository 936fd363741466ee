"""Sessions with real processes: a server and a load client, their measurements, and their failures."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from benchmarks.measures.interleaving import interleaving
from benchmarks.peers import BRIDGEKIT, peer
from benchmarks.stack_session import Session, session, start_load_client
from benchmarks.workload import BURST, EVENTS, YIELDING
from bridgekit_verify.harness.child_side import CpuReply, CpuRequest, Done
from bridgekit_verify.harness.load_client import Clear
from bridgekit_verify.harness.processes import ProcessExited

pytestmark = pytest.mark.slow

THREADS = 3


@pytest.mark.short_form(2)
@pytest.mark.parametrize("name", [each.name for each in BRIDGEKIT])
def test_bridgekit_stack_delivers_correct_events(name: str) -> None:
    asyncio.run(_carried(name))


async def _carried(name: str) -> None:
    async with session(peer(name), threads=THREADS, subscribers=2) as opened:
        for kind in (BURST, YIELDING):
            report = await opened.run_load(kind, 2)
            assert report.events == THREADS * 2 * 2 * EVENTS
            assert report.cpu_us > 0
            assert 0 <= report.client_busy < 1.5
        # The client verifies what it has read: it has read no event of another wave.
        other = await opened.verdict(opened.next_wave(1))
        assert other.lost == other.expected == THREADS * 2 * EVENTS


def test_memory_of_a_stack_is_measured() -> None:
    async def measured() -> int:
        async with session(peer("bridgekit native"), threads=1) as opened:
            return await opened.memory_kib()

    assert 10_000 < asyncio.run(measured()) < 1_000_000


def test_failed_load_client_is_reported_with_its_error_output() -> None:
    async def broken() -> None:
        async with start_load_client("the load client") as load:
            assert await load.request(Clear(), Done) == Done()
            await load.request(CpuRequest(), CpuReply)

    with pytest.raises(ProcessExited, match=r"(?s)the load client: process \d+ has ended.*Invalid value 'CpuRequest'"):
        asyncio.run(broken())


def test_failed_stack_is_excluded_and_the_others_continue() -> None:
    broken = replace(peer("bridgekit ASGI"), name="no such stack")
    measured: list[str] = []

    async def measure(opened: Session) -> None:
        measured.append(opened.peer.name)

    async def taken() -> dict[str, str]:
        failed: dict[str, str] = {}
        async with interleaving(failed) as interleaved:
            await interleaved.each([broken, peer("bridgekit native")], measure, rounds=2, fresh=False)
        return failed

    failed = asyncio.run(taken())
    assert measured == ["bridgekit native"] * 2
    assert failed.keys() == {"no such stack"}
    assert "LookupError" in failed["no such stack"]
