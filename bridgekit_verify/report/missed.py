"""Findings of notebook 11: claims of the audit, apart from the links' statuses, that the measurements contradict."""

from __future__ import annotations

from bridgekit.mapping.service import GRACE_SECONDS
from bridgekit_verify.measure.statistics import Rate, runs_until_collision
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.studies.collisions import CollisionStudy
from bridgekit_verify.studies.leaks import LeakStudy
from bridgekit_verify.studies.lifecycles import LateEvents, LifecycleStudy
from bridgekit_verify.studies.missed import RepairStudy, SharingStudy

__all__ = ["collision_claim", "leak_claim", "lifecycle_claim", "repair_sequence_claim", "sharing_claim", "truth_claim"]

AUDITS_FIXES = ("+ Fix 1", "+ Fix 2", "+ Fix 3")
EMBEDDED_DIGITS = 8
OPAQUE_DIGITS = 12
OTHERS = "at another user's socket"


def repair_sequence_claim(study: RepairStudy) -> Finding:
    """Test the audit's "fix complexity: low, a single line change" on the chain as committed."""
    steps = {measurement.variant.name: measurement for measurement in study.alone}
    before, fixed, top = study.alone[0].verdict, steps[AUDITS_FIXES[-1]].verdict, study.together[-1].verdict
    single = steps[AUDITS_FIXES[0]].verdict
    leaking = [m.variant.name for m in study.together if m.verdict.misrouted]
    return Finding(
        id="missed-ladder",
        title=f"One line, or {len(study.alone) - 1} repairs",
        claim="Fix complexity is low: a single line change, and users receive real-time updates as designed.",
        reported="impact",
        verdict=verdict_of(single.delivered == single.expected),
        answer=f"On the chain as committed Fix 1 alone delivers {single.delivery}, all three fixes together"
        f" {fixed.delivery}. The first event arrives at the rung {study.first_delivery()!r}.",
        evidence=(
            f"After Fix 1, {single.false_success:,} events are called sent that their user never got; before it,"
            f" {before.false_success:,}.",
            f"With several runs at once, events reach other users at: {', '.join(leaking) or 'no rung'}.",
            f"With every repair {top.delivery} arrive, {top.misrouted:,} of them at others, several runs at once.",
        ),
        before=(before.delivered, before.expected),
        after=(fixed.delivered, fixed.expected),
    )


def sharing_claim(study: SharingStudy, ladder: RepairStudy) -> Finding:
    """Test link 5's "properly sets the bridge on agents" with several users at once."""
    shared, fresh = study.misrouted_shared(), study.misrouted_fresh()
    most = study.shared[-1].workload.at_once
    return Finding(
        id="missed-sharing",
        title="Someone else's events",
        claim="The core sets bridge and run id on the agent, so its events belong to its run.",
        reported="working",
        verdict=verdict_of(all(rate.k == 0 for rate in shared)),
        answer=f"With {most} runs at once and one agent for all, {shared[-1]} of what agents say is read by another"
        f" user; with a fresh agent for each run {fresh[-1]}.",
        evidence=(
            "Every measured count is the closed form (c - 1) / c of the events, c runs at once."
            if study.is_closed_form()
            else "The measured counts differ from the closed form (c - 1) / c.",
            f"On the ladder it shows from the rung {_first_leak(ladder)!r}, which still has all three of the audit's"
            " fixes: until something arrives, it is hidden.",
            "The runs overlap from the first word to the last, which is the worst case; less overlap, less of it.",
        ),
    )


def _first_leak(ladder: RepairStudy) -> str:
    return next((m.variant.name for m in ladder.together if m.verdict.misrouted), "none")


def leak_claim(study: LeakStudy) -> Finding:
    """Test whether Fix 1 with Fix 2's parser turns a loss into a leak."""
    leaky, sound = study.confirmed[0].verdict, study.confirmed[1].verdict
    thread, lands = study.shortest
    return Finding(
        id="missed-leaks",
        title="From loss to leak",
        claim="With the thread id inside the run id, the parser finds the event's own thread.",
        reported="fix",
        verdict=verdict_of(leaky.misrouted == 0),
        answer=f"A search shrinks to {thread!r}, whose events land in {lands!r}: over real sockets {leaky.misrouted:,}"
        f" of {leaky.expected:,} events reach the other user; sound, {sound.misrouted:,} of {sound.expected:,}.",
        evidence=tuple(
            f"The same search, {search.round_trip}: {'a pair was found' if search.leak else 'no such pair'} in"
            f" {search.tried:,} tried, and {search.correct} ids led back to their own thread."
            for search in study.searches[1:]
        ),
        before=(leaky.delivered, leaky.expected),
        after=(sound.delivered, sound.expected),
    )


