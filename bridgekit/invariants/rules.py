"""The invariants one by one: from the frames of a run, or of a thread, to what does not hold of them."""

from __future__ import annotations

import enum
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from bridgekit.events import EventType
from bridgekit.ids import RunId, ThreadId
from bridgekit.invariants.recorded import ParsedFrame

__all__ = ["Violation", "Gap", "Invariant", "Signalled", "violation_at", "run_violations", "stream_violations"]

ENDS: Final = frozenset({EventType.AGENT_COMPLETED, EventType.AGENT_ERROR})

Gap = tuple[int, int]
Signalled = Iterable[Gap] | Mapping[str, Iterable[Gap]]
"""Gaps that a client was told of: by thread, or alone where the stream has one thread only."""
"""First and last missing `seq`."""


class Invariant(enum.StrEnum):
    """The invariants, by the words they are reported under."""

    FIELDS = "required fields"
    ONE_RUN = "one run id"
    ONE_THREAD = "one thread id"
    STARTED_FIRST = "started first"
    ENDED_LAST = "completed or error last"
    CRITICAL_TYPES = "critical types"
    TOOL_CALLS = "tool calls paired"
    NO_GAP = "no gap"
    IN_ORDER = "in order"
    ONCE = "read once"


class Violation(NamedTuple):
    """One thing that does not hold, and the frame that shows it."""

    rule: Invariant
    sentence: str
    place: int | None = None
    """Which frame of the recording, from 1; None where it is about a frame that is not there."""
    seq: int | None = None
    event_id: str | None = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.sentence}"


def violation_at(frame: ParsedFrame, rule: Invariant, sentence: str) -> Violation:
    """A violation that this frame shows."""
    return Violation(rule, sentence, frame.position, frame.seq, frame.event_id)


def stream_violations(
    seen: Sequence[ParsedFrame], signalled: Signalled, *, whole: bool
) -> Iterator[tuple[RunId | None, Violation]]:
    """What only the stream can tell, with the run that each violation is charged to."""
    yield from _misplaced(seen)
    if whole:
        threads: dict[ThreadId | None, dict[int, ParsedFrame]] = defaultdict(dict)
        for frame in seen:
            if frame.seq is not None:
                threads[frame.thread_id].setdefault(frame.seq, frame)
        # Of frames that name no thread nobody knows what their numbers count.
        named = {thread_id: frames for thread_id, frames in threads.items() if thread_id is not None}
        told = _by_thread(signalled, tuple(named))
        for thread_id, frames in named.items():
            yield from _holes(frames, told.get(thread_id, ()))


def _by_thread(signalled: Signalled, threads: Sequence[ThreadId]) -> dict[str, tuple[Gap, ...]]:
    """Numbers count within a thread, so a gap without its thread would excuse a silent loss in another."""
    if isinstance(signalled, Mapping):
        return {thread_id: tuple(gaps) for thread_id, gaps in signalled.items()}
    gaps = tuple(signalled)
    if gaps and len(threads) > 1:
        raise ValueError(f"of {len(threads)} threads: say the signalled gaps by thread, as {{thread_id: gaps}}")
    return dict.fromkeys(threads, gaps)


def _misplaced(seen: Iterable[ParsedFrame]) -> Iterator[tuple[RunId | None, Violation]]:
    """Frames that repeat another, or come after a later one. A copy is not judged for its order as well."""
    numbered: dict[tuple[ThreadId, int], ParsedFrame] = {}
    named: dict[str, ParsedFrame] = {}
    highest: Counter[ThreadId] = Counter()
    for frame in seen:
        twin = named.get(frame.event_id or "")
        if frame.thread_id is not None and frame.seq is not None:
            number = (frame.thread_id, frame.seq)
            twin = numbered.get(number) or twin
            if twin is None and frame.seq < (latest := highest[frame.thread_id]):
                yield frame.run_id, violation_at(frame, Invariant.IN_ORDER, f"seq {frame.seq} was read after seq {latest}")
            numbered.setdefault(number, frame)
            highest[frame.thread_id] = max(highest[frame.thread_id], frame.seq)
        if twin is not None:
            yield frame.run_id, violation_at(frame, Invariant.ONCE, _copy(frame, twin))
        if frame.event_id is not None:
            named.setdefault(frame.event_id, frame)


def _copy(frame: ParsedFrame, twin: ParsedFrame) -> str:
    if (frame.thread_id, frame.seq) != (twin.thread_id, twin.seq):
        return f"event {frame.event_id!r} was read before, as seq {twin.seq} of thread {twin.thread_id!r}"
    if frame.event_id != twin.event_id:
        return f"seq {frame.seq} is two events: {twin.event_id!r} and {frame.event_id!r}"
    return f"seq {frame.seq} was read before, at place {twin.position}"


