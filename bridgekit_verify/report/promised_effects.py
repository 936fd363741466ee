"""Findings about the effects that the audit promises of its fixes, and about its verification steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from bridgekit.events import EventType
from bridgekit.ids import ThreadId
from bridgekit_verify.measure.experiment import Measurement, measure_each
from bridgekit_verify.measure.history import EventKey
from bridgekit_verify.measure.statistics import Rate, Sample
from bridgekit_verify.measure.workload import seeded
from bridgekit_verify.report.claims import smallest_sample_of, verdict_of
from bridgekit_verify.report.findings import AuditAnswer, Finding
from bridgekit_verify.studies.links_and_fixes import FixStudy
from bridgekit_verify.studies.manual_run import HandNotification, notify_by_hand
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, FIXES, SOUND, VARIANTS, Variant

__all__ = [
    "after_fix_claims",
    "all_arrive_claim",
    "event_flow_claim",
    "notification_table",
    "notify_claim",
    "notify_on_each_chain",
    "real_time_claim",
    "run_id_claim",
    "step_claims",
]

COMMITTED_WITH_FIX_1: Final = FIXES["fix 1"].applied_to(AS_COMMITTED)
STEP_CHAINS: Final[Mapping[str, Variant]] = {
    row.name: row
    for row in (AS_COMMITTED, COMMITTED_WITH_FIX_1, AS_REPORTED, *(VARIANTS[name] for name in FIXES), SOUND)
}
"""The chains on which the verification steps are run."""
STEP_2_RUN_ID: Final = "run_thread_123_a1b2c3d4"


async def after_fix_claims(study: FixStudy, *, seed: int) -> list[Finding]:
    """Test the audit's "after fix" list: all events arrive, real-time chat works again, business value is delivered.

    The claim about business value is not tested. The other claims are tested on the chain as reported, with the results
    in `study`, and on the chain as committed, before and after Fix 1.
    """
    before, after = await _as_committed(study, seed)
    return [all_arrive_claim(study, before, after), real_time_claim(study, before, after), _business_value()]


async def _as_committed(study: FixStudy, seed: int) -> list[Measurement]:
    """Measure the chain as committed, before and after Fix 1, with the load of the study's example.

    The load is the same as on the chain as reported, so that the two counts of a finding can be compared.
    """
    return await measure_each([AS_COMMITTED, COMMITTED_WITH_FIX_1], [study.example("fix 1").workload], seed=seed)


def all_arrive_claim(study: FixStudy, before: Measurement, after: Measurement) -> Finding:
    """Test "all agent events reach users correctly" on the chains as reported (`study`) and as committed."""
    real, as_reported = after.verdict, study.example("fix 1").verdict.delivery
    return Finding(
        id="claim-after-fix",
        title="After Fix 1 · all agent events reach users correctly",
        claim="After Fix 1, a change of one line, every agent event reaches its user.",
        reported="after fix",
        verdict=verdict_of(
            real.all_delivered and study.delivering("fix 1") == study.families,
            known=study.known and real.delivery.known,
        ),
        answer=f"As committed with Fix 1, {real.delivery.counts} events arrive. With Fix 1 and only link 9 broken,"
        f" {as_reported.counts} events of threads with ids like {study.example_family} arrive.",
        evidence=(
            f"With Fix 1 and only link 9 broken, {study.summary('fix 1')}",
            *(
                f"As committed with Fix 1, {real.losses[attribution]:,} of {real.expected:,} events are still lost"
                f" at link {attribution.link}: {attribution.reason}."
                for attribution in real.attributions
                if attribution in real.losses
            ),
        ),
        before=(before.verdict.delivered, before.verdict.expected),
        after=(real.delivered, real.expected),
        sample=smallest_sample_of([before, after, *study.over_families("fix 1")]),
    )


def real_time_claim(study: FixStudy, before: Measurement, after: Measurement) -> Finding:
    """Test "real-time chat experience restored" on the chains as reported (`study`) and as committed."""
    unfixed, real, example = (_shown_at_work(cell) for cell in (before, after, study.example("fix 1")))
    by_family = {name: _shown_at_work(study.cells[name, "fix 1"]) for name in study.families}
    shown = [name for name, rate in by_family.items() if rate.k == rate.n]
    return Finding(
        id="claim-real-time",
        title="After Fix 1 · real-time chat is restored",
        claim="Before the run ends, users can once more see what the agent thinks and which tools it uses.",
        reported="after fix",
        verdict=verdict_of(len(shown) == len(study.families) and real.k == real.n, known=study.known and real.known),
        answer=f"As committed with Fix 1, users read {real.counts} agent events before the run ends. With Fix 1 and"
        f" only link 9 broken, users read {example.counts} agent events of threads with ids like {study.example_family}"
        " before the run ends.",
        evidence=(
            f"With Fix 1 and only link 9 broken, users read every agent event before its run ends for {len(shown)} of"
            f" {len(study.families)} kinds of thread id.",
        ),
        before=(unfixed.k, unfixed.n),
        after=(real.k, real.n),
        sample=Sample(min(_shown_at_work(cell).n for cell in (after, *study.over_families("fix 1"))), "events"),
    )


def _shown_at_work(measurement: Measurement) -> Rate:
    """Return the rate of agents' events that their user read before the end event of the run."""
    owners = {expectation.key: expectation.user_id for expectation in measurement.history.expected}
    ended: set[str] = set()
    seen: set[EventKey] = set()
    for arrival in measurement.history.arrivals:
        key = arrival.key
        if key is None or owners.get(key) != arrival.socket.user_id:
            continue
        if key.type is EventType.AGENT_COMPLETED:
            ended.add(key.request)
        elif key.step > 0 and key.request not in ended:
            seen.add(key)
    return Rate(len(seen), sum(key.step > 0 for key in owners))


