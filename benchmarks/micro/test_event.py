"""One event: made, found its thread, encoded, numbered, kept, delivered, put into an outbox, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count

import msgspec
import pytest

from benchmarks.in_process import bridged, event_of, subscribed
from benchmarks.micro.finished import Timer, finished
from benchmarks.peers.bridgekit_agents import Bridged
from benchmarks.workload import EVENTS, AgentRun
from bridgekit.counters import DeliveryCounters
from bridgekit.events import EventType, Frame, Outcome, Receipt, encode
from bridgekit.ids import RunId, ThreadId, new_id
from bridgekit.resolution import route_of
from bridgekit.transport.outbox import Subscriber

RUN = AgentRun(0, 0)
THREAD = ThreadId(RUN.thread_id)
BATCH = 50
"""Frames that are put before somebody takes them."""


@pytest.fixture
def stack() -> Bridged:
    return asyncio.run(bridged())


def taking(sockets: list[Subscriber], step: Callable[[], object]) -> Callable[[], object]:
    """The step, and now and then somebody who empties the outboxes, so that they are not full."""
    steps = count(1)

    def taken() -> object:
        if not next(steps) % BATCH:
            for socket in sockets:
                socket.next_frames()
        return step()

    return taken


@pytest.mark.parametrize("place", range(EVENTS), ids=lambda place: RUN.said()[place].type)
def test_emit(benchmark: Timer, stack: Bridged, place: int) -> None:
    said, say = RUN.said()[place], stack.agent(RUN)
    socket = subscribed(stack, RUN.thread_id)
    benchmark(taking([socket], lambda: finished(say(said))))


@pytest.mark.parametrize("carried", [True, False], ids=["carried", "mapped"])
def test_resolve(benchmark: Timer, stack: Bridged, carried: bool) -> None:
    event = event_of(RUN)
    finished(stack.application.bridge.mapping.register_mapping(event.run_id, THREAD))
    event = event if carried else msgspec.structs.replace(event, thread_id=None)
    resolver = stack.application.bridge.resolver
    assert benchmark(lambda: finished(route_of(resolver, event))) == THREAD


@pytest.mark.parametrize("place", [1, 2], ids=["with a null", "without"])
def test_encode(benchmark: Timer, place: int) -> None:
    event = event_of(RUN, place)
    benchmark(encode, event)


def test_new_id(benchmark: Timer) -> None:
    benchmark(new_id)


@pytest.mark.parametrize("subscribers", [0, 1, 100])
def test_publish(benchmark: Timer, stack: Bridged, subscribers: int) -> None:
    sockets = [subscribed(stack, RUN.thread_id) for _ in range(subscribers)]
    event, publish = event_of(RUN), stack.application.bridge.hub.publish
    benchmark(taking(sockets, lambda: finished(publish(event, THREAD))))


@pytest.mark.parametrize("subscribers", [1, 100])
def test_deliver(benchmark: Timer, stack: Bridged, subscribers: int) -> None:
    sockets = [subscribed(stack, RUN.thread_id) for _ in range(subscribers)]
    frames, deliver = numbered(EventType.TOOL_EXECUTING), stack.application.bridge.hub.deliver
    benchmark(taking(sockets, lambda: deliver(THREAD, next(frames))))


def numbered(event_type: EventType) -> Iterator[Frame]:
    return (Frame(seq, event_type, RunId("run_1"), b"x" * 300) for seq in count(1))


@pytest.mark.parametrize("event_type", [EventType.TOOL_EXECUTING, EventType.AGENT_THINKING])
def test_outbox(benchmark: Timer, stack: Bridged, event_type: EventType) -> None:
    outbox, frames, puts = subscribed(stack, RUN.thread_id), numbered(event_type), count(1)

    def put() -> None:
        if not next(puts) % BATCH:
            outbox.next_frames()
        outbox.put(next(frames))

    benchmark(put)


def test_outbox_that_is_full_and_coalesces(benchmark: Timer, stack: Bridged) -> None:
    outbox, frames = subscribed(stack, RUN.thread_id), numbered(EventType.AGENT_THINKING)
    benchmark(lambda: outbox.put(next(frames)))


def test_tally(benchmark: Timer) -> None:
    counters, event = DeliveryCounters(), event_of(RUN)
    receipt = Receipt(outcome=Outcome.SENT, sockets=1, kept=True, thread_id=THREAD, seq=1, epoch="e")
    benchmark(counters.count, event, receipt)
