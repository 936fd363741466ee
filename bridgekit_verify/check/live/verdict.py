"""Judges a live run: the model's ledger corrects and completes the answers that follow from the recording."""

from __future__ import annotations

import enum
from collections import Counter
from itertools import islice
from typing import Final

import msgspec

from bridgekit_verify.check.dialect_tables import SAMPLE_MESSAGES, detect
from bridgekit_verify.check.dialects import StreamDialect
from bridgekit_verify.check.frames import Message, ObservedFrame
from bridgekit_verify.check.judge import Judge
from bridgekit_verify.check.live.delivery import ClientTally, judge_delivery
from bridgekit_verify.check.live.evidence import LEDGER, LedgerFindings, LiveEvidence, channel_name
from bridgekit_verify.check.live.ledger_rules import judge_calls, judge_ends, judge_owners, judge_requests
from bridgekit_verify.check.live.model_ledger import CallOutcome
from bridgekit_verify.check.live.observed_clients import observe
from bridgekit_verify.check.live.saved_run import LiveRun, dialect_of, numbered
from bridgekit_verify.check.property_answers import Property, PropertyAnswer, RecordedViolation, State, unknown_answer
from bridgekit_verify.check.verdict import RecordingVerdict, conclude

__all__ = ["LiveVerdict", "Subject", "check_run", "judge_live"]

CONTAINER: Final = "live run"
MAX_VIOLATIONS: Final = 1_000
OF_THE_CUT: Final = frozenset(Property) - {Property.USER, Property.THREAD}
"""Properties that a cut without a resume may break although the backend is sound."""
OF_A_DEAD_MODEL: Final = {Property.LOST, Property.CALLS, Property.ARGUMENTS, Property.TEXT, Property.SNAPSHOT}
OF_AN_EARLY_END: Final = OF_A_DEAD_MODEL | {Property.DUPLICATED, Property.ORDER}
"""Properties that the rules for recordings report as broken if frames of a run follow its end."""
OF_COPIES: Final = OF_AN_EARLY_END | {Property.ENDED, Property.END_LAST}
"""Properties that a replay without positions may break although the backend is sound."""


class Subject(enum.StrEnum):
    """States whether the backend used the model. A backend that did not use the model cannot be judged."""

    JUDGED = "judged"
    NEVER_CALLED = "never called the model"
    RETURNED_NOTHING = "returned nothing of the model's answers"
    ECHOED = "returned the prompt instead of an answer"


class LiveVerdict(RecordingVerdict, frozen=True):
    """The judgement of a live run."""

    subject: Subject = Subject.JUDGED
    """If the subject is not JUDGED, no answer is *holds*."""
    tallies: tuple[ClientTally, ...] = ()
    notes: tuple[str, ...] = ()
    """Facts that are not violations, for example that no client receives the model's thinking."""

    @property
    def remarks(self) -> tuple[str, ...]:
        return (
            *(f"the backend {self.subject}: {ADVICE[each]}" for each in ADVICE if each is self.subject),
            *self.notes,
        )


ADVICE: Final = {
    Subject.NEVER_CALLED: "it must take the model's address from [start] env, and the user's message must be {prompt}",
    Subject.RETURNED_NOTHING: "see what it logged, and whether [listen] states where its frames arrive",
    Subject.ECHOED: "it must ask the model, and send what the model answers",
}
"""The advice for a backend that cannot be judged."""


def check_run(run: LiveRun, *, path: str = "") -> LiveVerdict:
    """Judge a run in memory, as `check_recording` judges the file that `write_run` writes."""
    return judge_live(msgspec.structs.replace(run, messages=numbered(run.messages)), path=path)


def judge_live(run: LiveRun, *, path: str, dialect: StreamDialect | None = None) -> LiveVerdict:
    """Judge a live run. The index of each message must be the number of its line in the file.

    `dialect` replaces the dialect that the run states.
    """
    messages, limit = run.messages, run.limit
    dialect = dialect or dialect_of(run.dialect, path)
    if dialect is None:
        dialect = detect(path, islice(messages, SAMPLE_MESSAGES)) if messages else NO_DIALECT
    evidence, findings = LiveEvidence(run.ledger, observe(messages, dialect), dialect, limit), LedgerFindings()
    judge = Judge(dialect)
    for message in messages:
        if message.index in evidence.foreign:
            _feed_position(judge, evidence, message)
        else:
            judge.feed((message,))
    recorded = conclude(judge, path=path, container=CONTAINER, limit=limit)
    tallies = judge_delivery(evidence, findings)
    judge_owners(evidence, findings)
    judge_calls(evidence, findings)
    judge_ends(evidence, findings)
    judge_requests(evidence, findings)
    subject = _subject(evidence)
    late = next(each.violations for each in recorded.answers if each.property is Property.END_LAST)
    evidence.early_ends = {frame.client for violation in late for frame in violation.frames}
    answers = tuple(_merge(evidence, findings, answer, subject) for answer in recorded.answers)
    fields = {name: getattr(recorded, name) for name in RecordingVerdict.__struct_fields__}
    fields |= {"answers": answers, "messages": len(messages)}
    return LiveVerdict(**fields, subject=subject, tallies=tuple(tallies), notes=tuple(_notes(evidence)))


