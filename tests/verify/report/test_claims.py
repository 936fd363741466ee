"""Findings for the audit's claims: each verdict follows from the measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest

from bridgekit_verify.measure.drops import count_drops
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.probes.probes import probe_all
from bridgekit_verify.report.claims import chain_claim, connection_claim, fix_claim, link_claim, lost_claim
from bridgekit_verify.studies.drops import BEFORE, COMMITTED, REPORTED, FixDrops, study_fix_drops
from bridgekit_verify.studies.links_and_fixes import EXAMPLE, FixStudy, study_link
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, FIXES, SOUND
from tests.verify.report.measured_once import MeasuredOnce

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # required by uvicorn


KINDS = (EXAMPLE, "chat_<n>", "starts with another id")
DROPS = MeasuredOnce(partial(study_fix_drops, threads=3, runs=1, at_once=1, families=KINDS))
NO_DROPS = MeasuredOnce(partial(study_fix_drops, threads=1, runs=0, at_once=1, families=EXAMPLE))
LINKS = {number: MeasuredOnce(partial(study_link, number, threads=2, runs=1, at_once=2)) for number in (1, 2, 5, 8, 9)}
MEASURED = {
    chain.name: MeasuredOnce(partial(measure, chain, Workload(threads=thread_ids(EXAMPLE, 1))))
    for chain in (AS_COMMITTED, AS_REPORTED, SOUND)
}
PROBES = {chain.name: MeasuredOnce(partial(probe_all, chain)) for chain in (AS_COMMITTED, AS_REPORTED)}


@pytest.fixture(scope="module")
async def drops() -> FixDrops:
    return await DROPS()


@pytest.fixture(scope="module")
def study(drops: FixDrops) -> FixStudy:
    return drops.studies[REPORTED]


def with_reported(drops: FixDrops, cells: Mapping[tuple[str, str], Measurement]) -> FixDrops:
    """Return the drops with other measurements of the chain as reported."""
    return replace(drops, studies={**drops.studies, REPORTED: replace(drops.studies[REPORTED], cells=cells)})


def with_committed(drops: FixDrops, steps: Mapping[str, Mapping[str, Measurement]]) -> FixDrops:
    """Return the drops with other measurements of the code as committed, by step and kind of thread id."""
    old = drops.studies[COMMITTED]
    cells = {(kind, step): steps.get(step, {}).get(kind, cell) for (kind, step), cell in old.cells.items()}
    counts = {
        step: {kind: count_drops(cells[kind, COMMITTED if step == BEFORE else step]) for kind in kinds}
        for step, kinds in drops.counts[COMMITTED].items()
    }
    return replace(
        drops,
        counts={**drops.counts, COMMITTED: counts},
        studies={**drops.studies, COMMITTED: replace(old, cells=cells)},
    )


@pytest.mark.short_form(2)
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
    finding = link_claim(await LINKS[number]())
    assert (finding.right, finding.works) == (right, works)
    assert (finding.before, finding.after) == (before, (10, 10))
    assert bool(finding.experiment) == (works == "works")
    delivery, after = finding.evidence[1:3]
    assert after.startswith(f"With link {number} {'sound' if works == 'works' else 'repaired'}, ")
    assert ("the hub (link 10) as committed" in delivery) == (number == 1)
    assert finding.sound == "holds"


async def test_link_10_was_not_examined_and_fails_as_committed() -> None:
    finding = await connection_claim(seed=0)
    assert (finding.id, finding.link, finding.right, finding.works) == ("link-10", 10, "not examined", "fails")
    assert finding.sound == "holds"
    assert finding.answer.startswith("As committed, link 10 fails: ")
    assert (finding.title, finding.reported, finding.verdict) == (
        "Link 10 · Hub and sockets",
        "not examined",
        "unknown",
    )
    assert finding.claim == (
        "The audit's chain ends at link 9. The audit does not examine how an event reaches the sockets of its thread."
    )


async def test_chain_claim_names_the_links_that_do_not_hold() -> None:
    measured = [await MEASURED[variant.name]() for variant in (AS_COMMITTED, SOUND)]
    finding = chain_claim(await PROBES[AS_COMMITTED.name](), *measured)
    assert finding.verdict == "does not hold"
    assert "1, 3, 5, 8 and 9" in finding.answer
    assert (finding.before, finding.after) == ((0, 5), (5, 5))


async def test_chain_claim_holds_for_the_chain_as_reported() -> None:
    measured = await MEASURED[AS_REPORTED.name]()
    assert chain_claim(await PROBES[AS_REPORTED.name](), measured, measured).verdict == "holds"


async def test_fix_verdicts_follow_from_losses_and_leaks(drops: FixDrops) -> None:
    findings = [fix_claim(number, drops) for number in (1, 2, 3)]
    assert [finding.verdict for finding in findings] == ["does not hold", "does not hold", "holds"]
    assert [finding.after for finding in findings] == [(15, 15), (0, 15), (15, 15)]
    assert findings[0].evidence[:4] == (
        "With Fix 1 and only link 9 broken, events of these kinds of thread id do not reach their user: 'chat_<n>',"
        " 'starts with another id'.",
        "With Fix 1 and only link 9 broken, events of these kinds of thread id reach another user: 'starts with"
        " another id'.",
        "With Fix 1 and only link 9 broken, events of documented kinds of thread id are delivered as follows:"
        " 'thread_123' 15"
        " of 15.",
        "With Fix 1 and only link 9 broken, events of stress kinds of thread id are delivered as follows: 'chat_<n>'"
        " 0 of 15,"
        " 'starts with another id' 5 of 15.",
    )


async def test_the_result_of_a_fix_explains_both_of_its_answers(drops: FixDrops) -> None:
    """The counts beside "fails" are those of the code as committed, and the chart names the chain that it shows."""
    for number in (1, 2, 3):
        finding = fix_claim(number, drops)
        assert finding.works == "fails"
        assert " 0 of 45 events reach their user. With Fix" in finding.answer
        assert finding.counted == "thread_123, with only link 9 broken"
        assert "does it work when run? fails" in str(finding).lower()
    sound = await MEASURED[SOUND.name]()
    everything = with_committed(drops, {"fix 3": dict.fromkeys(drops.counts[COMMITTED]["fix 3"], sound)})
    assert [fix_claim(number, everything).works for number in (1, 2, 3)] == ["fails", "fails", "works"]
    assert fix_claim(3, everything).answer.startswith("As committed with Fix 3, 15 of 15 events reach their user.")


async def test_fix_claim_states_counts_of_kinds_and_no_interval(drops: FixDrops) -> None:
    finding = fix_claim(1, drops)
    assert finding.answer.endswith(
        "every event reaches its user for 1 of 1 documented kind and 0 of 2 stress kinds of thread id."
        " Events of 1 of 3 kinds of thread id leak to another user: 'starts with another id'."
    )
    assert not [text for text in (finding.answer, *finding.evidence) if "%" in text]


async def test_fix_2_is_judged_as_written_and_with_its_method(drops: FixDrops) -> None:
    finding = fix_claim(2, drops)
    with_fix_1, supplied, method, _, both = finding.evidence[-5:]
    assert with_fix_1.startswith(
        "With Fixes 1 and 2 as written and only link 9 broken, every event reaches its user for 1 of 1 documented kind"
    )
    assert supplied.endswith("'Fix 2 with its method' adds the method as a lookup in Fix 3's mapping.")
    assert "documented kind and 2 of 2 stress kinds" in method
    assert both.startswith("For 1 of 3 kinds of thread id,")
    assert both.endswith("fewer events together with Fix 1 than alone: 'starts with another id'.")


async def test_fix_2_would_hold_if_the_method_existed(drops: FixDrops, study: FixStudy) -> None:
    supplied = {
        (kind, row): study.cells[kind, "fix 2 with its method" if row == "fix 2 as written" else row]
        for kind, row in study.cells
    }
    assert fix_claim(2, with_reported(drops, supplied)).verdict == "holds"


async def test_fix_1_holds_if_all_ids_are_like_the_example(drops: FixDrops, study: FixStudy) -> None:
    example = {key: cell for key, cell in study.cells.items() if key[0] == EXAMPLE}
    assert fix_claim(1, with_reported(drops, example)).verdict == "holds"


async def test_claims_about_a_study_without_events_are_unknown() -> None:
    empty = await NO_DROPS()
    claims = [lost_claim(empty), *(fix_claim(number, empty) for number in (1, 2, 3))]
    assert {claim.verdict for claim in claims} == {"unknown"}
    assert {claim.right for claim in claims} == {"unknown"}
    assert {claim.works for claim in claims} == {"unknown"}


async def test_lost_claim_is_judged_on_the_code_as_committed(drops: FixDrops) -> None:
    finding = lost_claim(drops)
    assert finding.answer == (
        "As committed, 0 of 45 events reach their user. Before or after the audit's fixes, events are lost at links"
        " 8, 9 and 10, and not only at link 9."
    )
    assert (finding.right, finding.verdict) == ("as worded, but insufficient", "does not hold")
    assert finding.evidence == (
        "As committed before any fix, events are lost at links 8 and 9.",
        "If a fix repairs link 9 in the code as committed, events are lost at links 8 and 10.",
    )


async def test_lost_claim_is_right_only_if_nothing_arrives_and_only_link_9_stops_events(drops: FixDrops) -> None:
    """As reported, events are lost only at link 9: what the audit says of the code would be right."""
    reported = {
        COMMITTED if step == REPORTED else step: {kind: drops.studies[REPORTED].cells[kind, step] for kind in kinds}
        for step in (REPORTED, *FIXES)
        if (kinds := drops.counts[REPORTED][BEFORE])
    }
    as_the_audit_says = lost_claim(with_committed(drops, reported))
    assert (as_the_audit_says.right, as_the_audit_says.verdict) == ("yes", "holds")
    assert as_the_audit_says.answer == (
        "As committed, 0 of 45 events reach their user. Before and after the audit's fixes, events are lost only at"
        " link 9."
    )
    some_arrive = lost_claim(with_committed(drops, {**reported, COMMITTED: reported["fix 1"]}))
    assert some_arrive.right == "no"
