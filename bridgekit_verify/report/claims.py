"""Findings for the audit's claims: each claim is tested by running it and gets a verdict."""

from __future__ import annotations

from collections.abc import Sequence

from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.probes.probes import Probe, ProbeAnswer
from bridgekit_verify.report.findings import Finding, Verdict
from bridgekit_verify.studies.study import EXAMPLE, FixStudy, LinkStudy

__all__ = ["chain_claim", "delivered_by", "fix_claim", "link_claim", "lost_claim", "verdict_of"]


def verdict_of(holds: bool) -> Verdict:
    """Return the verdict "holds" or "does not hold"."""
    return "holds" if holds else "does not hold"


def delivered_by(measurements: Sequence[Measurement]) -> Rate:
    """Return delivered of expected events, summed over the measurements."""
    verdicts = [measurement.verdict for measurement in measurements]
    return Rate(sum(v.delivered for v in verdicts), sum(v.expected for v in verdicts))


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


def fix_claim(number: int, study: FixStudy) -> Finding:
    """Test whether a fix alone makes every event reach its user, on the chain as reported."""
    name = "fix 2 as written" if number == 2 else f"fix {number}"
    claims = {
        1: "With the thread id inside the run id, events find their thread (Fix 1, critical, a single line).",
        2: "Parsing the run id, then asking the orchestrator, resolves the thread (Fix 2, a backup to Fix 1).",
        3: "A service that keeps run and thread together routes a run's every event while it lasts (Fix 3, optional).",
    }
    cells = study.over_families(name)
    example, total = study.example(name).verdict.delivery, delivered_by(cells)
    losing = [family for family in study.families if study.cells[family, name].verdict.lost_silent]
    leaking = [family for family in study.families if study.cells[family, name].verdict.misrouted]
    misrouted = sum(cell.verdict.misrouted for cell in cells)
    before = study.example("as reported").verdict.delivery
    return Finding(
        id=f"fix-{number}",
        title=f"Fix {number} · alone",
        claim=claims[number],
        reported="fix",
        verdict=verdict_of(not losing and not misrouted),
        answer=(
            f"With {EXAMPLE} it delivers {example.k:,} of {example.n:,}; over {len(study.families)} families of thread"
            f" ids {total}, with {misrouted:,} events handed to another user."
        ),
        evidence=(
            f"Families that lose events: {', '.join(losing) or 'none'}.",
            f"Families that hand events to another user: {', '.join(leaking) or 'none'}.",
            *_caveats(number, study),
        ),
        before=(before.k, before.n),
        after=(example.k, example.n),
    )


def _caveats(number: int, study: FixStudy) -> list[str]:
    """Return the evidence that qualifies a fix's own numbers."""
    if number == 2 and {"fix 1", "fixes 1 and 2 as written"} <= {*study.variants}:
        first, both = (delivered_by(study.over_families(name)).counts for name in ("fix 1", "fixes 1 and 2 as written"))
        return [f"As the backup that it is meant to be: {first} with Fix 1, {both} with Fix 1 and Fix 2."]
    if number == 3:
        return ["One process, and events while the run goes on. Late events, a restart, a run registered twice: below."]
    return []


def lost_claim(study: FixStudy) -> Finding:
    """Test whether the chain as reported loses all events, and all of them at link 9."""
    cells = study.over_families("as reported")
    total = delivered_by(cells)
    links = sorted({link for cell in cells for link in cell.verdict.lost_at})
    return Finding(
        id="claim-lost",
        title="Claim · events are completely lost",
        claim="As it stands, no agent event reaches a user, and link 9 is the reason.",
        reported="broken",
        verdict=verdict_of(total.k == 0 and total.n > 0 and links == [9]),
        answer=f"On the chain as the audit tells it, {total} events reach their user; every loss is charged to"
        f" link {' and '.join(map(str, links))}.",
        evidence=tuple(
            f"{cell.verdict.losses[attribution]:,} lost at link {attribution.link}: {attribution.reason}."
            for cell in cells[:1]
            for attribution in cell.verdict.attributions
        ),
        before=(total.k, total.n),
    )
