"""Answers "Was the audit right?" and "Does it work when run?" for each link, and orders the findings of the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.report.drop_tables import DropTables, read_drop_tables
from bridgekit_verify.report.findings import AuditAnswer, Finding, RunAnswer, Table, Verdict
from bridgekit_verify.report.priorities import priority_findings
from bridgekit_verify.report.report_data import Figure, Notebook, Report
from bridgekit_verify.report.summary import Answer, answer

__all__ = [
    "AUDITED_LINKS",
    "MISSED",
    "PARTS",
    "WHOLE_CHAIN",
    "Headline",
    "LinkStatus",
    "ReportSection",
    "all_findings",
    "claim_groups",
    "headline",
    "link_statuses",
    "other_findings",
    "sections",
    "smallest_sample",
    "startup_note",
    "tables_of_claims",
]

# The audit's chain has nine links. A link without a finding is shown as unknown.
AUDITED_LINKS: Final = range(1, 10)
BEYOND: Final = 10
"""The link from the hub to a thread's sockets, which the audit does not examine."""
CLAIM_GROUPS: Final = {
    "fix": "The three fixes",
    "claim-priority": "Priorities and advice",
    "claim-monitoring": "Priorities and advice",
    "step": "Verification steps",
    "claim": "Claims about impact",
}
"""Titles of the groups of claims by the start of a finding's id. The longest matching start decides."""
MISSED: Final = "What the audit missed"
PARTS: Final = {"missed": MISSED, "fault": "Faults", "scale": "Scale", "trust": "Validation", "backend": "Backends"}
"""Titles of the sections by the first word of a finding's id. All sections but the first form part two of
the page, which is for engineers."""
WHOLE_CHAIN: Final = "chain"
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The answers to "Was the audit right?" and "Does it work when run?" about one link."""

    number: int
    name: str
    finding: Finding | None

    @property
    def reported(self) -> str:
        """The audit's status of the link."""
        return self.finding.reported if self.finding else "not examined" if self.number == BEYOND else "unknown"

    @property
    def right(self) -> AuditAnswer:
        """The answer to "Was the audit right?" about the link."""
        return self.finding.right if self.finding else "not examined" if self.number == BEYOND else "unknown"

    @property
    def works(self) -> RunAnswer:
        """The answer to "Does it work when run?" about the link as committed."""
        return self.finding.works if self.finding else "unknown"

    @property
    def sound(self) -> Verdict:
        """Whether the link holds in the sound chain."""
        return self.finding.sound if self.finding else "unknown"

    @property
    def reason(self) -> str:
        """The result of the test in one sentence."""
        return self.finding.answer if self.finding else "Unknown: no notebook recorded a finding about this link."


def startup_note(links: Sequence[LinkStatus], tables: DropTables) -> str:
    """Return the reason why no repair names link 1 although link 1 fails, or "" if there is nothing to explain."""
    fails = any(link.number == 1 and link.works == "fails" for link in links)
    repaired = {number for repair in tables.repairs for number in _NUMBER.findall(repair.links)}
    if not fails or not repaired or "1" in repaired:
        return ""
    return (
        "No repair changes link 1, because link 1's startup check drops no event. But the startup check cannot"
        " detect any defect. After the repairs, replace the startup check with a check that can fail."
    )


def all_findings(report: Report) -> dict[str, tuple[Finding, Notebook]]:
    """Return every finding with its notebook, by the finding's id.

    Findings that are computed from the drop rates are included.
    """
    tables = read_drop_tables(report)
    computed = {finding.id: finding for finding in priority_findings(tables)}
    found = dict(report.findings)
    if tables.notebook is not None:
        found |= {key: (finding, tables.notebook) for key, finding in computed.items() if key not in found}
    return found


def link_statuses(report: Report) -> tuple[LinkStatus, ...]:
    """Return the audit's nine links, link 10, and any other link with a finding "link-N", in order."""
    found = {f.link: f for f, _ in report.findings.values() if f.id.startswith("link-") and f.link is not None}
    numbers = sorted({*AUDITED_LINKS, BEYOND, *found})
    return tuple(
        LinkStatus(number, found[number].name if number in found else f"Link {number}", found.get(number))
        for number in numbers
    )