def _holes(frames: Mapping[int, ParsedFrame], signalled: Sequence[Gap]) -> Iterator[tuple[RunId | None, Violation]]:
    """Numbers missing between two that were read; what is missing at either end of a recording leaves no hole.

    Nobody can say whose the missing events were. So a hole is charged to each run that was under way, and where none
    was, to the run whose frame comes next and shows it.
    """
    under_way: dict[RunId | None, None] = {}
    ended: set[RunId | None] = set()
    before: int | None = None
    told = _disjoint(signalled)
    for seq, frame in sorted(frames.items()):
        for gap in _without(told, (seq if before is None else before + 1, seq - 1)):
            for run in under_way or (frame.run_id,):
                yield run, violation_at(frame, Invariant.NO_GAP, _missing(gap))
        if frame.type in ENDS:
            ended.add(frame.run_id)
            under_way.pop(frame.run_id, None)
        elif frame.run_id not in ended:
            under_way[frame.run_id] = None
        before = seq


def _disjoint(gaps: Iterable[Gap]) -> deque[Gap]:
    """The same gaps in order, those that overlap as one."""
    disjoint: deque[Gap] = deque()
    for first, last in sorted(gaps):
        if disjoint and first <= disjoint[-1][1]:
            begin, end = disjoint.pop()
            first, last = begin, max(end, last)
        disjoint.append((first, last))
    return disjoint


def _without(told: deque[Gap], hole: Gap) -> Iterator[Gap]:
    """What is left of a hole that the client was partly told of. Holes come in order: what lies before is let go."""
    first, last = hole
    while told and told[0][1] < first:
        told.popleft()
    for told_first, told_last in told:
        if told_first > last:
            break
        if first < told_first:
            yield first, told_first - 1
        first = told_last + 1
    if first <= last:
        yield first, last


def _missing(gap: Gap) -> str:
    first, last = gap
    which = f"seq {first} is" if first == last else f"seq {first} to {last} are"
    return f"{which} missing before this frame, of this run or of another of its thread"


def run_violations(frames: Sequence[ParsedFrame], run_id: RunId | None, required: frozenset[EventType]) -> list[Violation]:
    """What the run's own frames tell, in the order in which they were read."""
    found = [violation_at(frame, Invariant.FIELDS, fault) for frame in frames for fault in frame.problems]
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
            yield violation_at(frame, Invariant.ONE_THREAD, f"the run moved from thread {first!r} to {frame.thread_id!r}")


def _start(frames: Sequence[ParsedFrame]) -> Iterator[Violation]:
    starts = [frame for frame in frames if frame.type is EventType.AGENT_STARTED]
    if not starts:
        yield violation_at(frames[0], Invariant.STARTED_FIRST, "agent_started was never read")
    elif starts[0] is not frames[0]:
        yield violation_at(starts[0], Invariant.STARTED_FIRST, "agent_started was not the first that was read")
    for again in starts[1:]:
        yield violation_at(again, Invariant.STARTED_FIRST, "the run started again")


def _end(frames: Sequence[ParsedFrame]) -> Iterator[Violation]:
    end = next((number for number, frame in enumerate(frames) if frame.type in ENDS), None)
    if end is None:
        yield Violation(Invariant.ENDED_LAST, "neither agent_completed nor agent_error was read")
        return
    for late in frames[end + 1 :]:
        sentence = "the run ended again" if late.type in ENDS else f"{late.type} was read after the run's end"
        yield violation_at(late, Invariant.ENDED_LAST, sentence)


def _types(frames: Sequence[ParsedFrame], required: frozenset[EventType]) -> Iterator[Violation]:
    """How a run starts and ends is judged by rules of its own; here, what lies between."""
    read_types = {frame.type for frame in frames}
    if EventType.AGENT_ERROR in read_types:
        return
    for event_type in EventType:
        if event_type in required - ENDS - read_types - {EventType.AGENT_STARTED}:
            yield Violation(Invariant.CRITICAL_TYPES, f"no {event_type} was read")


def _tool_calls(frames: Sequence[ParsedFrame]) -> Iterator[Violation]:
    """Calls may overlap. One that is open when the run ends in an error is what the error cut short."""
    under_way: dict[str, ParsedFrame] = {}
    begun: set[str] = set()
    for frame in frames:
        call = frame.text("tool_call_id")
        # A call without an id is a violation of the required fields, and of nothing else.
        if call is not None and frame.type is EventType.TOOL_EXECUTING:
            if call in begun:
                yield violation_at(frame, Invariant.TOOL_CALLS, f"call {call!r} was begun twice")
            begun.add(call)
            under_way[call] = frame
        elif call is not None and frame.type is EventType.TOOL_COMPLETED:
            yield from _completion(under_way.pop(call, None), frame, call)
    if not any(frame.type is EventType.AGENT_ERROR for frame in frames):
        for call, frame in under_way.items():
            yield violation_at(frame, Invariant.TOOL_CALLS, f"call {call!r} was never completed")


def _completion(begun: ParsedFrame | None, completed: ParsedFrame, call: str) -> Iterator[Violation]:
    if begun is None:
        yield violation_at(completed, Invariant.TOOL_CALLS, f"call {call!r} was completed, and is not under way")
    elif begun.text("tool_name") != completed.text("tool_name"):
        yield violation_at(completed, Invariant.TOOL_CALLS, f"call {call!r} was begun as {begun.text('tool_name')!r}")
