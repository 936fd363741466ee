"""Findings for the audit's claims. Each claim is tested by running the code, and gets a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.measure.wording import capitalized, listed
from bridgekit_verify.probes.probes import Probe, ProbeAnswer, probe_hub
from bridgekit_verify.report.findings import AuditAnswer, Finding, RunAnswer, Verdict
from bridgekit_verify.studies.drops import BEFORE, COMMITTED, REPORTED, FixDrops
from bridgekit_verify.studies.links_and_fixes import KINDS, FixStudy, LinkStudy
from bridgekit_verify.variants import AS_COMMITTED, SOUND, Variant

__all__ = [
    "audit_answer",
    "chain_claim",
    "connection_claim",
    "fix_claim",
    "link_claim",
    "lost_claim",
    "run_answer",
    "smallest_sample_of",
    "verdict_of",
]


def verdict_of(holds: bool, *, known: bool = True) -> Verdict:
    """Return the verdict "holds" or "does not hold", or "unknown" if not `known`."""
    if not known:
        return "unknown"
    return "holds" if holds else "does not hold"


def audit_answer(reported: str, works: RunAnswer, *, as_worded: bool) -> AuditAnswer:
    """Answer "Was the audit right?" about a link that the audit reports as working or broken.

    The answer is "as worded, but insufficient" if a link reported as working fails, but the audit describes its code
    correctly.
    """
    if works == "unknown":
        return "unknown"
    if (works == "works") == (reported == "working"):
        return "yes"
    return "as worded, but insufficient" if reported == "working" and as_worded else "no"


def run_answer(probe: Probe) -> RunAnswer:
    """Answer "Does it work when run?" from a link's probe."""
    answers: dict[ProbeAnswer, RunAnswer] = {ProbeAnswer.HOLDS: "works", ProbeAnswer.DOES_NOT_HOLD: "fails"}
    return answers.get(probe.answer, "unknown")


def link_claim(study: LinkStudy) -> Finding:
    """Answer both questions about a link: was the audit right, and does the link work when run as committed?

    If the link does not fail as committed, `study.before` measures the chain with this link broken on purpose. The
    finding then states that its counts are those of an experiment.
    """
    link, before, after = study.link, study.before, study.after
    works = run_answer(study.committed)
    right = audit_answer(link.reported, works, as_worded=study.wording.holds)
    agrees: dict[AuditAnswer, Verdict] = {"yes": "holds", "unknown": "unknown"}
    broken_on_purpose = works != "fails"
    delivered = _reading(before)
    return Finding(
        id=f"link-{link.number}",
        title=link.title,
        link=link.number,
        claim=f"Link {link.number} is {link.reported}: {study.wording.statement}.",
        reported=link.reported,
        verdict=agrees.get(right, "does not hold"),
        audit_right=right,
        works=works,
        answer=f"{_RUN_PHRASES[works].format(link.number)}: {study.committed.evidence}.",
        evidence=(
            f"As worded, the audit's description of link {link.number} is"
            f" {'true' if study.wording.holds else 'not true'}.",
            f"In an experiment, link {link.number} is broken on purpose, so that {before.variant.summary}: {delivered}."
            if broken_on_purpose
            else f"{_parts_as_committed(link.number, before.variant)}: {delivered}.",
            f"With link {link.number} {'sound' if broken_on_purpose else 'repaired'}, {_reading(after)}. In the"
            f" sound chain, link {link.number} {_PROBE_PHRASES[study.sound.answer]}: {study.sound.evidence}.",
        ),
        before=(before.verdict.delivered, before.verdict.expected),
        after=(after.verdict.delivered, after.verdict.expected),
        experiment=before.variant.summary if broken_on_purpose else "",
        sound=study.sound.answer.value,
        sample=study.committed.sample,
    )


def _reading(measurement: Measurement) -> str:
    """Return a clause that states how many events reach their user and how many frames reach another user."""
    verdict = measurement.verdict
    leaked = f", and {verdict.misrouted:,} reach another user" if verdict.misrouted else ""
    return f"{verdict.delivery.counts} events reach their user{leaked}"


def _parts_as_committed(link: int, broken: Variant) -> str:
    """Return a clause that names the parts that are as committed: the link, and also the hub if it is not sound."""
    if broken.hub is not SOUND.hub:
        return f"With only link {link}'s checks and the hub (link 10) as committed, {broken.summary}"
    return f"With only link {link} as committed, {broken.summary}"


_RUN_PHRASES: dict[RunAnswer, str] = {
    "works": "As committed, link {} works",
    "fails": "As committed, link {} fails",
    "unknown": "As committed, the test of link {} gave no result",
}
_PROBE_PHRASES = {
    ProbeAnswer.HOLDS: "passes its test",
    ProbeAnswer.DOES_NOT_HOLD: "still fails its test",
    ProbeAnswer.UNKNOWN: "was tested without a result",
}


