"""The counters as Prometheus metrics, read when somebody asks, so that counting costs the events nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridgekit.counters import DeliveryCounters

__all__ = ["CONTENT_TYPE", "exposition", "health"]


def exposition(counters: DeliveryCounters, connections: Sized) -> bytes:
    """The text that a Prometheus server reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Books(counters, connections))
    return generate_latest(registry)


def health(status: str, connections: int) -> bytes:
    """What `/healthz` answers, as JSON."""
    return msgspec.json.encode({"status": status, "connections": connections})


class _Books(Collector):
    def __init__(self, counters: DeliveryCounters, connections: Sized) -> None:
        self._tally = counters
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        counters = self._tally
        yield _counter("events_sent", "Events that a socket took.", counters.sent, "type")
        yield _counter("events_kept", "Events that no socket took yet, kept for who resumes.", counters.kept, "type")
        yield _counter(
            "events_pending", "Events that waited for a store that did not answer.", counters.pending, "type"
        )
        lost = CounterMetricFamily(
            "bridgekit_events_lost",
            "Events that nobody got, by the link where they stopped.",
            labels=["link", "reason"],
        )
        for (link, reason), count in counters.lost.items():
            lost.add_metric([str(link), reason], count)
        yield lost
        yield _counter(
            "frames_unwritten", "Frames that a socket took and then closed on.", counters.unwritten, "reason"
        )
        yield CounterMetricFamily(
            "bridgekit_frames_coalesced", "Frames that made room for later ones on a slow socket.", counters.coalesced
        )
        yield _counter("subscriptions", "Sockets let in, by how they began.", counters.subscriptions, "began")
        yield _counter("gaps", "Gaps that sockets were told of.", counters.gaps, "reason")
        yield _counter("refused", "Sockets not let in, by close code.", counters.refused, "code")
        yield GaugeMetricFamily("bridgekit_connections", "Sockets attached now.", value=len(self._connections))


def _counter(name: str, says: str, counts: Mapping[Any, int], label: str) -> Metric:
    family = CounterMetricFamily(f"bridgekit_{name}", says, labels=[label])
    for value, count in counts.items():
        family.add_metric([str(value)], count)
    return family