def _business_value() -> Finding:
    return Finding(
        id="claim-value",
        title="After Fix 1 · 90 % of the chat's business value is delivered",
        claim="The chat delivers 10 % of its business value as committed, and 90 % after Fix 1.",
        reported="after fix",
        verdict="unknown",
        answer="Unknown: no test of this report measures business value, and the audit does not state how it measured"
        " business value.",
    )


async def step_claims(study: FixStudy, notified: Sequence[HandNotification], *, seed: int) -> list[Finding]:
    """Judge the audit's three verification steps, word for word. `notified` is from `notify_on_each_chain`."""
    return [event_flow_claim(study, *await _as_committed(study, seed)), run_id_claim(seed), notify_claim(notified)]


def event_flow_claim(study: FixStudy, before: Measurement, after: Measurement) -> Finding:
    """Judge the audit's step 1, the test suite for WebSocket events, on two chains after Fix 1.

    `before` and `after` are the measurements of AS_COMMITTED.
    """
    unfixed, fixed = study.example("as reported"), study.example("fix 1")
    return Finding(
        id="step-1",
        title="Step 1 · test the event flow",
        claim="After Fix 1, the test suite for WebSocket events passes.",
        reported="step",
        verdict=verdict_of(
            fixed.verdict.all_delivered and after.verdict.all_delivered,
            known=fixed.verdict.delivery.known and after.verdict.delivery.known,
        ),
        answer=f"As committed with Fix 1, {after.verdict.delivery.counts} events arrive. With Fix 1 and only link 9"
        f" broken, {fixed.verdict.delivery.counts} events of threads with ids like {study.example_family} arrive.",
        evidence=(
            f"Before Fix 1, {before.verdict.delivery.counts} events arrive as committed, and"
            f" {unfixed.verdict.delivery.counts} with only link 9 broken.",
            f"With Fix 1 and only link 9 broken, {study.summary('fix 1')}",
            "To repeat step 1, run: python tests/mission_critical/test_websocket_agent_events_suite.py --variant 'fix"
            " 1'",
        ),
        before=(before.verdict.delivered, before.verdict.expected),
        after=(after.verdict.delivered, after.verdict.expected),
        sample=smallest_sample_of([fixed, after]),
    )


def run_id_claim(seed: int) -> Finding:
    """Judge the audit's step 2, the assertion that a literal run id contains thread_123.

    The assertion calls no code of the chain, so its result cannot differ between chains. The evidence also states
    which chains create run ids that contain thread_123.
    """
    made = {name: row.run_ids(seeded(seed)).new(ThreadId("thread_123")) for name, row in STEP_CHAINS.items()}
    containing = [name for name, run_id in made.items() if "thread_123" in run_id]
    without = [name for name in made if name not in containing]
    return Finding(
        id="step-2",
        title="Step 2 · look at the run id",
        claim=f"The run id {STEP_2_RUN_ID} contains thread_123.",
        reported="step",
        verdict=verdict_of("thread_123" in STEP_2_RUN_ID),
        # The assertion also passes without Fix 1.
        audit_right="as worded, but insufficient" if "thread_123" in STEP_2_RUN_ID else "no",
        answer=f"The string {STEP_2_RUN_ID} contains thread_123. The audit's assertion calls no code, so it passes on"
        f" each of {len(made)} chains, before and after Fix 1.",
        evidence=(
            f"Each of {len(made)} chains created one run id for thread_123, and {len(containing)} of these run ids"
            f" contain thread_123. Chains whose run id contains thread_123: {_quoted(containing)}. Chains whose run id"
            f" does not contain thread_123: {_quoted(without)}.",
            f"For example, the chain {AS_REPORTED.name!r} creates the run id {made[AS_REPORTED.name]}, and the chain"
            f" 'fix 1' creates the run id {made['fix 1']}.",
        ),
        sample=Sample(1, "strings"),
    )