async def connection_claim(*, seed: int) -> Finding:
    """Answer "Does it work when run?" about link 10, the hub, which the audit does not examine."""
    committed, sound = [await probe_hub(variant, seed=seed) for variant in (AS_COMMITTED, SOUND)]
    works = run_answer(committed)
    return Finding(
        id="link-10",
        title="Link 10 · Hub and sockets",
        link=10,
        claim="The audit's chain ends at link 9. The audit does not examine how an event reaches the sockets of its"
        " thread.",
        reported="not examined",
        verdict="unknown",
        audit_right="not examined",
        works=works,
        answer=f"{_RUN_PHRASES[works].format(10)}: {committed.evidence}.",
        evidence=(f"In the sound chain, {sound.evidence}.",),
        sound=sound.answer.value,
        sample=committed.sample,
    )


def chain_claim(committed: Sequence[Probe], before: Measurement, after: Measurement) -> Finding:
    """Test "eight links work and one is broken" with the probes of the chain as committed."""
    broken = [probe.link.number for probe in committed if probe.answer is ProbeAnswer.DOES_NOT_HOLD]
    unknown = [probe.link.number for probe in committed if probe.answer is ProbeAnswer.UNKNOWN]
    reported_broken = [probe.link.number for probe in committed if probe.link.reported == "broken"]
    # A link with an unknown result may be broken, so the verdict is unknown. If a link that the audit calls working
    # fails, the claim is wrong in any case.
    verdict: Verdict = (
        "unknown" if unknown and set(broken) <= set(reported_broken) else verdict_of(broken == reported_broken)
    )
    return Finding(
        id="chain",
        title="The chain as a whole",
        claim="Eight of the nine links work, and one is broken.",
        reported="broken",
        verdict=verdict,
        works="fails" if broken else "unknown" if unknown else "works",
        answer=f"As committed, {len(broken)} of {len(committed)} links fail{_named(broken)}. The audit calls"
        f" only {_links(reported_broken)} broken."
        + (f" The tests of {_links(unknown)} gave no result." if unknown else ""),
        evidence=tuple(
            f"{probe.link.title}: {probe.evidence}." for probe in committed if probe.answer is ProbeAnswer.DOES_NOT_HOLD
        ),
        before=(before.verdict.delivered, before.verdict.expected),
        after=(after.verdict.delivered, after.verdict.expected),
        sample=_smallest_of(committed),
    )


def _named(links: Sequence[int]) -> str:
    return f": {listed(links)}" if links else ""


def _smallest_of(probes: Sequence[Probe]) -> Sample | None:
    """Return the smallest sample of all probes. The sample's unit names the link, such as "calls of link 1"."""
    samples = [(probe.sample.count, probe.link.number, probe.sample.unit) for probe in probes if probe.sample]
    if not samples:
        return None
    count, link, unit = min(samples)
    return Sample(count, f"{unit} of link {link}")


FIX_CLAIMS: Final = {
    1: (
        "fix 1",
        "Fix 1, a critical change of a single line, puts the thread id into the run id, so that the bridge finds the"
        " thread.",
    ),
    2: (
        "fix 2 as written",
        "With Fix 2, a backup, the bridge finds the thread by parsing the run id and then querying the orchestrator.",
    ),
    3: (
        "fix 3",
        "With Fix 3, which is optional, the bridge finds the thread in a service that stores each run's thread.",
    ),
}
"""For each fix, by its number: the name of the variant with only this fix, and the audit's statement about it."""


def fix_claim(number: int, drops: FixDrops) -> Finding:
    """Test whether a fix alone makes every event reach its user.

    "Was the audit right?" is answered on the chain as reported, and "Does it work when run?" on the code as committed.
    """
    study, committed = drops.studies[REPORTED], drops.total(COMMITTED, FIX_CLAIMS[number][0])
    name, claim = FIX_CLAIMS[number]
    fix = capitalized(name)
    before, example = (study.example(each).verdict.delivery for each in ("as reported", name))
    dropping, leaking = study.dropping(name), study.leaking(name)
    return Finding(
        id=f"fix-{number}",
        title=f"Fix {number} · alone",
        claim=claim,
        reported="fix",
        verdict=verdict_of(not dropping and not leaking, known=study.known),
        works="unknown" if not committed.expected else "works" if committed.complete else "fails",
        answer=f"As committed with {fix}, {committed.delivered:,} of {committed.expected:,} events reach their user."
        f" With {fix} and only link 9 broken, {study.summary(name)}",
        evidence=(
            f"With {fix} and only link 9 broken, events of these kinds of thread id do not reach their user:"
            f" {_quoted(dropping)}.",
            f"With {fix} and only link 9 broken, events of these kinds of thread id reach another user:"
            f" {_quoted(leaking)}.",
            *(
                f"With {fix} and only link 9 broken, events of {KINDS[label]} of thread id are delivered as follows:"
                f" {_by_kind(study, name, names)}."
                for label, names in study.groups.items()
            ),
            *_caveats(number, study),
        ),
        before=(before.k, before.n),
        after=(example.k, example.n),
        counted=f"{study.example_family}, with only link 9 broken",
        sample=smallest_sample_of(study.over_families(name)),
    )


