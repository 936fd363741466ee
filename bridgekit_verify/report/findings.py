"""What a notebook hands to the report: findings, tables, pieces of source. Words and shapes, no display."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from bridgekit_verify.measure.statistics import Rate

FINDING_MIME = "application/vnd.bridgekit.finding+json"
TABLE_MIME = "application/vnd.bridgekit.table+json"
SOURCE_MIME = "application/vnd.bridgekit.source+json"

Verdict = Literal["holds", "does not hold", "unknown"]

# An id becomes an anchor in the page, and its first word says which section shows it.
_IDENTIFIER = re.compile(r"[a-z]+(-[a-z0-9]+)*")

# results.csv puts these in front of a table's own columns.
RESERVED_COLUMNS = ("notebook", "table")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One claim of the audit, and what running it showed."""

    id: str
    """Unique in the report: "link-3", "fix-1", "step-2", "claim-lost"; "chain" is the chain as a whole."""
    title: str
    """For a link "Link 3 · AgentRegistry": what follows the dot is its name in the grid."""
    link: int | None = None
    """The link's number, if the claim is about one."""
    claim: str
    """What the audit says, in our words."""
    reported: str
    """The audit's own status: "working", "broken", "fix", "step"."""
    verdict: Verdict
    """Does the claim hold when it is run?"""
    answer: str
    """A sentence computed from the results."""
    evidence: tuple[str, ...] = ()
    """What was seen, one sentence each, computed."""
    before: tuple[int, int] | None = None
    """k of n events delivered with the defect in; None if nobody counted."""
    after: tuple[int, int] | None = None
    """k of n events delivered without it."""
    sound: Verdict = "unknown"
    """Does this link hold in the sound chain?"""

    def __post_init__(self) -> None:
        if not _IDENTIFIER.fullmatch(self.id):
            raise ValueError(f"finding id {self.id!r}: lower-case words and numbers joined by hyphens")
        for name, counts in (("before", self.before), ("after", self.after)):
            if counts is not None and not 0 <= counts[0] <= counts[1]:
                raise ValueError(f"finding {self.id}: {name} is {counts[0]} of {counts[1]}")

    @property
    def name(self) -> str:
        """The title without its number: "AgentRegistry"."""
        return self.title.partition(" · ")[2] or self.title

    def __str__(self) -> str:
        lines = [f"{self.title}: the claim {verdict_phrase(self.verdict)}", f"  {self.answer}"]
        if self.before is not None or self.after is not None:
            lines.append(f"  delivered: {delivery_text(self)}")
        return "\n".join(lines + [f"  - {item}" for item in self.evidence])


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A data frame's values as JSON knows them. Missing is None."""

    name: str
    caption: str
    columns: tuple[str, ...]
    records: tuple[dict[str, Any], ...]
    measurement: bool = True
    """Whether its rows are measurements, and so rows of results.csv."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Real source code and where it stands."""

    reference: str
    """Relative to the folder of the package: "bridgekit/chain/link_3_registry.py, lines 12 to 40"."""
    code: str


def delivery_text(finding: Finding) -> str:
    """What arrived before and after, with intervals."""
    return f"before {Rate.of(finding.before)}, after {Rate.of(finding.after)}"


def verdict_phrase(verdict: str) -> str:
    """A verdict as the end of the sentence "the claim …"."""
    return "is neither confirmed nor refuted: unknown" if verdict == "unknown" else verdict


def cell_text(value: object) -> str:
    """A table's value as people read it: four significant digits, and a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)
