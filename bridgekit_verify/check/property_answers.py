"""Answers for properties: each is *holds*, *broken* with the frames that show it, or *unknown* with the reason."""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from bridgekit_verify.check.frames import Message, encode_json

__all__ = ["Evidence", "Findings", "Property", "PropertyAnswer", "RecordedViolation", "State"]

MAX_VIOLATIONS: Final = 1_000
MAX_REASONS: Final = 200
EXCERPT_CHARACTERS: Final = 160


class Property(enum.StrEnum):
    """The properties that are judged for every recording."""

    LOST = "nothing lost"
    DUPLICATED = "nothing duplicated"
    ORDER = "in order"
    USER = "right user"
    THREAD = "right thread"
    TEXT = "text intact"
    ARGUMENTS = "arguments intact"
    CALLS = "calls paired"
    ENDED = "run ended"
    END_LAST = "end last"
    RESUME = "resume complete"
    SNAPSHOT = "snapshot agrees"
    CONTEXT = "context isolated"
    MODEL = "model called once"


class State(enum.StrEnum):
    """The state of an answer for one property."""

    HOLDS = "holds"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Evidence(msgspec.Struct, frozen=True):
    """A frame that shows a violation."""

    index: int
    """The number of the frame's line or message in the recording."""
    client: str
    excerpt: str = ""
    """The start of the frame, or empty if the frame was no longer in memory."""


class RecordedViolation(msgspec.Struct, frozen=True):
    """One broken rule. `key` is the same each time that the recording is judged, so that a baseline can name it."""

    key: str
    subject: str
    """The run, message, call or client of the violation, such as `call c1`."""
    message: str
    source: str
    """What shows the violation, such as the positions or a gap signal."""
    frames: tuple[Evidence, ...]


class PropertyAnswer(msgspec.Struct, frozen=True):
    """The answer for one property."""

    property: Property
    state: State
    source: str = ""
    """The evidence that the property holds."""
    reason: str = ""
    """Why the answer is *unknown*."""
    count: int = 0
    """The number of violations. At most MAX_VIOLATIONS are listed."""
    violations: tuple[RecordedViolation, ...] = ()


@dataclass
class Findings:
    """Collects violations, and reasons why an answer cannot be *holds*. Both are bounded."""

    violations: dict[Property, list[RecordedViolation]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[Property] = field(default_factory=Counter)
    reasons: dict[Property, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    _keys: dict[Property, set[str]] = field(default_factory=lambda: defaultdict(set))

    def broken(
        self, which: Property, rule: str, subject: str, message: str, source: str, *frames: Message | Evidence
    ) -> None:
        """Record a violation. For each rule and subject, only the first violation is recorded and counted.

        Once MAX_VIOLATIONS are recorded, further violations are counted but not recorded.
        """
        key = f"{which}: {rule}: {subject}"
        if key in self._keys[which]:
            return
        self.counts[which] += 1
        if len(self.violations[which]) < MAX_VIOLATIONS:
            self._keys[which].add(key)
            shown = tuple(each if isinstance(each, Evidence) else excerpt(each) for each in frames)
            self.violations[which].append(RecordedViolation(key, subject, message, source, shown))

    def unknown(self, which: Property, reason: str) -> None:
        """Record why an answer cannot be *holds*. The answer shows the first reason and the number of others."""
        if len(self.reasons[which]) < MAX_REASONS:
            self.reasons[which][reason] = None

    def answer(self, which: Property, source: str, *, lacking: bool = False) -> PropertyAnswer:
        """Return the answer. If `lacking` is True, the answer is never *holds*, even if no reason was recorded."""
        if self.counts[which]:
            return PropertyAnswer(
                which, State.BROKEN, count=self.counts[which], violations=tuple(self.violations[which])
            )
        if lacking or self.reasons[which]:
            return unknown_answer(which, list(self.reasons[which]))
        return PropertyAnswer(which, State.HOLDS, source=source)


def unknown_answer(which: Property, reasons: Sequence[str]) -> PropertyAnswer:
    """Return the answer *unknown* with the first reason and the number of further reasons."""
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return PropertyAnswer(which, State.UNKNOWN, reason=f"{reasons[0]}{more}" if reasons else "")


def excerpt(message: Message) -> Evidence:
    text = encode_json(message.value)
    text = text if len(text) <= EXCERPT_CHARACTERS else f"{text[: EXCERPT_CHARACTERS - 1]}…"
    return Evidence(message.index, message.client, text)