def _feed_position(judge: Judge, evidence: LiveEvidence, message: Message) -> None:
    """Judge the positions of misrouted frames that adjoin the client's own positions."""
    own = evidence.own_positions[message.client]
    stated = evidence.clients[message.client].positions.get(message.index, [])
    for first, last in stated if judge.dialect.position_per != "run" else []:
        if first not in own and (first - 1 in own or last + 1 in own):
            own.add(last)
            judge.take(ObservedFrame(message, "other", thread=message.thread, position=last, first_position=first))


NO_DIALECT: Final = StreamDialect("unknown", lambda _: (), frozenset(), frozenset())
"""The dialect for a run in which no frame was received."""


def _subject(evidence: LiveEvidence) -> Subject:
    clients = evidence.clients.values()
    if not evidence.prompts or any(client.occurrences for client in clients):
        return Subject.JUDGED
    if any(client.prompts for client in clients):
        return Subject.ECHOED
    if not evidence.ledger.calls:
        return Subject.NEVER_CALLED
    answered = any(call.outcome is CallOutcome.COMPLETE for calls in evidence.main.values() for call in calls)
    return Subject.RETURNED_NOTHING if answered else Subject.JUDGED


# Two sources


def _merge(
    evidence: LiveEvidence, findings: LedgerFindings, recorded: PropertyAnswer, subject: Subject
) -> PropertyAnswer:
    """Return one answer. The ledger takes precedence: a violation that the ledger excuses is removed."""
    which = recorded.property
    excuses = {each: _excuse(evidence, which, each) for each in recorded.violations}
    kept = [each for each, excuse in excuses.items() if excuse is None]
    removed = len(recorded.violations) - len(kept)
    own = findings.violations.get(which, [])
    if which is Property.ENDED and kept:  # The ledger's violations are the same missing ends.
        own = []
    if own or recorded.count > removed:
        shown = (*own, *kept)[:MAX_VIOLATIONS]
        return PropertyAnswer(which, State.BROKEN, count=len(own) + recorded.count - removed, violations=shown)
    reasons = [*findings.reasons.get(which, ()), *dict.fromkeys(each for each in excuses.values() if each)]
    if subject is not Subject.JUDGED:
        return PropertyAnswer(which, State.UNKNOWN, reason=f"the backend {subject}")
    if findings.reasons.get(which):
        return unknown_answer(which, reasons)
    if which in findings.holds:
        return PropertyAnswer(which, State.HOLDS, source=f"{LEDGER}: {findings.holds[which]}")
    return unknown_answer(which, reasons) if removed else recorded


def _excuse(evidence: LiveEvidence, which: Property, violation: RecordedViolation) -> str | None:
    """Return why a cut or the ledger excuses a violation in the recording, or None if the violation counts."""
    for name in dict.fromkeys(frame.client for frame in violation.frames):
        client = evidence.clients[name]
        own = [canary for canary, prompt in evidence.prompts.items() if name in prompt.clients]
        canaries = client.ids.get(violation.subject, set()) & set(own) or set(own)
        if name in evidence.early_ends and which in OF_AN_EARLY_END:
            return f"client {name} received frames of a run after its end"
        reason = next((evidence.excuses[key] for key in ((each, name) for each in sorted(canaries))
                       if key in evidence.excuses), None)  # fmt: skip
        if reason is not None and which in OF_THE_CUT:
            return reason
        if which in OF_A_DEAD_MODEL and any(canary in evidence.dead for canary in canaries):
            return "the model's answer ended early"
        if client.last_connection and which in OF_COPIES:
            if evidence.dialect.lacks("position") and which is not Property.LOST:
                return f"client {name} reconnected, and no position shows what it received again"
            if evidence.dialect.run_is_connection and which in (Property.LOST, Property.ENDED):
                return f"client {name} reconnected, and each connection counts as a run"
    return None


# Remarks


def _notes(evidence: LiveEvidence) -> list[str]:
    ledger = evidence.ledger
    found = [f"a request without a prompt got a neutral answer: {each.excerpt[:120]}" for each in ledger.neutral[:3]]
    if len(ledger.neutral) > 3:
        found.append(f"{len(ledger.neutral) - 3} more requests without a prompt got a neutral answer")
    found += [f"{each.path} got {each.status}: {each.problem}" for each in ledger.rejected[:3]]
    if len(ledger.rejected) > 3:
        found.append(f"{len(ledger.rejected) - 3} more requests were rejected")
    outcomes = Counter(call.outcome for call in ledger.calls)
    found += [
        f"{count} calls of the model: {outcome}"
        for outcome, count in sorted(outcomes.items())
        if outcome is not CallOutcome.COMPLETE
    ]
    channels = {channel[0] for calls in evidence.main.values() for call in calls for channel in call.channels}
    hidden = [channel_name(each).split()[0] if each == "a" else channel_name(each)
              for each in sorted(channels) if not evidence.is_shown(each)]  # fmt: skip
    found += [f"no client is shown the model's {each}" for each in hidden]
    main = {(call.canary, call.number) for calls in evidence.main.values() for call in calls}
    answered = [
        each for each in ledger.calls if each.outcome is not CallOutcome.REFUSED and each.canary in evidence.prompts
    ]
    others = sum((each.canary, each.number) not in main for each in answered)
    if others:
        found.append(f"{others} calls of the model with other instructions were shown to no client, as for a title")
    strangers = sum(each.canary not in evidence.prompts for each in ledger.calls)
    if strangers:
        found.append(f"{strangers} calls of the model hold a prompt that this run did not send")
    return found
