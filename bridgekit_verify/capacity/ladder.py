"""The loads that one edge is given: doubled until one is not carried, then halved between. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridgekit_verify.capacity.edges import Edge
from bridgekit_verify.capacity.step import Step

__all__ = ["LEAST_EVENTS", "Ladder", "carried_load", "failed_load", "next_load", "round_load"]

FIRST_SHARE: Final = 0.8
"""Of a core: the second load, by what an event of the first cost. It costs less in a crowd, so it is less than that."""
LEAST_EVENTS: Final = 400
"""Of fewer the interval could not lie above 99 %, had all of them come."""
FINEST: Final = 1.25
"""The highest carried and the lowest other load are so close in the end: closer, two measurements differ."""


def next_load(steps: Sequence[Step], *, least: float, most: float) -> float | None:
    """The next load to try, in events a second; None when the answer is known as well as it can be.

    The first was a light one, which says what an event costs about. A load that was not carried while others had the
    processors is tried once more: on a machine that others use, that passes.
    """
    last = steps[-1]
    tries = sum(step.events_per_second == last.events_per_second for step in steps)
    if not last.carried and last.held_up and tries == 1:
        return last.events_per_second
    carried, beyond = carried_load(steps), failed_load(steps)
    if carried is None:
        return None if beyond is None or beyond <= least else max(beyond / 2, least)
    if beyond is None:
        next_one = round_load(FIRST_SHARE * 1e6 / steps[0].cpu_us) if len(steps) == 1 else 2 * carried
        return None if carried >= most else min(max(next_one, 2 * carried), most)
    return None if beyond <= FINEST * carried else round_load(math.sqrt(carried * beyond))


def carried_load(steps: Sequence[Step]) -> float | None:
    """The highest load that was carried, below the lowest that was not."""
    beyond = failed_load(steps) or math.inf
    return max((s.events_per_second for s in steps if s.carried and s.events_per_second < beyond), default=None)


def failed_load(steps: Sequence[Step]) -> float | None:
    """The lowest load that was not carried in any try."""
    carried = {step.events_per_second for step in steps if step.carried}
    return min({step.events_per_second for step in steps} - carried, default=None)


def round_load(load: float) -> float:
    """Two digits are enough to tell loads by."""
    size = 10 ** (math.floor(math.log10(load)) - 1)
    return float(round(load / size) * size)


@dataclass
class Ladder:
    """The loads that one edge was given, in the order of trying; the last is beyond what it carries, to be late."""

    edge: Edge
    steps: list[Step]

    @property
    def carries(self) -> float | None:
        """Events a second; None where not even the least load was carried."""
        return carried_load(self.steps)

    @property
    def best(self) -> Step | None:
        """The step at that load."""
        return next((step for step in self.steps if step.carried and step.events_per_second == self.carries), None)

    @property
    def core_does(self) -> float | None:
        """Events a second that a whole core does at most, by the CPU time that one costs where it costs least.

        The machine's other programs have no part in it, so it can be compared with what another machine does.
        """
        costs = [step.cpu_us for step in self.steps if step.wave.events]
        return 1e6 / min(costs) if costs else None

    @property
    def at_least(self) -> str:
        """Why it may carry more; nothing where a higher load was seen not to be carried."""
        if (beyond := failed_load(self.steps)) is None:
            return "no load was found that it does not carry"
        failing = [step for step in self.steps if step.events_per_second == beyond]
        if any(step.reader_saturated for step in failing):
            return "the reader could not keep up"
        if all(step.held_up for step in failing):
            return "other programs had the processors, too"
        return ""

    @property
    def climbed(self) -> list[Step]:
        """One step a load, the better one, lowest load first."""
        best: dict[float, Step] = {}
        for step in self.steps:
            before = best.get(step.events_per_second)
            if before is None or step.carried or not before.carried:
                best[step.events_per_second] = step
        return [best[load] for load in sorted(best)]
