"""From the backlog to one server: many threads' events in one command, and the answers to whoever published them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, cast

import anyio
from anyio.abc import TaskGroup
from coredis.exceptions import RedisError
from coredis.typing import RedisValueT, ResponseType

from bridgekit.events import Outcome, Receipt
from bridgekit.storage.redis import Server, Servers
from bridgekit.storage.redis_door import TROUBLE, problem_of
from bridgekit.storage.redis_library import APPEND
from bridgekit.storage.redis_line import SILENCE_SECONDS, Backoff
from bridgekit.transport.broker import LINK, UNHEARD, Keep
from bridgekit.transport.broker.redis_backlog import Backlog, Lane

__all__ = ["Sender", "settings_of"]

SENDERS: Final = 2
"""Commands under way to one server: while it works on one, we prepare the other."""
COMMAND_EVENTS: Final = 256
"""Events in one command, about: the server does nothing else meanwhile (some 10 µs each)."""
COMMAND_BYTES: Final = 1_048_576


def settings_of(keep: Keep, server: Server) -> bytes:
    """What the functions are told of how much to keep, and of what the server promises."""
    lasts_ms = max(1, round(1_000 * keep.seconds))
    return b"%d %d %d %d" % (keep.events, keep.size_bytes, lasts_ms, server.promises)


class Sender:
    """What goes to one server."""

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
        self._emitter = emitter
        self._route = route
        self._queue: deque[Lane] = deque()
        self._some = anyio.Event()
        self._backoff = Backoff()

    def push(self, lane: Lane) -> None:
        """Send what is in the lane when its turn comes. Nobody else may have it."""
        lane.queued = True
        self._queue.append(lane)
        self._some.set()

    def clear(self) -> list[Lane]:
        """Let go of all lanes whose turn has not come."""
        lanes = list(self._queue)
        self._queue.clear()
        return lanes

    async def run(self) -> None:
        """Send, for ever."""
        async with anyio.create_task_group() as tasks:
            for _ in range(SENDERS):
                tasks.start_soon(self._send, tasks)

    async def _send(self, tasks: TaskGroup) -> None:
        while True:
            while not self._queue:
                self._some = anyio.Event()
                await self._some.wait()
            await self.server.line.up()
            if lanes := self._take():
                await self._carry(lanes, tasks)

    def _take(self) -> list[Lane]:
        lanes: list[Lane] = []
        events = size_bytes = 0
        while self._queue and events < COMMAND_EVENTS and size_bytes < COMMAND_BYTES:
            lane = self._queue.popleft()
            parcel = lane.seal(self._backlog.numbers)
            lanes.append(lane)
            events += len(parcel.entries) or 1
            size_bytes += parcel.size_bytes
        return lanes

    async def _carry(self, lanes: list[Lane], tasks: TaskGroup) -> None:
        """Send the lanes' parcels, and settle what became of them. What failed is tried again a moment later."""
        left = deque(self._grouped(lanes))
        failed: list[Lane] = []
        try:
            with anyio.fail_after(SILENCE_SECONDS):
                for request in [self._request(group) for group in left]:
                    try:
                        failed += self._settled(left[0], cast("list[Any]", await request))
                    except RedisError as error:
                        failed += left[0]
                        self._note(error)
                    left.popleft()
        except TimeoutError:
            self.problem = f"no answer in {SILENCE_SECONDS:.0f} s"
            self.server.line.drop()
        except TROUBLE as error:
            self._note(error)
        finally:
            failed += [lane for group in left for lane in group]
            if failed:
                tasks.start_soon(self._try_again, failed)

    def _grouped(self, lanes: list[Lane]) -> Iterable[list[Lane]]:
        """What can go in one command: in a Cluster, threads of one slot."""
        if not self._servers.is_cluster:
            return [lanes]
        groups: dict[int, list[Lane]] = {}
        for lane in lanes:
            groups.setdefault(lane.keys.slot, []).append(lane)
        return groups.values()

    def _request(self, group: list[Lane]) -> Awaitable[ResponseType]:
        keys: list[RedisValueT] = []
        words: list[RedisValueT] = []
        for lane in group:
            parcel = lane.seal(self._backlog.numbers)
            keys += lane.keys.log, lane.keys.head
            words += parcel.number, parcel.skip, len(parcel.entries)
            for entry in parcel.entries:
                words += entry.draft.around
        settings = settings_of(self._keep, self.server)
        return self.server.line.request(b"FCALL", APPEND, len(keys), *keys, settings, self._emitter, *words)

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
            self.answered_at = anyio.current_time()
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
        kept = self._keep.events > 0
        if told:
            return Receipt(
                outcome=Outcome.RELAYED, workers=told, kept=kept, thread_id=lane.thread_id, seq=seq, epoch=epoch
            )
        return Receipt(
            outcome=Outcome.NOBODY_LISTENING,
            kept=kept,
            thread_id=lane.thread_id,
            seq=seq,
            epoch=epoch,
            link=LINK,
            reason=UNHEARD,
        )

    def _note(self, error: BaseException) -> None:
        self.problem = problem_of(error)
        self._servers.heed(self.server, error)

    async def _try_again(self, lanes: list[Lane]) -> None:
        try:
            await anyio.sleep(self._backoff.next())
        finally:
            # Also when the server has left: somebody else has their slots now.
            for lane in lanes:
                self._route(lane)