def smallest_sample_of(cells: Sequence[Measurement]) -> Sample:
    """Return the smallest number of expected events in any of the measurements."""
    return Sample(min(cell.verdict.expected for cell in cells), "events")


def _quoted(kinds: Sequence[str]) -> str:
    return ", ".join(f"'{kind}'" for kind in kinds) or "none"


def _by_kind(study: FixStudy, variant: str, names: Sequence[str]) -> str:
    return ", ".join(f"'{name}' {study.cells[name, variant].verdict.delivery.counts}" for name in names)


def _caveats(number: int, study: FixStudy) -> list[str]:
    """Return sentences that limit the result of Fix 2 or Fix 3, such as cases that were not tested."""
    if number == 2:
        return [*_with_fix_1(study), *_with_the_method(study)]
    if number == 3:
        return [
            "The test of Fix 3 uses one process, and emits events only while their run is active. Notebook 11 tests"
            " Fix 3 after a run's end, after a restart, and with a run that is registered twice."
        ]
    return []


def _with_fix_1(study: FixStudy) -> list[str]:
    together = "fixes 1 and 2 as written"
    if together not in study.variants:
        return []
    return [f"With Fixes 1 and 2 as written and only link 9 broken, {study.summary(together)}"]


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
        "The orchestrator lacks the method that Fix 2 calls. 'Fix 2 with its method' adds the method as a lookup in"
        " Fix 3's mapping.",
        f"With only link 9 broken and Fix 2 with its method, {study.summary(alone)}",
        f"With only link 9 broken and Fixes 1 and 2 with the method, {study.summary(together)}",
        f"For {len(worse)} of {len(study.families)} kinds of thread id, Fix 2 with its method delivers fewer events"
        f" together with Fix 1 than alone: {_quoted(worse)}.",
    ]


def lost_claim(drops: FixDrops) -> Finding:
    """Test whether the code loses all events, and all of them at link 9.

    The chain as reported loses all events at link 9 by construction, so the verdict follows from the code as committed.
    Losses after a repair of link 9 show at which other links events are lost.
    """
    committed, reported = drops.studies[COMMITTED], drops.studies[REPORTED]
    before = drops.total(COMMITTED, BEFORE)
    first = {link for cell in committed.over_families(COMMITTED) for link in cell.verdict.lost_at}
    later = {
        link
        for fix in drops.complete(REPORTED)
        for cell in committed.over_families(fix)
        for link in cell.verdict.lost_at
    }
    links = sorted(first | later)
    none_arrives = not before.delivered and not before.leaked
    right: AuditAnswer = "as worded, but insufficient" if none_arrives else "no"
    if not (committed.known and reported.known):
        right = "unknown"
    elif none_arrives and links == [9]:
        right = "yes"
    example = committed.example(COMMITTED).verdict.delivery
    return Finding(
        id="claim-lost",
        title="Claim · events are completely lost",
        claim="As committed, no agent event reaches a user, and link 9 is the reason.",
        reported="broken",
        verdict=verdict_of(right == "yes", known=right != "unknown"),
        audit_right=right,
        answer=f"As committed, {before.delivered:,} of {before.expected:,} events reach their user."
        + (f" {_stopping(links)}" if before.dropped else ""),
        evidence=(
            f"As committed before any fix, events are lost at {_links(sorted(first))}.",
            f"If a fix repairs link 9 in the code as committed, events are lost at {_links(sorted(later))}.",
        ),
        before=(example.k, example.n),
        counted=f"{committed.example_family}, as committed",
        rule="The audit is right if no event arrives as committed, and events are lost at link 9 only. The audit's"
        " statement is insufficient if no event"
        " arrives as committed, but events are lost at other links as well, before or after the audit's fixes.",
        sample=smallest_sample_of(committed.over_families(COMMITTED)),
    )


def _links(numbers: Sequence[int]) -> str:
    """Return links in words: "link 9", "links 8 and 9", "no link"."""
    return f"link{'s' if len(numbers) > 1 else ''} {listed(numbers)}" if numbers else "no link"


def _stopping(links: Sequence[int]) -> str:
    if list(links) == [9]:
        return "Before and after the audit's fixes, events are lost only at link 9."
    return f"Before or after the audit's fixes, events are lost at {_links(links)}, and not only at link 9."
