"""Findings of notebook 11: defects that the audit missed.

Each finding is a claim that is tested by running the chain.
"""

from __future__ import annotations

from bridgekit.mapping.service import GRACE_SECONDS
from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.statistics import Rate, Sample, runs_until_collision
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.studies.collisions import CollisionStudy
from bridgekit_verify.studies.mapping_lifecycle import LateEvents, LifecycleStudy
from bridgekit_verify.studies.misparsed_thread_ids import LeakStudy
from bridgekit_verify.studies.receipts import ReceiptStudy
from bridgekit_verify.studies.run_ids_across_processes import ProcessDelivery
from bridgekit_verify.studies.shared_agent import SharedAgentStudy

__all__ = [
    "collision_claim",
    "leak_claim",
    "lifecycle_claim",
    "receipt_claim",
    "shared_agent_claim",
]

EMBEDDED_DIGITS = 8
OPAQUE_DIGITS = 12
OTHERS = "at another user's socket"
SEARCHED = {"signed, verified": "signed run ids", "carried": "events that carry their thread"}
"""A phrase for each member of `ROUND_TRIPS` except the first, Fix 1."""


def shared_agent_claim(study: SharedAgentStudy) -> Finding:
    """Test the audit's statement that link 5 "properly sets the bridge on agents", with several users at once."""
    shared, fresh = study.misrouted_shared(), study.misrouted_fresh()
    most = study.shared[-1].workload.at_once
    return Finding(
        id="missed-sharing",
        title="A shared agent sends one user's events to another",
        claim="The core sets the bridge and the run id on the agent, so that the agent's events belong to the"
        " agent's run.",
        reported="working",
        verdict=verdict_of(all(rate.k == 0 for rate in shared)),
        answer=f"With {most} runs at once, another user reads {shared[-1].counts} events if all runs share one agent,"
        f" and {fresh[-1].counts} events if each run has a new agent.",
        evidence=(
            "Each count that was measured with the shared agent equals the prediction. If c of n runs execute at the"
            " same time, the n runs form ⌈n / c⌉ groups. In each group of runs that share an agent, the user of one"
            " run reads the events of all runs of the group."
            if study.is_closed_form()
            else "Some counts that were measured with the shared agent differ from the prediction.",
            "On the chain as committed, no event arrives, so the shared agent leaks no event. If all other defects"
            " are repaired, the shared agent leaks events.",
            "In the test of the shared agent, concurrent runs execute each step at the same time, which is the worst"
            " case. If fewer of these runs execute at the same time, fewer events leak.",
        ),
        rule="The claim holds if no event of the shared agent reaches another user, at any number of concurrent runs.",
        sample=Sample(min(rate.n for rate in shared), "events"),
    )


def leak_claim(study: LeakStudy) -> Finding:
    """Test whether Fix 1 with Fix 2's parser turns a loss into a leak."""
    leaky, sound = study.confirmed[0].verdict, study.confirmed[1].verdict
    thread, lands = study.shortest
    return Finding(
        id="missed-leaks",
        title="Fix 1 can turn a lost event into a leaked one",
        claim="With the thread id inside the run id, the parser finds the event's own thread.",
        reported="fix",
        verdict=verdict_of(leaky.misrouted == 0),
        answer=f"With Fix 1, the events of thread {thread!r} are sent to thread {lands!r}. With Fix 1 over real"
        f" sockets, {leaky.misrouted:,} of {leaky.expected:,} events reach another user. On the sound chain,"
        f" {sound.misrouted:,} of {sound.expected:,} events reach another user.",
        evidence=tuple(
            f"With {SEARCHED.get(search.round_trip, search.round_trip)}, the search for leaks finds"
            f" {'a leak' if search.leak else 'no leak'} among {search.tried:,} pairs of thread ids, and the events of"
            f" {search.correct.counts} threads are sent to their own thread."
            for search in study.searches[1:]
        ),
        before=(leaky.delivered, leaky.expected),
        after=(sound.delivered, sound.expected),
        labels=("with Fix 1", "sound chain"),
        rule="The search for leaks finds the two threads with the shortest leak. The claim holds if no event of these"
        " threads reaches another user over real sockets.",
        sample=Sample(min(leaky.expected, sound.expected), "events"),
    )


