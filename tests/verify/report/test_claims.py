"""Findings for the audit's claims: each verdict follows from the measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.probes.probes import probe_all
from bridgekit_verify.report.claims import chain_claim, connection_claim, fix_claim, link_claim, lost_claim
from bridgekit_verify.studies.study import EXAMPLE, FixStudy, study_fixes, study_link
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, SOUND

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # required by uvicorn


@pytest.fixture(scope="module")
async def study() -> FixStudy:
    families = [EXAMPLE, "chat_<n>", "prefixes of one another"]
    return await study_fixes(threads=3, runs=1, at_once=1, families=families)


@pytest.mark.parametrize(
    ("number", "right", "works", "before"),
    [
        (1, "as worded, but insufficient", "fails", (0, 10)),
        (2, "yes", "works", (0, 10)),
        (5, "as worded, but insufficient", "fails", (7, 10)),
        (8, "no", "fails", (4, 10)),
        (9, "yes", "fails", (0, 10)),
    ],
)
async def test_both_answers_about_a_link_follow_from_its_tests(
    number: int, right: str, works: str, before: tuple[int, int]
) -> None:
    finding = link_claim(await study_link(number, threads=2, runs=1, at_once=2))
    assert (finding.right, finding.works) == (right, works)
    assert (finding.before, finding.after) == (before, (10, 10))
    assert bool(finding.experiment) == (works == "works")
    assert finding.sound == "holds"


async def test_link_10_was_not_examined_and_fails_as_committed() -> None:
    finding = await connection_claim(seed=0)
    assert (finding.id, finding.link, finding.right, finding.works) == ("link-10", 10, "not examined", "fails")
    assert finding.sound == "holds"


async def test_chain_claim_names_the_links_that_do_not_hold() -> None:
    workload = Workload(threads=thread_ids(EXAMPLE, 1))
    measured = [await measure(variant, workload) for variant in (AS_COMMITTED, SOUND)]
    finding = chain_claim(await probe_all(AS_COMMITTED), *measured)
    assert finding.verdict == "does not hold"
    assert "1, 3, 5, 8, 9" in finding.answer
    assert (finding.before, finding.after) == ((0, 5), (5, 5))


async def test_chain_claim_holds_for_the_chain_as_reported() -> None:
    measured = await measure(AS_REPORTED, Workload(threads=thread_ids(EXAMPLE, 1)))
    assert chain_claim(await probe_all(AS_REPORTED), measured, measured).verdict == "holds"


async def test_fix_verdicts_follow_from_losses_and_leaks(study: FixStudy) -> None:
    findings = [fix_claim(number, study) for number in (1, 2, 3)]
    assert [finding.verdict for finding in findings] == ["does not hold", "does not hold", "holds"]
    assert [finding.after for finding in findings] == [(15, 15), (0, 15), (15, 15)]
    assert findings[0].evidence[:4] == (
        "Kinds of which events do not reach their user: chat_<n>, prefixes of one another.",
        "Kinds of which events reach another user: prefixes of one another.",
        "Delivered with kinds in use: thread_123 15 of 15.",
        "Delivered with stress kinds: chat_<n> 0 of 15; prefixes of one another 5 of 15.",
    )


async def test_fix_claim_states_counts_of_kinds_and_no_sum_or_interval(study: FixStudy) -> None:
    finding = fix_claim(1, study)
    assert finding.answer == (
        "With thread_123 it delivers 15 of 15 events; every event arrives with 1 of 1 kind in use and 0 of 2 stress"
        " kinds; kinds that send events to another user: 1 of 3 (prefixes of one another)."
    )
    assert not [text for text in (finding.answer, *finding.evidence) if "%" in text or "45" in text]


async def test_fix_2_is_judged_as_written_and_with_its_method(study: FixStudy) -> None:
    finding = fix_claim(2, study)
    with_fix_1, method, both = finding.evidence[-3:]
    assert "with Fix 1: every event arrives with 1 of 1 kind in use and 0 of 2 stress kinds" in with_fix_1
    assert "a lookup in Fix 3's mapping: every event arrives with 1 of 1 kind in use and 2 of 2 stress" in method
    assert "fewer events with 1 of 3 kinds of thread ids: prefixes of one another." in both


async def test_fix_2_would_hold_if_the_method_existed(study: FixStudy) -> None:
    supplied = {
        (kind, row): study.cells[kind, "fix 2 with its method" if row == "fix 2 as written" else row]
        for kind, row in study.cells
    }
    assert fix_claim(2, replace(study, cells=supplied)).verdict == "holds"


async def test_fix_1_holds_if_all_ids_are_like_the_example(study: FixStudy) -> None:
    kind = replace(study, cells={key: cell for key, cell in study.cells.items() if key[0] == EXAMPLE})
    assert fix_claim(1, kind).verdict == "holds"


async def test_claims_about_a_study_without_events_are_unknown() -> None:
    empty = await study_fixes(threads=1, runs=0, at_once=1, families=EXAMPLE)
    claims = [lost_claim(empty), *(fix_claim(number, empty) for number in (1, 2, 3))]
    assert {claim.verdict for claim in claims} == {"unknown"}
    assert "unknown" in claims[0].answer


async def test_lost_claim_needs_every_family_lost_and_only_link_9_to_lose(study: FixStudy) -> None:
    """With Fix 1, only link 9 loses events, but some arrive. As committed, none arrives, and link 8 loses some."""
    some = {(kind, row): study.cells[kind, "fix 1" if row == "as reported" else row] for kind, row in study.cells}
    assert lost_claim(replace(study, cells=some)).verdict == "does not hold"
    committed = await measure(AS_COMMITTED, Workload(threads=thread_ids(EXAMPLE, 1)))
    none = {key: committed if key[1] == "as reported" else cell for key, cell in study.cells.items()}
    assert lost_claim(replace(study, cells=none)).verdict == "does not hold"


async def test_lost_claim_holds_as_reported(study: FixStudy) -> None:
    assert lost_claim(study).verdict == "holds"
    repaired = {(name, row): study.cells[name, "sound" if row == "as reported" else row] for name, row in study.cells}
    assert lost_claim(replace(study, cells=repaired)).verdict == "does not hold"