def _quoted(chains: Sequence[str]) -> str:
    return ", ".join(f"'{chain}'" for chain in chains) or "none"


async def notify_on_each_chain(*, seed: int) -> list[HandNotification]:
    """Send the notification of the audit's step 3 on each chain of `STEP_CHAINS`."""
    return [await notify_by_hand(row, seed=seed) for row in STEP_CHAINS.values()]


def notification_table(notified: Sequence[HandNotification]) -> pd.DataFrame:
    """Return one row per chain: the thread that the bridge found, the receipt, and what the sockets read."""
    return pd.DataFrame(
        {
            "chain": each.chain,
            "thread found": each.receipt.thread_id or "none",
            "reported as": str(each.receipt.outcome),
            "owner reads": f"{each.read_by_owner} of 1",
            "another user reads": each.read_by_others,
        }
        for each in notified
    )


def notify_claim(notified: Sequence[HandNotification]) -> Finding:
    """Judge the audit's step 3: one notification, sent by hand on each chain.

    The step is right if the event arrives on both chains after Fix 1. The step promises that the run id resolves and
    that the event is emitted. If the event is emitted but does not arrive, the step is right as worded,
    but insufficient.
    """
    by_chain = {each.chain: each for each in notified}
    after = [by_chain[name] for name in ("fix 1", COMMITTED_WITH_FIX_1.name)]
    as_worded = all(each.resolves and each.receipt for each in after)
    arrives = as_worded and all(each.arrives for each in after)
    right: AuditAnswer = "yes" if arrives else "as worded, but insufficient" if as_worded else "no"
    sound = by_chain[SOUND.name].receipt
    return Finding(
        id="step-3",
        title="Step 3 · notify by hand",
        claim="After Fix 1, the run id run_thread_123_abc resolves to thread_123, and its notification is emitted.",
        reported="step",
        verdict=verdict_of(arrives),
        audit_right=right,
        answer=_step_3_answer(by_chain[COMMITTED_WITH_FIX_1.name]),
        evidence=(
            f"The test sends the audit's notification on each of {len(notified)} chains, with one open socket of"
            f" thread_123's owner and one open socket of another user. On all {len(notified)} chains together, the"
            f" other user's sockets read {sum(each.read_by_others for each in notified)} frames.",
            _difference_by_fix_1(by_chain),
            "The sound chain refuses the notification of step 3 by design, because it never derives a thread from a run"
            f" id. The receipt of the sound chain states '{sound.outcome}' at link {sound.link}.",
        ),
        rule="The verdict depends on two chains with Fix 1: as committed, and with only link 9 broken. The audit is"
        " right if the event arrives on both chains. The audit's statement is insufficient if, on both chains, the run"
        " id resolves and the event is reported as sent, but on at least one of them, the event does not arrive.",
        sample=Sample(min(Counter(each.chain for each in notified).values()), "calls per chain"),
    )


def _step_3_answer(committed: HandNotification) -> str:
    found = committed.receipt.thread_id
    routed = f"the run id resolves to {found}" if found else "the run id resolves to no thread"
    return (
        f"As committed with Fix 1, {routed}, and the event is reported as {committed.receipt.outcome}. The socket of"
        f" thread_123's owner reads {committed.read_by_owner} of 1 event."
    )


def _difference_by_fix_1(by_chain: Mapping[str, HandNotification]) -> str:
    pairs = ((AS_REPORTED.name, "fix 1"), (AS_COMMITTED.name, COMMITTED_WITH_FIX_1.name))
    changed = [before for before, after in pairs if by_chain[before].outcome != by_chain[after].outcome]
    if changed:
        return (
            f"Fix 1 changes the result of step 3 on {'this chain' if len(changed) == 1 else 'these chains'}:"
            f" {_quoted(changed)}."
        )
    return (
        "Fix 1 does not change the result of step 3, either on the chain as committed or on the chain with only link 9"
        " broken. Fix 1 changes how run ids are created, but step 3 supplies its own run id."
    )
