"""Measure the cost of the bridge alone, in a separate process and without a socket."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from types import BuiltinFunctionType, FrameType
from typing import Final

import msgspec

from benchmarks.peers.bridgekit_stack import USER, BridgekitStack
from benchmarks.process_messages import CountEncodings, MeasuredValues, MeasureMapping, MeasureOwnCost
from benchmarks.workload import AGENT, EVENTS, AgentRun, Wave
from bridgekit.chain.link_1_startup import BridgeConfig, start_application
from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import AgentEvent, EventType, Outcome, Receipt, encode
from bridgekit.ids import RunId, SignedRunIds, ThreadId, UserId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.stores import in_memory
from bridgekit.thread_resolvers import NoRoute
from bridgekit.transport.authorization import Subscription
from bridgekit.transport.log import Replay
from bridgekit.transport.outbox import OUTBOX_LIMITS, CrowdedOutboxes, Subscriber
from bridgekit_verify.harness.child_side import Ready, read_requests, send
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History, Socket

__all__ = ["attach_subscriber", "encodings", "event_of", "own_cost", "sound_history", "start_bridgekit"]

THREADS: Final = 100
CHECKED_EVENTS: Final = 50_000
MAPPED_THREADS: Final = 1_000


class IdleScheduler:
    """A write scheduler that never writes, so that frames stay in the outbox."""

    def __init__(self, counters: DeliveryCounters, crowded: CrowdedOutboxes) -> None:
        self.limits = OUTBOX_LIMITS
        self.counters = counters
        self.crowded = crowded
        self.enqueued = 0
        self.quiet = False

    def schedule(self, subscriber: Subscriber) -> None:
        """Do nothing, because there is no socket."""


async def start_bridgekit() -> BridgekitStack:
    """Start an application with the default configuration and without an edge."""
    return BridgekitStack(await start_application(BridgeConfig(agents={}), in_memory()))


def attach_subscriber(stack: BridgekitStack, thread_id: str) -> Subscriber:
    """Attach a subscriber that has an outbox but no socket."""
    subscription = Subscription(UserId(USER), ThreadId(thread_id))
    bridge = stack.application.bridge
    subscriber = Subscriber(subscription, IdleScheduler(bridge.counters, bridge.hub.crowded))
    bridge.hub.attach(subscriber)
    subscriber.start(Replay(Cursor("", 0)))
    return subscriber


async def own_cost(runs: int) -> dict[str, float]:
    """Measure the CPU times per event, in µs, of emitting, resolving, encoding, checking and `json.loads`."""
    stack = await start_bridgekit()
    sockets = [attach_subscriber(stack, AgentRun(thread, 0).thread_id) for thread in range(THREADS)]
    wave = Wave(THREADS, runs)
    spent = 0
    for number in range(wave.runs):
        runs_now = [AgentRun(thread, number) for thread in range(THREADS)]
        script = [(stack.agent(run), body) for run in runs_now for body in run.bodies()]
        begun = time.process_time_ns()
        for emit_event, body in script:
            await emit_event(body)
        spent += time.process_time_ns() - begun
        for socket in sockets:
            while socket.next_frames():
                pass
    events = [event_of(AgentRun(0, number)) for number in range(wave.events // EVENTS)]
    mapping = stack.application.bridge.mapping
    for event in events:
        await mapping.register_mapping(event.run_id, ThreadId(AgentRun(0, 0).thread_id))
    return {
        "emit": spent / wave.events / 1_000,
        "resolve, carried": await _resolved(stack, events),
        "resolve, mapped": await _resolved(stack, [msgspec.structs.replace(each, thread_id=None) for each in events]),
        "encode": _encoded(events),
        **_checked(),
    }


def event_of(run: AgentRun, position: int = 2) -> AgentEvent:
    """Return one event of a run. The default is the third event, which has a typical size."""
    body = run.bodies()[position]
    return AgentEvent(
        type=EventType(body.type),
        run_id=RunId(run.run_id),
        agent_name=AGENT,
        payload=body.payload,
        thread_id=ThreadId(run.thread_id),
    )


async def _resolved(stack: BridgekitStack, events: list[AgentEvent]) -> float:
    resolve = stack.application.bridge.resolver.resolve
    begun = time.process_time_ns()
    for event in events:
        route = resolve(event)
        if not isinstance(route, str | NoRoute):
            await route
    return (time.process_time_ns() - begun) / len(events) / 1_000


def _encoded(events: list[AgentEvent]) -> float:
    begun = time.process_time_ns()
    for event in events:
        encode(event)
    return (time.process_time_ns() - begun) / len(events) / 1_000


def _checked() -> dict[str, float]:
    """Measure the CPU time per event of the checker and, for comparison, of `json.loads` for a frame, in µs."""
    history = sound_history(CHECKED_EVENTS)
    begun = time.process_time_ns()
    check(history)
    checked = time.process_time_ns() - begun
    frames = [encode(event_of(AgentRun(0, number), number % EVENTS)) for number in range(CHECKED_EVENTS)]
    begun = time.process_time_ns()
    for frame in frames:
        json.loads(frame)
    loaded = time.process_time_ns() - begun
    return {"check": checked / CHECKED_EVENTS / 1_000, "json.loads": loaded / CHECKED_EVENTS / 1_000}


def sound_history(events: int) -> History:
    """Return a history in which every event was sent and arrived in order."""
    sockets = [Socket(number, ThreadId(f"thread_{number}"), UserId(f"user_{number}")) for number in range(THREADS)]
    history = History(sockets=sockets)
    for number in range(events):
        socket, seq = sockets[number % THREADS], number // THREADS + 1
        key, run = EventKey(f"question {number}", EventType.TOOL_EXECUTING, 1), RunId(f"run_{number}")
        receipt = Receipt(outcome=Outcome.SENT, sockets=1, kept=True, thread_id=socket.thread_id, seq=seq, epoch="e")
        history.expected.append(Expectation(key, socket.thread_id, socket.user_id))
        history.acknowledged[key] = run, receipt
        history.arrivals.append(Arrival(socket, key, run, seq, number / 1e3, number / 1e3 + 1e-4))
    return history


async def encodings(subscribers: int) -> dict[str, float]:
    """Count how often one event is encoded if its thread has this number of subscribers."""
    stack = await start_bridgekit()
    run = AgentRun(0, 0)
    sockets = [attach_subscriber(stack, run.thread_id) for _ in range(subscribers)]
    counted = 0

    def watch(frame: FrameType, what: str, arg: object) -> None:
        nonlocal counted
        if what == "c_call" and isinstance(arg, BuiltinFunctionType):
            counted += isinstance(arg.__self__, msgspec.json.Encoder)

    emit_event, bodies = stack.agent(run), run.bodies()
    sys.setprofile(watch)
    try:
        for body in bodies:
            await emit_event(body)
    finally:
        sys.setprofile(None)
    assert all(len(socket) == EVENTS for socket in sockets)
    return {"encodings": counted / EVENTS}


async def mapping_bytes(mappings: int) -> dict[str, float]:
    """Measure the memory of an active run in the mapping, in bytes, with its id and its share of the tables."""
    service, ids = RunThreadMappingService(), SignedRunIds()
    threads = [ThreadId(AgentRun(number, 0).thread_id) for number in range(MAPPED_THREADS)]
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(mappings):
        thread = threads[number % MAPPED_THREADS]
        await service.register_mapping(ids.new(thread), thread)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"bytes": (after - before) / mappings}


async def _measure(request: MeasureOwnCost | CountEncodings | MeasureMapping) -> dict[str, float]:
    match request:
        case MeasureOwnCost(runs):
            return await own_cost(runs)
        case CountEncodings(subscribers):
            return await encodings(subscribers)
        case MeasureMapping(mappings):
            return await mapping_bytes(mappings)


async def main() -> None:
    send(Ready())
    async for request in read_requests(MeasureOwnCost | CountEncodings | MeasureMapping):
        send(MeasuredValues(await _measure(request)))


if __name__ == "__main__":
    asyncio.run(main())
