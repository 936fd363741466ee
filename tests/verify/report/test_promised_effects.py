"""Findings for the audit's "after fix" list and its verification steps: each verdict can fall either way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from bridgekit.events import Outcome
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.report.promised_effects import (
    COMMITTED_WITH_FIX_1,
    STEP_CHAINS,
    after_fix_claims,
    all_arrive_claim,
    event_flow_claim,
    notification_table,
    notify_claim,
    notify_on_each_chain,
    real_time_claim,
    run_id_claim,
    step_claims,
)
from bridgekit_verify.studies.links_and_fixes import EXAMPLE, FixStudy, study_fixes
from bridgekit_verify.studies.manual_run import HandNotification
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, FIX_1, SOUND, VARIANTS
from tests.verify.report.measured_once import MeasuredOnce

pytestmark = pytest.mark.slow

WORKLOAD = Workload(threads=thread_ids(EXAMPLE, 2), at_once=2)
LOSING = "chat_<n>"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # required by uvicorn


FIX_1_ON = partial(study_fixes, threads=2, at_once=1, variants=[AS_REPORTED, FIX_1])
STUDY = MeasuredOnce(partial(FIX_1_ON, runs=1, families=[EXAMPLE, LOSING]))
WITHOUT_RUNS = MeasuredOnce(partial(FIX_1_ON, runs=0, families=EXAMPLE))
MEASURED_AS_COMMITTED = MeasuredOnce(partial(measure, AS_COMMITTED, WORKLOAD))
MEASURED_SOUND = MeasuredOnce(partial(measure, SOUND, WORKLOAD))
NOTHING_MEASURED = MeasuredOnce(partial(measure, SOUND, replace(WORKLOAD, runs_per_thread=0)))


@pytest.fixture(scope="module")
async def study() -> FixStudy:
    return await STUDY()


@pytest.fixture(scope="module")
async def committed() -> Measurement:
    return await MEASURED_AS_COMMITTED()


@pytest.fixture(scope="module")
async def sound() -> Measurement:
    return await MEASURED_SOUND()


@pytest.fixture(scope="module")
async def notified() -> list[HandNotification]:
    return await notify_on_each_chain(seed=0)


def only_example(study: FixStudy) -> FixStudy:
    """Return the study as it would be if all thread ids were like the audit's example."""
    return replace(study, cells={key: cell for key, cell in study.cells.items() if key[0] == EXAMPLE})


@pytest.mark.parametrize("claim", [all_arrive_claim, real_time_claim])
async def test_promise_holds_only_if_it_holds_on_both_chains(
    claim: object, study: FixStudy, committed: Measurement, sound: Measurement
) -> None:
    assert callable(claim)
    verdicts = [
        claim(measured, committed, after).verdict
        for measured in (study, only_example(study))
        for after in (committed, sound)
    ]
    assert verdicts == ["does not hold", "does not hold", "does not hold", "holds"]


async def test_promises_are_measured_on_the_chain_as_committed(study: FixStudy) -> None:
    arrive, real_time, value = await after_fix_claims(study, seed=0)
    assert [claim.verdict for claim in (arrive, real_time, value)] == ["does not hold", "does not hold", "unknown"]
    assert (arrive.before, arrive.after) == ((0, 10), (0, 10))
    assert arrive.answer == (
        "As committed with Fix 1, 0 of 10 events arrive. With Fix 1 and only link 9 broken, 10 of 10 events of threads"
        " with ids like thread_123 arrive."
    )  # the same load on both chains
    assert "users read 6 of 6 agent events of threads with ids like thread_123" in real_time.answer
    assert "every agent event before its run ends for 1 of 2 kinds of thread id." in real_time.evidence[0]
    assert value == Finding(
        id="claim-value",
        title="After Fix 1 · 90 % of the chat's business value is delivered",
        claim="The chat delivers 10 % of its business value as committed, and 90 % after Fix 1.",
        reported="after fix",
        verdict="unknown",
        answer=(
            "Unknown: no test of this report measures business value, and the audit does not state how it measured"
            " business value."
        ),
    )


async def test_event_shown_after_the_end_of_its_run_is_not_real_time(study: FixStudy, sound: Measurement) -> None:
    late = replace(sound, history=replace(sound.history, arrivals=sound.history.arrivals[::-1]))
    finding = real_time_claim(only_example(study), late, late)
    assert (finding.after, finding.verdict) == ((0, 6), "does not hold")


async def test_event_that_another_user_reads_is_not_shown(study: FixStudy, sound: Measurement) -> None:
    one, other = sound.history.sockets
    swapped = [replace(each, socket=other if each.socket == one else one) for each in sound.history.arrivals]
    misrouted = replace(sound, history=replace(sound.history, arrivals=swapped))
    assert real_time_claim(only_example(study), misrouted, misrouted).after == (0, 6)


async def test_promises_without_events_are_unknown(study: FixStudy, committed: Measurement) -> None:
    nothing = await NOTHING_MEASURED()
    for claim in (all_arrive_claim, real_time_claim, event_flow_claim):
        assert claim(only_example(study), committed, nothing).verdict == "unknown"
    empty = await WITHOUT_RUNS()
    assert all_arrive_claim(empty, committed, committed).verdict == "unknown"
    assert real_time_claim(empty, committed, committed).verdict == "unknown"


