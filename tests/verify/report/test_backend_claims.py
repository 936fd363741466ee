"""The findings about other backends: the sentences state how many subjects were judged as they are."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bridgekit_verify.check.property_answers import Property, PropertyAnswer, State
from bridgekit_verify.check.verdict import RecordingVerdict
from bridgekit_verify.report.backend_claims import sound_claim, truth_claim
from bridgekit_verify.studies.other_backends import BackendStudy, CheckedSubject

LOST, USER = Property.LOST, Property.USER


def subject(
    known: Iterable[Property], *, broken: Iterable[Property] = (), holding: Iterable[Property] = ()
) -> CheckedSubject:
    """Return a subject with these answers; all other properties are unknown."""
    states = (
        dict.fromkeys(Property, State.UNKNOWN)
        | dict.fromkeys(holding, State.HOLDS)
        | dict.fromkeys(broken, State.BROKEN)
    )
    answers = tuple(PropertyAnswer(each, state) for each, state in states.items())
    verdict = RecordingVerdict("run.jsonl", "JSON Lines", "AG-UI", "", 1, 1, 1, 1, complete=True, answers=answers)
    return CheckedSubject("a backend", frozenset(known), verdict)


EXACT = subject([LOST], broken=[LOST], holding=[USER])
MISSED = subject([LOST], holding=[LOST, USER])
TOO_MANY = subject([LOST], broken=[LOST, USER])
SOUND = subject([], holding=[LOST])
ACCUSED = subject([], broken=[USER], holding=[LOST])
NOTHING_JUDGED = subject([])


@pytest.mark.parametrize(
    ("subjects", "counts", "verdict"),
    [
        ([EXACT, EXACT, ACCUSED], "2 of 2", "holds"),
        ([EXACT, MISSED], "1 of 2", "does not hold"),
        ([TOO_MANY], "0 of 1", "does not hold"),
        ([SOUND], "unknown", "unknown"),
    ],
)
def test_truth_claim_counts_the_subjects_whose_broken_properties_are_the_known_ones(
    subjects: list[CheckedSubject], counts: str, verdict: str
) -> None:
    finding = truth_claim(BackendStudy(subjects))
    assert finding.verdict == verdict
    assert finding.answer.startswith(
        f"For {counts} backends" if verdict != "unknown" else "The notebook checked no backend"
    )


@pytest.mark.parametrize(
    ("subjects", "counts", "verdict"),
    [
        ([SOUND, MISSED], "1 of 1", "holds"),
        ([SOUND, ACCUSED], "1 of 2", "does not hold"),
        ([NOTHING_JUDGED], "0 of 1", "does not hold"),
        ([EXACT], "unknown", "unknown"),
    ],
)
def test_sound_claim_needs_a_property_that_holds_and_none_that_is_broken(
    subjects: list[CheckedSubject], counts: str, verdict: str
) -> None:
    finding = sound_claim(BackendStudy(subjects))
    assert finding.verdict == verdict
    assert finding.answer.startswith(
        f"For {counts} backends" if verdict != "unknown" else "The notebook checked no backend"
    )


def test_evidence_counts_every_answer_once() -> None:
    [line] = sound_claim(BackendStudy([ACCUSED])).evidence
    assert (
        line
        == f"For 'a backend', of {len(Property)} properties, 1 holds, 1 is broken, and {len(Property) - 2} are unknown."
    )
