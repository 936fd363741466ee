"""Findings for the effects that the audit promises of its fixes and for its verification steps, each tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bridgekit.chain.link_1_startup import start_application
from bridgekit.events import EventType
from bridgekit.ids import EmbeddedRunIds, RunId, ThreadId
from bridgekit_verify.measure.experiment import Measurement, measure_each
from bridgekit_verify.measure.history import EventKey
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.workload import Workload, seeded, thread_ids
from bridgekit_verify.report.claims import delivered_by, verdict_of
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.studies.study import EXAMPLE, FixStudy
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, FIX_1, Variant

__all__ = ["after_fix_claims", "step_claims"]


async def after_fix_claims(study: FixStudy, *, seed: int) -> list[Finding]:
    """Test the audit's "after fix" list: all events arrive, real-time chat works again, business value is delivered.

    Each claim is tested on the chain as reported (from `study`) and on the chain as committed (measured here, before
    and after Fix 1).
    """
    workload = Workload(threads=thread_ids(EXAMPLE, 4, seed=seed), at_once=2)
    fixed = replace(AS_COMMITTED, name="as committed, fix 1", run_ids=EmbeddedRunIds)
    before, after = await measure_each([AS_COMMITTED, fixed], [workload], seed=seed)
    return [_all_arrive(study, before, after), _real_time(study, before, after), _business_value()]


def _all_arrive(study: FixStudy, before: Measurement, after: Measurement) -> Finding:
    real, as_reported = after.verdict, study.example("fix 1").verdict.delivery
    total = delivered_by(study.over_families("fix 1"))
    return Finding(
        id="claim-after-fix",
        title="After Fix 1 · all agent events reach users correctly",
        claim="Once Fix 1 is in, every agent event reaches its user, and nothing else needs to change.",
        reported="after fix",
        verdict=verdict_of(real.delivered == real.expected and total.k == total.n),
        answer=f"On the chain as the audit tells it, {as_reported.k:,} of {as_reported.n:,} with {EXAMPLE}"
        f" and {total.k:,} of {total.n:,} over all families; on the chain as committed, {real.delivered:,} of"
        f" {real.expected:,}.",
        evidence=tuple(
            f"As committed with Fix 1, {count:,} of {real.expected:,} events still stop at link {attribution.link}:"
            f" {attribution.reason}."
            for attribution, count in real.losses.items()
        ),
        before=(before.verdict.delivered, before.verdict.expected),
        after=(real.delivered, real.expected),
    )


def _real_time(study: FixStudy, before: Measurement, after: Measurement) -> Finding:
    as_reported, families, real = (
        _shown_at_work(cells) for cells in ([study.example("fix 1")], study.over_families("fix 1"), [after])
    )
    unfixed = _shown_at_work([before])
    return Finding(
        id="claim-real-time",
        title="After Fix 1 · real-time chat is restored",
        claim="Users see the agent at work again: what it thinks and which tools it uses, before it is done.",
        reported="after fix",
        verdict=verdict_of(families.k == families.n and real.k == real.n > 0),
        answer=f"Of what an agent says on its way, the user reads {as_reported.k:,} of {as_reported.n:,} events"
        f" before the run's end with {EXAMPLE}, {families.k:,} of {families.n:,} over all families,"
        f" and {real.k:,} of {real.n:,} on the chain as committed.",
        before=(unfixed.k, unfixed.n),
        after=(real.k, real.n),
    )


def _shown_at_work(cells: Sequence[Measurement]) -> Rate:
    """Return the events within a run that their user read before the run's end, by order of arrival and not by time."""
    expected, shown = 0, 0
    for cell in cells:
        owners = {expectation.key: expectation.user_id for expectation in cell.history.expected}
        expected += sum(key.step > 0 for key in owners)
        ended: set[str] = set()
        seen: set[EventKey] = set()
        for arrival in cell.history.arrivals:
            key = arrival.key
            if key is None or owners.get(key) != arrival.socket.user_id:
                continue
            if key.type is EventType.AGENT_COMPLETED:
                ended.add(key.request)
            elif key.step > 0 and key.request not in ended:
                seen.add(key)
        shown += len(seen)
    return Rate(shown, expected)


