"""The data that a notebook passes to the report: findings, tables and source code, without any display."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from bridgekit_verify.measure.statistics import Rate, Sample

FINDING_MIME = "application/vnd.bridgekit.finding+json"
TABLE_MIME = "application/vnd.bridgekit.table+json"
SOURCE_MIME = "application/vnd.bridgekit.source+json"

Verdict = Literal["holds", "does not hold", "unknown"]
AuditAnswer = Literal["yes", "as worded, but insufficient", "no", "not examined", "unknown"]
"""The answers to "Was the audit right?"."""
RunAnswer = Literal["works", "fails", "unknown"]
"""The answers to "Does it work when run?", for the code as committed."""

AUDIT_RIGHT = "Was the audit right?"
WORKS = "Does it work when run?"
HOLDS = "Does the claim hold?"
CONTRADICTS = "Contradicts the audit?"
_CONTRADICTIONS: dict[AuditAnswer, str] = {"yes": "no", "no": "yes"}
"""The answer to "Contradicts the audit?", by the answer to "Was the audit right?"."""

OURS = "ours"
"""The value of `Finding.reported` for a claim that bridgekit makes and the audit does not make."""

# An id becomes an anchor in the page, and its first word selects the section.
_IDENTIFIER = re.compile(r"[a-z]+(-[a-z0-9]+)*")

# The columns that results.csv adds before a table's own columns.
RESERVED_COLUMNS = ("notebook", "table")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One claim, of the audit or of bridgekit, and the result of testing it."""

    id: str
    """The unique id, such as "link-3", "fix-1", "step-2" or "claim-lost", or "chain" for the whole chain."""
    title: str
    """For a link, such as "Link 3 · AgentRegistry". The part after the dot is the link's name in the grid."""
    link: int | None = None
    """The number of the link that the claim is about, if any."""
    claim: str
    """The tested statement. A statement of the audit is paraphrased."""
    reported: str
    """The audit's status, such as "working", "broken", "fix" or "step". The status of any other claim is "ours"."""
    verdict: Verdict
    """Whether the claim holds when it is tested."""
    audit_right: AuditAnswer | None = None
    """Answer to "Was the audit right?", or None if it follows from the verdict (see `right`)."""
    works: RunAnswer = "unknown"
    """Answer to "Does it work when run?", for the code as committed. "unknown" unless `Finding.runs` is true."""
    answer: str
    """The result in one sentence, computed from the measurements."""
    evidence: tuple[str, ...] = ()
    """Further results, each in one sentence computed from the measurements."""
    before: tuple[int, int] | None = None
    """k of n events delivered before the repair, or None if they were not counted."""
    after: tuple[int, int] | None = None
    """k of n events delivered after the repair, or None if they were not counted."""
    labels: tuple[str, str] = ("before", "after")
    """The labels of `before` and `after`, such as "without a log" and "with a log"."""
    experiment: str = ""
    """The part that was broken on purpose to count `before`, or "" if `before` is the code as committed."""
    counted: str = ""
    """The kind of thread id and the chain that `before` and `after` belong to, or "" if the claim states both."""
    sound: Verdict = "unknown"
    """Whether the finding's link holds in the sound chain."""
    rule: str = ""
    """The rule from which the verdict follows, with all its bounds, or "" if the answer already states the rule."""
    sample: Sample | None = None
    """The smallest sample that the verdict depends on, or None if nothing was measured."""
    timing: str = ""
    """The measured time that the verdict depends on, such as "CPU time of an event", or "" if only counts matter."""

    def __post_init__(self) -> None:
        if not _IDENTIFIER.fullmatch(self.id):
            raise ValueError(f"finding id {self.id!r} is invalid: use lower-case words and numbers joined by hyphens")
        for name, counts in (("before", self.before), ("after", self.after)):
            if counts is not None and not 0 <= counts[0] <= counts[1]:
                raise ValueError(f"finding {self.id}: {name} is {counts[0]} of {counts[1]}: k must be between 0 and n")

    @property
    def name(self) -> str:
        """The title without its number, such as "AgentRegistry"."""
        return self.title.partition(" · ")[2] or self.title

    @property
    def runs(self) -> bool:
        """Whether "Does it work when run?" applies, as it does to links, the whole chain and the audit's fixes."""
        return self.id == "chain" or self.id.startswith(("link-", "fix-"))

    @property
    def right(self) -> AuditAnswer:
        """The answer to "Was the audit right?": `audit_right`, or what `reported` and `verdict` imply."""
        if self.audit_right is not None:
            return self.audit_right
        if self.reported == OURS:
            return "not examined"
        answers: dict[Verdict, AuditAnswer] = {"holds": "yes", "does not hold": "no"}
        return answers.get(self.verdict, "unknown")

    def __str__(self) -> str:
        lines = [f"{self.title}: {result_phrase(self)}", f"  {self.answer}"]
        if self.before is not None or self.after is not None:
            lines.append(f"  delivered: {delivery_text(self)}")
        if basis := basis_text(self):
            lines.append(f"  {basis}")
        return "\n".join(lines + [f"  - {item}" for item in self.evidence])


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A data frame's values as JSON types. A missing value is None."""

    name: str
    caption: str
    columns: tuple[str, ...]
    records: tuple[dict[str, Any], ...]
    measurement: bool = True
    """True if the table's rows are measurements, which go to results.csv."""
    folded: bool = False
    """True if the page shows the table only when the reader opens it."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Source code and its location."""

    reference: str
    """Location relative to the package's folder: "bridgekit/chain/link_3_registry.py, lines 12 to 40"."""
    code: str


def delivery_text(finding: Finding) -> str:
    """Return a finding's counts `before` and `after` as text.

    The text states whether the counts are those of an experiment.
    """
    first, second = finding.labels
    counted = ((first, finding.before), (second, finding.after))
    text = ", ".join(f"{label} {Rate.of(counts)}" for label, counts in counted if counts is not None)
    note = f"experiment: {finding.experiment}" if finding.experiment else finding.counted
    return f"{text} ({note})" if note else text


def result_phrase(finding: Finding) -> str:
    """Return the questions about a finding with their answers, in the words of the page."""
    return " ".join(f"{question} {answer}." for question, answer in answers(finding).items())


def answers(finding: Finding) -> dict[str, str]:
    """Return the answers that the page and the notebooks show for a finding, by question."""
    if finding.reported == OURS:
        return {HOLDS: finding.verdict}
    if finding.id.startswith("missed-"):
        return {CONTRADICTS: _CONTRADICTIONS.get(finding.right, finding.right)}
    return {AUDIT_RIGHT: finding.right} | ({WORKS: finding.works} if finding.runs else {})


def basis_text(finding: Finding) -> str:
    """Return the verdict's rule, its smallest sample, and the measured time that it depends on, if any."""
    parts = [finding.rule] if finding.rule else []
    if finding.sample is not None:
        parts.append(f"The smallest sample for this verdict is {finding.sample}.")
    if finding.timing:
        parts.append(f"The verdict depends on measured time: {finding.timing}.")
    return " ".join(parts)


def numeric_columns(table: Table) -> set[str]:
    """Return the columns to align right: those that contain only numbers and missing values."""
    values = {name: {type(row.get(name)) for row in table.records} - {type(None)} for name in table.columns}
    return {name for name, kinds in values.items() if kinds and kinds <= {int, float}}


def cell_text(value: object) -> str:
    """Return a table's value as text: a float below 10,000 with four significant digits, a missing value as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)
