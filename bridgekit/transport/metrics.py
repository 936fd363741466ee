"""Converts the delivery counters to Prometheus metrics when they are scraped, so that counting stays cheap.

Each sample names its worker, by process id. The workers of one server write their counters to a common folder, so that
a scrape of any worker returns the metrics of all. In the folder, a random id distinguishes workers with one process id.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sized
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import msgspec
from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bridgekit.counters import NO_BRIDGE, NOT_AWAITED, RUN_ENDED, DeliveryCounters
from bridgekit.cursors_and_gaps import GapReason
from bridgekit.errors import (
    FrameTooLarge,
    InvalidId,
    PayloadError,
    StoreUnavailable,
    UnknownEventType,
    WrongEventLoop,
    unwrap_single_error,
)
from bridgekit.event_types import POLICIES
from bridgekit.thread_resolvers import OTHER_THREAD
from bridgekit.transport import authorization
from bridgekit.transport.hub import NO_ROOM
from bridgekit.transport.log import NO_SUBSCRIBER

__all__ = ["CONTENT_TYPE", "FOLDER_VARIABLE", "counters_shared", "exposition", "health"]

FOLDER_VARIABLE: Final = "BRIDGEKIT_WORKERS_FOLDER"
"""The environment variable with the folder that the workers of one server share. `bridgekit serve` sets it."""
WRITE_INTERVAL_SECONDS: Final = 1.0
DEAD_AFTER_SECONDS: Final = 15.0
"""A worker that has not written its counters for this long counts as having no connections. Its counts remain."""

CONNECTIONS: Final = "connections"
LOSSES: Final = (
    (7, NO_BRIDGE),
    (8, RUN_ENDED),
    (10, NOT_AWAITED),
    *((8, error.__name__) for error in (PayloadError, FrameTooLarge, InvalidId, UnknownEventType, WrongEventLoop)),
    (9, "the event carries no thread; the run is not in the mapping"),
    (9, OTHER_THREAD.reason),
    (9, StoreUnavailable.__name__),
    (10, NO_ROOM),
    (10, NO_SUBSCRIBER),
)
"""Reasons for which links 7 to 10 can lose events. Stores and an application's own resolver add further reasons."""
DISCONNECT_REASONS: Final[dict[int | None, str]] = {
    authorization.CLOSE_ACCESS_ENDED: "access ended",
    authorization.CLOSE_DRAINED: "drained",
    authorization.CLOSE_RESTARTED: "restarted",
    authorization.CLOSE_TOO_SLOW: "too slow",
    None: "socket left",
}
"""The reason why frames of a closed socket were not written, by the server's close code."""
BEGINNINGS: Final = ("new", "resumed", "gap")
CLOSE_CODES: Final = tuple(code for name, code in vars(authorization).items() if name.startswith("CLOSE_"))


def _encodable(text: object) -> str:
    """Replace what UTF-8 cannot represent, such as bytes of a file's name in the reason of a store."""
    return str(text).encode(errors="replace").decode()


Samples = list[tuple[tuple[str, ...], float]]
"""The labels and the value of each sample of one metric."""


class _Metric(NamedTuple):
    name: str
    field: str
    """The field of DeliveryCounters, or an empty string for the metric that is not a counter."""
    description: str
    labels: tuple[str, ...] = ()
    known: Iterable[Any] = ()
    """Label values that are exported as 0 from the start, because Prometheus shows an increase only after an earlier
    value."""

    def samples(self, counters: DeliveryCounters) -> Samples:
        value = getattr(counters, self.field)
        counts: Mapping[Any, int] = {(): value} if isinstance(value, int) else dict.fromkeys(self.known, 0) | value
        return [
            (tuple(map(_encodable, key if isinstance(key, tuple) else (key,))), each) for key, each in counts.items()
        ]


