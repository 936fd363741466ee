"""Which loads an edge is given, and what became of each: doubled until one fails, then halved between. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridgekit_verify.capacity.protocol import ClientReport, ServerReport
from bridgekit_verify.capacity.schedule import LoadWave
from bridgekit_verify.measure.statistics import Rate

__all__ = [
    "ASGI",
    "EDGES",
    "MIN_EVENTS",
    "NATIVE",
    "ON_TIME_SHARE",
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
"""How long a rush may last. A step lasts for seconds only: what falls behind in it would go on falling behind."""
SATURATED_SHARE: Final = 0.85
"""From so much of a core on, a process is taken to be what limits."""
WAITED_FOR_CPU_SHARE: Final = 0.15
"""Kept waiting for so much of the time, a process is not alone on its core."""
SECOND_LOAD_SHARE: Final = 0.8
"""Of a core: the second load, by what an event of the first cost. It costs less in a crowd, so it is less than that."""
MIN_EVENTS: Final = 400
"""Of fewer the interval could not lie above 99 %, had all of them come."""
MIN_LOAD_RATIO: Final = 1.25
"""The highest carried and the lowest other load are so close in the end: closer, two measurements differ."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One way to serve sockets."""

    name: str
    """As people write it."""
    key: str
    """As `serving` and `bridgekit serve --edge` want it."""
    available_with: str
    """Where it can be had."""


ASGI: Final = Edge("ASGI", "asgi", "any ASGI server, on asyncio or trio, behind any middleware")
NATIVE: Final = Edge("native", "native", "bridgekit serve, on asyncio, where no middleware wants to see the sockets")

EDGES: Final = (ASGI, NATIVE)


@dataclass(frozen=True)
class StepResult:
    """One load."""

    wave: LoadWave
    server: ServerReport
    client: ClientReport

    @property
    def heard(self) -> ClientReport:
        """The client's report, by the name that notebook 13 uses."""
        return self.client

    @property
    def events_per_second(self) -> float:
        """The load: how many events a second were due."""
        return self.wave.runs_per_second * self.wave.plan.events

    @property
    def runs_at_once(self) -> float:
        """How many runs are under way on average, as long as none is delayed (Little's law)."""
        return self.wave.runs_per_second * self.wave.plan.run_seconds

    @property
    def on_time(self) -> Rate:
        """Events that reached their socket within a second, of all that were due."""
        return Rate(self.client.within, self.client.expected)

    @property
    def falls_behind(self) -> float:
        """Seconds of lateness that each second of this load adds. 0 where it keeps pace."""
        client = self.client
        return max(client.late_last - client.late_first, 0.0) / client.apart_seconds if client.apart_seconds else 0.0

    @property
    def carried(self) -> bool:
        """Whether at least 99 % come within one second, as the interval's lower end says, and would go on doing so."""
        lasting = self.falls_behind * PEAK_SECONDS <= WITHIN_SECONDS
        return self.on_time.known and self.on_time.interval[0] >= ON_TIME_SHARE and lasting

    @property
    def accounted_for(self) -> bool:
        """Whether every event that was due is accounted for, once, at its own socket, and the bridge's count agrees."""
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
        """CPU time of the measured process an event, in microseconds: everything that a run costs, by its events."""
        return 1e6 * self.server.cpu_seconds / self.wave.events if self.wave.events else 0.0

    @property
    def utilisation(self) -> float:
        """How much of a core the measured process had or waited for: its utilisation, also on a busy machine."""
        return self.server.share + self.server.run_queue_wait

    @property
    def service_us(self) -> float:
        """How long an event keeps the process busy, in microseconds: longer than its CPU time where others are too."""
        return self.cpu_us * self.utilisation / self.server.share if self.server.share else self.cpu_us

    @property
    def waited_for_cpu(self) -> bool:
        """Whether others had the processors when the process that carries, or the one that reads, had work to do."""
        return max(self.server.run_queue_wait, self.client.run_queue_wait) >= WAITED_FOR_CPU_SHARE

    @property
    def reader_saturated(self) -> bool:
        """Whether it may be the reader who could not keep up."""
        return self.client.share + self.client.run_queue_wait >= SATURATED_SHARE


def next_load(steps: Sequence[StepResult], *, min_load: float, max_load: float) -> float | None:
    """The next load to try, in events a second; None when the answer is known as well as it can be.

    The first was a light one, which shows about what an event costs. A load that was not carried while others had the
    processors is tried once more: on a machine that others use, that passes.
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
    """The highest load that was carried, below the lowest that was not."""
    beyond = failed_load(steps) or math.inf
    return max((s.events_per_second for s in steps if s.carried and s.events_per_second < beyond), default=None)


def failed_load(steps: Sequence[StepResult]) -> float | None:
    """The lowest load that was not carried in any try."""
    carried = {step.events_per_second for step in steps if step.carried}
    return min({step.events_per_second for step in steps} - carried, default=None)


def round_load(load: float) -> float:
    """Two digits are enough to tell loads by."""
    size = 10 ** (math.floor(math.log10(load)) - 1)
    return float(round(load / size) * size)


@dataclass
class LoadSearch:
    """The loads that one edge was given, in the order of trying; the last is beyond what it carries, to be late."""

    edge: Edge
    steps: list[StepResult]

    @property
    def carries(self) -> float | None:
        """Events a second; None where not even the least load was carried."""
        return carried_load(self.steps)

    @property
    def best(self) -> StepResult | None:
        """The step at that load."""
        return next((step for step in self.steps if step.carried and step.events_per_second == self.carries), None)

    @property
    def core_capacity(self) -> float | None:
        """Events a second that a whole core does at most, by the CPU time that one costs where it costs least.

        The machine's other programs have no part in it, so it can be compared with what another machine does.
        """
        costs = [step.cpu_us for step in self.steps if step.wave.events]
        return 1e6 / min(costs) if costs else None

    @property
    def underestimate_reason(self) -> str:
        """Why it may carry more; nothing where a higher load was seen not to be carried."""
        if (beyond := failed_load(self.steps)) is None:
            return "no load was found that it does not carry"
        failing = [step for step in self.steps if step.events_per_second == beyond]
        if any(step.reader_saturated for step in failing):
            return "the reader could not keep up"
        if all(step.waited_for_cpu for step in failing):
            return "other programs had the processors, too"
        return ""

    @property
    def tried(self) -> list[StepResult]:
        """One step a load, the better one, lowest load first."""
        best: dict[float, StepResult] = {}
        for step in self.steps:
            before = best.get(step.events_per_second)
            if before is None or step.carried or not before.carried:
                best[step.events_per_second] = step
        return [best[load] for load in sorted(best)]
