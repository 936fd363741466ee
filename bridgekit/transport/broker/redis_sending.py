"""From the backlog to one server: many threads' events in one command, and the answers to whoever published them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import anyio

from bridgekit.events import Outcome, Receipt
from bridgekit.storage.redis import Server, Servers
from bridgekit.storage.redis_door import TROUBLE, problem_of
from bridgekit.storage.redis_line import SILENCE_SECONDS, Backoff
from bridgekit.transport.broker.redis_backlog import Backlog, Lane
from bridgekit.transport.broker.redis_packing import appended
from bridgekit.transport.log import LINK, UNHEARD, Keep

__all__ = ["Sender", "settings_of"]

TRIPS: Final = 2
"""Writes to one server that are not answered: while it works on one, we prepare the other. Where there are more of
them each is smaller, and that costs more than it brings forward."""
TRIP_EVENTS: Final = 256
"""Events in one write, about: the server does nothing else meanwhile (some 10 µs each)."""
TRIP_BYTES: Final = 1_048_576

_RELAYED: Final = Outcome.RELAYED  # an enumeration takes longer to find its member than a Receipt takes to be made


def settings_of(keep: Keep, server: Server) -> bytes:
    """What the functions are told of how much to keep, and of what the server promises."""
    lasts_ms = max(1, round(1_000 * keep.seconds))
    return b"%d %d %d %d" % (keep.events, keep.size_bytes, lasts_ms, server.promises)


class _Trip:
    """One write: the threads of each of its commands that is not answered, in their order."""

    __slots__ = ("groups", "since")

    def __init__(self, groups: Iterable[list[Lane]]) -> None:
        self.groups = deque(groups)
        self.since = time.monotonic()


class Sender:
    """What goes to one server.

    What is put within one turn of the event loop goes in one write at its end, or in several where it is much. An event
    that has had no company lately goes at once. Answers are taken as they come, without a task for any of them.
    """

    def __init__(
        self,
        server: Server,
        servers: Servers,
        backlog: Backlog,
        keep: Keep,
        emitter: bytes,
        route: Callable[[Lane], None],
    ) -> None:
        """`route` is given each lane with more to send: to whom it is to go may have changed."""
        self.server = server
        self.away = False
        """Whether nobody should wait for it: it has not answered for a while."""
        self.answered_at = 0.0
        self.problem = ""
        """What it said, or what was wrong, the last time that something failed."""
        self._servers = servers
        self._backlog = backlog
        self._keep = keep
        self._keeps = keep.events > 0
        self._emitter = emitter
        self._route = route
        self._queue: deque[Lane] = deque()
        self._trips: deque[_Trip] = deque()
        self._alone = True
        """Whether what went last was one thread's."""
        self._failed: list[Lane] = []
        self._news = anyio.Event()
        self._trouble = anyio.Event()
        self._backoff = Backoff()

    def push(self, lane: Lane) -> None:
        """Send what is in the lane when its turn comes. Nobody else may have it."""
        lane.queued = True
        self._queue.append(lane)
        if self._alone and not self._trips and self.server.line.connected:
            self._carry(self._take())
        elif len(self._queue) == 1:
            self._news.set()

    def clear(self) -> list[Lane]:
        """Let go of all lanes whose turn has not come."""
        lanes = list(self._queue)
        self._queue.clear()
        return lanes

    def give_up_if_silent(self) -> None:
        """A connection that owes an answer for too long is of no use."""
        if self._trips and time.monotonic() - self._trips[0].since >= SILENCE_SECONDS:
            self.server.line.drop(f"no answer in {SILENCE_SECONDS:.0f} s")

    async def run(self) -> None:
        """Send, until the server has left."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send)
                tasks.start_soon(self._try_again)
        finally:
            # Somebody else has their slots now. What is answered from here on is nobody's business.
            lanes = [*self._failed, *(lane for trip in self._trips for group in trip.groups for lane in group)]
            self._failed.clear()
            for trip in self._trips:
                trip.groups.clear()
            self._trips.clear()
            for lane in lanes:
                self._route(lane)

    async def _send(self) -> None:
        while True:
            while not self._queue or len(self._trips) >= TRIPS:
                self._news = anyio.Event()
                await self._news.wait()
            await self.server.line.up()
            while self._queue and len(self._trips) < TRIPS and self.server.line.connected:
                self._carry(self._take())

    def _take(self) -> list[Lane]:
        lanes: list[Lane] = []
        events = size_bytes = 0
        while self._queue and events < TRIP_EVENTS and size_bytes < TRIP_BYTES:
            lane = self._queue.popleft()
            parcel = lane.seal(self._backlog.numbers)
            lanes.append(lane)
            events += len(parcel.entries) or 1
            size_bytes += parcel.size_bytes
        return lanes

    def _carry(self, lanes: list[Lane]) -> None:
        """Send the lanes' parcels. What becomes of them is told to `_settle`, one command after the other."""
        self._alone = len(lanes) == 1
        trip = _Trip(self._grouped(lanes))
        settings = settings_of(self._keep, self.server)
        packed = b"".join([appended(group, settings, self._emitter) for group in trip.groups])
        self._trips.append(trip)
        try:
            self.server.line.send(packed, partial(self._settle, trip), answers=len(trip.groups))
        except TROUBLE as error:
            self._trips.remove(trip)
            self._note(error)
            self._fail(lanes)

    def _grouped(self, lanes: list[Lane]) -> Iterable[list[Lane]]:
        """What can go in one command: in a Cluster, threads of one slot."""
        if not self._servers.is_cluster:
            return [lanes]
        groups: dict[int, list[Lane]] = {}
        for lane in lanes:
            groups.setdefault(lane.keys.slot, []).append(lane)
        return groups.values()

    def _settle(self, trip: _Trip, said: Any) -> None:
        """One command of that trip is answered, or will not be."""
        if not trip.groups:
            return
        group = trip.groups.popleft()
        if not trip.groups:
            self._trips.remove(trip)
        if isinstance(said, BaseException):
            self._note(said)
            self._fail(group)
        elif failed := self._settled(group, said):
            self._fail(failed)
        if self._queue:
            self._news.set()

    def _settled(self, group: list[Lane], answers: list[Any]) -> list[Lane]:
        """Tell the publishers, and answer the lanes that it did not work for."""
        failed = []
        for lane, epoch, last, told in zip(group, answers[0::3], answers[1::3], answers[2::3], strict=True):
            if told < 0:
                self.problem = epoch.decode()
                failed.append(lane)
            else:
                self._arrived(lane, epoch.decode(), int(last), told)
        if len(failed) < len(group):
            self.away = False
            self.answered_at = time.monotonic()
            self._backoff.reset()
        return failed

    def _arrived(self, lane: Lane, epoch: str, last: int, told: int) -> None:
        entries = [] if lane.parcel is None else lane.parcel.entries
        for seq, entry in enumerate(entries, last - len(entries) + 1):
            if entry.receipt is None:
                entry.answer(self._receipt(lane, epoch, seq, told))
        lane.queued = False
        if self._backlog.arrived(lane):
            self._route(lane)

    def _receipt(self, lane: Lane, epoch: str, seq: int, told: int) -> Receipt:
        if told:
            return Receipt(
                outcome=_RELAYED, workers=told, kept=self._keeps, thread_id=lane.thread_id, seq=seq, epoch=epoch
            )
        return Receipt(
            outcome=Outcome.NOBODY_LISTENING,
            kept=self._keeps,
            thread_id=lane.thread_id,
            seq=seq,
            epoch=epoch,
            link=LINK,
            reason=UNHEARD,
        )

    def _note(self, error: BaseException) -> None:
        self.problem = problem_of(error)
        self._servers.heed(self.server, error)

    def _fail(self, lanes: list[Lane]) -> None:
        self._failed += lanes
        self._trouble.set()

    async def _try_again(self) -> None:
        """What failed goes its way once more a moment later."""
        while True:
            await self._trouble.wait()
            self._trouble = anyio.Event()
            await anyio.sleep(self._backoff.next())
            failed, self._failed = self._failed, []
            for lane in failed:
                self._route(lane)