def receipt_claim(study: ReceiptStudy) -> Finding:
    """Test whether each event that the bridge reports as sent has reached its user."""
    judged, shared = study.judged, study.of("link 5 broken").verdict
    false = {each.variant.name: each.verdict.false_success for each in judged if each.verdict.false_success}
    worst, sound = max(judged, key=lambda each: each.verdict.false_success), study.of("sound").verdict
    committed = study.of("as committed").verdict
    return Finding(
        id="missed-truth",
        title='"Sent" does not mean delivered',
        claim="An event that the bridge reports as sent has reached its user.",
        reported="log",
        verdict=verdict_of(not false),
        answer=f"On the chain {worst.variant.name!r}, {worst.verdict.false_success:,} of {_events(worst):,}"
        f" events are reported as sent but do not reach their user. On the sound chain, {sound.false_success:,} of"
        f" {_events(study.of('sound')):,} events are reported as sent but do not reach their user.",
        evidence=(
            "Events falsely reported as sent:"
            f" {', '.join(f'{count:,} on the chain {name!r}' for name, count in false.items()) or 'none'}.",
            f"As committed, the bridge returns a receipt for {committed.acknowledged:,} of"
            f" {_events(study.of('as committed')):,} events,"
            f" and {committed.false_success:,} of these receipts falsely state 'sent'."
            " With Fix 1, the receipt of each event that reaches the hub is 'sent', even if no socket is open.",
            "A correct receipt states whether a socket accepted the event, and not which user read it. On a chain"
            f" that is sound except that runs share an agent, {shared.false_success:,} of"
            f" {_events(study.of('link 5 broken')):,} events are reported"
            " as sent, although only another user read them.",
        ),
        rule="The claim holds if, on every chain of the audit, with and without the fixes, the user reads every event"
        " that is reported as sent.",
        sample=Sample(min(map(_events, study.measurements)), "events"),
    )


def _events(measurement: Measurement) -> int:
    """Return the number of expected events, including the events of users without a socket."""
    return len(measurement.history.expected)


def lifecycle_claim(study: LifecycleStudy) -> Finding:
    """Test Fix 3, the "robust solution", over the lifetime of a run."""
    rerouted, sound = (row.verdict for row in study.rerouted)
    fix_3 = study.rerouted[0].variant
    late = [row for row in study.late if row.variant == fix_3]
    elsewhere = [row for row in study.by_process if row.variant == fix_3]
    loses = any(rate.k < rate.n for row in late for rate in _after_the_end(row).values())
    loses_elsewhere = any(row.arrived.k < row.arrived.n for row in elsewhere)
    sizes = [rate.n for row in late for rate in row.by_lateness.values()] + [row.arrived.n for row in elsewhere]
    return Finding(
        id="missed-lifecycles",
        title="Fix 3 can lose or leak events",
        claim="Fix 3, which stores the threads of runs in a dict of one process, is the robust solution.",
        reported="fix",
        verdict=verdict_of(rerouted.wrong_user == 0 and not loses and not loses_elsewhere),
        answer=_lifecycle_answer(rerouted.wrong_user, loses=loses, loses_elsewhere=loses_elsewhere),
        evidence=(
            f"If a run is registered twice, Fix 3 sends {rerouted.wrong_user:,} of {rerouted.expected:,} events of"
            f" this run to another user. bridgekit's mapping service refuses a second registration of a run:"
            f" {sound.wrong_user:,} of {sound.expected:,} events reach another user.",
            *_late_evidence(study),
            *(_process_sentence(row) for row in study.by_process if row.arrived.k < row.arrived.n),
        ),
        before=(rerouted.delivered, rerouted.expected),
        after=(sound.delivered, sound.expected),
        labels=("with Fix 3", "sound chain"),
        rule="The claim holds if Fix 3 sends no event to another user and loses none after a run's end or in another"
        " process.",
        sample=Sample(min([rerouted.expected, sound.expected, *sizes]), "events"),
    )


