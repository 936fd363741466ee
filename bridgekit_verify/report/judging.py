"""Computes the grid of links, the headline and the sections of the page from the findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.report.findings import Finding, Table, Verdict
from bridgekit_verify.report.structure import Figure, Report

# The audit's chain has nine links. A link without a finding is shown as unknown.
AUDITED_LINKS = range(1, 10)
CLAIM_GROUPS = {"fix": "Fixes", "step": "Verification steps", "claim": "Claims about impact"}
SECTIONS = {
    "missed": "What the audit missed",
    "fault": "What each fault costs",
    "scale": "What one process carries",
    "trust": "Why the numbers can be believed",
}
WHOLE_CHAIN = "chain"

Works = Literal["works", "fails", "unknown"]
Agreement = Literal["confirmed", "contradicted", "unknown"]


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One cell of the grid. Whether a link works and whether the audit was right about it are separate questions."""

    number: int
    name: str
    finding: Finding | None

    @property
    def reported(self) -> str:
        """The audit's status of the link."""
        return self.finding.reported if self.finding else "unknown"

    @property
    def works(self) -> Works:
        """Whether the link works as committed. Unknown if the audit's status is neither "working" nor "broken"."""
        outcomes: dict[tuple[str, Verdict], Works] = {
            ("working", "holds"): "works",
            ("working", "does not hold"): "fails",
            ("broken", "holds"): "fails",
            ("broken", "does not hold"): "works",
        }
        return outcomes.get((self.reported, self.finding.verdict), "unknown") if self.finding else "unknown"

    @property
    def agreement(self) -> Agreement:
        """Whether the test confirmed the audit's claim."""
        verdict = self.finding.verdict if self.finding else "unknown"
        agreements: dict[Verdict, Agreement] = {"holds": "confirmed", "does not hold": "contradicted"}
        return agreements.get(verdict, "unknown")

    @property
    def found(self) -> str:
        """Both answers as text, such as "fails, as the audit says" or "fails, contrary to the audit"."""
        if self.agreement == "unknown":
            return "unknown"
        if self.works == "unknown":
            return "the audit's claim " + ("holds" if self.agreement == "confirmed" else "does not hold")
        ending = "as the audit says" if self.agreement == "confirmed" else "contrary to the audit"
        return f"{self.works}, {ending}"

    @property
    def icon(self) -> str:
        """The icon for this text: "works", "fails", "expected" (fails as the audit says) or "unknown"."""
        if self.works == "fails" and self.agreement == "confirmed":
            return "expected"
        answers = {"confirmed": "works", "contradicted": "fails", "unknown": "unknown"}
        return answers[self.agreement] if self.works == "unknown" else self.works

    @property
    def sound(self) -> Verdict:
        """Whether the link holds in the sound chain."""
        return self.finding.sound if self.finding else "unknown"

    @property
    def before(self) -> Rate:
        """Delivery with the link as committed."""
        return Rate.of(self.finding.before if self.finding else None)

    @property
    def after(self) -> Rate:
        """Delivery with the link sound."""
        return Rate.of(self.finding.after if self.finding else None)


def link_statuses(report: Report) -> tuple[LinkStatus, ...]:
    """Return the status of the audit's nine links and of any further link with a finding "link-N", in order."""
    found = {f.link: f for f, _ in report.findings.values() if f.id.startswith("link-") and f.link is not None}
    numbers = sorted({*AUDITED_LINKS, *found})
    return tuple(
        LinkStatus(number, found[number].name if number in found else f"link {number}", found.get(number))
        for number in numbers
    )


