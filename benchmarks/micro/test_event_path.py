"""Microbenchmarks of the steps of one event: emit, resolve, encode, publish, deliver, put into an outbox, count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count

import msgspec
import pytest

from benchmarks.micro.run_without_event_loop import Timer, finished
from benchmarks.own_cost_process import attach_subscriber, event_of, start_bridgekit
from benchmarks.peers.bridgekit_stack import BridgekitStack
from benchmarks.workload import EVENTS, AgentRun
from bridgekit.counters import DeliveryCounters
from bridgekit.events import EventType, Frame, Outcome, Receipt, encode
from bridgekit.ids import RunId, ThreadId, new_id
from bridgekit.thread_resolvers import route_of
from bridgekit.transport.outbox import Subscriber

RUN = AgentRun(0, 0)
THREAD = ThreadId(RUN.thread_id)
BATCH = 50
"""Number of frames that are put into an outbox before it is drained."""


@pytest.fixture
def stack() -> BridgekitStack:
    return asyncio.run(start_bridgekit())


def draining(sockets: list[Subscriber], step: Callable[[], object]) -> Callable[[], object]:
    """Return a step that also drains the outboxes regularly, so that they do not fill up."""
    steps = count(1)

    def drained() -> object:
        if not next(steps) % BATCH:
            for socket in sockets:
                socket.next_frames()
        return step()

    return drained


@pytest.mark.parametrize("position", range(EVENTS), ids=lambda position: RUN.bodies()[position].type)
def test_emit(benchmark: Timer, stack: BridgekitStack, position: int) -> None:
    body, emit_event = RUN.bodies()[position], stack.agent(RUN)
    socket = attach_subscriber(stack, RUN.thread_id)
    benchmark(draining([socket], lambda: finished(emit_event(body))))


@pytest.mark.parametrize("carried", [True, False], ids=["carried", "mapped"])
def test_resolve(benchmark: Timer, stack: BridgekitStack, carried: bool) -> None:
    event = event_of(RUN)
    finished(stack.application.bridge.mapping.register_mapping(event.run_id, THREAD))
    event = event if carried else msgspec.structs.replace(event, thread_id=None)
    resolver = stack.application.bridge.resolver
    assert benchmark(lambda: finished(route_of(resolver, event))) == THREAD


@pytest.mark.parametrize("position", [1, 2], ids=["with a null", "without"])
def test_encode(benchmark: Timer, position: int) -> None:
    event = event_of(RUN, position)
    benchmark(encode, event)


def test_new_id(benchmark: Timer) -> None:
    benchmark(new_id)


@pytest.mark.parametrize("subscribers", [0, 1, 100])
def test_publish(benchmark: Timer, stack: BridgekitStack, subscribers: int) -> None:
    sockets = [attach_subscriber(stack, RUN.thread_id) for _ in range(subscribers)]
    event, publish = event_of(RUN), stack.application.bridge.hub.publish
    benchmark(draining(sockets, lambda: finished(publish(event, THREAD))))


@pytest.mark.parametrize("subscribers", [1, 100])
def test_deliver(benchmark: Timer, stack: BridgekitStack, subscribers: int) -> None:
    sockets = [attach_subscriber(stack, RUN.thread_id) for _ in range(subscribers)]
    frames, deliver = numbered(EventType.TOOL_EXECUTING), stack.application.bridge.hub.deliver
    benchmark(draining(sockets, lambda: deliver(THREAD, next(frames))))


def numbered(event_type: EventType) -> Iterator[Frame]:
    return (Frame(seq, event_type, RunId("run_1"), b"x" * 300) for seq in count(1))


@pytest.mark.parametrize("event_type", [EventType.TOOL_EXECUTING, EventType.AGENT_THINKING])
def test_outbox(benchmark: Timer, stack: BridgekitStack, event_type: EventType) -> None:
    outbox, frames, puts = attach_subscriber(stack, RUN.thread_id), numbered(event_type), count(1)

    def put() -> None:
        if not next(puts) % BATCH:
            outbox.next_frames()
        outbox.put(next(frames))

    benchmark(put)


def test_outbox_that_is_full_and_coalesces(benchmark: Timer, stack: BridgekitStack) -> None:
    outbox, frames = attach_subscriber(stack, RUN.thread_id), numbered(EventType.AGENT_THINKING)
    benchmark(lambda: outbox.put(next(frames)))


def test_count(benchmark: Timer) -> None:
    counters, event = DeliveryCounters(), event_of(RUN)
    receipt = Receipt(outcome=Outcome.SENT, sockets=1, kept=True, thread_id=THREAD, seq=1, epoch="e")
    benchmark(counters.count, event, receipt)
