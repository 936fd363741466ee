"""The two probe cases that need real sockets: link 9 finds an event's thread, and the hub the thread's sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio

from bridgekit.events import AgentEvent, EventType, Outcome, Receipt, RoutedEvent
from bridgekit.ids import RunId, ThreadId
from bridgekit.transport.client import EventClient, connect
from bridgekit_verify.measure.families import threads_by_family
from bridgekit_verify.measure.workload import AGENT, OwnedThread, thread_ids
from bridgekit_verify.probes.probe_fixture import ProbeFixture, ProbeInconclusive, expect

__all__ = ["THREADS_PER_FAMILY", "routing", "to_sockets"]

THREADS_PER_FAMILY: Final = 3
EVENTS_PER_THREAD: Final = 2
"""Two are enough to show whether the hub preserves their order."""

Read = dict[OwnedThread, list[RoutedEvent]]


async def routing(fixture: ProbeFixture) -> str:
    """Link 9: an event of every family of thread ids, routed by the run's id and the thread it carries."""
    silent = await fixture.bridge.notify_agent_started(RunId("run_unknown"), AGENT)
    expect(not silent, "an event of an unknown run is reported as sent")
    owned = threads_by_family(fixture.families, fixture.threads, seed=fixture.seed)
    threads = [thread for each in owned.values() for thread in each]
    async with _subscribed_clients(fixture, threads) as read:
        receipts = {thread: await _notified(fixture, thread) for thread in threads}
    _expect_no_misroute(receipts, read)
    lost = [name for name, each in owned.items() if any(not _routed(receipts, thread) for thread in each)]
    expect(not lost, f"no route in {len(lost)} of {len(owned)} families of thread ids ({_reason(receipts)})")
    held = [thread for thread in threads if receipts[thread].seq is None]
    expect(not held, f"{len(held)} of {len(threads)} events were reported as sent, but not passed to the hub")
    if any(_messages(read, thread) != [thread.thread_id] for thread in threads):
        raise ProbeInconclusive(
            "link 9 finds each event's thread, but the events do not reach its socket: link 10 is broken"
        )
    n = len(owned)
    return f"in {n} of {n} families of thread ids, each event reached its own thread's socket and no other"


def _expect_no_misroute(receipts: dict[OwnedThread, Receipt], read: Read) -> None:
    """Fail if link 9 sent an event to another thread and a socket read it.

    An event that link 9 routed correctly and the hub misrouted is not counted here.
    """
    by_name = {thread.thread_id: thread for thread in receipts}
    misrouted = [
        (thread.thread_id, message)
        for thread in read
        for message in _messages(read, thread)
        if message != thread.thread_id and not _routed(receipts, by_name[ThreadId(str(message))])
    ]
    expect(
        not misrouted,
        f"{len(misrouted)} events reached another user's socket"
        + (f", such as one of {misrouted[0][1]!r} that went to {misrouted[0][0]!r}" if misrouted else ""),
    )


async def to_sockets(fixture: ProbeFixture) -> str:
    """Link 10: the hub delivers each event to its own thread's socket and to no other.

    All events arrive, once and in order.
    """
    hub, threads = fixture.bridge.hub, thread_ids("chat_<n>", 2 * fixture.threads, seed=fixture.seed)
    unsent = await hub.publish(_event("no subscriber"), ThreadId("no_subscriber"))
    expect(not unsent, "an event without any subscriber is reported as sent")
    async with _subscribed_clients(fixture, threads) as read:
        for number in range(1, EVENTS_PER_THREAD + 1):
            for thread in threads:
                await hub.publish(_event(f"{thread.thread_id}, {number}"), thread.thread_id)
    wanted = {
        thread: [f"{thread.thread_id}, {number}" for number in range(1, EVENTS_PER_THREAD + 1)] for thread in threads
    }
    got = {thread: _messages(read, thread) for thread in threads}
    others = sum(message not in wanted[thread] for thread in threads for message in got[thread])
    expect(not others, f"{others} events reached a socket of another thread")
    lost = sum(message not in got[thread] for thread in threads for message in wanted[thread])
    expect(not lost, f"{lost} of {len(threads) * EVENTS_PER_THREAD} events reached no socket of their thread")
    late = sum(got[thread] != wanted[thread] for thread in threads)
    expect(not late, f"{late} of {len(threads)} sockets read their events in another order, or more than once")
    return f"{len(threads) * EVENTS_PER_THREAD} events reached their own thread's socket, once and in order"


def _event(message: str) -> AgentEvent:
    return AgentEvent(
        type=EventType.AGENT_STARTED, run_id=RunId("run_probe"), agent_name=AGENT, payload={"message": message}
    )


def _messages(read: Read, thread: OwnedThread) -> list[object]:
    return [event.payload.get("message") for event in read[thread]]


def _routed(receipts: dict[OwnedThread, Receipt], thread: OwnedThread) -> bool:
    return receipts[thread].thread_id == thread.thread_id


def _reason(receipts: dict[OwnedThread, Receipt]) -> str:
    reasons = Counter(
        receipt.reason or f"sent to {receipt.thread_id!r}"
        for thread, receipt in receipts.items()
        if receipt.outcome is Outcome.UNROUTABLE or not _routed(receipts, thread)
    )
    return reasons.most_common(1)[0][0] if reasons else ""


async def _notified(fixture: ProbeFixture, thread: OwnedThread) -> Receipt:
    """Open a run of the thread, and emit one event that names the thread in its message."""
    run_id = fixture.application.config.run_ids.new(thread.thread_id)
    await fixture.bridge.mapping.register_mapping(run_id, thread.thread_id)
    return await fixture.bridge.notify_agent_started(
        run_id, AGENT, message=thread.thread_id, thread_id=thread.thread_id
    )


@asynccontextmanager
async def _subscribed_clients(fixture: ProbeFixture, threads: Sequence[OwnedThread]) -> AsyncIterator[Read]:
    """Open a socket for each thread; the yielded dict is complete once the block has ended."""
    read: Read = {thread: [] for thread in threads}

    async def collect(client: EventClient, events: list[RoutedEvent]) -> None:
        events += [event async for event in client]

    async with AsyncExitStack() as stack, anyio.create_task_group() as readers:
        for thread in threads:
            await fixture.application.open_thread(thread.thread_id, thread.user_id)
            client = await stack.enter_async_context(
                connect(fixture.url, user_id=thread.user_id, thread_id=thread.thread_id)
            )
            readers.start_soon(collect, client, read[thread])
        yield read
        await fixture.app.state.bridgekit_connections.drain()
