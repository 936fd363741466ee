"""Active runs in a server that workers share: each worker renews a lease, and takes over the runs of dead workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import msgspec
from anyio import AsyncContextManagerMixin

from bridgekit.errors import StoreUnavailable, unwrap_single_error
from bridgekit.ids import RunId, ThreadId, new_id
from bridgekit.mapping import ActiveRun
from bridgekit.stores.redis.keys_and_functions import CLOSE_RUN, OPEN_RUN, RENEW_LEASE
from bridgekit.stores.redis.log import RedisEventLog
from bridgekit.stores.redis.mapping_and_tickets import RedisUsedTickets
from bridgekit.stores.redis.topology import ClusterTopology, RetryDelay
from bridgekit.transport.log import Retention

__all__ = ["LEASE_SECONDS", "RedisRunRegistry"]

LEASE_SECONDS: Final = 15.0
"""A worker that has not renewed its lease for this long counts as dead."""
FIRST_RETRY_SECONDS: Final = RetryDelay.FIRST_SECONDS / 2
"""Shortest pause before a call is repeated because its reply was lost."""
RENEWALS: Final = 5
"""How many times a worker renews its lease within the duration of one lease."""

_log = logging.getLogger(__name__)
_decode_run: Final = msgspec.json.Decoder(tuple[ThreadId, str]).decode


class RedisRunRegistry(AsyncContextManagerMixin):
    """Renews the worker's lease, records its runs, and takes over the runs of dead workers.

    A lease is a value that its worker changes. Another worker takes over when it has seen the same value for the
    duration of a lease, by its own monotonic clock, so that a step of a clock ends no run. After the store was
    unavailable, a worker takes over no runs for the duration of one lease, so that other workers can renew their
    leases.
    """

    def __init__(self, topology: ClusterTopology, used_tickets: RedisUsedTickets, log: RedisEventLog) -> None:
        self._topology = topology
        self._used_tickets = used_tickets
        self._log = log
        self._worker = new_id()
        self._lease_seconds = LEASE_SECONDS
        self._runs, self._workers, self._generation, self._retention = topology.names.runs()
        self._open: dict[RunId, bytes] = {}
        """The worker's open runs, including those that it took over, with thread and agent."""
        self._leases: dict[bytes, tuple[bytes, float]] = {}
        """The lease of each worker, and since when this worker has seen it unchanged."""
        self._known_generation = ""
        self._doubtful: set[RunId] = set()
        """Runs of this worker that another worker may have taken over, because the lease expired before it was
        renewed."""
        self._reply_may_be_lost = False
        """True if a reply that listed taken-over runs may have been lost, so that the next reply must list these runs
        again."""
        self._unclosed: set[RunId] = set()
        """Ended runs that the store may still hold, because it has not answered."""
        self._renewed_at = time.monotonic()
        self._answering_since: float | None = None
        """The time since which the store has answered every renewal."""
        self._lost: list[ActiveRun] = []
        self._found = asyncio.Event()
        self._takes_over = False
        """True if a task waits for lost runs. A process that only publishes does not take over lost runs."""

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[RedisRunRegistry]:
        with unwrap_single_error():
            async with anyio.create_task_group() as tasks:
                await self._renew_once(time.monotonic())
                tasks.start_soon(self._renew_lease)
                yield self
                tasks.cancel_scope.cancel()

    async def open(self, run: ActiveRun) -> None:
        self._unclosed.discard(run.run_id)
        self._open[run.run_id] = rest = msgspec.json.encode((run.thread_id, run.agent_name))
        await self._call(OPEN_RUN, 1, self._runs.name, self._worker, run.run_id, rest)

    async def holds(self, run_id: RunId) -> bool:
        # If the lease was renewed recently and has not expired since the run was opened, no worker can take over the
        # run before its end event is sent.
        fresh = time.monotonic() - self._renewed_at < self._lease_seconds / 2
        if run_id not in self._open or (fresh and run_id not in self._doubtful):
            return True
        try:
            # If the store has lost its data, the renewal stores the run again.
            await self._renew_once(time.monotonic())
            stored: bytes | None = await self._topology.call(self._runs.slot, "HGET", self._runs.name, run_id)
        except StoreUnavailable:
            return True
        if held := stored is not None and stored.startswith(self._worker.encode()):
            self._doubtful.discard(run_id)
        return held

    async def close(self, run_id: RunId) -> None:
        self._open.pop(run_id, None)
        self._doubtful.discard(run_id)
        self._unclosed.add(run_id)
        with suppress(StoreUnavailable):
            await self._call(CLOSE_RUN, 1, self._runs.name, self._worker, run_id)
            self._unclosed.discard(run_id)

    async def take_lost(self) -> list[ActiveRun]:
        self._takes_over = True
        self._log.trims_by = self._log.retention
        with suppress(StoreUnavailable):
            await self._renew_once(time.monotonic())  # announces the retention
        await self._found.wait()
        self._found.clear()
        lost, self._lost = self._lost, []
        return lost

    async def _renew_lease(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / RENEWALS)
            try:
                await self._renew_once(time.monotonic())
            except StoreUnavailable:
                self._answering_since = None

    async def _renew_once(self, began: float) -> None:
        since = self._answering_since
        takes_over = self._takes_over and since is not None and began - since >= self._lease_seconds
        dead = [
            value
            for worker, (lease, seen) in self._leases.items()
            if takes_over and began - seen >= self._lease_seconds
            for value in (worker, lease)
        ]
        lists_own, self._reply_may_be_lost = self._reply_may_be_lost, True
        keys = (self._runs.name, self._workers.name, self._generation.name, self._retention.name)
        retention = msgspec.json.encode(self._log.retention) if self._takes_over else b""
        synced = self._topology.synced(self._runs.slot)
        generation, of_workers, leases, *reply = await self._call(
            RENEW_LEASE, 4, *keys, self._worker, int(lists_own), synced, new_id(), retention, *dead
        )
        self._see(dict(zip(leases[0::2], leases[1::2], strict=True)), time.monotonic())
        if of_workers and not self._takes_over:
            # A process that only publishes must not trim the logs that the workers' clients resume from.
            with suppress(msgspec.DecodeError):  # another release stored it
                self._log.trims_by = msgspec.json.decode(of_workers, type=Retention)
        known, self._known_generation = self._known_generation, generation.decode()
        self._used_tickets.generation = self._known_generation
        if known != self._known_generation:
            # If the store has lost its data, it must store the runs again. No other worker can have taken over lost
            # entries.
            for run_id, rest in list(self._open.items()):
                await self._call(OPEN_RUN, 1, self._runs.name, self._worker, run_id, rest)
        if time.monotonic() - self._renewed_at >= self._lease_seconds:
            self._doubtful.update(self._open)
        self._renewed_at, self._answering_since = began, since or began
        # A call that takes FIRST_RETRY_SECONDS or longer may have been repeated because its first reply was lost.
        self._reply_may_be_lost = time.monotonic() - began >= FIRST_RETRY_SECONDS
        self._add_lost(reply)
        while self._unclosed:
            run_id = next(iter(self._unclosed))
            await self._call(CLOSE_RUN, 1, self._runs.name, self._worker, run_id)
            self._unclosed.discard(run_id)

    def _see(self, leases: dict[bytes, bytes], now: float) -> None:
        """Remember when each worker's lease changed. The own lease changes with each call."""
        before, own = self._leases, self._worker.encode()
        self._leases = {
            worker: before[worker] if worker in before and before[worker][0] == lease else (lease, now)
            for worker, lease in leases.items()
            if worker != own
        }

    def _add_lost(self, reply: list[bytes]) -> None:
        """Add the runs that this worker has taken over, each with its thread and agent."""
        for name, rest in zip(reply[0::2], reply[1::2], strict=True):
            try:
                run_id, (thread_id, agent_name) = RunId(name.decode()), _decode_run(rest)
            except (UnicodeDecodeError, msgspec.DecodeError) as error:
                # Another release of bridgekit may have stored the run.
                _log.warning("the run %r in %s cannot be ended: %s", name, self._runs.name.decode(), error)
                continue
            if run_id not in self._open and run_id not in self._unclosed:
                self._open[run_id] = rest
                self._lost.append(ActiveRun(run_id, thread_id, agent_name))
                self._found.set()

    async def _call(self, function: bytes, *arguments: bytes | str | int) -> Any:
        return await self._topology.call(self._runs.slot, "FCALL", function, *arguments)
