"""Checks the invariants of every run in a recorded event stream, without access to the sender.

A recording contains only what a socket read. A gap in `seq`, a run without an end event, or a missing event type
reveals a loss. A run whose events were all lost leaves no trace, so the caller should pass the expected `runs`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from bridgekit.events import CRITICAL, EventType
from bridgekit.ids import RunId
from bridgekit.invariants.frame_parsing import ParsedFrame, Recorded, read
from bridgekit.invariants.rules import Invariant, Signalled, Violation, run_violations, stream_violations, violation_at

__all__ = ["Invariant", "LatencyQuantiles", "RunReport", "Violation", "check_run", "check_stream", "format_report"]

MAX_FRAMES_SHOWN: Final = 12
"""A report shows all frames of a run with at most 12 frames, and otherwise only frames near violations."""


class LatencyQuantiles(NamedTuple):
    """Quantiles of the time from emission to reading, in seconds. Each quantile is one of the measured times.

    Emission is timed by the sender's clock and reading by the recorder's. A difference between the clocks shifts the
    quantiles, possibly below 0.
    """

    n: int
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class RunReport:
    """The result of checking one run. A report is true only if frames were read and every invariant holds."""

    run_id: RunId | None
    """None for frames without a run id, and for an empty recording."""
    frames: int
    counts: Mapping[EventType, int]
    violations: tuple[Violation, ...]
    latency: LatencyQuantiles | None
    """None if no frame of the run has both an emission time and a reading time."""

    @property
    def known(self) -> bool:
        """True if any frame was read. Without frames, the result is unknown: the invariants neither hold nor fail."""
        return self.frames > 0

    @property
    def holds(self) -> bool:
        """True if frames were read and no invariant is violated."""
        return self.known and not self.violations

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        if not self.known:
            return "unknown: no frame of this run was read"
        return "; ".join(map(str, self.violations)) or f"{self.frames} frames, every invariant holds"


def check_run(
    events: Iterable[Recorded],
    *,
    run_id: str | None = None,
    required: Iterable[EventType] = CRITICAL,
    signalled: Signalled = (),
    whole: bool = True,
) -> RunReport:
    """Check one run: the run `run_id` of a stream, or, without `run_id`, a stream that contains a single run.

    `required`: the event types that a completed run must contain. These types are not required if the run ended in an
    error. `signalled`: gaps that the client was sent, as pairs of first and last missing `seq`. They are not
    violations. `whole`: whether the stream contains every frame of the thread that was read. `seq` counts within the
    thread, so pass `whole=False` if frames of other runs were filtered out. If `whole` is False, the function checks
    order and duplicates, but not gaps.
    """
    parsed = read(events)
    named = next((frame.run_id for frame in parsed if frame.run_id), None) if run_id is None else RunId(run_id)
    frames = [frame for frame in parsed if run_id is None or frame.run_id == named]
    of_stream = stream_violations(parsed, signalled, whole=whole)
    # Without `run_id`, the run's report also covers the frames without a run id.
    found = [violation for owner, violation in of_stream if run_id is None or owner == named]
    return _report(named, frames, [*found, *run_violations(frames, named, frozenset(required))])


def check_stream(
    events: Iterable[Recorded],
    *,
    runs: Iterable[str] | None = None,
    required: Iterable[EventType] = CRITICAL,
    signalled: Signalled = (),
) -> dict[RunId | None, RunReport]:
    """Check every run in a stream, by the rules of `check_run`. The runs may be interleaved. Return reports by run id.

    `runs`: the expected runs. An expected run without frames is reported as unknown. An unexpected run is reported as
    a violation, because it may belong to another user. Without `runs`, the function detects neither missing nor
    unexpected runs.

    The report with the key None covers the frames without a run id. For an empty recording without `runs`, the only
    report has the key None and does not hold. `all(check_stream(…).values())` is therefore never true for an empty
    recording.
    """
    parsed = read(events)
    expected = None if runs is None else [RunId(run) for run in runs]
    by_run: dict[RunId | None, list[ParsedFrame]] = {run: [] for run in expected or ()}
    for frame in parsed:
        by_run.setdefault(frame.run_id, []).append(frame)
    types, violations = frozenset(required), defaultdict[RunId | None, list[Violation]](list)
    for run, violation in stream_violations(parsed, signalled, whole=True):
        violations[run].append(violation)
    for run, frames in by_run.items():
        if expected is not None and run is not None and run not in expected:
            violations[run].append(violation_at(frames[0], Invariant.ONE_RUN, f"run {run!r} was not expected"))
        violations[run] += run_violations(frames, run, types)
    return {run: _report(run, frames, violations[run]) for run, frames in (by_run or {None: []}).items()}


def _report(run_id: RunId | None, frames: Sequence[ParsedFrame], violations: Iterable[Violation]) -> RunReport:
    return RunReport(
        run_id=run_id,
        frames=len(frames),
        counts=dict(Counter(frame.type for frame in frames if frame.type)),
        # A gap that was attributed to several runs counts once in a report on all of them.
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
    """Format each run's violations and frames for a failure message. `>` marks a frame that shows a violation."""
    frames: dict[RunId | None, list[ParsedFrame]] = defaultdict(list)
    for frame in read(events):
        frames[frame.run_id].append(frame)
    broken = {run: report for run, report in reports.items() if not report.holds}
    lines = [f"{len(broken)} of {len(reports)} runs do not hold" if broken else "every run holds"]
    for run, report in broken.items():
        lines += ["", f"run {run!r}:" if run is not None else "frames without a run id:"]
        lines += [f"  {violation}" for violation in report.violations] or [f"  {report}"]
        lines += _format_frames(frames[run], {violation.position for violation in report.violations})
    return "\n".join(lines)


def _format_frames(frames: Sequence[ParsedFrame], positions: Collection[int | None]) -> Iterator[str]:
    """Format frames in the order of reading.

    If there are more than MAX_FRAMES_SHOWN frames, format only those at `positions` and the frames next to them.
    """
    marked = {number for number, frame in enumerate(frames) if frame.position in positions}
    near = {number + step for number in marked for step in (-1, 0, 1)}
    for number, frame in enumerate(frames):
        if len(frames) <= MAX_FRAMES_SHOWN or number in near:
            yield f"  {'>' if number in marked else ' '} {frame.position:>3}  {frame.line}"
        elif number - 1 in near or number == 0:
            yield "        …"
