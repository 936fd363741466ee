"""The performance targets as a table, and their comparison with the measured values."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.measures.growth import FULL_BACKGROUND, NO_BACKGROUND
from benchmarks.measures.own_cost import FAN_OUT
from benchmarks.workload import BURST, YIELDING

__all__ = ["TARGETS", "JudgedTarget", "Met", "Target", "judge_targets"]

ASGI: Final = "bridgekit ASGI"
NATIVE: Final = "bridgekit native"
REDIS: Final = "bridgekit, Redis"
STARLETTE: Final = "Starlette by hand"
PICOWS: Final = "picows"
BROADCAST: Final = "websockets broadcast"
SOCKETIO_REDIS: Final = "python-socketio, Redis"
CHANNELS_REDIS: Final = "Channels, Redis"
RATE: Final = "500/s"
"""The rate at which latency is compared, in events per second."""
CPU: Final = "CPU µs/event"
OWN: Final = "own CPU µs"


class Met(enum.StrEnum):
    """Whether a target was met."""

    YES = "met"
    NO = "NOT MET"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on one measured value, or on the ratio of two values."""

    what: str
    """The subject of the target, as shown in the table."""
    of: SeriesKey
    over: SeriesKey | None = None
    """The series by which each round's value is divided, or None if the target applies to the value itself."""
    at_least: float | None = None
    at_most: float | None = None
    how_to_measure: str = ""
    """The command that measures the value, if no benchmark measures it."""

    @property
    def bound(self) -> float:
        """The bound: a minimum or a maximum, as `sign` states."""
        bound = self.at_most if self.at_least is None else self.at_least
        assert bound is not None
        return bound

    @property
    def sign(self) -> str:
        return "≤" if self.at_least is None else "≥"

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.at_least is not None else value <= self.bound


@dataclass(frozen=True, slots=True)
class JudgedTarget:
    """A target and its measured value, which is None without a measurement."""

    target: Target
    value: float | None

    @property
    def met(self) -> Met:
        if self.value is None:
            return Met.UNKNOWN
        return Met.YES if self.target.reached(self.value) else Met.NO


def judge_targets(series: Series, targets: Sequence[Target] | None = None) -> list[JudgedTarget]:
    """Compare every target with the measured values, in the order of the table."""
    return [_judge(series, each) for each in (TARGETS if targets is None else targets)]


def _judge(series: Series, target: Target) -> JudgedTarget:
    if target.over is None:
        return JudgedTarget(target, series.median(target.of))
    return JudgedTarget(target, series.ratio(target.of, target.over))


def _relative_targets(
    stack: str, peer: str, *, burst: float, yielding: float, p50: float, p99: float | None = None
) -> Iterator[Target]:
    """Yield bounds on a stack's CPU time and latency relative to another stack. Lower values are better."""
    what = f"{stack} / {peer}"
    for kind, at_most in ((BURST, burst), (YIELDING, yielding)):
        yield Target(what=what, of=SeriesKey(CPU, stack, kind), over=SeriesKey(CPU, peer, kind), at_most=at_most)
    for share, bound in (("p50", p50), ("p99", p99)):
        if bound is not None:
            measure = f"latency {share}, µs"
            yield Target(
                what=what, of=SeriesKey(measure, stack, RATE), over=SeriesKey(measure, peer, RATE), at_most=bound
            )


def _growth(stack: str) -> Target:
    measure = CPU
    return Target(
        what="growth",
        of=SeriesKey(measure, stack, str(FULL_BACKGROUND)),
        over=SeriesKey(measure, stack, str(NO_BACKGROUND)),
        at_most=1.25,
    )


def _idle(stack: str, bare: str) -> Target:
    measure = "KiB/idle connection"
    return Target(what="memory", of=SeriesKey(measure, stack), over=SeriesKey(measure, bare), at_most=1.15)


def _flat(stack: str) -> Target:
    return Target(what="memory", of=SeriesKey("memory, most beside the settled", stack), at_most=1.05)


def _suite(what: str, minutes: float) -> Target:
    return Target(what="the suite", of=SeriesKey("minutes", what), at_most=minutes, how_to_measure=f"time {what}, warm")


TARGETS: Final = (
    *_relative_targets(NATIVE, STARLETTE, burst=0.60, yielding=0.70, p50=0.95, p99=1.1),
    *_relative_targets(NATIVE, PICOWS, burst=0.80, yielding=0.95, p50=1.2),
    *_relative_targets(NATIVE, BROADCAST, burst=0.75, yielding=0.85, p50=1.05, p99=1.3),
    *_relative_targets(ASGI, STARLETTE, burst=1.0, yielding=1.1, p50=1.25, p99=1.2),
    *_relative_targets(REDIS, SOCKETIO_REDIS, burst=0.17, yielding=0.17, p50=1.0, p99=1.1),
    *_relative_targets(REDIS, CHANNELS_REDIS, burst=0.15, yielding=0.15, p50=1.0, p99=1.1),
    Target(
        what="emission to outbox / a whole burst of Starlette's",
        of=SeriesKey(OWN, "bridgekit", "emit"),
        over=SeriesKey(CPU, STARLETTE, BURST),
        at_most=0.40,
    ),
    Target(
        what="checking an event / json.loads of its frame",
        of=SeriesKey(OWN, "bridgekit", "check"),
        over=SeriesKey(OWN, "bridgekit", "json.loads"),
        at_most=1.5,
    ),
    _growth(NATIVE),
    _growth(ASGI),
    Target(what="growth", of=SeriesKey("encodings/event", "bridgekit", f"{FAN_OUT} subscribers"), at_most=1.0),
    _idle(NATIVE, "websockets send"),
    _idle(ASGI, STARLETTE),
    Target(what="memory", of=SeriesKey("bytes/live mapping", "bridgekit"), at_most=300.0),
    _flat(NATIVE),
    _flat(ASGI),
    Target(what="the suite", of=SeriesKey("import ms", "bridgekit", "import bridgekit"), at_most=150.0),
    Target(what="the suite", of=SeriesKey("import: heavy modules", "bridgekit", "import bridgekit"), at_most=0.0),
    _suite("make test", 5.0),
    _suite("make report", 2.0),
)