@dataclass(frozen=True, slots=True)
class Headline:
    """The report's result as numbers. `answers` contains only the links that the audit examined."""

    answer: Answer
    answers: Mapping[AuditAnswer, tuple[int, ...]]
    """The numbers of the audited links by the answer to "Was the audit right?". Every possible answer is a key."""
    failing: tuple[int, ...]
    """The numbers of all links that fail as committed."""
    sound: int
    """How many audited links hold in the sound chain."""
    links: int
    before: Rate
    """The rate of events that the chain as committed delivers."""
    after: Rate
    """The rate of events that the sound chain delivers."""

    @property
    def sentence(self) -> str:
        """The audit's verdicts on the links in one sentence."""
        counted = {name: len(numbers) for name, numbers in self.answers.items()}
        if counted["unknown"] == self.links:
            return f"Unknown: none of the audit's {self.links} links has been judged."
        yes, worded, no = (counted[name] for name in ("yes", "as worded, but insufficient", "no"))
        parts = [
            f"{yes} {'is' if yes == 1 else 'are'} right",
            f"{no} {'is' if no == 1 else 'are'} wrong",
            f"{worded} {'is' if worded == 1 else 'are'} right as worded, but insufficient",
        ]
        if counted["unknown"]:
            parts.append(f"{counted['unknown']} could not be judged")
        return f"Of the audit's verdicts on {self.links} links, {', '.join(parts[:-1])}, and {parts[-1]}."

    @property
    def lines(self) -> tuple[str, ...]:
        """The result as lines for a terminal."""
        return (
            str(self.answer),
            self.sentence,
            f"links that fail when run as committed: {', '.join(map(str, self.failing)) or 'none'}",
            f"links that work in the sound chain: {self.sound} of {self.links}",
            f"events delivered as committed: {self.before.counts}; in the sound chain: {self.after.counts}",
        )


def headline(report: Report) -> Headline:
    """Count the answers about the links and return the headline."""
    links = link_statuses(report)
    audited = [link for link in links if link.number in AUDITED_LINKS]
    answers: dict[AuditAnswer, tuple[int, ...]] = {
        right: tuple(link.number for link in audited if link.right == right)
        for right in ("yes", "as worded, but insufficient", "no", "not examined", "unknown")
    }
    whole = report.findings.get(WHOLE_CHAIN)
    return Headline(
        answer=answer(read_drop_tables(report)),
        answers=answers,
        failing=tuple(link.number for link in links if link.works == "fails"),
        sound=sum(link.sound == "holds" for link in audited),
        links=len(audited),
        before=Rate.of(whole[0].before if whole else None),
        after=Rate.of(whole[0].after if whole else None),
    )


def claim_groups(report: Report) -> dict[str, list[Finding]]:
    """Return the audit's claims that are not about a link's status, grouped by the start of their id."""
    groups: dict[str, list[Finding]] = {title: [] for title in CLAIM_GROUPS.values()}
    for finding, _ in all_findings(report).values():
        if title := _claim_group(finding):
            groups[title].append(finding)
    return {title: members for title, members in groups.items() if members}


def tables_of_claims(report: Report) -> dict[str, Table]:
    """Return the table of each claim in `claim_groups`. The table's name is the finding's id with "_" for "-"."""
    names = {finding.id: finding.id.replace("-", "_") for group in claim_groups(report).values() for finding in group}
    found = {key: report.table(name) for key, name in names.items()}
    return {key: table[0] for key, table in found.items() if table}


def _claim_group(finding: Finding) -> str | None:
    starts = [start for start in CLAIM_GROUPS if finding.id == start or finding.id.startswith(f"{start}-")]
    return CLAIM_GROUPS[max(starts, key=len)] if starts else None


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A finding with its figure and its table, whose name is the finding's id with "_" in place of "-"."""

    finding: Finding
    figure: Figure | None
    table: Table | None


def sections(report: Report) -> dict[str, list[ReportSection]]:
    """Return the findings of each section of `PARTS`, by the section's title and in the notebooks' order."""
    found: dict[str, list[ReportSection]] = {}
    for finding, _ in all_findings(report).values():
        if title := PARTS.get(_first_word(finding)):
            name = finding.id.replace("-", "_")
            figure, table = report.figure(name), report.table(name)
            section = ReportSection(finding, figure[0] if figure else None, table[0] if table else None)
            found.setdefault(title, []).append(section)
    return {title: found[title] for title in PARTS.values() if title in found}


def other_findings(report: Report) -> list[Finding]:
    """Return the findings that no other part of the page shows. The finding about the whole chain comes first."""
    links = {link.finding.id for link in link_statuses(report) if link.finding}
    rest = [
        finding
        for finding, _ in report.findings.values()
        if _claim_group(finding) is None and _first_word(finding) not in PARTS and finding.id not in links
    ]
    return sorted(rest, key=lambda finding: finding.id != WHOLE_CHAIN)


def _first_word(finding: Finding) -> str:
    return finding.id.partition("-")[0]


def smallest_sample(report: Report) -> Finding | None:
    """Return the finding whose verdict depends on the smallest sample, or None if no finding states a sample."""
    findings = [f for f, _ in all_findings(report).values() if f.sample is not None and f.verdict != "unknown"]
    return min(findings, key=lambda finding: (finding.sample, finding.id), default=None)


def timed_findings(report: Report) -> list[Finding]:
    """Return the findings whose verdict depends on a measured time and may differ on another machine."""
    return [f for f, _ in all_findings(report).values() if f.timing]
