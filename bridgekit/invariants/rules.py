"""Functions that find the violations of each invariant in the frames of a run or a stream."""

from __future__ import annotations

import enum
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bridgekit.events import END_EVENTS, EventType
from bridgekit.ids import RunId, ThreadId
from bridgekit.invariants.frame_parsing import ParsedFrame

__all__ = ["Invariant", "SeqRange", "Signalled", "Violation", "run_violations", "stream_violations", "violation_at"]

SeqRange = tuple[int, int]
"""The first and the last missing `seq` of a gap, both inclusive."""
Signalled = Iterable[SeqRange] | Mapping[str, Iterable[SeqRange]]
"""Gaps that a client was sent, by thread id. The thread ids may be omitted if the stream has only one thread."""


class Invariant(enum.StrEnum):
    """The invariants of a run. Reports use each value as a label."""

    FIELDS = "required fields"
    """Every frame has all fields, with valid values."""
    ONE_RUN = "one run id"
    """Every frame belongs to an expected run."""
    ONE_THREAD = "one thread id"
    """All frames of the run belong to one thread."""
    STARTED_FIRST = "started first"
    """The first event is `agent_started`, which occurs only once."""
    ENDED_LAST = "completed or error last"
    """The last event is `agent_completed` or `agent_error`, and there is no second end event."""
    CRITICAL_TYPES = "critical types"
    """A completed run contains an event of each required type."""
    TOOL_CALLS = "tool calls paired"
    """Each tool call is started once and completed once, under the same tool name."""
    NO_GAP = "no gap"
    """No `seq` is missing between two frames of a thread, except for gaps that the client was sent."""
    IN_ORDER = "in order"
    """`seq` increases from frame to frame of a thread."""
    ONCE = "read once"
    """No event is read twice, and no `seq` of a thread is used twice."""


class Violation(NamedTuple):
    """A violated invariant, and the frame that shows the violation."""

    invariant: Invariant
    message: str
    position: int | None = None
    """The frame's number in the recording, from 1, or None if the violation is a missing frame."""
    seq: int | None = None
    event_id: str | None = None

    def __str__(self) -> str:
        return f"{self.invariant}: {self.message}"


def violation_at(frame: ParsedFrame, invariant: Invariant, message: str) -> Violation:
    """Create a violation that this frame shows."""
    return Violation(invariant, message, frame.position, frame.seq, frame.event_id)


def stream_violations(
    frames: Sequence[ParsedFrame], signalled: Signalled, *, whole: bool
) -> Iterator[tuple[RunId | None, Violation]]:
    """Check the invariants that need the whole stream: order, duplicates and, if `whole`, gaps.

    Yield each violation with the id of the run that it is attributed to.
    """
    yield from _out_of_order_or_duplicated(frames)
    if whole:
        threads: dict[ThreadId | None, dict[int, ParsedFrame]] = defaultdict(dict)
        for frame in frames:
            if frame.seq is not None:
                threads[frame.thread_id].setdefault(frame.seq, frame)
        # `seq` counts within a thread, so frames without a thread id cannot be checked for gaps.
        named = {thread_id: by_seq for thread_id, by_seq in threads.items() if thread_id is not None}
        signalled_gaps = _by_thread(signalled, tuple(named))
        for thread_id, by_seq in named.items():
            yield from _unsignalled_gaps(by_seq, signalled_gaps.get(thread_id, ()))


def _by_thread(signalled: Signalled, threads: Sequence[ThreadId]) -> dict[str, tuple[SeqRange, ...]]:
    """Group the gaps by thread.

    Raises ValueError if the gaps have no thread ids and the stream has several threads, because a gap of one thread
    could hide a silent loss in another.
    """
    if isinstance(signalled, Mapping):
        return {thread_id: tuple(gaps) for thread_id, gaps in signalled.items()}
    gaps = tuple(signalled)
    if gaps and len(threads) > 1:
        raise ValueError(
            f"the stream has {len(threads)} threads: pass the signalled gaps by thread, as {{thread_id: gaps}}"
        )
    return dict.fromkeys(threads, gaps)