def _lifecycle_answer(wrong_user: int, *, loses: bool, loses_elsewhere: bool) -> str:
    """Return a sentence that states when Fix 3 leaks or loses events."""
    problems = ["leaks events if a run is registered twice"] if wrong_user else []
    losing = [
        place for place, found in (("after their run ends", loses), ("in another process", loses_elsewhere)) if found
    ]
    if losing:
        problems.append(f"loses events that are emitted {' or '.join(losing)}")
    return f"Fix 3 {', and '.join(problems) or 'leaks and loses no event'}."


def _process_sentence(row: ProcessDelivery) -> str:
    delivered = f"{_subject(row.variant)} delivers {row.arrived.counts} events"
    return f"In {row.process}, {delivered} that carry {_ids(row.address)}."


def _ids(address: str) -> str:
    """Return the ids that an event carries as text: "only their run id", or "their run id and thread"."""
    return f"only their {address}" if address == "run id" else f"their {address}"


def _subject(variant: str) -> str:
    return "the sound chain" if variant == "sound" else variant.capitalize()


def _late_evidence(study: LifecycleStudy) -> list[str]:
    """Return how many late events are delivered within and after the grace period.

    The counts within and after the grace period are not added, because their sum would depend on the chosen delays.
    """
    lines = []
    for row in study.late:
        late = _after_the_end(row)
        within = _sum([rate for seconds, rate in late.items() if seconds < GRACE_SECONDS])
        after = _sum([rate for seconds, rate in late.items() if seconds >= GRACE_SECONDS])
        lines.append(
            f"Of the events that carry {_ids(row.address)}, {_subject(row.variant)} delivers {within.counts} that are"
            f" emitted within {GRACE_SECONDS:.0f} s after the run's end, and {after.counts} that are emitted later."
        )
    return lines


def _after_the_end(row: LateEvents) -> dict[float, Rate]:
    return {seconds: rate for seconds, rate in row.by_lateness.items() if seconds >= 0}


def _sum(rates: list[Rate]) -> Rate:
    return Rate(sum(rate.k for rate in rates), sum(rate.n for rate in rates))


def collision_claim(study: CollisionStudy) -> Finding:
    """Test whether eight hexadecimal digits make run ids unique within a thread."""
    rows = {(row["runs of"], row["chain"]): row for row in study.consequences().to_dict("records")}
    thread = next(
        row for (runs_of, chain), row in rows.items() if runs_of == "one user, one thread" and chain != "sound"
    )
    users = next(row for (runs_of, chain), row in rows.items() if runs_of == "two users" and chain != "sound")
    points = study.rates()
    inside = points[(points["from %"] <= points["predicted %"]) & (points["predicted %"] <= points["to %"])]
    met = study.curves[EMBEDDED_DIGITS]
    at, most = max(met.items(), key=lambda point: point[0])
    return Finding(
        id="missed-collisions",
        title="Eight digits do not make run ids unique",
        claim="Eight random hexadecimal digits make a run id unique within its thread.",
        reported="fix",
        verdict=verdict_of(not any(rate.k for rate in met.values())),
        answer=f"After {at:,} runs of one thread, two runs shared an id in {most.counts} trials. According to the"
        f" birthday bound, the probability of a shared id is one half after {runs_until_collision(EMBEDDED_DIGITS):,}"
        " runs.",
        evidence=(
            f"The birthday bound lies within the 95 % interval of {len(inside)} of {len(points)} measured points.",
            f"If two runs of one thread share an id, {thread['delivered']} of {thread['expected']} events arrive, and"
            f" the run id of {thread['frames of two runs']} frames does not show which run emitted the event.",
            "With run ids of 12 digits, as in the audited code, the probability of a collision is one half after"
            f" {runs_until_collision(OPAQUE_DIGITS):,} runs in all threads together. If the run ids of two users are"
            f" made equal, Fix 3 sends {users[OTHERS]} of {users['expected']} events to another user.",
        ),
        rule="The claim holds if no trial with eight digits has a collision.",
        sample=Sample(min(rate.n for rate in met.values()), "trials"),
    )
