"""One load, and what became of it: from what the two processes say of a wave to whether it was carried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridgekit_verify.capacity.pipe import Heard, Spoke
from bridgekit_verify.capacity.schedule import Wave
from bridgekit_verify.measure.statistics import Rate

__all__ = ["ON_TIME_SHARE", "SATURATED_SHARE", "WITHIN_SECONDS", "Step"]

ON_TIME_SHARE: Final = 0.99
WITHIN_SECONDS: Final = 1.0
RUSH_SECONDS: Final = 30.0
"""How long a rush may last. A step lasts for seconds only: what falls behind in it would go on falling behind."""
SATURATED_SHARE: Final = 0.85
"""From so much of a core on, a process is taken to be what limits."""
HELD_UP_SHARE: Final = 0.15
"""Kept waiting for so much of the time, a process is not alone on its core."""


@dataclass(frozen=True)
class Step:
    """One load."""

    wave: Wave
    spoke: Spoke
    heard: Heard

    @property
    def events_per_second(self) -> float:
        """The load: how many events a second were due."""
        return self.wave.runs_per_second * self.wave.plan.events

    @property
    def runs_at_once(self) -> float:
        """How many runs are under way on average, as long as none is held up (Little's law)."""
        return self.wave.runs_per_second * self.wave.plan.run_seconds

    @property
    def on_time(self) -> Rate:
        """Events that reached their socket within a second, of all that were due."""
        return Rate(self.heard.within, self.heard.expected)

    @property
    def falls_behind(self) -> float:
        """Seconds of lateness that each second of this load adds. 0 where it keeps pace."""
        heard = self.heard
        return max(heard.late_last - heard.late_first, 0.0) / heard.apart_seconds if heard.apart_seconds else 0.0

    @property
    def carried(self) -> bool:
        """Whether at least 99 % come within one second, as the interval's lower end says, and would go on doing so."""
        lasting = self.falls_behind * RUSH_SECONDS <= WITHIN_SECONDS
        return self.on_time.known and self.on_time.interval[0] >= ON_TIME_SHARE and lasting

    @property
    def closes(self) -> bool:
        """Whether every event that was due is accounted for, once, at its own socket, and the bridge's count agrees."""
        heard, spoke = self.heard, self.spoke
        due = self.wave.events
        strays = heard.misrouted + heard.extra_copies + heard.unexpected + heard.reordered
        return (
            heard.expected == due == heard.delivered + heard.lost
            and spoke.taken + spoke.refused == due
            and strays == spoke.failed == 0
        )

    @property
    def cpu_us(self) -> float:
        """CPU time of the measured process an event, in microseconds: everything that a run costs, by its events."""
        return 1e6 * self.spoke.cpu_seconds / self.wave.events if self.wave.events else 0.0

    @property
    def wanted(self) -> float:
        """How much of a core the measured process had or waited for: its utilisation, whoever else is at work."""
        return self.spoke.share + self.spoke.kept_waiting

    @property
    def service_us(self) -> float:
        """How long an event keeps the process busy, in microseconds: longer than its CPU time where others are too."""
        return self.cpu_us * self.wanted / self.spoke.share if self.spoke.share else self.cpu_us

    @property
    def held_up(self) -> bool:
        """Whether others had the processors when the process that carries, or the one that reads, had work to do."""
        return max(self.spoke.kept_waiting, self.heard.kept_waiting) >= HELD_UP_SHARE

    @property
    def saturated(self) -> bool:
        """Whether the measured process had all of a core."""
        return self.spoke.share >= SATURATED_SHARE

    @property
    def reader_saturated(self) -> bool:
        """Whether it may be the reader who could not keep up."""
        return self.heard.share + self.heard.kept_waiting >= SATURATED_SHARE
