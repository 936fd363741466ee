"""Findings of notebook 15: what `bridgekit check` finds in backends that are not built with bridgekit."""

from __future__ import annotations

from bridgekit_verify.check.answers import State
from bridgekit_verify.measure.statistics import Rate, Sample
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import OURS, Finding
from bridgekit_verify.studies.other_backends import BackendStudy

__all__ = ["sound_claim", "truth_claim"]


def truth_claim(study: BackendStudy) -> Finding:
    """Test that the broken properties of each subject with a defect are those of its truth file."""
    damaged = [each for each in study.subjects if each.expected]
    exact = Rate(sum(each.is_exact for each in damaged), len(damaged))
    return Finding(
        id="backend-defects",
        title="A defect in someone else's backend is found, and nothing else",
        claim="For a backend with one known defect, and for a recording with known damage, the check reports exactly"
        " the properties that are broken.",
        reported=OURS,
        verdict=verdict_of(exact.k == exact.n) if exact.known else "unknown",
        answer=f"{exact.counts} subjects with a defect have exactly the broken properties that their authors state.",
        evidence=tuple(
            f"{each.name}: broken are {', '.join(sorted(each.expected))}."
            if each.is_exact
            else f"Not exactly: {each.name}."
            for each in damaged
        ),
        rule="Holds if the broken properties of each subject equal those of its truth file.",
        sample=Sample(exact.n, "subjects") if exact.known else None,
    )


def sound_claim(study: BackendStudy) -> Finding:
    """Test that nothing is broken in a subject without a defect."""
    sound = [each for each in study.subjects if not each.expected]
    clean = Rate(sum(each.is_exact for each in sound), len(sound))
    held = [sum(answer.state is State.HOLDS for answer in each.verdict.answers) for each in sound]
    return Finding(
        id="backend-sound",
        title="A sound backend is not accused",
        claim="In a backend or recording without a defect, no property is broken, and what cannot be seen is unknown.",
        reported=OURS,
        verdict=verdict_of(clean.k == clean.n) if clean.known else "unknown",
        answer=f"{clean.counts} subjects without a defect have no broken property.",
        evidence=tuple(
            f"{each.name}: {count} properties hold, {len(each.verdict.answers) - count} are unknown."
            for each, count in zip(sound, held, strict=True)
        ),
        rule="Holds if no property of these subjects is broken, and at least one holds in each.",
        sample=Sample(clean.n, "subjects") if clean.known else None,
    )