def _out_of_order_or_duplicated(frames: Iterable[ParsedFrame]) -> Iterator[tuple[RunId | None, Violation]]:
    """Find frames that repeat an earlier frame, or whose `seq` is lower than that of an earlier frame.

    No frame is reported as both duplicated and out of order.
    """
    numbered: dict[tuple[ThreadId, int], ParsedFrame] = {}
    named: dict[str, ParsedFrame] = {}
    highest: Counter[ThreadId] = Counter()
    for frame in frames:
        original = named.get(frame.event_id or "")
        if frame.thread_id is not None and frame.seq is not None:
            number = (frame.thread_id, frame.seq)
            latest = highest[frame.thread_id]
            original = numbered.get(number) or original
            if original is None and frame.seq < latest:
                yield (
                    frame.run_id,
                    violation_at(frame, Invariant.IN_ORDER, f"seq {frame.seq} was read after seq {latest}"),
                )
            elif original is None and frame.first_seq is not None and frame.first_seq <= latest:
                message = f"seq {frame.first_seq} to {frame.seq} were joined, and seq {latest} was read before"
                yield frame.run_id, violation_at(frame, Invariant.ONCE, message)
            numbered.setdefault(number, frame)
            highest[frame.thread_id] = max(highest[frame.thread_id], frame.seq)
        if original is not None:
            yield frame.run_id, violation_at(frame, Invariant.ONCE, _describe_duplicate(frame, original))
        if frame.event_id is not None:
            named.setdefault(frame.event_id, frame)


def _describe_duplicate(frame: ParsedFrame, original: ParsedFrame) -> str:
    if (frame.thread_id, frame.seq) != (original.thread_id, original.seq):
        return f"event {frame.event_id!r} was read before, as seq {original.seq} of thread {original.thread_id!r}"
    if frame.event_id != original.event_id:
        return f"seq {frame.seq} was used for two events: {original.event_id!r} and {frame.event_id!r}"
    return f"seq {frame.seq} was read before, at position {original.position}"


def _unsignalled_gaps(
    by_seq: Mapping[int, ParsedFrame], signalled: Sequence[SeqRange]
) -> Iterator[tuple[RunId | None, Violation]]:
    """Find each `seq` that is missing between two frames and is in no signalled gap.

    Frames that are missing at either end of a recording leave no gap.

    The run of a missing event is unknown, so a gap is attributed to each run that was active at that point. If no run
    was active, the gap is attributed to the run of the next frame.
    """
    active: dict[RunId | None, None] = {}
    ended: set[RunId | None] = set()
    previous: int | None = None
    known_gaps = _merge_overlapping(signalled)
    for seq, frame in sorted(by_seq.items()):
        first = frame.first_seq or seq
        for gap in _subtract(known_gaps, (first if previous is None else previous + 1, first - 1)):
            for run in active or (frame.run_id,):
                yield run, violation_at(frame, Invariant.NO_GAP, _describe_gap(gap))
        if frame.type in END_EVENTS:
            ended.add(frame.run_id)
            active.pop(frame.run_id, None)
        elif frame.run_id not in ended:
            active[frame.run_id] = None
        previous = seq


def _merge_overlapping(gaps: Iterable[SeqRange]) -> deque[SeqRange]:
    """Sort the gaps and merge overlapping gaps."""
    disjoint: deque[SeqRange] = deque()
    for first, last in sorted(gaps):
        if disjoint and first <= disjoint[-1][1]:
            begin, end = disjoint.pop()
            first, last = begin, max(end, last)
        disjoint.append((first, last))
    return disjoint


def _subtract(known_gaps: deque[SeqRange], missing: SeqRange) -> Iterator[SeqRange]:
    """Return the parts of `missing` that no known gap covers.

    The caller passes `missing` ranges in ascending order, so known gaps before the range are removed from the queue.
    """
    first, last = missing
    while known_gaps and known_gaps[0][1] < first:
        known_gaps.popleft()
    for known_first, known_last in known_gaps:
        if known_first > last:
            break
        if first < known_first:
            yield first, known_first - 1
        first = known_last + 1
    if first <= last:
        yield first, last


def _describe_gap(gap: SeqRange) -> str:
    first, last = gap
    which = f"seq {first} is" if first == last else f"seq {first} to {last} are"
    return f"{which} missing before this frame, from this run or from another run of its thread"


