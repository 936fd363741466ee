"""Concludes one answer for each property.

The answer is *holds* only if there is no violation and no reason for *unknown*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bridgekit_verify.check.client_state import ClientState, RunState, StreamState
from bridgekit_verify.check.judge import Judge
from bridgekit_verify.check.property_answers import Evidence, Property, PropertyAnswer, State
from bridgekit_verify.check.rules import CONTRADICTION, NO_END, Rules

__all__ = ["RecordingVerdict", "conclude"]

RUNS: Final = ("kind", "run", "kinds.started", "kinds.ended")
TEXTS: Final = ("kind", "message", "text", "whole", "kinds.text", "kinds.text_end")
CALLS: Final = ("kind", "call", "kinds.tool_begin|kinds.tool", "kinds.tool_end|kinds.tool")
ARGUMENTS: Final = (*CALLS, "text", "args", "kinds.tool_args|kinds.tool")
NEEDS: Final = {
    Property.LOST: ("position", *RUNS),
    Property.DUPLICATED: ("position",),
    Property.ORDER: ("position",),
    Property.USER: ("kind",),
    Property.THREAD: ("kind",),
    Property.TEXT: ("kind", "kinds.text", "text", "message"),
    Property.ARGUMENTS: ("kind", "call"),
    Property.CALLS: (*CALLS, "run", "kinds.ended"),
    Property.ENDED: RUNS,
    Property.END_LAST: ("kind", "run", "kinds.ended"),
    Property.RESUME: ("position", "run", "kinds.ended"),
    Property.SNAPSHOT: ("kind",),
}
"""For each property, the fields and kinds of frames that a dialect needs for the answer *holds*. `|` separates
alternatives."""
HELPS: Final = {
    Property.LOST: ("kinds.error",),
    Property.ENDED: ("kinds.error",),
    Property.END_LAST: ("kinds.error",),
    Property.RESUME: ("kinds.error",),
    Property.DUPLICATED: ("kind", "run", "thread"),
    Property.ORDER: ("kind", "run", "thread"),
    Property.USER: ("kind", "run", "thread|user", "kinds.started"),
    Property.THREAD: ("kind", "run", "thread", "kinds.started"),
    Property.TEXT: TEXTS,
    Property.ARGUMENTS: ARGUMENTS,
    Property.SNAPSHOT: (*TEXTS, *ARGUMENTS),
}
"""Further fields and kinds that an *unknown* answer names if the dialect lacks them."""
OF_TEXTS: Final = (Property.TEXT, Property.SNAPSHOT)
OF_CALLS: Final = (Property.ARGUMENTS, Property.CALLS, Property.SNAPSHOT)
OF_STREAMS: Final = (Property.TEXT, Property.ARGUMENTS, Property.CALLS, Property.SNAPSHOT)
ANY_KINDS: Final = ("kinds.snapshot", "kinds.event", "kinds.started", "kinds.ended")
TEXT_KINDS: Final = ("kinds.text_begin", "kinds.text", "kinds.text_end", "kinds.thinking", *ANY_KINDS)
CALL_KINDS: Final = ("kinds.tool_begin", "kinds.tool_args", "kinds.tool_end", "kinds.tool", "kinds.tool_result",
                     *ANY_KINDS)  # fmt: skip
FORGOTTEN: Final = "messages and calls had no complete value, or no result, while they were remembered"
SOURCES: Final = {
    Property.LOST: "positions have no gap, and every run ended",
    Property.DUPLICATED: "every position occurs once",
    Property.ORDER: "positions increase",
    Property.USER: "every frame names a run, thread, message or call of its own user",
    Property.THREAD: "every frame names its client's thread",
    Property.TEXT: "the deltas of every message equal its complete value",
    Property.ARGUMENTS: "the deltas of every call equal its complete value",
    Property.CALLS: "every call has a beginning and an end, and a result if the dialect has results",
    Property.ENDED: "every run has one start and one end",
    Property.END_LAST: "no frame of a run follows its end",
    Property.RESUME: "positions have no gap across reconnects",
    Property.SNAPSHOT: "complete values equal the deltas",
}


class RecordingVerdict(msgspec.Struct, frozen=True):
    """The judgement of one recording."""

    path: str
    container: str
    dialect: str
    dialect_source: str
    messages: int
    frames: int
    clients: int
    runs: int
    complete: bool
    """False if a limit ended the reading of the recording."""
    answers: tuple[PropertyAnswer, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines that the text output shows above the answers."""
        return ()

    @property
    def broken(self) -> bool:
        return any(answer.state is State.BROKEN for answer in self.answers)