async def test_step_1_passes_as_reported_and_fails_as_committed(
    study: FixStudy, committed: Measurement, sound: Measurement
) -> None:
    finding = event_flow_claim(study, committed, committed)
    assert (finding.verdict, finding.before, finding.after) == ("does not hold", (0, 10), (0, 10))
    assert finding.answer == (
        "As committed with Fix 1, 0 of 10 events arrive. With Fix 1 and only link 9 broken, 10 of 10 events of threads"
        " with ids like thread_123 arrive."
    )
    assert event_flow_claim(study, committed, sound).verdict == "holds"
    unfixed = {(kind, row): study.cells[kind, "as reported"] for kind, row in study.cells}
    assert event_flow_claim(replace(study, cells=unfixed), committed, sound).verdict == "does not hold"


def test_step_2_tests_the_audits_text_which_says_the_same_on_every_chain() -> None:
    finding = run_id_claim(0)
    assert finding.claim == "The run id run_thread_123_a1b2c3d4 contains thread_123."
    assert finding.verdict == "holds"
    assert f"passes on each of {len(STEP_CHAINS)} chains" in finding.answer
    containing, _ = finding.evidence
    assert containing == (
        "Each of 11 chains created one run id for thread_123, and 5 of these run ids contain thread_123. Chains whose"
        " run id contains thread_123: 'as committed with fix 1', 'fix 1', 'fixes 1 and 2 as written', 'fixes 1 and 2"
        " with the method', 'fixes 1, 2 and 3'. Chains whose run id does not contain thread_123: 'as committed', 'as"
        " reported', 'fix 2 as written', 'fix 2 with its method', 'fix 3', 'sound'."
    )


def by_chain(notified: Sequence[HandNotification]) -> dict[str, tuple[bool, Outcome, int, int]]:
    return {
        each.chain: (each.resolves, each.receipt.outcome, each.read_by_owner, each.read_by_others) for each in notified
    }


async def test_step_3_is_run_with_an_open_socket_on_each_chain(notified: list[HandNotification]) -> None:
    arrived, lost = (True, Outcome.SENT, 1, 0), (True, Outcome.SENT, 0, 0)
    assert by_chain(notified) == {
        "as committed": lost,
        "as committed with fix 1": lost,
        **dict.fromkeys(["as reported", *[name for name in VARIANTS if name.startswith("fix")]], arrived),
        "sound": (False, Outcome.UNROUTABLE, 0, 0),
    }


async def test_step_3_does_not_hold_on_the_chain_as_committed(notified: list[HandNotification]) -> None:
    finding = notify_claim(notified)
    assert (finding.verdict, finding.right) == ("does not hold", "as worded, but insufficient")
    assert finding.answer == (
        "As committed with Fix 1, the run id resolves to thread_123, and the event is reported as sent. The socket of"
        " thread_123's owner reads 0 of 1 event."
    )
    assert all(len(sentence.split()) <= 25 for sentence in finding.answer.split(". "))
    samples, difference, never_parses = finding.evidence
    assert samples.startswith("The test sends the audit's notification on each of 11 chains, with one open socket of")
    assert difference.startswith("Fix 1 does not change the result of step 3, either on the chain")
    assert "by design" in never_parses
    assert "'unroutable' at link 9" in never_parses


async def test_step_3_has_a_row_for_each_chain(notified: list[HandNotification]) -> None:
    rows = {row["chain"]: row for row in notification_table(notified).to_dict("records")}
    assert list(rows) == list(STEP_CHAINS)
    assert rows["as committed with fix 1"]["owner reads"] == "0 of 1"
    assert (rows["fix 1"]["thread found"], rows["fix 1"]["owner reads"]) == ("thread_123", "1 of 1")
    assert (rows["sound"]["thread found"], rows["sound"]["reported as"]) == ("none", "unroutable")


@pytest.mark.parametrize("broken", ["fix 1", COMMITTED_WITH_FIX_1.name])
async def test_step_3_holds_only_if_the_event_arrives_on_both_chains_with_fix_1(
    broken: str, notified: list[HandNotification]
) -> None:
    whole = next(each for each in notified if each.chain == "fix 1")
    repaired = [replace(whole, chain=each.chain) for each in notified]
    assert notify_claim(repaired).verdict == "holds"
    damages: list[dict[str, Any]] = [{"read_by_owner": 0}, {"read_by_owner": 2}, {"read_by_others": 1}]
    for damage in damages:
        damaged = [replace(each, **damage) if each.chain == broken else each for each in repaired]
        assert notify_claim(damaged).right == "as worded, but insufficient", damage
    elsewhere = next(each for each in notified if each.chain == "sound").receipt
    damaged = [replace(each, receipt=elsewhere) if each.chain == broken else each for each in repaired]
    assert (notify_claim(damaged).right, notify_claim(damaged).verdict) == ("no", "does not hold")


async def test_steps_are_reported_in_their_order(study: FixStudy, notified: list[HandNotification]) -> None:
    findings = await step_claims(study, notified, seed=0)
    assert [finding.id for finding in findings] == ["step-1", "step-2", "step-3"]
    assert [finding.verdict for finding in findings] == ["does not hold", "holds", "does not hold"]
