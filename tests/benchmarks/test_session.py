"""Real processes: a server, a load client, and what is said of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from benchmarks.children import ChildFailed, child
from benchmarks.measures.rounds import turns
from benchmarks.peers import BRIDGEKIT, peer
from benchmarks.session import Session, session
from benchmarks.workload import BURST, EVENTS, YIELDING

pytestmark = pytest.mark.slow

THREADS = 3


@pytest.mark.parametrize("name", [each.name for each in BRIDGEKIT])
def test_what_a_stack_of_ours_carries_is_right(name: str) -> None:
    asyncio.run(_carried(name))


async def _carried(name: str) -> None:
    async with session(peer(name), threads=THREADS, subscribers=2) as opened:
        for kind in (BURST, YIELDING):
            spoken = await opened.speak(kind, 2)
            assert spoken.events == THREADS * 2 * 2 * EVENTS
            assert spoken.cpu_us > 0
            assert 0 < spoken.client_busy < 1.5
        # The client judges what it read, not what it is told: of another wave it has nothing.
        other = await opened.verdict(opened.next_wave(1))
        assert other.lost == other.expected == THREADS * 2 * EVENTS


def test_memory_of_a_process_is_told() -> None:
    async def told() -> int:
        async with session(peer("bridgekit native"), threads=1) as opened:
            return await opened.memory_kib()

    assert 10_000 < asyncio.run(told()) < 1_000_000


def test_child_that_breaks_is_told_with_its_last_words() -> None:
    async def broken() -> None:
        async with child("the load client", "benchmarks.load") as (load, _):
            await load.ask("dance")

    with pytest.raises(ChildFailed, match=r"(?s)ended while it was to dance.*KeyError"):
        asyncio.run(broken())


def test_child_that_does_not_answer_is_told() -> None:
    async def silent() -> None:
        async with child("the load client", "benchmarks.load") as (load, _):
            await load.ask("receive", within=0.6, seconds=0.2)

    with pytest.raises(ChildFailed, match=r"did not receive within 0.2 s"):
        asyncio.run(silent())


def test_stack_that_fails_is_out_and_the_others_go_on() -> None:
    broken = replace(peer("bridgekit ASGI"), name="no such stack")
    measured: list[str] = []

    async def measure(opened: Session) -> None:
        measured.append(opened.peer.name)

    async def taken() -> dict[str, str]:
        failed: dict[str, str] = {}
        async with turns(failed) as taking:
            await taking.each([broken, peer("bridgekit native")], measure, rounds=2, fresh=False)
        return failed

    failed = asyncio.run(taken())
    assert measured == ["bridgekit native"] * 2
    assert failed.keys() == {"no such stack"}
    assert "LookupError" in failed["no such stack"]