def conclude(judge: Judge, *, path: str = "", container: str = "", limit: str | None = None) -> RecordingVerdict:
    """Return the answers for the frames that were judged. `limit` names the limit that ended the reading early."""
    clients = list(judge.clients.values())
    runs = [run for client in clients for run in client.runs.values()]
    streams = [stream for client in clients for stream in client.streams.values()]
    for client in clients:
        for run in client.open_runs.values():
            judge.rules.settle(run, None)
    for stream in streams:
        judge.rules.conclude(stream)
    judge.owners.conclude(judge.findings, judge.clients)
    _judge_runs(judge, runs, limit)
    _judge_numberings(judge, clients)
    for which, reason in _reasons(judge, clients, runs, streams, limit):
        judge.findings.unknown(which, reason)
    return RecordingVerdict(
        path=path,
        container=container,
        dialect=judge.dialect.name,
        dialect_source=judge.dialect.source,
        messages=judge.messages,
        frames=judge.frames,
        clients=len(clients),
        runs=len(runs),
        complete=limit is None,
        answers=tuple(_answer(judge, each) for each in Property),
    )


def _answer(judge: Judge, which: Property) -> PropertyAnswer:
    """Return the answer for one property.

    The reason of an *unknown* answer begins with the fields and kinds that the dialect lacks, if any.
    """
    dialect, needed = judge.dialect, NEEDS.get(which, ())
    answer = judge.findings.answer(which, SOURCES.get(which, ""), lacking=any(map(dialect.lacks, needed)))
    if answer.state is not State.UNKNOWN:
        return answer
    rules, early = judge.rules, judge.rules.unnamed_early and which is Property.ORDER
    texts = TEXT_KINDS if early or (rules.unnamed_texts and which in OF_TEXTS) else ()
    calls = CALL_KINDS if early or (rules.unnamed_calls and which in OF_CALLS) else ()
    reasons = (dialect.describe_lack(*needed, *HELPS.get(which, ()), *texts, *calls), answer.reason)
    return msgspec.structs.replace(answer, reason="; ".join(filter(None, reasons)))


def _judge_runs(judge: Judge, runs: list[RunState], limit: str | None) -> None:
    dialect, findings = judge.dialect, judge.findings
    if dialect.lacks("kinds.ended") or not judge.rules.knows_runs:
        return
    readers = {run: (run.id, judge.clients[run.client].user, judge.clients[run.client].thread) for run in runs}
    together: dict[object, list[RunState]] = {}
    for run, reader in readers.items():
        together.setdefault(reader, []).append(run)
    for run in runs:
        others = [each for each in together[readers[run]] if each is not run]
        if run.ended:
            _judge_start(judge, run, others)
            continue
        if reason := _excuse(judge, run, others, limit):
            findings.unknown(Property.ENDED, reason)
        else:
            findings.broken(
                Property.ENDED, "no end", f"run {run.id}", f"run {run.id} has no end", CONTRADICTION,
                Evidence(run.first, run.client),
            )  # fmt: skip
        for which in (Property.LOST, Property.RESUME):
            findings.unknown(which, f"run {run.id} has no end, so its last frames may be missing")


def _judge_start(judge: Judge, run: RunState, others: Sequence[RunState]) -> None:
    """Report a run that ends without a start, unless it may have started before the recording or at another client."""
    client = judge.clients[run.client]
    began_elsewhere = any(other.started and other.first < run.first for other in others)
    continues = client.starts_inside or (judge.dialect.run_is_connection and client.reconnected_at)
    if run.started or not judge.rules.pairs_runs or began_elsewhere or continues or client.unattributed_starts:
        return
    judge.findings.broken(
        Property.ENDED if run.begins_with_end else Property.LOST, "no start", f"run {run.id}",
        f"run {run.id} ends, but it did not start here", CONTRADICTION, Evidence(run.ended_at, run.client),
    )  # fmt: skip


def _excuse(judge: Judge, run: RunState, others: Sequence[RunState], limit: str | None) -> str | None:
    """Return the reason why a run without an end may still have ended, or None."""
    client = judge.clients[run.client]
    if limit is not None:
        return f"{limit} stopped the reading before the end of run {run.id}"
    if run.failed:
        return f"run {run.id} received an error, which may have ended it"
    if judge.dialect.run_is_connection and run.first < client.reconnected_at:
        return f"a reconnect of client {client.id} may have cut run {run.id}"
    if run.ended_at and client.may_repeat(run.ended_at):
        return f"a reconnect of client {client.id} may have repeated a part of run {run.id}"
    if run.last_kind == "other":
        return f"the last frame of run {run.id} is of a kind that the dialect does not name"
    if client.unattributed_ends:
        return f"{client.unattributed_ends} ends at client {client.id} do not name their run"
    if any(other.ended and other.ended_at > client.last for other in others):
        return f"client {client.id} received nothing after run {run.id} ended at another client"
    return None


def _judge_numberings(judge: Judge, clients: list[ClientState]) -> None:
    findings = judge.findings
    for client in clients:
        for key, numbering in client.numberings.items():
            name = f"client {client.id}" + (f", {judge.dialect.position_per} {key}" if key else "")
            if not numbering.first_is_known:
                reason = f"the positions of {name} begin at {numbering.first}: earlier frames may be missing"
                findings.unknown(Property.LOST, reason)
            for low, high, index, cut in numbering.missing if not client.unplaced else []:
                positions = f"position {low}" if low == high else f"positions {low} to {high}"
                for which in (Property.LOST, Property.RESUME) if cut else (Property.LOST,):
                    findings.broken(
                        which, "missing", f"{positions} of {name}", f"{positions} of {name} did not arrive",
                        "positions", Evidence(index, client.id),
                    )  # fmt: skip


