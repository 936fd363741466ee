"""The tally as Prometheus metrics, read when somebody asks, so that counting costs the events nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridgekit.tally import Tally

__all__ = ["CONTENT_TYPE", "exposition"]


def exposition(tally: Tally, connections: Sized) -> bytes:
    """The text that a Prometheus server reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Books(tally, connections))
    return generate_latest(registry)


class _Books(Collector):
    def __init__(self, tally: Tally, connections: Sized) -> None:
        self._tally = tally
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        sent = CounterMetricFamily("bridgekit_events_sent", "Events that a socket took.", labels=["type"])
        for event_type, count in self._tally.sent.items():
            sent.add_metric([event_type], count)
        lost = CounterMetricFamily(
            "bridgekit_events_lost",
            "Events that nobody got, by the link where they stopped.",
            labels=["link", "reason"],
        )
        for (link, reason), count in self._tally.lost.items():
            lost.add_metric([str(link), reason], count)
        unwritten = CounterMetricFamily(
            "bridgekit_frames_unwritten", "Frames that a socket took and then closed on.", labels=["reason"]
        )
        for reason, count in self._tally.unwritten.items():
            unwritten.add_metric([reason], count)
        open_now = GaugeMetricFamily("bridgekit_connections", "Sockets attached now.", value=len(self._connections))
        yield from (sent, lost, unwritten, open_now)
