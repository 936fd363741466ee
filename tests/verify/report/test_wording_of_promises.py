"""The findings about promised effects and verification steps word by word, for measurements that need no server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit.events import Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit_verify.measure.attribution import Attribution
from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.report import promised_effects
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.report.promised_effects import (
    STEP_CHAINS,
    all_arrive_claim,
    event_flow_claim,
    notification_table,
    notify_claim,
    real_time_claim,
    run_id_claim,
)
from bridgekit_verify.studies.drops import REPORTED
from bridgekit_verify.studies.manual_run import HandNotification
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, FIX_1, Variant
from tests.verify.report.thoughts import PARSED, cell, every, measured, study_of, thoughts

STUDY = study_of({REPORTED: every(), "fix 1": PARSED})
UNFIXED = measured(AS_COMMITTED, thoughts(0, 0, 9))
STILL_LOSING = cell((1, 2, 5), 8)
FIXED = replace(
    STILL_LOSING, verdict=replace(STILL_LOSING.verdict, misroutes={Attribution(5, "a cause that loses nothing"): 2})
)


def test_promises_are_stated_in_these_words() -> None:
    assert all_arrive_claim(STUDY, UNFIXED, FIXED) == Finding(
        id="claim-after-fix",
        title="After Fix 1 · all agent events reach users correctly",
        claim="After Fix 1, a change of one line, every agent event reaches its user.",
        reported="after fix",
        verdict="does not hold",
        answer=(
            "As committed with Fix 1, 1 of 8 events arrive. With Fix 1 and only link 9 broken, 5 of 5 events of threads"
            " with ids like thread_123 arrive."
        ),
        evidence=(
            "With Fix 1 and only link 9 broken, every event reaches its user for 1 of 1 documented kind and 0 of 2"
            " stress kinds of thread id. Events of 2 of 3 kinds of thread id leak to another user: 'chat_<n>', 'starts"
            " with another id'.",
            "As committed with Fix 1, 7 of 8 events are still lost at link 8: a cause.",
        ),
        before=(0, 9),
        after=(1, 8),
        sample=Sample(5, "events"),
    )
    assert real_time_claim(STUDY, UNFIXED, FIXED) == Finding(
        id="claim-real-time",
        title="After Fix 1 · real-time chat is restored",
        claim="Before the run ends, users can once more see what the agent thinks and which tools it uses.",
        reported="after fix",
        verdict="does not hold",
        answer=(
            "As committed with Fix 1, users read 1 of 8 agent events before the run ends. With Fix 1 and only link 9"
            " broken, users read 5 of 5 agent events of threads with ids like thread_123 before the run ends."
        ),
        evidence=(
            "With Fix 1 and only link 9 broken, users read every agent event before its run ends for 1 of 3 kinds of"
            " thread id.",
        ),
        before=(0, 9),
        after=(1, 8),
        sample=Sample(5, "events"),
    )


def test_step_1_is_stated_in_these_words() -> None:
    assert event_flow_claim(STUDY, UNFIXED, FIXED) == Finding(
        id="step-1",
        title="Step 1 · test the event flow",
        claim="After Fix 1, the test suite for WebSocket events passes.",
        reported="step",
        verdict="does not hold",
        answer=(
            "As committed with Fix 1, 1 of 8 events arrive. With Fix 1 and only link 9 broken, 5 of 5 events of threads"
            " with ids like thread_123 arrive."
        ),
        evidence=(
            "Before Fix 1, 0 of 9 events arrive as committed, and 0 of 5 with only link 9 broken.",
            "With Fix 1 and only link 9 broken, every event reaches its user for 1 of 1 documented kind and 0 of 2"
            " stress kinds of thread id. Events of 2 of 3 kinds of thread id leak to another user: 'chat_<n>', 'starts"
            " with another id'.",
            (
                "To repeat step 1, run: python tests/mission_critical/test_websocket_agent_events_suite.py --variant"
                " 'fix 1'"
            ),
        ),
        before=(0, 9),
        after=(1, 8),
        sample=Sample(5, "events"),
    )


def test_step_2_is_stated_in_these_words() -> None:
    assert run_id_claim(0) == Finding(
        id="step-2",
        title="Step 2 · look at the run id",
        claim="The run id run_thread_123_a1b2c3d4 contains thread_123.",
        reported="step",
        verdict="holds",
        audit_right="as worded, but insufficient",
        answer=(
            "The string run_thread_123_a1b2c3d4 contains thread_123. The audit's assertion calls no code, so it"
            " passes on each of 11 chains, before and after Fix 1."
        ),
        evidence=(
            "Each of 11 chains created one run id for thread_123, and 5 of these run ids contain thread_123. Chains"
            " whose run id contains thread_123: 'as committed with fix 1', 'fix 1', 'fixes 1 and 2 as written',"
            " 'fixes 1 and 2 with the method', 'fixes 1, 2 and 3'. Chains whose run id does not contain thread_123:"
            " 'as committed', 'as reported', 'fix 2 as written', 'fix 2 with its method', 'fix 3', 'sound'.",
            "For example, the chain 'as reported' creates the run id run_629fd82c07cd, and the chain 'fix 1' creates"
            " the run id run_thread_123_d82c07cd.",
        ),
        sample=Sample(1, "strings"),
    )


@pytest.mark.parametrize(
    ("chain", "count", "containing", "without"),
    [
        (
            AS_REPORTED,
            "0",
            "none",
            "'as reported', 'fix 1'",
        ),
        (FIX_1, "2", "'as reported', 'fix 1'", "none"),
    ],
)
def test_step_2_names_no_chain_if_there_is_none(
    chain: Variant, count: str, containing: str, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promised_effects, "STEP_CHAINS", {AS_REPORTED.name: chain, "fix 1": chain})
    assert run_id_claim(0).evidence[0] == (
        f"Each of 2 chains created one run id for thread_123, and {count} of these run ids contain thread_123. Chains"
        f" whose run id contains thread_123: {containing}. Chains whose run id does not contain thread_123: {without}."
    )


def test_step_2_does_not_hold_for_a_text_without_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promised_effects, "STEP_2_RUN_ID", "run_a1b2c3d4")
    finding = run_id_claim(0)
    assert (finding.verdict, finding.right) == ("does not hold", "no")


SENT = Receipt(outcome=Outcome.SENT, sockets=1, thread_id=ThreadId("thread_123"))
NO_SUBSCRIBER = Receipt(outcome=Outcome.NO_SUBSCRIBER, thread_id=ThreadId("thread_123"), link=10)
UNROUTABLE = Receipt(outcome=Outcome.UNROUTABLE, link=9, reason="the run is not in the mapping")


ARRIVED = "thread_123, and the event is reported as sent. The socket of thread_123's owner reads 1 of 1 event."
NOT_ROUTED = "no thread, and the event is reported as unroutable. The socket of thread_123's owner reads 0 of 1 event."


def notified(**chains: tuple[Receipt, int, int]) -> list[HandNotification]:
    """Notify on each chain: as sent and read, except on the named ones."""
    given = {name.replace("_", " "): result for name, result in chains.items()}
    return [
        HandNotification(name, *given.get(name, (UNROUTABLE, 0, 0) if name == "sound" else (SENT, 1, 0)))
        for name in STEP_CHAINS
    ]


def test_step_3_is_stated_in_these_words() -> None:
    finding = notify_claim(notified(as_committed_with_fix_1=(SENT, 0, 2), as_committed=(SENT, 0, 0)))
    assert finding == Finding(
        id="step-3",
        title="Step 3 · notify by hand",
        claim="After Fix 1, the run id run_thread_123_abc resolves to thread_123, and its notification is emitted.",
        reported="step",
        verdict="does not hold",
        audit_right="as worded, but insufficient",
        answer=(
            "As committed with Fix 1, the run id resolves to thread_123, and the event is reported as sent. The"
            " socket of thread_123's owner reads 0 of 1 event."
        ),
        evidence=(
            "The test sends the audit's notification on each of 11 chains, with one open socket of thread_123's"
            " owner and one open socket of another user. On all 11 chains together, the other user's sockets read 2"
            " frames.",
            "Fix 1 does not change the result of step 3, either on the chain as committed or on the chain with only"
            " link 9 broken. Fix 1 changes how run ids are created, but step 3 supplies its own run id.",
            "The sound chain refuses the notification of step 3 by design, because it never derives a thread from a run"
            " id. The receipt of the sound chain states 'unroutable' at link 9.",
        ),
        rule=(
            "The verdict depends on two chains with Fix 1: as committed, and with only link 9 broken. The audit is"
            " right if the event arrives on both chains. The audit's statement is insufficient if, on both chains, the"
            " run id resolves and the event is reported as sent, but on at least one of them, the event does not"
            " arrive."
        ),
        sample=Sample(1, "calls per chain"),
    )


@pytest.mark.parametrize(
    ("chains", "right", "answer", "changed"),
    [
        ({}, "yes", ARRIVED, []),
        ({"as_committed_with_fix_1": (UNROUTABLE, 0, 0)}, "no", NOT_ROUTED, ["as committed"]),
        ({"fix_1": (UNROUTABLE, 0, 0)}, "no", ARRIVED, ["as reported"]),
        ({"fix_1": (NO_SUBSCRIBER, 0, 0)}, "no", ARRIVED, ["as reported"]),
        (
            {"as_reported": (SENT, 0, 0), "as_committed": (UNROUTABLE, 0, 0)},
            "yes",
            ARRIVED,
            ["as reported", "as committed"],
        ),
    ],
)
def test_step_3_is_right_if_the_event_arrives_on_both_chains_with_fix_1(
    chains: dict[str, tuple[Receipt, int, int]], right: str, answer: str, changed: list[str]
) -> None:
    finding = notify_claim(notified(**chains))
    assert (finding.right, finding.verdict) == (right, "holds" if right == "yes" else "does not hold")
    assert finding.answer == f"As committed with Fix 1, the run id resolves to {answer}"
    if changed:
        chains_of_both = "this chain" if len(changed) == 1 else "these chains"
        assert (
            finding.evidence[1]
            == f"Fix 1 changes the result of step 3 on {chains_of_both}: {', '.join(map(repr, changed))}."
        )
    else:
        assert finding.evidence[1].startswith("Fix 1 does not change the result of step 3, either on the chain")


def test_sample_of_step_3_is_that_of_the_chain_with_the_fewest_calls() -> None:
    once = notified()
    assert notify_claim([*once, once[0]]).sample == Sample(1, "calls per chain")


def test_table_of_step_3_states_what_was_reported_and_read() -> None:
    rows = notification_table([HandNotification("a", SENT, 1, 2), HandNotification("b", UNROUTABLE, 0, 0)])
    assert rows.to_dict("records") == [
        {
            "chain": "a",
            "thread found": "thread_123",
            "reported as": "sent",
            "owner reads": "1 of 1",
            "another user reads": 2,
        },
        {
            "chain": "b",
            "thread found": "none",
            "reported as": "unroutable",
            "owner reads": "0 of 1",
            "another user reads": 0,
        },
    ]
