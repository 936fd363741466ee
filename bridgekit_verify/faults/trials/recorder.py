"""Record what the workers of a trial report and what its users read, and build the history from both."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Final

import anyio
from anyio.abc import TaskStatus
from msgspec.structs import replace
from websockets.exceptions import InvalidHandshake

from bridgekit.chain.lost_runs import WORKER_LOST
from bridgekit.cursors_and_gaps import Cursor, Gap
from bridgekit.errors import Disconnected
from bridgekit.events import EventType, Receipt, RoutedEvent
from bridgekit.transport.client import connect
from bridgekit.transport.resuming_client import Backoff, subscribe
from bridgekit_verify.faults.trials.worker_process import Acknowledged, Attempted, Ended, RunReport
from bridgekit_verify.measure.experiment import arrival_of
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History, SignalledGap, Socket
from bridgekit_verify.measure.thread_id_families import OwnedThread

__all__ = ["Reader", "Recorder", "assign_seq", "read_and_resume", "read_without_resume"]

KEEPALIVE_SECONDS: Final = 5.0
"""The keepalive interval: longer than the faults, so that the keepalive does not disconnect clients."""
BACKOFF: Final = Backoff(first_seconds=0.02, longest_seconds=0.2)


@dataclass
class Reader:
    """One user, with the events and gaps that the user's sockets read."""

    socket: Socket
    url: str
    ticket: Callable[[], Awaitable[str]]
    arrivals: list[Arrival] = field(default_factory=list)
    gaps: list[SignalledGap] = field(default_factory=list)
    online: list[tuple[float, float]] = field(default_factory=list)
    """Start and end of each subscription, in seconds since the Unix epoch."""
    starts: list[int] = field(default_factory=list)
    """The `seq` after which each subscription starts, as the server confirmed it. The list is empty for a client that
    resumes."""
    duplicates: int = 0
    """The number of duplicated events that the client dropped."""
    lost_run_ends: int = 0
    """The number of end events that another process sent for the runs of a killed worker."""
    _since: float = 0.0
    _online: anyio.Event = field(default_factory=anyio.Event)
    _ended: dict[str, anyio.Event] = field(default_factory=dict)

    @property
    def offline(self) -> list[tuple[float, float]]:
        """The intervals between subscriptions."""
        return [(earlier[1], later[0]) for earlier, later in pairwise(self.online)]

    def on_status(self, subscribed: bool) -> None:
        """Record that a socket was subscribed, or that its connection ended."""
        if subscribed:
            self._since = time.time()
            self._online.set()
        else:
            self.online.append((self._since, time.time()))
            self._online = anyio.Event()

    async def wait_online(self) -> None:
        """Wait until a socket is subscribed."""
        await self._online.wait()

    def record(self, item: RoutedEvent | Gap, epoch: str) -> None:
        """Record an event or gap that a socket read, with the epoch of its log."""
        if isinstance(item, Gap):
            self.gaps.append(SignalledGap(item.first, item.last, item.epoch))
            return
        arrival = arrival_of(self.socket, item, read_at=time.time(), epoch=epoch)
        self.arrivals.append(arrival)
        if item.payload.get("error_context") == {"reason": WORKER_LOST}:
            self.lost_run_ends += 1
        if arrival.key is not None and arrival.key.type is EventType.AGENT_COMPLETED:
            self._end_of(arrival.key.request).set()

    async def wait_ended(self, request: str) -> None:
        """Wait until the end of the run with this request was read."""
        await self._end_of(request).wait()

    def _end_of(self, request: str) -> anyio.Event:
        return self._ended.setdefault(request, anyio.Event())


async def read_and_resume(reader: Reader, *, task_status: TaskStatus[None]) -> None:
    """Read with the resuming client until cancelled."""
    async with subscribe(
        reader.url,
        on_status=reader.on_status,
        thread_id=reader.socket.thread_id,
        ticket=reader.ticket,
        backoff=BACKOFF,
        keepalive_seconds=KEEPALIVE_SECONDS,
    ) as follower:
        task_status.started()
        async for item in follower:
            reader.duplicates = follower.duplicates
            reader.record(item, follower.cursor.epoch if follower.cursor else "")


async def read_without_resume(reader: Reader, *, task_status: TaskStatus[None]) -> None:
    """Read on one connection after another, without a cursor, until cancelled."""
    started = False
    while True:
        try:
            async with connect(
                reader.url,
                thread_id=reader.socket.thread_id,
                ticket=await reader.ticket(),
                keepalive_seconds=KEEPALIVE_SECONDS,
            ) as client:
                if not started:
                    started = True
                    task_status.started()
                reader.starts.append(client.subscribed.seq)
                reader.on_status(True)
                try:
                    while True:
                        reader.record(await client.receive_any(), client.subscribed.epoch)
                finally:
                    reader.on_status(False)
        except (Disconnected, OSError, TimeoutError, InvalidHandshake):
            pass  # reconnect without a cursor
        await anyio.sleep(BACKOFF.first_seconds)


