"""What was to be reached: one table, with what is divided by what. Whether it was, and by how much, is computed."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.measures.growth import CROWDED, EMPTY
from benchmarks.measures.own_cost import FAN_OUT
from benchmarks.series import Series, SeriesKey
from benchmarks.workload import BURST, YIELDING

__all__ = ["TARGETS", "Judged", "Met", "Target", "judged"]

ASGI: Final = "bridgekit ASGI"
NATIVE: Final = "bridgekit native"
REDIS: Final = "bridgekit, Redis"
STARLETTE: Final = "Starlette by hand"
RATE: Final = "500/s"
"""Events a second at which latency is compared."""

CPU_BESIDE: Final = {"events/s": "CPU µs/event"}
"""What is shown beside a ratio of rates. On a machine with other work to do it says more than the rate does."""


class Met(enum.StrEnum):
    """Whether a target was reached."""

    YES = "met"
    NO = "NOT MET"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One number that was to be reached."""

    what: str
    """What it is about, as the table's heading says."""
    of: SeriesKey
    over: SeriesKey | None = None
    """By what it is divided, within each round; nothing where the number itself is the target."""
    at_least: float | None = None
    at_most: float | None = None
    by_hand: str = ""
    """How to measure it, where no benchmark does."""

    @property
    def bound(self) -> float:
        """The number that was to be reached."""
        bound = self.at_most if self.at_least is None else self.at_least
        assert bound is not None
        return bound

    @property
    def sign(self) -> str:
        return "≤" if self.at_least is None else "≥"

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.at_least is not None else value <= self.bound


@dataclass(frozen=True, slots=True)
class Judged:
    """A target, and what was measured."""

    target: Target
    value: float | None
    cpu: float | None
    """The same ratio, of events per CPU second."""

    @property
    def met(self) -> Met:
        if self.value is None:
            return Met.UNKNOWN
        return Met.YES if self.target.reached(self.value) else Met.NO


def judged(series: Series, targets: Sequence[Target] | None = None) -> list[Judged]:
    """Every target beside what was measured, in the table's order."""
    return [_judge(series, each) for each in (TARGETS if targets is None else targets)]


def _judge(series: Series, target: Target) -> Judged:
    if target.over is None:
        return Judged(target, series.median(target.of), None)
    cpu = None
    if beside := CPU_BESIDE.get(target.of.measure):
        # The other way round: half the CPU time an event is twice the events.
        cpu = series.ratio(target.over._replace(measure=beside), target.of._replace(measure=beside))
    return Judged(target, series.ratio(target.of, target.over), cpu)


def _rate(what: str, of: tuple[str, str], over: tuple[str, str], at_least: float) -> Target:
    return Target(what=what, of=SeriesKey("events/s", *of), over=SeriesKey("events/s", *over), at_least=at_least)


def _latency(stack: str, other: str, share: str, at_most: float) -> Target:
    measure = f"latency {share}, µs"
    return Target(
        what="Redis mode" if stack == REDIS else "latency at 500 events/s",
        of=SeriesKey(measure, stack, RATE),
        over=SeriesKey(measure, other, RATE),
        at_most=at_most,
    )


def _own(what: str, at_most: float) -> Target:
    return Target(what="the bridge's own cost", of=SeriesKey("own CPU µs", "bridgekit", what), at_most=at_most)


def _growth(stack: str) -> Target:
    measure = "CPU µs/event"
    return Target(
        what="growth",
        of=SeriesKey(measure, stack, str(CROWDED)),
        over=SeriesKey(measure, stack, str(EMPTY)),
        at_most=1.25,
    )


def _idle(stack: str, bare: str) -> Target:
    measure = "KiB/idle connection"
    return Target(what="memory", of=SeriesKey(measure, stack), over=SeriesKey(measure, bare), at_most=1.15)


def _flat(stack: str) -> Target:
    return Target(what="memory", of=SeriesKey("memory, most beside the settled", stack), at_most=1.05)


def _suite(what: str, minutes: float) -> Target:
    return Target(what="the suite", of=SeriesKey("minutes", what), at_most=minutes, by_hand=f"time {what}, warm")


TARGETS: Final = (
    _rate("native, burst", (NATIVE, BURST), (STARLETTE, BURST), 4.0),
    _rate("native, burst", (NATIVE, BURST), ("picows", BURST), 1.0),
    _rate("native, burst", (NATIVE, BURST), ("python-socketio", BURST), 25.0),
    _rate("native, burst", (NATIVE, BURST), ("Channels", BURST), 100.0),
    _rate("native, yielding agents", (NATIVE, YIELDING), (STARLETTE, BURST), 1.0),
    _rate("native, yielding agents", (NATIVE, YIELDING), ("python-socketio", BURST), 6.0),
    _rate("ASGI, burst", (ASGI, BURST), (STARLETTE, BURST), 0.9),
    _rate("ASGI, yielding agents", (ASGI, YIELDING), (STARLETTE, BURST), 0.6),
    *(_latency(stack, STARLETTE, share, 1.3) for stack in (NATIVE, ASGI) for share in ("p50", "p99")),
    _own("emit", 6.0),
    _own("resolve, carried", 1.0),
    _own("resolve, mapped", 1.0),
    _own("encode", 1.0),
    _growth(NATIVE),
    _growth(ASGI),
    Target(what="growth", of=SeriesKey("encodings/event", "bridgekit", f"{FAN_OUT} subscribers"), at_most=1.0),
    _idle(NATIVE, "websockets send"),
    _idle(ASGI, STARLETTE),
    Target(what="memory", of=SeriesKey("bytes/live mapping", "bridgekit"), at_most=300.0),
    _flat(NATIVE),
    _flat(ASGI),
    _rate("Redis mode", (REDIS, BURST), ("python-socketio, Redis", BURST), 3.0),
    _rate("Redis mode", (REDIS, BURST), ("Channels, Redis", BURST), 20.0),
    _latency(REDIS, "python-socketio, Redis", "p99", 1.0),
    _latency(REDIS, "Channels, Redis", "p99", 1.0),
    Target(what="the suite", of=SeriesKey("import ms", "bridgekit", "import bridgekit"), at_most=150.0),
    Target(what="the suite", of=SeriesKey("import: heavy modules", "bridgekit", "import bridgekit"), at_most=0.0),
    _suite("make test", 6.0),
    _suite("make report", 5.0),
)
