"""Store the results of an edge's loads, and choose the next load: first by doubling, then by bisection. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridgekit_verify.capacity.messages import ClientReport, ServerReport
from bridgekit_verify.capacity.schedule import LoadWave
from bridgekit_verify.measure.statistics import Rate

__all__ = [
    "ASGI",
    "EDGES",
    "MIN_EVENTS",
    "NATIVE",
    "ON_TIME_SHARE",
    "PEAK_SECONDS",
    "WITHIN_SECONDS",
    "Edge",
    "LoadSearch",
    "StepResult",
    "failed_load",
    "next_load",
    "round_load",
]

ON_TIME_SHARE: Final = 0.99
WITHIN_SECONDS: Final = 1.0
PEAK_SECONDS: Final = 30.0
"""Assumed length of a load peak. A load step is shorter, so growing lateness is extrapolated to the peak's length."""
SATURATED_SHARE: Final = 0.85
"""A process that uses or waits for at least this share of a core is considered the bottleneck."""
WAITED_FOR_CPU_SHARE: Final = 0.15
"""A process that waits for a CPU for at least this share of the time is considered disturbed by other programs."""
SECOND_LOAD_SHARE: Final = 0.8
"""Share of a core that the second load would use at the first load's cost per event. The cost per event is lower at a
higher load."""
MIN_EVENTS: Final = 400
"""Minimum number of events of a load. If all events are on time, 381 events are enough for a lower bound of 99 %."""
MIN_LOAD_RATIO: Final = 1.25
"""The search ends when the lowest failed load is at most this multiple of the highest carried load."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A way in which a server serves sockets (ASGI or native)."""

    name: str
    """Display name."""
    key: str
    """The name of the edge in `serving` and `bridgekit serve --edge`."""
    available_with: str
    """The servers and event loops on which the edge runs."""


ASGI: Final = Edge("ASGI", "asgi", "any ASGI server, on asyncio or trio, behind any middleware")
NATIVE: Final = Edge("native", "native", "bridgekit serve, on asyncio, if no middleware must handle the sockets")

EDGES: Final = (ASGI, NATIVE)


@dataclass(frozen=True)
class StepResult:
    """One load, and the measurements of the server and client processes."""

    wave: LoadWave
    server: ServerReport
    client: ClientReport

    @property
    def events_per_second(self) -> float:
        """The load: the number of events that were due per second."""
        return self.wave.runs_per_second * self.wave.plan.events

    @property
    def runs_at_once(self) -> float:
        """Mean number of concurrent runs if none is delayed (Little's law)."""
        return self.wave.runs_per_second * self.wave.plan.run_seconds

    @property
    def on_time(self) -> Rate:
        """Share of the due events that reached their socket within WITHIN_SECONDS."""
        return Rate(self.client.within, self.client.expected)

    @property
    def falls_behind(self) -> float:
        """Seconds of lateness that each second of this load adds, or 0 if the process keeps up."""
        client = self.client
        return max(client.late_last - client.late_first, 0.0) / client.apart_seconds if client.apart_seconds else 0.0

    @property
    def carried(self) -> bool:
        """Whether at least 99 % of events (lower end of the interval) are on time, even in a peak of PEAK_SECONDS."""
        lasting = self.falls_behind * PEAK_SECONDS <= WITHIN_SECONDS
        return self.on_time.known and self.on_time.interval[0] >= ON_TIME_SHARE and lasting

    @property
    def accounted_for(self) -> bool:
        """Whether each event was lost, or delivered once and in order; the counters agree; and no run failed."""
        client, server = self.client, self.server
        due = self.wave.events
        misplaced = client.misrouted + client.extra_copies + client.unexpected + client.reordered
        return (
            client.expected == due == client.delivered + client.lost
            and server.taken + server.refused == due
            and misplaced == server.failed == 0
        )

    @property
    def cpu_us(self) -> float:
        """CPU time of the measured process per event, in µs: the whole cost of the runs divided by their events."""
        return 1e6 * self.server.cpu_seconds / self.wave.events if self.wave.events else 0.0

    @property
    def utilisation(self) -> float:
        """Share of a core that the measured process used or waited for."""
        return self.server.share + self.server.run_queue_wait

    @property
    def service_us(self) -> float:
        """Service time of an event in µs, which is longer than the event's CPU time if the process waits for a CPU."""
        return self.cpu_us * self.utilisation / self.server.share if self.server.share else self.cpu_us

    @property
    def waited_for_cpu(self) -> bool:
        """Whether the server or the client process waited for a CPU for WAITED_FOR_CPU_SHARE of the time or more."""
        return max(self.server.run_queue_wait, self.client.run_queue_wait) >= WAITED_FOR_CPU_SHARE

    @property
    def reader_saturated(self) -> bool:
        """Whether the client process may have been the bottleneck."""
        return self.client.share + self.client.run_queue_wait >= SATURATED_SHARE


