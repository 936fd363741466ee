"""Judge links: find violations in a recording, and compare what each link received with what it passed on."""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from bridgekit.events import Receipt
from bridgekit_verify.probes.recorded_calls import RecordedCall

__all__ = [
    "Judgement",
    "Match",
    "ViolationKind",
    "canonical",
    "difference",
    "error_text",
    "expect_duration",
    "expect_time",
    "is_within",
    "label",
    "match",
    "same_outcome",
    "shown",
]

SHOWN_CHARACTERS: Final = 48
MOST_KINDS_SHOWN: Final = 2
ROUNDING_MS: Final = 0.001
EMITTING: Final = ("agent", "adapter", "bridge")


class ViolationKind(enum.StrEnum):
    """Kinds of violations, in descending order of severity. Each is named after what a user or an operator notices."""

    MISROUTED = "misrouted"
    LOST = "lost"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    CHANGED = "changed"
    FALSE_GAP = "false gap"
    FALSE_RECEIPT = "false receipt"
    MISCOUNTED = "miscounted"
    HANDOVER = "handover"
    """A link holds or passes on an object other than the one that it was given."""


@dataclass
class Judgement:
    """The violations of one link, and the number of its judged calls."""

    link: int
    tried: int = 0
    """How many calls of the link were judged. If there are none, the probe's answer is unknown."""
    violations: list[tuple[ViolationKind, str]] = field(default_factory=list)
    """The kind and the evidence of each violation, in the order in which the violations were found."""
    summary: str = ""
    """The clause that states the result if there is no violation."""

    def expect(self, condition: bool, kind: ViolationKind, evidence: str | Callable[[], str]) -> bool:
        """Record a violation if the condition is false, and return the condition."""
        if not condition:
            self.violations.append((kind, evidence if isinstance(evidence, str) else evidence()))
        return condition

    def equal(self, given: object, found: object, what: str, kind: ViolationKind = ViolationKind.CHANGED) -> bool:
        """Record a violation if the two values differ, with the path to the first difference."""
        different = difference(given, found, what)
        return self.expect(different is None, kind, different or "")

    @property
    def evidence(self) -> str:
        """The first violation of each of the two most severe kinds found, and how often each kind occurred."""
        by_kind: dict[ViolationKind, list[str]] = {kind: [] for kind in ViolationKind}
        for kind, text in self.violations:
            by_kind[kind].append(text)
        found = [texts for texts in by_kind.values() if texts]
        return "; ".join(f"{texts[0]}{_times(len(texts))}" for texts in found[:MOST_KINDS_SHOWN])


def _times(count: int) -> str:
    return f" (the first of {count:,} violations of this kind)" if count > 1 else ""