@dataclass(frozen=True, slots=True)
class Headline:
    """The result as numbers. Every count is over the links that the audit names."""

    confirmed: int
    contradicted: tuple[int, ...]
    """Numbers of the links for which the test contradicts the audit."""
    judged: int
    sound: int
    links: int
    before: Rate
    after: Rate
    """Delivery of the whole chain if there is a finding "chain", else at the last of the audit's links."""

    @property
    def sentence(self) -> str:
        """The result of the report in one sentence."""
        if not self.judged:
            return f"Unknown: none of the audit's {self.links} links has been judged."
        wrong = len(self.contradicted)
        parts = [f"Of the audit's verdicts on {self.links} links, {_times(self.confirmed, 'holds', 'hold')} when run"]
        parts.append(f"{_times(wrong, 'does', 'do')} not")
        if self.judged < self.links:
            parts.append(f"{self.links - self.judged} could not be judged")
        first = ", ".join(parts[:-1]) + f" and {parts[-1]}"
        if not (self.before.n and self.after.n):
            return f"{first}."
        before, after = self.before.counts, self.after.counts
        return f"{first}: {before} events arrived as committed, {after} in the sound chain."

    @property
    def lines(self) -> tuple[str, ...]:
        """The result as lines for a terminal."""
        links = ", ".join(map(str, self.contradicted)) or "none"
        return (
            f"audit's verdicts that hold when run: {self.confirmed} of {self.links}; "
            f"contradicted: {links}; unknown: {self.links - self.judged}",
            f"links that hold in the sound chain: {self.sound} of {self.links}",
            f"events delivered as committed: {self.before}",
            f"events delivered in the sound chain: {self.after}",
        )


def _times(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def headline(report: Report) -> Headline:
    """Count the verdicts of the audit's links and return the headline."""
    links = [link for link in link_statuses(report) if link.number in AUDITED_LINKS]
    contradicted = tuple(link.number for link in links if link.agreement == "contradicted")
    confirmed = sum(link.agreement == "confirmed" for link in links)
    whole = report.findings.get(WHOLE_CHAIN)
    delivered = whole[0] if whole else links[-1].finding
    return Headline(
        confirmed=confirmed,
        contradicted=contradicted,
        judged=confirmed + len(contradicted),
        sound=sum(link.sound == "holds" for link in links),
        links=len(links),
        before=Rate.of(delivered.before if delivered else None),
        after=Rate.of(delivered.after if delivered else None),
    )


def claim_groups(report: Report) -> dict[str, list[Finding]]:
    """Return the audit's claims that are not about a link's status, grouped by the first word of their id."""
    findings = [finding for finding, _ in report.findings.values()]
    groups = {
        title: [finding for finding in findings if finding.id.split("-")[0] == prefix]
        for prefix, title in CLAIM_GROUPS.items()
    }
    return {title: members for title, members in groups.items() if members}


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A finding with its figure and table: those whose name is the finding's id with underscores."""

    finding: Finding
    figure: Figure | None
    table: Table | None


def sections(report: Report) -> dict[str, list[ReportSection]]:
    """Return the findings of the report's sections, grouped by the first word of their id, in the notebooks' order."""
    found: dict[str, list[ReportSection]] = {}
    for finding, _ in report.findings.values():
        if title := SECTIONS.get(finding.id.split("-")[0]):
            figure, table = report.figure(_name(finding)), report.table(_name(finding))
            section = ReportSection(finding, figure[0] if figure else None, table[0] if table else None)
            found.setdefault(title, []).append(section)
    return {title: found[title] for title in SECTIONS.values() if title in found}


def _name(finding: Finding) -> str:
    return finding.id.replace("-", "_")


def other_findings(report: Report) -> list[Finding]:
    """Return the findings of the evidence section: the whole chain, the links in order, then all others."""
    elsewhere = {*CLAIM_GROUPS, *SECTIONS}
    rest = [f for f, _ in report.findings.values() if f.id.split("-")[0] not in elsewhere]
    return sorted(rest, key=_sort_key)


def _sort_key(finding: Finding) -> tuple[bool, bool, int]:
    return finding.id != WHOLE_CHAIN, not finding.id.startswith("link-"), finding.link or 0


def smallest_sample(report: Report) -> Finding | None:
    """Return the finding whose verdict rests on the smallest sample; None if no finding states one."""
    findings = [f for f, _ in report.findings.values() if f.sample is not None and f.verdict != "unknown"]
    return min(findings, key=lambda finding: (finding.sample, finding.id), default=None)


def without_sample(report: Report) -> list[Finding]:
    """Return the findings whose verdict is not unknown, and that do not state what it rests on."""
    return [f for f, _ in report.findings.values() if f.sample is None and f.verdict != "unknown"]


def timed_findings(report: Report) -> list[Finding]:
    """Return the findings whose verdict rests on a time, and can differ on another machine."""
    return [f for f, _ in report.findings.values() if f.timing]