def next_load(steps: Sequence[StepResult], *, min_load: float, max_load: float) -> float | None:
    """Return the next load to try, in events per second, or None if the search is complete.

    The first load is low and shows the approximate cost of an event. A load that failed while other programs used the
    CPUs is tried once more, because this interference is usually temporary.
    """
    last = steps[-1]
    tries = sum(step.events_per_second == last.events_per_second for step in steps)
    if not last.carried and last.waited_for_cpu and tries == 1:
        return last.events_per_second
    carried, beyond = carried_load(steps), failed_load(steps)
    if carried is None:
        return None if beyond is None or beyond <= min_load else max(beyond / 2, min_load)
    if beyond is None:
        next_one = round_load(SECOND_LOAD_SHARE * 1e6 / steps[0].cpu_us) if len(steps) == 1 else 2 * carried
        return None if carried >= max_load else min(max(next_one, 2 * carried), max_load)
    return None if beyond <= MIN_LOAD_RATIO * carried else round_load(math.sqrt(carried * beyond))


def carried_load(steps: Sequence[StepResult]) -> float | None:
    """Return the highest carried load below the lowest failed load, or None if there is none."""
    beyond = failed_load(steps) or math.inf
    return max((s.events_per_second for s in steps if s.carried and s.events_per_second < beyond), default=None)


def failed_load(steps: Sequence[StepResult]) -> float | None:
    """Return the lowest load that was not carried in any try, or None if there is none."""
    carried = {step.events_per_second for step in steps if step.carried}
    return min({step.events_per_second for step in steps} - carried, default=None)


def round_load(load: float) -> float:
    """Return the load rounded to two significant digits."""
    size = 10 ** (math.floor(math.log10(load)) - 1)
    return float(round(load / size) * size)


@dataclass
class LoadSearch:
    """The loads that were applied to one edge, in order. The last loads are deliberate overloads."""

    edge: Edge
    steps: list[StepResult]

    @property
    def carries(self) -> float | None:
        """The highest carried load in events per second, or None if not even the lowest load was carried."""
        return carried_load(self.steps)

    @property
    def best(self) -> StepResult | None:
        """The load step with the highest carried load."""
        return next((step for step in self.steps if step.carried and step.events_per_second == self.carries), None)

    @property
    def core_capacity(self) -> float | None:
        """Events per second that one full core can process, computed from the lowest measured CPU time per event.

        Other programs on the machine hardly affect this value.
        """
        costs = [step.cpu_us for step in self.steps if step.wave.events]
        return 1e6 / min(costs) if costs else None

    @property
    def underestimate_reason(self) -> str:
        """Why the edge may carry more than the search found, or "" if a higher load failed without interference."""
        if (beyond := failed_load(self.steps)) is None:
            return "it carried every load that was tried"
        failing = [step for step in self.steps if step.events_per_second == beyond]
        if any(step.reader_saturated for step in failing):
            return "the client that reads was the bottleneck"
        if all(step.waited_for_cpu for step in failing):
            return "other programs also used the CPUs"
        return ""

    @property
    def tried(self) -> list[StepResult]:
        """One step for each load, if possible a step in which the edge carried the load, lowest load first."""
        best: dict[float, StepResult] = {}
        for step in self.steps:
            before = best.get(step.events_per_second)
            if before is None or step.carried or not before.carried:
                best[step.events_per_second] = step
        return [best[load] for load in sorted(best)]
