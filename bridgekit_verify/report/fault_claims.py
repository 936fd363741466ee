"""Findings of notebook 12: the loss that faults cause in each delivery mode, one finding for each section."""

from __future__ import annotations

from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE
from bridgekit_verify.faults.trials.load import EVENTS_A_STEP
from bridgekit_verify.faults.trials.matrix import FaultMatrix
from bridgekit_verify.faults.trials.offline_time import Window, WindowStudy
from bridgekit_verify.faults.trials.stall import BRIDGEKIT, Stall, StallStudy
from bridgekit_verify.faults.trials.trial import Trial
from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import OURS, Finding, Verdict

__all__ = ["matrix_claim", "stall_claim", "timeline_claim", "windows_claim"]

LATE_SHARE = 0.1
"""Sockets count as delayed if their median delay during a stall is at least this share of the stall's duration."""
WAITS_SHARE = 0.5
"""A server counts as waiting for the stalled socket if an emission takes at least this share of the stall."""


def matrix_claim(matrix: FaultMatrix) -> Finding:
    """Test that no fault causes silent loss or misrouting in a mode with a log.

    The answer also names the faults that cause silent loss in the mode without a log.
    """
    guaranteed = matrix.guaranteed
    unprotected = [trial for trial in matrix.of(AT_MOST_ONCE.name) if trial.fault in matrix.injected]
    lossy = [trial.fault.name for trial in unprotected if trial.verdict.lost_silent]
    signalled = [trial for trial in guaranteed if trial.verdict.lost_signalled]
    unfinished = [
        f"{trial.fault.name} with {trial.delivery.name}" for trial in matrix.cells.values() if not trial.quiesced
    ]
    holds = matrix.silent_losses.k == 0 and matrix.misrouted == 0 and not unfinished
    return Finding(
        id="fault-matrix",
        title="With a log, no event is lost silently",
        claim=f"If the server keeps a log and clients resume, none of {len(matrix.injected)} faults of networks,"
        " processes and brokers causes a silent loss or sends an event to another user.",
        reported=OURS,
        verdict=verdict_of(holds) if guaranteed else "unknown",
        answer=f"In {len(guaranteed)} trials with a log, {matrix.silent_losses.counts} events are lost silently, and"
        f" {matrix.misrouted:,} frames are misrouted. Without a log, {len(lossy)} of {len(unprotected)} faults cause"
        f" silent loss: {', '.join(map(repr, lossy)) or 'none'}.",
        evidence=(
            *(
                f"In the mode {trial.delivery.name!r} with the fault {trial.fault.name!r},"
                f" {trial.verdict.lost_signalled:,} of {trial.verdict.expected:,} events are lost, and the clients"
                " receive gaps for the lost events."
                for trial in signalled
            ),
            *(f"The following trial did not finish in time: {what}." for what in unfinished),
        ),
        before=_delivered(unprotected),
        after=_delivered(guaranteed),
        labels=("without a log", "with a log"),
        rule="The claim holds if no trial with a log loses an event silently, no trial misroutes a frame, and"
        " every trial ends in time.",
        sample=_smallest(guaranteed),
    )


def _delivered(trials: list[Trial]) -> tuple[int, int]:
    return sum(trial.verdict.delivered for trial in trials), sum(trial.verdict.expected for trial in trials)


def _smallest(trials: list[Trial]) -> Sample | None:
    return Sample(min(trial.verdict.expected for trial in trials), "events") if trials else None


def timeline_claim(trials: list[Trial]) -> Finding:
    """Test that no event emitted during a fault is lost."""
    arrived = [[arrival for arrival in each.first_copies if _within(each, arrival.emitted_at)] for each in trials]
    lost = [sum(_within(each, moment) for moment in each.lost_moments) for each in trials]
    emitted = [len(late) + missing for late, missing in zip(arrived, lost, strict=True)]
    longest = max((arrival.read_at - arrival.emitted_at for late in arrived for arrival in late), default=0.0)
    known = bool(emitted) and min(emitted) > 0
    return Finding(
        id="fault-timeline",
        title="Events emitted during a fault arrive late, and none is lost",
        claim="Events that are emitted during a fault reach the user when the fault is over.",
        reported=OURS,
        verdict=verdict_of(not any(lost)) if known or any(lost) else "unknown",
        answer=f"Of {sum(emitted):,} events emitted during a fault, {sum(map(len, arrived)):,} arrived and"
        f" {sum(lost):,} were lost. The longest delay from emission to arrival was {longest:.2f} s.",
        rule="The claim holds if every event emitted during a fault arrives. The result is unknown if no event was"
        " emitted during a fault.",
        sample=Sample(min(emitted), "events") if known else None,
    )