def shown(value: object) -> str:
    """Return a short printable form of a value."""
    text = value.isoformat() if isinstance(value, datetime) else ascii(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def label(request: object) -> str:
    """Return the first two words of a request, which identify a run of the scenario. A link may change its type."""
    return " ".join(str(request).split()[:2])


def run_label(request: object) -> str:
    """Return the name of a run of the scenario for a sentence, such as "run 'question 1'"."""
    return f"run '{label(request)}'"


def difference(given: object, found: object, path: str) -> str | None:
    """Return the first difference of two values, or None. The comparison includes types, key order and all digits."""
    # Most values are equal, and a comparison that tracks the path takes several times as long.
    return None if _identical(given, found) else _first_difference(given, found, path)


def _identical(given: object, found: object) -> bool:
    """Return whether two values are equal and also have the same types, key order and digits."""
    if type(given) is not type(found):
        return False
    if type(given) is str:  # most values
        return given == found
    if isinstance(given, dict) and isinstance(found, dict):
        return list(given) == list(found) and all(map(_identical, given.values(), found.values()))
    if isinstance(given, (list, tuple)) and isinstance(found, (list, tuple)):
        return len(given) == len(found) and all(map(_identical, given, found))
    return _same(given, found)


def _same(given: object, found: object) -> bool:
    """Return whether two values of one type that have no members are equal, with all digits and the time zone."""
    if isinstance(given, datetime) and isinstance(found, datetime):
        return given == found and given.utcoffset() == found.utcoffset()
    return repr(given) == repr(found) if isinstance(given, float) else bool(given == found)


def _first_difference(given: object, found: object, path: str) -> str | None:
    if type(given) is not type(found):
        if isinstance(given, Mapping) and isinstance(found, Mapping):
            return _first_difference(dict(given), dict(found), path)
        if not (isinstance(given, str) and isinstance(found, str)):
            return f"{path} is {shown(found)} instead of {shown(given)}"
    if isinstance(given, dict) and isinstance(found, dict):
        if list(given) != list(found):
            return f"{path} has the keys {shown(list(found))} instead of {shown(list(given))}"
        keys = (d for key in given if (d := _first_difference(given[key], found[key], f"{path}[{shown(key)}]")))
        return next(keys, None)
    if isinstance(given, (list, tuple)) and isinstance(found, (list, tuple)):
        if len(given) != len(found):
            return f"{path} has {len(found)} items instead of {len(given)}"
        pairs = enumerate(zip(given, found, strict=True))
        return next((d for place, (a, b) in pairs if (d := _first_difference(a, b, f"{path}[{place}]"))), None)
    return None if _same(given, found) else f"{path} is {shown(found)} instead of {shown(given)}"


def canonical(value: object) -> Hashable:
    """Return a hashable form of a value. Two values without a `difference` have equal forms."""
    if isinstance(value, str):  # the plain types come first, because the check for a mapping is slow
        return str(value)
    if value is None or isinstance(value, int):
        return (type(value).__name__, repr(value))
    if isinstance(value, (list, tuple)):
        return ("array", *map(canonical, value))
    if isinstance(value, (dict, Mapping)):
        return ("object", *[(key, canonical(each)) for key, each in value.items()])
    if isinstance(value, float):
        return ("float", repr(value))
    return (type(value).__name__, repr(value))


@dataclass(frozen=True)
class Match:
    """The calls of a link, matched with the calls that the link made."""

    pairs: list[tuple[RecordedCall, RecordedCall]]
    """Each call of the link, with the call that passed it on."""
    lost: list[RecordedCall]
    extra: list[RecordedCall]
    """Calls to the next link that belong to no call of this link, or that repeat an earlier call."""

    def overtaken(self, group: Callable[[RecordedCall], Hashable]) -> Iterator[tuple[RecordedCall, RecordedCall]]:
        """Yield pairs of calls of a group that were passed on in the wrong order: the earlier call, the later call."""
        latest: dict[Hashable, tuple[RecordedCall, RecordedCall]] = {}
        for call, made in sorted(self.pairs, key=lambda pair: pair[1].entered):
            before = latest.get(group(call))
            if before is not None and before[0].entered > call.entered:
                yield call, before[0]
            else:
                latest[group(call)] = call, made


def match(
    calls: Sequence[RecordedCall],
    made: Iterable[RecordedCall],
    key_of_call: Callable[[RecordedCall], Hashable],
    key_of_made: Callable[[RecordedCall], Hashable],
) -> Match:
    """Match a link's calls with the calls `made` by the link: by caller and content, by content, or by caller."""
    left = list(made)
    pairs: dict[int, RecordedCall] = {}
    keys = {id(each): key_of_made(each) for each in left}

    def take(matches: Callable[[RecordedCall, RecordedCall], bool]) -> None:
        by_place = [call for call in calls if id(call) not in pairs]
        for call in by_place:
            found = next((each for each in left if matches(call, each)), None)
            if found is not None:
                pairs[id(call)] = found
                left.remove(found)

    wanted = {id(call): key_of_call(call) for call in calls}
    take(lambda call, each: is_within(each, call) and keys[id(each)] == wanted[id(call)])
    if left:
        take(lambda call, each: keys[id(each)] == wanted[id(call)])
        take(lambda call, each: is_within(each, call))
    return Match(
        [(call, pairs[id(call)]) for call in calls if id(call) in pairs],
        [call for call in calls if id(call) not in pairs],
        left,
    )


def is_within(made: RecordedCall, call: RecordedCall) -> bool:
    """Return whether `made` was called during `call`, directly or through other recorded calls."""
    outer = made.within
    while outer is not None:
        if outer is call:
            return True
        outer = outer.within
    return False


def same_outcome(call: RecordedCall, made: RecordedCall) -> bool:
    """Return whether a call and the call `made` within it have the same outcome: the same result or error.

    For an emitted event, also return True if `made` returns no receipt, because only the later link is at fault.
    """
    if made.raised is None and call.part in EMITTING and not isinstance(made.result, Receipt):
        return True
    if made.raised is not None or call.raised is not None:
        return call.raised is made.raised
    if isinstance(call.result, Receipt) and isinstance(made.result, Receipt):
        # While an outbox of the thread is crowded, `notify` returns a subclass of Receipt, so compare only the fields.
        return all(getattr(call.result, name) == getattr(made.result, name) for name in Receipt.__struct_fields__)
    return call.result is made.result or bool(call.result == made.result)


def expect_duration(link: Judgement, found: object, within: tuple[float, float], what: str) -> None:
    """Check a duration in ms: at least that of the work, and at most that of the whole call. `within` is in seconds."""
    least, most = within
    link.expect(
        isinstance(found, float) and least * 1_000 - ROUNDING_MS <= found <= most * 1_000 + ROUNDING_MS,
        ViolationKind.CHANGED,
        f"the duration of {what} is {found} ms, but it took {least * 1_000:.3f} to {most * 1_000:.3f} ms",
    )


def expect_time(link: Judgement, timestamp: object, call: RecordedCall, made: RecordedCall) -> None:
    """Check that an event was stamped after the call that emitted it began, and before `made` passed the event on."""
    evidence = "the timestamp of an event "
    if not isinstance(timestamp, datetime):
        evidence += f"is {shown(timestamp)}"
    elif timestamp.tzinfo is None:
        evidence += "has no time zone"
    elif timestamp.utcoffset():
        evidence += f"is {shown(timestamp)}, which is not in UTC"
    elif call.entered_at <= timestamp <= made.entered_at:
        return
    else:
        evidence += f"is {timestamp:%FT%T.%f}, but it was emitted at {call.entered_at:%T.%f}"
    link.expect(False, ViolationKind.CHANGED, evidence)


def error_text(error: BaseException) -> str:
    """Return the text of an error that a link raised, for use in evidence."""
    return f"raised {type(error).__name__}: {error}"
