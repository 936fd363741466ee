"""The work for an event, a route or a run does not depend on the number of threads and runs: the counts are equal."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from benchmarks.micro.run_without_event_loop import finished
from benchmarks.own_cost_process import attach_subscriber, start_bridgekit
from bridgekit.chain.link_1_startup import BridgeConfig, start_application
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.stores import in_memory
from tests.chain.agents import TOOLS, Researcher
from tests.performance.budgets import CALLS_PER_EMIT, CALLS_PER_LOOKUP, CALLS_PER_SOCKET
from tests.performance.counting import Calls

FEW: Final = 10
THREADS: Final = 5_000
RUNS: Final = 50_000

RUN = RunId("run_1")
THREAD = ThreadId("thread_1")


def calls_of_emission(*, threads: int = 0, runs: int = 0, sockets: int = 1, carried: bool = True) -> Calls:
    """Return the calls of one emission with this many other threads (one socket each) and runs in the mapping."""
    stack = asyncio.run(start_bridgekit())
    asyncio.run(stack.fill(threads=threads, mappings=runs))
    others = [attach_subscriber(stack, f"other_{number}") for number in range(threads)]
    attached = [attach_subscriber(stack, THREAD) for _ in range(sockets)]
    bridge = stack.application.bridge
    finished(bridge.mapping.register_mapping(RUN, THREAD))
    agent = WebSocketBridgeAdapter()
    agent.set_websocket_bridge(bridge, RUN, "researcher", thread_id=THREAD if carried else None)
    # The first emission creates the log and the counters.
    finished(agent.emit_thinking("hm", step_number=1))
    with Calls() as seen:
        receipt = finished(agent.emit_thinking("hm", step_number=2))
    assert receipt.sockets == sockets == sum(len(socket) == 2 for socket in attached)
    assert not any(len(socket) for socket in others)
    return seen


def test_emission_stays_within_its_budget() -> None:
    seen = calls_of_emission()
    assert seen.all.total() <= CALLS_PER_EMIT, dict(seen.all)


def test_thread_lookup_stays_within_its_budget() -> None:
    carried, mapped = calls_of_emission(), calls_of_emission(carried=False)
    assert mapped.all.total() - carried.all.total() <= CALLS_PER_LOOKUP, dict(mapped.all - carried.all)


def test_each_further_socket_stays_within_its_budget() -> None:
    one, many = calls_of_emission(sockets=1), calls_of_emission(sockets=101)
    assert many.all.total() - one.all.total() <= 100 * CALLS_PER_SOCKET


@pytest.mark.slow
@pytest.mark.parametrize("carried", [True, False], ids=["carried", "mapped"])
def test_work_of_an_emission_is_independent_of_other_threads_and_runs(carried: bool) -> None:
    few = calls_of_emission(threads=FEW, runs=FEW, carried=carried)
    many = calls_of_emission(threads=THREADS, runs=RUNS, carried=carried)
    assert (many.all, many.lines) == (few.all, few.lines)


def calls_of_mapping(*, runs: int) -> Calls:
    """Return the calls to register, look up and clean up a run among this many other runs, half of them closed."""
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


def test_work_of_the_mapping_is_independent_of_other_runs() -> None:
    few, many = calls_of_mapping(runs=FEW), calls_of_mapping(runs=RUNS)
    assert (many.all, many.lines) == (few.all, few.lines)


async def calls_of_run(*, runs: int) -> Calls:
    """Return the calls of one run, from its acceptance to its end, after this many runs on other threads."""
    config = BridgeConfig(agents={"researcher": Researcher}, tool_dispatcher=TOOLS)
    application = await start_application(config, in_memory())

    async def run(thread: str) -> None:
        await application.supervisor.run(agent_name="researcher", thread_id=thread, user_id="user", request="why?")

    for number in range(runs):
        await run(f"other_{number}")
    with Calls() as seen:
        await run(THREAD)
    return seen


async def test_work_of_a_run_is_independent_of_earlier_runs() -> None:
    few, many = await calls_of_run(runs=FEW), await calls_of_run(runs=500)
    assert (many.ours, many.lines) == (few.ours, few.lines)
