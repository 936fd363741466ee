"""The delivery counters as Prometheus metrics. They are converted when they are scraped, so counting is cheap."""

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
    """Return the metrics in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_CountersCollector(counters, connections))
    return generate_latest(registry)


def health(status: str, connections: int) -> bytes:
    """Return the body of `/healthz`, as JSON."""
    return msgspec.json.encode({"status": status, "connections": connections})


class _CountersCollector(Collector):
    def __init__(self, counters: DeliveryCounters, connections: Sized) -> None:
        self._counters = counters
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        counters = self._counters
        yield _counter("events_sent", "Events that at least one socket accepted.", counters.sent, "type")
        yield _counter(
            "events_kept", "Events that no socket accepted, retained for clients that resume.", counters.kept, "type"
        )
        yield _counter("events_pending", "Events whose store did not answer in time.", counters.pending, "type")
        lost = CounterMetricFamily(
            "bridgekit_events_lost",
            "Events that reached no client, by the link where they were lost.",
            labels=["link", "reason"],
        )
        for (link, reason), count in counters.lost.items():
            lost.add_metric([str(link), reason], count)
        yield lost
        yield _counter(
            "frames_unwritten",
            "Frames that a socket accepted but did not write before it closed.",
            counters.unwritten,
            "reason",
        )
        yield CounterMetricFamily(
            "bridgekit_frames_coalesced",
            "Frames that were replaced by later ones in the outbox of a slow socket.",
            counters.coalesced,
        )
        yield _counter("subscriptions", "Subscriptions, by how they began.", counters.subscriptions, "began")
        yield _counter("gaps", "Gaps that were sent to sockets.", counters.gaps, "reason")
        yield _counter("refused", "Sockets that were refused, by close code.", counters.refused, "code")
        yield GaugeMetricFamily("bridgekit_connections", "Sockets that are attached now.", value=len(self._connections))


def _counter(name: str, description: str, counts: Mapping[Any, int], label: str) -> Metric:
    family = CounterMetricFamily(f"bridgekit_{name}", description, labels=[label])
    for value, count in counts.items():
        family.add_metric([str(value)], count)
    return family