def _reasons(
    judge: Judge, clients: list[ClientState], runs: list[RunState], streams: list[StreamState], limit: str | None
) -> Iterator[tuple[Property, str]]:
    """Yield each property whose answer cannot be *holds*, with the reason."""
    if not judge.frames:
        yield from ((which, "the recording has no frame") for which in Property)
    if not judge.dialect.lacks("position"):
        reasons = [f"some frames of client {each.id} have no position" for each in clients if not each.is_numbered]
        for which in (Property.LOST, Property.DUPLICATED, Property.ORDER, Property.RESUME):
            yield from ((which, reason) for reason in reasons)
    if limit is not None:
        yield Property.LOST, f"{limit} stopped the reading"
    yield from _reasons_of_runs(judge, clients, runs)
    yield from _reasons_of_streams(judge, streams)
    yield from _reasons_of_clients(judge, clients)
    yield Property.CONTEXT, "a recording does not show the model's requests: check the backend with the scripted model"
    yield Property.MODEL, "a recording does not show model calls: check the backend with the scripted model"


def _reasons_of_runs(judge: Judge, clients: list[ClientState], runs: list[RunState]) -> Iterator[tuple[Property, str]]:
    if not runs:
        yield from (
            (which, "the recording names no run") for which in (Property.ENDED, Property.END_LAST, Property.LOST)
        )
    for run in runs:
        if not run.started and not judge.dialect.lacks("kinds.started"):
            yield Property.ENDED, f"run {run.id} may have started before the recording"
        if not run.ended:
            yield Property.END_LAST, f"run {run.id} has no end"
    for client in clients:
        if client.unmapped_after_end is not None:
            reason = f"message {client.unmapped_after_end} follows an end, and the dialect does not name its kind"
            yield Property.END_LAST, reason
    if not any(client.reconnected_at for client in clients):
        yield Property.RESUME, "the recording has no reconnect"


def _reasons_of_streams(judge: Judge, streams: list[StreamState]) -> Iterator[tuple[Property, str]]:
    rules = judge.rules
    for count, problem, which in (
        (rules.unnamed_texts, "frames are of a type that the dialect does not name", OF_TEXTS),
        (rules.unnamed_calls, "frames are of a type that the dialect does not name", OF_CALLS),
        (rules.unnamed_early, "frames of a type that the dialect does not name precede a start", (Property.ORDER,)),
        (rules.unattributed_texts, "frames of messages name none", OF_TEXTS),
        (rules.unattributed_calls, "frames of calls name none", OF_CALLS),
        (rules.forgotten, FORGOTTEN, OF_STREAMS),
    ):
        yield from ((each, f"{count} {problem}") for each in which if count)
    for property_, word in ((Property.TEXT, "message"), (Property.ARGUMENTS, "call")):
        if all(each.content is not property_ for each in streams):
            yield property_, f"the recording has no {word} with an id"
    for each in streams:
        if each.status is None:
            reason = f"{each}: {each.uncertain or 'no complete value repeats its deltas'}"
            yield from ((one, reason) for one in (each.content, Property.SNAPSHOT))
    if not streams:
        yield Property.SNAPSHOT, "the recording has no message and no call with an id"
    yield from _reasons_of_calls(rules, [each for each in streams if each.is_call])


def _reasons_of_calls(rules: Rules, calls: list[StreamState]) -> Iterator[tuple[Property, str]]:
    if not calls:
        yield Property.CALLS, "the recording has no call"
    for each in calls:
        if not (each.begun and (each.ended or each.implicit)) or each.uncertain == NO_END:
            yield Property.CALLS, f"{each} has no beginning or no end in the recording"
        elif rules.expects_result(each):
            yield Property.CALLS, f"{each} has no kinds.tool_result in the recording: it is lost, or the client runs it"


def _reasons_of_clients(judge: Judge, clients: list[ClientState]) -> Iterator[tuple[Property, str]]:
    users = {client.user for client in clients}
    if None in users:
        yield Property.USER, "the recording does not state the user of each client"
    elif len(users) == 1 and judge.dialect.lacks("user"):
        yield Property.USER, "the recording has only one user, and frames name none"
    for client in clients:
        if client.thread is None:
            yield Property.THREAD, f"the thread of client {client.id} is not stated"
        if client.unidentified:
            reason = f"{client.unidentified} frames of client {client.id} name no run, thread, user, message or call"
            yield Property.USER, reason
            yield Property.THREAD, reason
    yield from _shared_threads(clients)


def _shared_threads(clients: list[ClientState]) -> Iterator[tuple[Property, str]]:
    users: dict[str, set[str | None]] = {}
    for client in clients:
        if client.thread is not None:
            users.setdefault(client.thread, set()).add(client.user)
    for thread, those in users.items():
        if len(those) > 1:
            yield Property.USER, f"clients of several users read thread {thread}"