_METRICS: Final = (
    _Metric("events_sent", "sent", "Events that at least one socket accepted.", ("type",), POLICIES),
    _Metric("events_kept", "kept", "Events that only the log accepted, for clients that resume.", ("type",), POLICIES),
    _Metric("events_pending", "pending", "Events whose store did not answer in time.", ("type",), POLICIES),
    _Metric("events_lost", "lost", "Events that reached no client, by link.", ("link", "reason"), LOSSES),
    _Metric("frames_unwritten", "unwritten", "Frames that were not written.", ("reason",), DISCONNECT_REASONS.values()),
    _Metric("frames_coalesced", "coalesced", "Frames that later ones replaced in the outbox of a slow socket."),
    _Metric("frames_concatenated", "concatenated", "Frames that were joined to the one before in such an outbox."),
    _Metric("subscriptions", "subscriptions", "Subscriptions, by how they began.", ("began",), BEGINNINGS),
    _Metric("gaps", "gaps", "Gaps that were sent to sockets.", ("reason",), tuple(GapReason)),
    _Metric("refused", "refused", "Sockets that were refused, by close code.", ("code",), CLOSE_CODES),
    _Metric(CONNECTIONS, "", "Sockets that are attached now."),
)


def exposition(counters: DeliveryCounters, connections: Sized) -> bytes:
    """Return the metrics of this worker, and of the workers that share its folder, in Prometheus's text format.

    The worker writes its counts to the folder before it answers, so that no counter decreases if another worker answers
    the next scrape.
    """
    own = _samples(counters, connections)
    _write(counters, own)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_WorkersCollector({_worker(counters): own} | _written()))
    return generate_latest(registry)


class _WorkersCollector(Collector):
    def __init__(self, samples: Mapping[str, Mapping[str, Samples]]) -> None:
        self._samples = samples
        """By worker and metric."""

    def collect(self) -> Iterator[Metric]:
        for each in _METRICS:
            metric = Metric(f"bridgekit_{each.name}", each.description, "counter" if each.field else "gauge")
            name = metric.name + ("_total" if each.field else "")
            names = (*each.labels, "worker")
            for worker, samples in self._samples.items():
                for labels, value in samples.get(each.name, ()):
                    if len(labels) == len(each.labels):  # a worker of another version may write other labels
                        metric.add_sample(name, dict(zip(names, (*labels, _encodable(worker)), strict=True)), value)
            yield metric


def health(status: str, connections: int) -> bytes:
    """Return the body of `/healthz` as JSON, with the worker that answers the request."""
    return msgspec.json.encode({"status": _encodable(status), "connections": connections, "worker": os.getpid()})


@asynccontextmanager
async def counters_shared(counters: DeliveryCounters, connections: Sized) -> AsyncIterator[None]:
    """While the block runs, write this worker's counters to the folder that the workers share, if there is one."""

    async def write_repeatedly() -> None:
        while FOLDER_VARIABLE in os.environ:
            _write(counters, _samples(counters, connections))
            await anyio.sleep(WRITE_INTERVAL_SECONDS)

    with unwrap_single_error():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_repeatedly)
            yield
            tasks.cancel_scope.cancel()
    _write(counters, _samples(counters, connections))


def _worker(counters: DeliveryCounters) -> str:
    process = str(os.getpid())
    return f"{process}-{counters.instance}" if FOLDER_VARIABLE in os.environ else process


def _write(counters: DeliveryCounters, samples: dict[str, Samples]) -> None:
    # Write on the event loop, because a hand-over to a thread takes as long as the write, about 0.1 ms. In threads,
    # older samples could also replace newer ones. If the folder is gone or its disk is full, all workers keep showing
    # the last counts.
    with suppress(OSError, KeyError):
        file = Path(os.environ[FOLDER_VARIABLE], _worker(counters))
        unfinished = file.with_suffix(".new")
        unfinished.write_bytes(msgspec.json.encode(samples))
        unfinished.replace(file)


def _samples(counters: DeliveryCounters, connections: Sized) -> dict[str, Samples]:
    counted = {each.name: each.samples(counters) for each in _METRICS if each.field}
    return counted | {CONNECTIONS: [((), len(connections))]}


def _written() -> dict[str, dict[str, Samples]]:
    """Return the samples that the workers wrote last, by worker."""
    found = {}
    for file in Path(os.environ[FOLDER_VARIABLE]).glob("*") if FOLDER_VARIABLE in os.environ else ():
        if file.name.partition("-")[0].isdecimal() and not file.suffix:
            with suppress(OSError, msgspec.DecodeError):  # another program's file
                found[file.name] = msgspec.json.decode(file.read_bytes(), type=dict[str, Samples])
                if time.time() - file.stat().st_mtime > DEAD_AFTER_SECONDS:
                    found[file.name].pop(CONNECTIONS, None)
    return found
