"""Findings of notebook 15: what `bridgekit check` finds in backends that are not built with bridgekit."""

from __future__ import annotations

from collections.abc import Sequence

from bridgekit_verify.check.property_answers import State
from bridgekit_verify.measure.statistics import Rate, Sample
from bridgekit_verify.measure.wording import listed
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import OURS, Finding
from bridgekit_verify.studies.other_backends import BackendStudy, CheckedSubject

__all__ = ["sound_claim", "truth_claim"]


def truth_claim(study: BackendStudy) -> Finding:
    """Test that each known defect breaks exactly the properties that were written down before the check."""
    damaged = [each for each in study.subjects if each.expected]
    exact = Rate(sum(each.is_exact for each in damaged), len(damaged))
    return Finding(
        id="backend-defects",
        title="The check finds the known defects and no others",
        claim="For a backend with one known defect, and for a recording with known damage, the check reports exactly"
        " the properties that are broken.",
        reported=OURS,
        verdict=verdict_of(exact.k == exact.n) if exact.known else "unknown",
        answer=f"For {exact.counts} backends and recordings with a known defect, the check reports exactly the"
        " properties that are broken."
        if exact.known
        else "The notebook checked no backend or recording with a known defect.",
        evidence=tuple(
            f"For {each.name!r}, the check reports {_broken(sorted(each.expected))}."
            if each.is_exact
            else f"For {each.name!r}, the check does not report exactly the properties that were known to be broken."
            for each in damaged
        ),
        rule="The claim holds if, for each backend or recording, the check reports exactly the properties that were"
        " already known to be broken.",
        sample=Sample(exact.n, "checks") if exact.known else None,
    )


def sound_claim(study: BackendStudy) -> Finding:
    """Test that a backend or recording without a defect breaks no property."""
    sound = [each for each in study.subjects if not each.expected]
    clean = Rate(sum(each.is_exact for each in sound), len(sound))
    return Finding(
        id="backend-sound",
        title="In a sound backend, the check finds no defect",
        claim="In a backend or recording without a defect, the check reports no broken property. A property that"
        " the check cannot judge is unknown.",
        reported=OURS,
        verdict=verdict_of(clean.k == clean.n) if clean.known else "unknown",
        answer=f"For {clean.counts} backends and recordings without a defect, the check reports no broken property"
        f" and at least one property that holds."
        if clean.known
        else "The notebook checked no backend or recording without a defect.",
        evidence=tuple(_states(each) for each in sound),
        rule="The claim holds if, for each backend or recording without a defect, the check reports no broken"
        " property and at least one property that holds.",
        sample=Sample(clean.n, "checks") if clean.known else None,
    )


def _broken(properties: Sequence[str]) -> str:
    noun = "the property" if len(properties) == 1 else "the properties"
    return f"{noun} {listed(repr(str(each)) for each in properties)} as broken"


def _states(subject: CheckedSubject) -> str:
    hold, broken, unknown = (_count(subject, state) for state in (State.HOLDS, State.BROKEN, State.UNKNOWN))
    return (
        f"For {subject.name!r}, of {len(subject.verdict.answers)} properties, {hold}"
        f" {'holds' if hold == 1 else 'hold'},"
        f" {broken} {_are(broken)} broken, and {unknown} {_are(unknown)} unknown."
    )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _count(subject: CheckedSubject, state: State) -> int:
    return sum(answer.state is state for answer in subject.verdict.answers)