def run_violations(
    frames: Sequence[ParsedFrame], run_id: RunId | None, required: frozenset[EventType]
) -> list[Violation]:
    """Check the invariants that need only the frames of one run, given in the order of reading."""
    found = [violation_at(frame, Invariant.FIELDS, problem) for frame in frames for problem in frame.problems]
    if run_id is None or not frames:
        return found
    found += [
        violation_at(frame, Invariant.ONE_RUN, f"the frame belongs to run {frame.run_id!r}, not to {run_id!r}")
        for frame in frames
        if frame.run_id not in (None, run_id)
    ]
    mine = [frame for frame in frames if frame.run_id == run_id]
    return [*found, *_threads(mine), *_start(mine), *_end(mine), *_types(mine, required), *_tool_calls(mine)]


def _threads(frames: Sequence[ParsedFrame]) -> Iterator[Violation]:
    first = next((frame.thread_id for frame in frames if frame.thread_id), None)
    for frame in frames:
        if frame.thread_id not in (None, first):
            yield violation_at(
                frame, Invariant.ONE_THREAD, f"the run moved from thread {first!r} to {frame.thread_id!r}"
            )


def _start(frames: Sequence[ParsedFrame]) -> Iterator[Violation]:
    starts = [frame for frame in frames if frame.type is EventType.AGENT_STARTED]
    if not starts:
        yield violation_at(frames[0], Invariant.STARTED_FIRST, "agent_started was never read")
    elif starts[0] is not frames[0]:
        yield violation_at(starts[0], Invariant.STARTED_FIRST, "agent_started was not the first event read")
    for repeated in starts[1:]:
        yield violation_at(repeated, Invariant.STARTED_FIRST, "the run started again")


def _end(frames: Sequence[ParsedFrame]) -> Iterator[Violation]:
    end = next((number for number, frame in enumerate(frames) if frame.type in END_EVENTS), None)
    if end is None:
        yield Violation(Invariant.ENDED_LAST, "neither agent_completed nor agent_error was read")
        return
    for late in frames[end + 1 :]:
        message = "the run ended again" if late.type in END_EVENTS else f"{late.type} was read after the run's end"
        yield violation_at(late, Invariant.ENDED_LAST, message)


def _types(frames: Sequence[ParsedFrame], required: frozenset[EventType]) -> Iterator[Violation]:
    """Check the required types, except for the start and end events, which have their own invariants."""
    read_types = {frame.type for frame in frames}
    if EventType.AGENT_ERROR in read_types:
        return
    for event_type in EventType:
        if event_type in required - END_EVENTS - read_types - {EventType.AGENT_STARTED}:
            yield Violation(Invariant.CRITICAL_TYPES, f"no {event_type} was read")


def _tool_calls(frames: Sequence[ParsedFrame]) -> Iterator[Violation]:
    """Check that each tool call is started and completed once, under one tool name. Calls may overlap.

    If the run ended in an error, an open call is not a violation, because the error may have interrupted it.
    """
    open_calls: dict[str, ParsedFrame] = {}
    started: set[str] = set()
    for frame in frames:
        call = frame.text("tool_call_id")
        # A call without an id already violates the invariant of required fields.
        if call is not None and frame.type is EventType.TOOL_EXECUTING:
            if call in started:
                yield violation_at(frame, Invariant.TOOL_CALLS, f"call {call!r} was started twice")
            started.add(call)
            open_calls[call] = frame
        elif call is not None and frame.type is EventType.TOOL_COMPLETED:
            yield from _completion(open_calls.pop(call, None), frame, call)
    if not any(frame.type is EventType.AGENT_ERROR for frame in frames):
        for call, frame in open_calls.items():
            yield violation_at(frame, Invariant.TOOL_CALLS, f"call {call!r} was never completed")


def _completion(started: ParsedFrame | None, completed: ParsedFrame, call: str) -> Iterator[Violation]:
    if started is None:
        yield violation_at(completed, Invariant.TOOL_CALLS, f"call {call!r} was completed but is not in progress")
    elif started.text("tool_name") != completed.text("tool_name"):
        message = f"call {call!r} was started as tool {started.text('tool_name')!r}"
        yield violation_at(completed, Invariant.TOOL_CALLS, message)
