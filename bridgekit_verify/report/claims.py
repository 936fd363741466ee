"""Findings for the audit's claims: each claim is tested by running it and gets a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.probes.probes import Probe, ProbeAnswer
from bridgekit_verify.report.findings import Finding, Verdict
from bridgekit_verify.studies.study import KINDS, FixStudy, LinkStudy

__all__ = ["chain_claim", "fix_claim", "link_claim", "lost_claim", "verdict_of"]


def verdict_of(holds: bool, *, known: bool = True) -> Verdict:
    """Return the verdict "holds" or "does not hold", or "unknown" if there was nothing to judge."""
    if not known:
        return "unknown"
    return "holds" if holds else "does not hold"


def link_claim(study: LinkStudy) -> Finding:
    """Compare the audit's status of a link with its probe on the chain as committed."""
    link, committed = study.link, study.committed
    says_working = link.reported == "working"
    confirmed = (committed.answer is ProbeAnswer.HOLDS) == says_working
    verdict: Verdict = "unknown" if committed.answer is ProbeAnswer.UNKNOWN else verdict_of(confirmed)
    before, after = study.before.verdict, study.after.verdict
    return Finding(
        id=f"link-{link.number}",
        title=link.title,
        link=link.number,
        claim=f"The audit calls link {link.number} {link.reported}.",
        reported=link.reported,
        verdict=verdict,
        answer=f"Run as committed, the link {committed.answer}: {committed.evidence}.",
        evidence=(
            f"Sound, the link {study.sound.answer}: {study.sound.evidence}.",
            f"Broken ({study.before.variant.summary}), the chain delivers {before.delivery} events"
            f" and hands {before.misrouted:,} to somebody else.",
            f"Mended, it delivers {after.delivery} and hands {after.misrouted:,} to somebody else.",
        ),
        before=(before.delivered, before.expected),
        after=(after.delivered, after.expected),
        sound=study.sound.answer.value,
    )


def chain_claim(committed: Sequence[Probe], before: Measurement, after: Measurement) -> Finding:
    """Test "eight links work and one is broken" with the probes of the chain as committed."""
    broken = [probe.link.number for probe in committed if probe.answer is ProbeAnswer.DOES_NOT_HOLD]
    reported_broken = [probe.link.number for probe in committed if probe.link.reported == "broken"]
    return Finding(
        id="chain",
        title="The chain as a whole",
        claim="Eight of the nine links work, and one is broken.",
        reported="broken",
        verdict=verdict_of(broken == reported_broken),
        answer=f"Run as committed, {len(broken)} of {len(committed)} links do not hold:"
        f" {', '.join(map(str, broken)) or 'none'}. The audit names {', '.join(map(str, reported_broken))}.",
        evidence=tuple(
            f"{probe.link.title}: {probe.evidence}." for probe in committed if probe.answer is ProbeAnswer.DOES_NOT_HOLD
        ),
        before=(before.verdict.delivered, before.verdict.expected),
        after=(after.verdict.delivered, after.verdict.expected),
    )


FIX_CLAIMS: Final = {
    1: ("fix 1", "With the thread id inside the run id, events find their thread (Fix 1, critical, a single line)."),
    2: (
        "fix 2 as written",
        "Parsing the run id, then asking the orchestrator, resolves the thread (Fix 2, a backup to Fix 1).",
    ),
    3: ("fix 3", "A service that stores the thread of each run finds the run's thread (Fix 3, optional)."),
}
"""By number of the fix: the variant that tests it alone, and the audit's statement."""


def fix_claim(number: int, study: FixStudy) -> Finding:
    """Test whether a fix alone makes every event reach its user, on the chain as reported."""
    name, claim = FIX_CLAIMS[number]
    before, example = (study.example(each).verdict.delivery for each in ("as reported", name))
    dropping, leaking = study.dropping(name), study.leaking(name)
    return Finding(
        id=f"fix-{number}",
        title=f"Fix {number} · alone",
        claim=claim,
        reported="fix",
        verdict=verdict_of(not dropping and not leaking, known=study.known),
        answer=f"With {study.example_family} it delivers {example.counts} events; {study.summary(name)}.",
        evidence=(
            f"Kinds of which events do not reach their user: {', '.join(dropping) or 'none'}.",
            f"Kinds of which events reach another user: {', '.join(leaking) or 'none'}.",
            *(
                f"Delivered with {KINDS[label]}: {_by_kind(study, name, names)}."
                for label, names in study.groups.items()
            ),
            *_caveats(number, study),
        ),
        before=(before.k, before.n),
        after=(example.k, example.n),
    )


def _by_kind(study: FixStudy, variant: str, names: Sequence[str]) -> str:
    return "; ".join(f"{name} {study.cells[name, variant].verdict.delivery.counts}" for name in names)


def _caveats(number: int, study: FixStudy) -> list[str]:
    """Return the evidence that qualifies a fix's own numbers."""
    if number == 2:
        return [*_with_fix_1(study), *_with_the_method(study)]
    if number == 3:
        return [
            "This is one process, and events while the run is in progress. Late events, a restart and a run that is"
            " registered twice are measured separately."
        ]
    return []


def _with_fix_1(study: FixStudy) -> list[str]:
    together = "fixes 1 and 2 as written"
    if together not in study.variants:
        return []
    return [f"As the backup that it is meant to be, with Fix 1: {study.summary(together)}."]


def _with_the_method(study: FixStudy) -> list[str]:
    alone, together = "fix 2 with its method", "fixes 1 and 2 with the method"
    if not {alone, together} <= {*study.variants}:
        return []
    worse = [
        name
        for name in study.families
        if study.cells[name, together].verdict.delivered < study.cells[name, alone].verdict.delivered
    ]
    return [
        "The orchestrator lacks the method that Fix 2 calls. With the method supplied, as a query of the run-thread"
        f" mapping, Fix 2 is a lookup in Fix 3's mapping: {study.summary(alone)}.",
        f"With the method and Fix 1: {study.summary(together)}. Fix 1 makes Fix 2 deliver fewer events with"
        f" {len(worse)} of {len(study.families)} kinds of thread ids: {', '.join(worse) or 'none'}.",
    ]


def lost_claim(study: FixStudy) -> Finding:
    """Test whether the chain as reported loses all events, and all of them at link 9."""
    cells = study.over_families("as reported")
    links = sorted({link for cell in cells for link in cell.verdict.lost_at})
    example = study.example("as reported").verdict.delivery
    receiving = [name for name, cell in zip(study.families, cells, strict=True) if cell.verdict.delivered]
    return Finding(
        id="claim-lost",
        title="Claim · events are completely lost",
        claim="As it stands, no agent event reaches a user, and link 9 is the reason.",
        reported="broken",
        verdict=verdict_of(not receiving and links == [9], known=study.known),
        answer=f"On the chain as reported, {example.counts} events reach their user with {study.example_family};"
        f" some event arrives with {len(receiving)} of {len(cells)} kinds of thread ids. Every loss is attributed to"
        f" link {' and '.join(map(str, links)) or 'none'}.",
        evidence=tuple(
            f"With {study.families[0]}, {cell.verdict.losses.get(attribution, 0):,} events are lost at link"
            f" {attribution.link}: {attribution.reason}."
            for cell in cells[:1]
            for attribution in cell.verdict.attributions
        ),
        before=(example.k, example.n),
    )