def truth_claim(study: RepairStudy) -> Finding:
    """Compare the logged "emission success" with what the sockets received."""
    false_successes = {m.variant.name: m.verdict.false_success for m in study.together if m.verdict.false_success}
    committed, worst = study.together[0].verdict, max(study.together, key=lambda m: m.verdict.false_success)
    repaired = study.together[-1].verdict
    return Finding(
        id="missed-truth",
        title="True means nothing",
        claim="An event that the bridge reports as sent has reached its user.",
        reported="log",
        verdict=verdict_of(not false_successes),
        answer=f"On the rung {worst.variant.name!r}, {worst.verdict.false_success:,} of {worst.verdict.acknowledged:,}"
        f" answered events are called sent and never reached their user; with every repair {repaired.false_success:,}.",
        evidence=(
            f"Rungs with false successes:"
            f" {', '.join(f'{name} ({count})' for name, count in false_successes.items()) or 'none'}.",
            f"As committed {committed.false_success:,} are, {committed.acknowledged:,} of {_events(study):,} being"
            " answered.",
            "An answer is honest about sockets, not about users: sent to another user's socket is sent, until each run"
            " has an agent of its own.",
        ),
    )


def _events(study: RepairStudy) -> int:
    return len(study.together[0].history.expected)


def lifecycle_claim(study: LifecycleStudy) -> Finding:
    """Test Fix 3, the "robust solution", over the lifetime of a run."""
    rerouted, sound = (row.verdict for row in study.rerouted)
    dict_loses = any(
        rate.k < rate.n for row in study.late if row.variant == study.rerouted[0].variant for rate in _late(row)
    )
    return Finding(
        id="missed-lifecycles",
        title="Fix 3 over the life of a run",
        claim="A dict of runs and threads in one process is the robust solution.",
        reported="fix",
        verdict=verdict_of(rerouted.wrong_user == 0 and not dict_loses),
        answer=f"Registered twice, a run's events move: {rerouted.wrong_user:,} of {rerouted.expected:,} reach another"
        f" user ({sound.wrong_user:,} of {sound.expected:,} in the sound chain, which refuses).",
        evidence=(
            *_late_evidence(study),
            *(
                f"{row.process}, {row.variant}, with {row.address}: {row.arrived.counts} arrive."
                for row in study.by_process
                if row.arrived.k < row.arrived.n
            ),
        ),
        before=(rerouted.delivered, rerouted.expected),
        after=(sound.delivered, sound.expected),
    )


def _late_evidence(study: LifecycleStudy) -> list[str]:
    """Return late deliveries within and after the grace period; their sum would depend on the chosen delays."""
    lines = []
    for row in study.late:
        late = {seconds: rate for seconds, rate in row.by_lateness.items() if seconds >= 0}
        within = _sum([rate for seconds, rate in late.items() if seconds < GRACE_SECONDS])
        after = _sum([rate for seconds, rate in late.items() if seconds >= GRACE_SECONDS])
        lines.append(
            f"Events after the run's end, {row.variant}, with {row.address}: {within.counts} arrive within"
            f" {GRACE_SECONDS:.0f} s, {after.counts} later."
        )
    return lines


def _late(row: LateEvents) -> list[Rate]:
    return [rate for seconds, rate in row.by_lateness.items() if seconds >= 0]


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
    inside = points[(points["from %"] <= points["expected %"]) & (points["expected %"] <= points["to %"])]
    even = runs_until_collision(EMBEDDED_DIGITS)
    return Finding(
        id="missed-collisions",
        title="Eight digits",
        claim="Eight random hexadecimal digits make a run id unique within its thread.",
        reported="fix",
        verdict=verdict_of(not any(rate.k for rate in study.curves[EMBEDDED_DIGITS].values())),
        answer=f"Two runs of one thread share an id with even odds after {even:,} runs; the birthday bound lies in the"
        f" interval of {len(inside)} of {len(points)} measured points.",
        evidence=(
            f"Two runs of one thread that share an id: {thread['delivered']} of {thread['expected']} events arrive, and"
            f" of {thread['frames of two runs']} frames nobody can say whose run they are of.",
            f"For comparison, a collision of the audited 12 digits, forced, since over all threads it takes"
            f" {runs_until_collision(OPAQUE_DIGITS):,} runs: with Fix 3 {users[OTHERS]} of {users['expected']} events"
            " reach another user.",
        ),
    )