def _business_value() -> Finding:
    return Finding(
        id="claim-value",
        title="After Fix 1 · 90 % of the chat's business value is delivered",
        claim="The chat is worth 10 % as it stands, and 90 % once Fix 1 is in.",
        reported="after fix",
        verdict="unknown",
        answer="Nothing here measures value, and the audit does not say how it did. What can be counted is above.",
    )


async def step_claims(study: FixStudy, *, seed: int) -> list[Finding]:
    """Run the audit's three verification steps before and after Fix 1."""
    return [_step_1(study), _step_2(), await _step_3(seed)]


def _step_1(study: FixStudy) -> Finding:
    before, after = (study.example(name).verdict.delivery for name in ("as reported", "fix 1"))
    total = delivered_by(study.over_families("fix 1"))
    return Finding(
        id="step-1",
        title="Step 1 · test the event flow",
        claim="The event suite passes once Fix 1 is in.",
        reported="step",
        verdict=verdict_of(before.k == 0 and after.k == after.n),
        answer=f"Over real sockets with {EXAMPLE} the suite sees {before.k:,} of {before.n:,} before and {after.k:,} of"
        f" {after.n:,} after. It passes, for the ids that it is run with.",
        evidence=(
            f"The same suite over {len(study.families)} families of thread ids, after Fix 1: {total}.",
            "To repeat it: python tests/mission_critical/test_websocket_agent_events_suite.py --variant 'fix 1'",
        ),
        before=(before.k, before.n),
        after=(after.k, after.n),
    )


def _step_2() -> Finding:
    written = "run_thread_123_a1b2c3d4"
    made = [variant.run_ids(seeded(0)).new(ThreadId("thread_123")) for variant in (AS_REPORTED, FIX_1)]
    # The step checks a literal text and calls no code, so its result cannot differ before and after the fix. This is
    # the finding itself, and needs no measurement.
    as_written = ["thread_123" in run_id for run_id in (written, written)]
    as_meant = ["thread_123" in run_id for run_id in made]
    return Finding(
        id="step-2",
        title="Step 2 · look at the run id",
        claim="Asserting that a run id contains the thread id tells a chain with Fix 1 from one without.",
        reported="step",
        verdict=verdict_of(as_written[0] != as_written[1]),
        answer=f"The assertion is about a text that it brings along ({written}), so it says the same before the fix"
        " and after it.",
        evidence=(
            f"Asked of the run ids that the code makes, it fails before ({made[0]}) and passes after ({made[1]})."
            if as_meant == [False, True]
            else f"Asked of the run ids that the code makes, it answers {as_meant[0]} before and {as_meant[1]} after.",
        ),
    )


async def _step_3(seed: int) -> Finding:
    answers = [await _notify_by_hand(variant, seed) for variant in (AS_REPORTED, FIX_1)]
    distinguishes = answers[0] != answers[1]
    return Finding(
        id="step-3",
        title="Step 3 · notify by hand",
        claim="Notifying by hand for run_thread_123_abc tells a chain with Fix 1 from one without.",
        reported="step",
        verdict=verdict_of(distinguishes),
        answer=f"It resolves to {answers[1][0]} after Fix 1, and to {answers[0][0]} before: the step cannot tell them"
        " apart, because Fix 1 changes how run ids are made and the step brings its own.",
        evidence=tuple(
            f"{variant.name}: thread {thread}, receipt {outcome}."
            for variant, (thread, outcome) in zip((AS_REPORTED, FIX_1), answers, strict=True)
        ),
    )


async def _notify_by_hand(variant: Variant, seed: int) -> tuple[str, str]:
    config = variant.config({}, hex_source=seeded(seed))
    async with config.stores() as stores:
        application = await start_application(config, stores)
        receipt = await application.bridge.notify_agent_started(RunId("run_thread_123_abc"), "TestAgent")
    return str(receipt.thread_id), str(receipt.outcome)
