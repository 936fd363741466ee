"""What must hold of every run that a user watches, judged from a recorded stream alone: no access to the sender.

A recording says what a socket read. Of what it never read, a gap in `seq`, a run without its end or a missing type
tells; a run of which nothing at all was read leaves no trace, unless the caller says which `runs` he waited for.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from bridgekit.events import CRITICAL, EventType
from bridgekit.ids import RunId
from bridgekit.invariants.recorded import Recorded, ParsedFrame, read
from bridgekit.invariants.rules import Violation, Invariant, Signalled, violation_at, run_violations, stream_violations

__all__ = ["Violation", "LatencyQuantiles", "Invariant", "RunReport", "check_run", "check_stream", "format_report"]

MAX_FRAMES_SHOWN: Final = 12
"""A run of more frames is shown only where it breaks."""


class LatencyQuantiles(NamedTuple):
    """From emission to reading, in seconds: quantiles by the nearest rank, so each is a value that was measured.

    The stamp is the sender's clock and the reading the recorder's: where the two differ, so do these, below 0 even.
    """

    n: int
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a recording says of one run. Truthy only when something was read and every invariant holds."""

    run_id: RunId | None
    """None for the frames that name no run, and for an empty recording."""
    frames: int
    counts: Mapping[EventType, int]
    violations: tuple[Violation, ...]
    latency: LatencyQuantiles | None
    """None where the recording does not say when its frames were read."""

    @property
    def known(self) -> bool:
        """Whether anything was read at all. Of nothing, nothing is known: it neither holds nor is it broken."""
        return self.frames > 0

    @property
    def holds(self) -> bool:
        return self.known and not self.violations

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        if not self.known:
            return "nothing was read of it: unknown"
        return "; ".join(map(str, self.violations)) or f"{self.frames} frames, every invariant holds"


def check_run(
    events: Iterable[Recorded],
    *,
    run_id: str | None = None,
    required: Iterable[EventType] = CRITICAL,
    signalled: Signalled = (),
    whole: bool = True,
) -> RunReport:
    """Judge one run. With `run_id`, that run of a stream that several share; without, a stream of one run.

    `required` are the types that a completed run must show; one that ended in an error was cut short, and owes none.
    `signalled` are the gaps, first and last missing `seq`, that the client was told of: a policy, no violation.
    `whole` says that the stream is all that was read of the thread. `seq` counts within the thread, so where the
    frames of other runs were taken out before, say False: then no hole is judged, only order and copies.
    """
    seen = read(events)
    named = next((frame.run_id for frame in seen if frame.run_id), None) if run_id is None else RunId(run_id)
    mine = [frame for frame in seen if run_id is None or frame.run_id == named]
    of_stream = stream_violations(seen, signalled, whole=whole)
    # A stream of one run answers for all its frames, also for those that name no run.
    found = [violation for owner, violation in of_stream if run_id is None or owner == named]
    return _report(named, mine, [*found, *run_violations(mine, named, frozenset(required))])


def check_stream(
    events: Iterable[Recorded],
    *,
    runs: Iterable[str] | None = None,
    required: Iterable[EventType] = CRITICAL,
    signalled: Signalled = (),
) -> dict[RunId | None, RunReport]:
    """Judge every run of what a socket read, however the runs are interleaved; each by the rules of `check_run`.

    `runs` are the runs that were asked for. One of which nothing was read is reported as unknown, and one that
    nobody asked for as a violation: it may be somebody else's. Without `runs` neither can be seen.

    The key None holds the frames that name no run. An empty recording has that one report, which does not hold, so
    that `all(check_stream(…).values())` is never true of nothing.
    """
    seen = read(events)
    asked = None if runs is None else [RunId(run) for run in runs]
    frames: dict[RunId | None, list[ParsedFrame]] = {run: [] for run in asked or ()}
    for frame in seen:
        frames.setdefault(frame.run_id, []).append(frame)
    types, violations = frozenset(required), defaultdict[RunId | None, list[Violation]](list)
    for run, violation in stream_violations(seen, signalled, whole=True):
        violations[run].append(violation)
    for run, mine in frames.items():
        if asked is not None and run is not None and run not in asked:
            violations[run].append(violation_at(mine[0], Invariant.ONE_RUN, f"nobody here asked for run {run!r}"))
        violations[run] += run_violations(mine, run, types)
    return {run: _report(run, mine, violations[run]) for run, mine in (frames or {None: []}).items()}


def _report(run_id: RunId | None, frames: Sequence[ParsedFrame], violations: Iterable[Violation]) -> RunReport:
    return RunReport(
        run_id=run_id,
        frames=len(frames),
        counts=dict(Counter(frame.type for frame in frames if frame.type)),
        # A hole that is charged to two runs is one violation of a stream that should be of one run.
        violations=tuple(sorted(dict.fromkeys(violations), key=lambda violation: violation.position or math.inf)),
        latency=_latency(frames),
    )


def _latency(frames: Iterable[ParsedFrame]) -> LatencyQuantiles | None:
    waited = sorted(f.read_at - f.emitted_at for f in frames if f.read_at is not None and f.emitted_at is not None)
    if not waited:
        return None
    p50, p90, p99 = (waited[math.ceil(len(waited) * percent / 100) - 1] for percent in (50, 90, 99))
    return LatencyQuantiles(len(waited), p50, p90, p99)


def format_report(events: Iterable[Recorded], reports: Mapping[RunId | None, RunReport]) -> str:
    """What does not hold, for people: each run's violations, and its frames with those marked that show one."""
    frames: dict[RunId | None, list[ParsedFrame]] = defaultdict(list)
    for frame in read(events):
        frames[frame.run_id].append(frame)
    broken = {run: report for run, report in reports.items() if not report.holds}
    lines = [f"{len(broken)} of {len(reports)} runs do not hold" if broken else "every run holds"]
    for run, report in broken.items():
        lines += ["", f"run {run!r}:" if run is not None else "frames that name no run:"]
        lines += [f"  {violation}" for violation in report.violations] or [f"  {report}"]
        lines += _shown(frames[run], {violation.position for violation in report.violations})
    return "\n".join(lines)


def _shown(frames: Sequence[ParsedFrame], places: Collection[int | None]) -> Iterator[str]:
    """The frames in the order in which they were read; of many, those that show a violation and their neighbours."""
    shows = {number for number, frame in enumerate(frames) if frame.position in places}
    near = {number + step for number in shows for step in (-1, 0, 1)}
    for number, frame in enumerate(frames):
        if len(frames) <= MAX_FRAMES_SHOWN or number in near:
            yield f"  {'>' if number in shows else ' '} {frame.position:>3}  {frame.line}"
        elif number - 1 in near or number == 0:
            yield "        …"
