"""Findings of notebook 12: the loss that faults cause in each delivery mode, one finding for each section."""

from __future__ import annotations

from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE
from bridgekit_verify.faults.trials.matrix import FaultMatrix
from bridgekit_verify.faults.trials.stall import BRIDGEKIT, StallStudy
from bridgekit_verify.faults.trials.trial import Trial
from bridgekit_verify.faults.trials.windows import WindowStudy
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import Finding

__all__ = ["matrix_claim", "stall_claim", "timeline_claim", "windows_claim"]

OURS = "ours"
"""Value of `Finding.reported` for a claim that is not from the audit."""
OUTSIDE_AT_MOST = 0.25
"""Share of windows that may miss the prediction: it assumes an even pace, which a busy machine only approximates."""
LATE_SHARE = 0.1
"""Neighbours are affected if they read later by at least this share of the stall."""
HELD_UP_SHARE = 0.5
"""A server that delays an emission by more than this share of the stall waits for the stalled socket."""


def matrix_claim(matrix: FaultMatrix) -> Finding:
    """Test that no fault causes silent loss or misrouting in a mode with a log; list the losses without one."""
    unprotected = matrix.of(AT_MOST_ONCE.name)
    lossy = [trial.fault.name for trial in unprotected if trial.verdict.lost_silent]
    signalled = [trial for trial in matrix.guaranteed if trial.verdict.lost_signalled]
    unfinished = [
        f"{trial.fault.name} with {trial.delivery.name}" for trial in matrix.cells.values() if not trial.quiesced
    ]
    before = Rate(sum(t.verdict.delivered for t in unprotected), sum(t.verdict.expected for t in unprotected))
    after = Rate(
        sum(t.verdict.delivered for t in matrix.guaranteed), sum(t.verdict.expected for t in matrix.guaranteed)
    )
    return Finding(
        id="fault-matrix",
        title="Nothing is lost in silence",
        claim=f"Of {len(matrix.faults)} faults of networks, processes and brokers none loses an event in silence, or"
        " brings one to somebody else, where a log is kept and clients resume.",
        reported=OURS,
        verdict=verdict_of(matrix.silent_losses.k == 0 and matrix.misrouted == 0 and not unfinished),
        answer=f"Lost in silence: {matrix.silent_losses}, over {len(matrix.guaranteed)} trials with a log; misrouted:"
        f" {matrix.misrouted:,}. Without one, {len(lossy)} of {len(unprotected)} faults lose events in silence:"
        f" {', '.join(lossy) or 'none'}.",
        evidence=(
            *(
                f"{trial.delivery.name}, {trial.fault.name}: {trial.verdict.lost_signalled:,} of"
                f" {trial.verdict.expected:,} events lost, and every user told which."
                for trial in signalled
            ),
            *(f"Not settled in time: {what}." for what in unfinished),
        ),
        before=(before.k, before.n),
        after=(after.k, after.n),
    )


def timeline_claim(trials: list[Trial]) -> Finding:
    """Test that events emitted during a fault arrive after it."""
    late = [arrival for trial in trials for arrival in trial.first_copies if _within(trial, arrival.emitted_at)]
    longest = max((arrival.read_at - arrival.emitted_at for arrival in late), default=0.0)
    lost = sum(len(trial.lost_moments) for trial in trials)
    return Finding(
        id="fault-timeline",
        title="Late is not lost",
        claim="What agents say during a fault reaches the user when the fault is over.",
        reported=OURS,
        verdict=verdict_of(lost == 0),
        answer=f"Of the events that were said while a fault lasted {len(late):,} arrived, the latest after"
        f" {longest:.2f} s; {lost:,} did not.",
    )


def _within(trial: Trial, moment: float) -> bool:
    return trial.window[0] <= moment <= trial.window[1]


def windows_claim(study: WindowStudy) -> Finding:
    """Test that the measured loss of offline users agrees with the closed form."""
    outside = [w for w in study.windows if not w.lost.interval[0] <= w.predicted <= w.lost.interval[1]]
    silent_losses = sum(w.trial.verdict.lost_silent for w in study.windows if w.trial.delivery.resumes)
    kept = next(w.trial.delivery for w in study.windows if w.trial.delivery.resumes)
    return Finding(
        id="fault-windows",
        title="How long a user may be away",
        claim="At most once, a user who is away for w of T loses w / T; with a log, nothing until it overflows; then"
        " he is told.",
        reported=OURS,
        verdict=verdict_of(len(outside) <= OUTSIDE_AT_MOST * len(study.windows) and silent_losses == 0),
        answer=f"In {len(study.windows) - len(outside)} of {len(study.windows)} windows the predicted loss lies in the"
        f" measured interval; with {kept.keep_events} events kept a thread {silent_losses:,} were lost in silence.",
        evidence=tuple(
            f"{w.trial.delivery.name}, away {w.offline_seconds:.2f} s: {w.predicted:.1%} predicted, {w.lost} lost."
            for w in outside
        ),
    )


def stall_claim(study: StallStudy) -> Finding:
    """Test that a socket that stops reading delays neither the other sockets of its thread nor the agent."""
    ours = study.of(BRIDGEKIT.name)
    others = [stall for stall in study.stalls if stall is not ours]
    stopped = [stall.server.name for stall in others if stall.longest_wait > HELD_UP_SHARE * stall.stalled_seconds]
    late = ours.during[len(ours.during) // 2]
    holds = (
        ours.longest_wait < HELD_UP_SHARE * ours.stalled_seconds
        and late < LATE_SHARE * ours.stalled_seconds
        and len(ours.reads) == ours.events * ours.neighbours
    )
    return Finding(
        id="fault-stall",
        title="One slow reader, and his neighbours",
        claim="A socket that stops reading holds up neither the other sockets of its thread nor the agent.",
        reported=OURS,
        verdict=verdict_of(holds),
        answer=f"While one socket read nothing for {ours.stalled_seconds:.2f} s, its neighbours read"
        f" {len(ours.reads):,} of {ours.events * ours.neighbours:,} events, {1_000 * late:.1f} ms late (median;"
        f" {1_000 * ours.before[len(ours.before) // 2]:.1f} before), and no emission held the agent up longer"
        f" than {1_000 * ours.longest_wait:.1f} ms. Of {len(others)} servers with a loop of sends"
        f" {len(stopped)} stood still.",
        evidence=tuple(
            f"{stall.server.name}: an emission held the agent up for {stall.longest_wait:.2f} s." for stall in others
        ),
    )