def _within(trial: Trial, moment: float) -> bool:
    return trial.window[0] <= moment <= trial.window[1]


def windows_claim(study: WindowStudy) -> Finding:
    """Test that offline users lose as many events as predicted."""
    outside = [window for window in study.windows if not window.agrees]
    resumed = [window for window in study.windows if window.trial.delivery.resumes]
    silent = sum(window.trial.verdict.lost_silent for window in resumed)
    exact = sum(window.lost.k == window.predicted.k for window in study.windows)
    return Finding(
        id="fault-windows",
        title="How long a user may be offline",
        claim="Without a log, an offline user loses every event between the last event that the user read and the"
        " user's next subscription. With a log, an offline user loses no event if the log retains every missed event."
        " If the log does not retain every missed event, all missed events are lost, and the client receives a gap.",
        reported=OURS,
        verdict=_windows_verdict(study, outside, silent),
        answer=f"For {exact} of {len(study.windows)} offline times, the number of lost events equals the prediction."
        f"{_near(len(study.windows) - len(outside) - exact)} {_retained(resumed)},"
        f" {silent:,} events were lost silently.",
        evidence=tuple(
            f"{window.trial.delivery.name}, offline for {window.offline_seconds:.2f} s: {window.predicted.k:,}"
            f" predicted, {window.lost.counts} lost."
            for window in outside
        ),
        rule="The claim holds if, without a log, every count of lost events equals the prediction and, with a log, no"
        " event is lost silently. The server does not confirm where a resumed subscription starts. With a log, the"
        " number of lost events may therefore differ from the prediction by up to"
        f" {EVENTS_A_STEP} events (one step of the agent) for each reconnection.",
        sample=_smallest([window.trial for window in study.windows]),
    )


def _windows_verdict(study: WindowStudy, outside: list[Window], silent: int) -> Verdict:
    return verdict_of(not outside and silent == 0) if study.windows else "unknown"


def _near(count: int) -> str:
    """State for how many offline times the number of lost events differs from the prediction by an allowed amount."""
    if not count:
        return ""
    return (
        f" For {count} more offline {'time' if count == 1 else 'times'}, the number of lost events differs from the"
        " prediction by no more than one step for each reconnection."
    )


def _retained(resumed: list[Window]) -> str:
    if not resumed:
        return "With a log, where nothing was measured"
    return f"With {resumed[0].trial.delivery.keep_events:,} events retained per thread"


def stall_claim(study: StallStudy) -> Finding:
    """Test that a socket that stops reading delays the agent and the other sockets of its thread only briefly."""
    ours = study.of(BRIDGEKIT.name)
    others = [stall for stall in study.stalls if stall is not ours]
    waiting = [stall for stall in others if stall.longest_wait >= WAITS_SHARE * stall.stalled_seconds]
    complete = len(ours.reads) == ours.events * ours.neighbours
    holds = (
        ours.longest_wait < WAITS_SHARE * ours.stalled_seconds
        and ours.median_during < LATE_SHARE * ours.stalled_seconds
        and complete
    )
    return Finding(
        id="fault-stall",
        title="A slow client delays the other sockets only briefly",
        claim="A socket that stops reading delays the agent and the other sockets of its thread only until the server"
        " closes the slow socket.",
        reported=OURS,
        verdict=verdict_of(holds) if ours.during or not complete else "unknown",
        answer=f"In bridgekit, while one socket read nothing for"
        f" {ours.stalled_seconds:.2f} s, the other sockets read"
        f" {len(ours.reads):,} of {ours.events * ours.neighbours:,} events with a median delay of"
        f" {_ms(ours.median_during)}. Before the slow socket stopped reading, the median delay was"
        f" {_ms(ours.median_before)}. In bridgekit, the longest emission took {_ms(ours.longest_wait)}. Of"
        f" {len(others)} servers that send to one socket after another, {len(waiting)} waited for the slow socket.",
        evidence=tuple(_wait_of(stall) for stall in others),
        rule="The claim holds under three conditions. The other sockets read every event. The median delay at the other"
        f" sockets is below {100 * LATE_SHARE:g} % of the time that the slow socket reads nothing. No emission takes"
        f" {100 * WAITS_SHARE:g} % of this time or more.",
        sample=Sample(len(ours.during), "reads") if ours.during else Sample(ours.events, "events"),
        timing="the delay at the other sockets, and the duration of an emission",
    )


def _wait_of(stall: Stall) -> str:
    return f"In the server {stall.server.name!r}, the longest emission took {stall.longest_wait:.2f} s."


def _ms(seconds: float) -> str:
    return f"{1_000 * seconds:.1f} ms"
