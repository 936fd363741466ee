"""What is done for an event, a route or a run is the same whatever else there is: counted at two sizes, it is equal."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from benchmarks.in_process import start_bridgekit, attach_subscriber
from benchmarks.micro.finished import finished
from bridgekit.chain.link_1_startup import BridgeConfig, start_application
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.stores import in_memory
from tests.chain.agents import TOOLS, Researcher
from tests.performance.budgets import CALLS_A_LOOKUP, CALLS_A_SOCKET, CALLS_AN_EMIT
from tests.performance.counting import Calls

FEW: Final = 10
THREADS: Final = 5_000
RUNS: Final = 50_000

RUN = RunId("run_1")
THREAD = ThreadId("thread_1")


def emitting(*, threads: int = 0, runs: int = 0, sockets: int = 1, carried: bool = True) -> Calls:
    """What is called to emit once, beside that many threads with a socket each, and runs in the mapping."""
    stack = asyncio.run(start_bridgekit())
    asyncio.run(stack.fill(threads=threads, mappings=runs))
    others = [attach_subscriber(stack, f"other_{number}") for number in range(threads)]
    attached = [attach_subscriber(stack, THREAD) for _ in range(sockets)]
    bridge = stack.application.bridge
    finished(bridge.mapping.register_mapping(RUN, THREAD))
    agent = WebSocketBridgeAdapter()
    agent.set_websocket_bridge(bridge, RUN, "researcher", thread_id=THREAD if carried else None)
    # Until the log has begun, and the books.
    finished(agent.emit_thinking("hm", step_number=1))
    with Calls() as seen:
        receipt = finished(agent.emit_thinking("hm", step_number=2))
    assert receipt.sockets == sockets == sum(len(socket) == 2 for socket in attached)
    assert not any(len(socket) for socket in others)
    return seen


def test_emission_stays_within_its_budget() -> None:
    seen = emitting()
    assert seen.all.total() <= CALLS_AN_EMIT, dict(seen.all)


def test_finding_the_thread_stays_within_its_budget() -> None:
    carried, mapped = emitting(), emitting(carried=False)
    assert mapped.all.total() - carried.all.total() <= CALLS_A_LOOKUP, dict(mapped.all - carried.all)


def test_each_further_socket_stays_within_its_budget() -> None:
    one, many = emitting(sockets=1), emitting(sockets=101)
    assert many.all.total() - one.all.total() <= 100 * CALLS_A_SOCKET


@pytest.mark.parametrize("carried", [True, False], ids=["carried", "mapped"])
def test_emission_does_no_more_among_many_threads_and_runs_than_among_few(carried: bool) -> None:
    few = emitting(threads=FEW, runs=FEW, carried=carried)
    many = emitting(threads=THREADS, runs=RUNS, carried=carried)
    assert (many.all, many.lines) == (few.all, few.lines)


def mapping(*, runs: int) -> Calls:
    """What is called to register a run, to look it up, and to close it, where others live and as many are closed."""
    service = RunThreadMappingService(MemoryMappingStore(clock=lambda: 0.0))
    for number in range(runs):
        finished(service.register_mapping(RunId(f"run of {number}"), THREAD))
        if number % 2:
            finished(service.cleanup_mapping(RunId(f"run of {number}")))
    with Calls() as seen:
        finished(service.register_mapping(RUN, THREAD))
        assert finished(service.get_thread_id(RUN)) == THREAD
        finished(service.cleanup_mapping(RUN))
        assert finished(service.get_thread_id(RUN)) == THREAD
    return seen


def test_mapping_does_no_more_among_many_runs_than_among_few() -> None:
    few, many = mapping(runs=FEW), mapping(runs=RUNS)
    assert (many.all, many.lines) == (few.all, few.lines)


async def running(*, runs: int) -> Calls:
    """What bridgekit does for a run, from its acceptance to its end, after that many others on threads of their own."""
    config = BridgeConfig(agents={"researcher": Researcher}, tool_dispatcher=TOOLS)
    application = await start_application(config, in_memory())

    async def run(thread: str) -> None:
        await application.supervisor.run(agent_name="researcher", thread_id=thread, user_id="user", request="why?")

    for number in range(runs):
        await run(f"other_{number}")
    with Calls() as seen:
        await run(THREAD)
    return seen


async def test_run_does_no_more_after_many_runs_than_after_few() -> None:
    few, many = await running(runs=FEW), await running(runs=500)
    assert (many.ours, many.lines) == (few.ours, few.lines)