@dataclass
class Recorder:
    """The reports that the workers sent during one experiment."""

    history: History = field(default_factory=History)
    attempted: dict[EventKey, Expectation] = field(default_factory=dict)
    acknowledged: dict[EventKey, Acknowledged] = field(default_factory=dict)
    attempted_at: dict[EventKey, float] = field(default_factory=dict)
    owners: dict[str, OwnedThread] = field(default_factory=dict)
    """For each request, the thread and its owner."""
    emitted: Counter[str] = field(default_factory=Counter)
    """For each request, the number of events that the agent attempted to emit."""
    ended: dict[str, str] = field(default_factory=dict)
    """For each request whose run has ended, the error text. The text is empty if the run succeeded."""
    _changed: anyio.Event = field(default_factory=anyio.Event)

    async def wait_ended(self, requests: Sequence[str]) -> None:
        """Wait until the runs of these requests have ended, with or without an error."""
        while not set(requests) <= set(self.ended):
            await self._changed.wait()

    async def wait_emitted(self, wanted: Mapping[str, int]) -> None:
        """Wait until each run has ended or its agent has attempted to emit the given number of events."""
        while any(self.emitted[request] < count for request, count in wanted.items() if request not in self.ended):
            await self._changed.wait()

    def record(self, report: RunReport) -> None:
        if isinstance(report, Attempted):
            owner = self.owners[report.key.request]
            self.attempted[report.key] = Expectation(report.key, owner.thread_id, owner.user_id)
            self.attempted_at[report.key] = report.at
            self.emitted[report.key.request] += 1
        elif isinstance(report, Acknowledged):
            self.acknowledged[report.key] = report
        elif isinstance(report, Ended):
            self.ended[report.request] = report.error
        self._changed.set()
        self._changed = anyio.Event()

    def complete(self, readers: Sequence[Reader]) -> tuple[History, int]:
        """Return the complete history, and how many events were neither acknowledged nor read.

        If a worker is killed before it acknowledges an event, both delivery and loss are correct, so the event is
        expected only if it arrived. (Jepsen calls such an operation indeterminate.)
        """
        read = {arrival.key for reader in readers for arrival in reader.arrivals}
        expected = [each for key, each in self.attempted.items() if key in self.acknowledged or key in read]
        history = self.history
        history.expected += expected
        for reader in readers:
            asked = [key for key, each in self.attempted.items() if each.thread_id == reader.socket.thread_id]
            receipts = {key: self.acknowledged[key].receipt for key in asked if key in self.acknowledged}
            receipts = assign_seq(asked, receipts, reader.arrivals, reader.gaps)
            history.acknowledged |= {key: (self.acknowledged[key].run_id, receipts[key]) for key in receipts}
        history.sockets += [reader.socket for reader in readers]
        history.arrivals += sorted(
            (arrival for reader in readers for arrival in reader.arrivals), key=lambda arrival: arrival.read_at
        )
        history.gaps |= {reader.socket.number: reader.gaps for reader in readers}
        return history, len(self.attempted) - len(expected)


Gaps = Sequence[SignalledGap]


def assign_seq(
    asked: Sequence[EventKey], receipts: Mapping[EventKey, Receipt], arrivals: Sequence[Arrival], gaps: Gaps
) -> dict[EventKey, Receipt]:
    """Infer the `seq` of events that were acknowledged without a `seq` because the store was unavailable.

    `asked` lists one thread's events in the order of emission. Returns all receipts. An event's `seq` lies between
    those of the events emitted before and after it. An event that was read needs no inferred `seq`. Any other event
    gets the first possible `seq` that was neither read nor signalled, and counts as a silent loss. If every possible
    `seq` was read or signalled, the event gets the `seq` of a signalled event. If no `seq` is left, or no later event
    has a known `seq`, the receipt stays without a `seq`.
    """
    known = {arrival.key: Cursor(arrival.epoch or "", arrival.seq) for arrival in arrivals if arrival.key is not None}
    known |= {key: Cursor(r.epoch or "", r.seq) for key, r in receipts.items() if r.seq is not None}
    read = {(arrival.epoch or "", arrival.seq) for arrival in arrivals}
    found = dict(receipts)
    for index, key in enumerate(asked):
        if key in known or key not in receipts:
            continue
        before = next((known[each] for each in reversed(asked[:index]) if each in known), None)
        after = next((known[each] for each in islice(asked, index + 1, None) if each in known), None)
        number = _number(before, after, read, gaps)
        if number is not None:
            found[key] = replace(receipts[key], seq=number.seq, epoch=number.epoch or None)
    return found


def _number(before: Cursor | None, after: Cursor | None, read: set[tuple[str, int]], gaps: Gaps) -> Cursor | None:
    if after is None:
        return None
    epoch, signalled = after.epoch, None
    number = before.seq + 1 if before is not None and before.epoch == epoch else 1
    while number < after.seq:
        gap = next((gap for gap in gaps if _covers(gap, epoch, number)), None)
        if gap is not None:
            signalled = signalled or Cursor(epoch, number)
            number = after.seq if gap.last is None else gap.last + 1
        elif (epoch, number) in read:
            number += 1
        else:
            return Cursor(epoch, number)
    return signalled


def _covers(gap: SignalledGap, epoch: str, number: int) -> bool:
    return gap.epoch in (None, epoch or None) and gap.first <= number and (gap.last is None or number <= gap.last)
