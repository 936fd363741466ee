"""The two attempts that need real sockets: link 9 finds an event's thread, and the hub the thread's sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio

from bridgekit.events import AgentEvent, EventType, Outcome, Receipt, RoutedEvent
from bridgekit.ids import RunId, ThreadId
from bridgekit.transport.client import EventClient, connect
from bridgekit_verify.measure.workload import AGENT, FAMILIES, OwnedThread, thread_ids
from bridgekit_verify.probes.probe_fixture import ProbeFixture, ProbeInconclusive, expect

__all__ = ["THREADS_PER_FAMILY", "routing", "to_sockets"]

THREADS_PER_FAMILY: Final = 3
EVENTS_PER_THREAD: Final = 2
"""Two show whether the hub keeps their order."""

Read = dict[OwnedThread, list[RoutedEvent]]


async def routing(fixture: ProbeFixture) -> str:
    """Link 9: an event of every kind of thread, by the run's id and the thread it carries."""
    silent = await fixture.bridge.notify_agent_started(RunId("run_nobody"), AGENT)
    expect(not silent, "an event of an unknown run is called sent")
    owned = {name: thread_ids(name, fixture.threads, seed=fixture.seed) for name in FAMILIES}
    threads = [thread for each in owned.values() for thread in each]
    async with _listening(fixture, threads) as read:
        receipts = {thread: await _notified(fixture, thread) for thread in threads}
    _expect_no_stray(receipts, read)
    lost = [name for name, each in owned.items() if any(not _routed(receipts, thread) for thread in each)]
    expect(not lost, f"no route in {len(lost)} of {len(owned)} families of thread ids ({_reason(receipts)})")
    held = [thread for thread in threads if receipts[thread].seq is None]
    expect(not held, f"{len(held)} of {len(threads)} events were called sent, and not given to the hub")
    if any(_messages(read, thread) != [thread.thread_id] for thread in threads):
        raise ProbeInconclusive("each event finds its thread, but not its thread's socket: link 10 is broken")
    return f"in {len(owned)} families of thread ids, each event reached its own thread's socket and no other"


def _expect_no_stray(receipts: dict[OwnedThread, Receipt], read: Read) -> None:
    """Nobody reads what link 9 sent to another thread. What it sent right and strays yet is the hub's affair."""
    by_name = {thread.thread_id: thread for thread in receipts}
    astray = [
        (thread.thread_id, message)
        for thread in read
        for message in _messages(read, thread)
        if message != thread.thread_id and not _routed(receipts, by_name[ThreadId(str(message))])
    ]
    expect(
        not astray,
        f"{len(astray)} events reached another user's socket"
        + (f", such as one of {astray[0][1]!r} that went to {astray[0][0]!r}" if astray else ""),
    )


async def to_sockets(fixture: ProbeFixture) -> str:
    """Link 10: given to the hub by hand, a thread's events reach that thread's socket, all, in order, and no other."""
    hub, threads = fixture.bridge.hub, thread_ids("chat_<n>", 2 * fixture.threads, seed=fixture.seed)
    unheard = await hub.publish(_event("nobody"), ThreadId("nobody"))
    expect(not unheard, "an event that nobody listened to is called sent")
    async with _listening(fixture, threads) as read:
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
    """A run of the thread, and its one event, which names the thread in its message."""
    run_id = fixture.application.config.run_ids.new(thread.thread_id)
    await fixture.bridge.mapping.register_mapping(run_id, thread.thread_id)
    return await fixture.bridge.notify_agent_started(run_id, AGENT, message=thread.thread_id, thread_id=thread.thread_id)


@asynccontextmanager
async def _listening(fixture: ProbeFixture, threads: Sequence[OwnedThread]) -> AsyncIterator[Read]:
    """A socket for each thread, and what each has read once the block is over."""
    read: Read = {thread: [] for thread in threads}

    async def listen(client: EventClient, events: list[RoutedEvent]) -> None:
        events += [event async for event in client]

    async with AsyncExitStack() as stack, anyio.create_task_group() as listeners:
        for thread in threads:
            await fixture.application.open_thread(thread.thread_id, thread.user_id)
            client = await stack.enter_async_context(
                connect(fixture.url, user_id=thread.user_id, thread_id=thread.thread_id)
            )
            listeners.start_soon(listen, client, read[thread])
        yield read
        await fixture.app.state.bridgekit_connections.drain()
