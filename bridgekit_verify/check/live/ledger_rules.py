"""Judges owners, tool calls, ends of runs, and requests to the model, with the ledger as evidence. Pure functions."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from bridgekit_verify.check.client_state import fingerprint, is_json
from bridgekit_verify.check.frames import Message
from bridgekit_verify.check.live.evidence import LedgerFindings, LiveEvidence
from bridgekit_verify.check.live.markers import canaries_in, markers_in
from bridgekit_verify.check.live.model_ledger import CallOutcome, ModelCall, UserPrompt
from bridgekit_verify.check.live.model_scripts import SentCall
from bridgekit_verify.check.live.observed_clients import ObservedClient, raw_text
from bridgekit_verify.check.property_answers import Property, excerpt

__all__ = ["judge_calls", "judge_ends", "judge_owners", "judge_requests"]


# Owners


def judge_owners(evidence: LiveEvidence, findings: LedgerFindings) -> None:
    """Find frames and histories that contain the canary of another user's, thread's or response's run."""
    users, threads = set[str | None](), set[str | None]()
    for client in evidence.clients.values():
        own = [evidence.prompts[each] for each in client.canaries if evidence.is_entitled(client, each)]
        users.update(prompt.user for prompt in own)
        threads.update(prompt.thread for prompt in own)
        if client.thread is None and own:
            findings.unknown(Property.THREAD, f"client {client.id} receives all threads of its user")
        for canary in client.canaries:
            prompt = evidence.prompts.get(canary)
            if prompt is not None and client.id not in prompt.clients:
                _misrouted(findings, client, prompt)
        if client.thread is None:
            _judge_labels(evidence, findings, client)
    _judge_histories(evidence, findings)
    for which, seen, word in ((Property.USER, users, "user"), (Property.THREAD, threads, "thread")):
        if len(seen) > 1:
            findings.holds[which] = f"the frames of {len(seen)} {word}s with a canary reached their {word} only"


def _misrouted(findings: LedgerFindings, client: ObservedClient, prompt: UserPrompt) -> None:
    owner = f"user {prompt.user}, thread {prompt.thread}"
    reader = f"client {client.id} (user {client.user}, thread {client.thread})"
    frames = client.canaries[prompt.canary]
    if client.user != prompt.user:
        message = f"{reader} received frames of {prompt.canary} ({owner})"
        findings.broken(Property.USER, "another user's run", prompt, message, frames)
    elif client.thread is None:
        return  # a socket for all threads of a user may receive frames of earlier sockets again
    elif client.thread != prompt.thread:
        message = f"{reader} received frames of {prompt.canary} ({owner})"
        findings.broken(Property.THREAD, "another thread's run", prompt, message, frames)
    elif any(marker.canary == prompt.canary for marker, _ in client.arrivals):  # snapshots repeat earlier runs
        message = f"{reader} received deltas of {prompt.canary}, which another response of this thread started"
        findings.broken(Property.THREAD, "another response's run", prompt, message, frames)


def _judge_labels(evidence: LiveEvidence, findings: LedgerFindings, client: ObservedClient) -> None:
    """Find frames that name a thread other than their canary's, on a socket for all threads of a user."""
    known = {prompt.thread for prompt in evidence.prompts.values()}
    for thread, frames in client.threads.items():
        for prompt in (evidence.prompts[each] for each in frames if each in evidence.prompts):
            if thread in known and thread != prompt.thread:
                message = f"client {client.id} received frames of {prompt.canary} (thread {prompt.thread}) for {thread}"
                shown = [excerpt(frames[prompt.canary])]
                findings.broken(Property.THREAD, "another thread named", prompt, message, shown)


def _judge_histories(evidence: LiveEvidence, findings: LedgerFindings) -> None:
    for history in evidence.ledger.histories:
        for canary in sorted(canaries_in(history.text)):
            prompt = evidence.prompts.get(canary)
            if prompt is None or (prompt.user, prompt.thread) == (history.user, history.thread):
                continue
            which = Property.USER if prompt.user != history.user else Property.THREAD
            findings.broken(
                which, "another run in the history", prompt,
                f"the history of user {history.user}, thread {history.thread} holds {canary} of user {prompt.user}, "
                f"thread {prompt.thread}",
            )  # fmt: skip


# Tool calls


def judge_calls(evidence: LiveEvidence, findings: LedgerFindings) -> None:
    """Compare the arguments that the model sent with those that clients received or the backend repeated."""
    ids = {call.id for made in evidence.ledger.calls for call in made.calls}
    ids_are_kept = any(not ids.isdisjoint(client.call_kinds) for client in evidence.clients.values())
    counts = Counter[str]()
    lacks_calls = evidence.dialect.describe_lack("call")
    expected = [] if lacks_calls else list(_expected_calls(evidence, ids))
    for client, prompt, call, values, kinds in expected:
        if values or (kinds and evidence.carries_arguments) or evidence.how.get("a"):
            counts["shown"] += 1
            _judge_values(evidence, findings, client, prompt, call, values)
        else:
            counts["hidden"] += 1
        counts["paired" if "tool" in kinds or {"tool_begin", "tool_end"} <= kinds else "unpaired"] += 1
        if not kinds and ids_are_kept:
            message = f"client {client.id} received no frame of {call.id} ({call.name})"
            findings.broken(Property.CALLS, "call not shown", prompt, message)
    _judge_results(evidence, findings, expected)
    repeated = _judge_repeated(evidence, findings)
    if lacks_calls:
        findings.unknown(Property.ARGUMENTS, lacks_calls)
    elif counts["hidden"]:
        reasons = (evidence.dialect.describe_lack("kind", "text|args", "kinds.tool_args|args"),
                   f"the arguments of {counts['hidden']} calls are shown to no client")  # fmt: skip
        findings.unknown(Property.ARGUMENTS, "; ".join(filter(None, reasons)))
    elif counts["shown"]:
        more = f", also where the backend repeats {repeated} to the model" if repeated else ""
        findings.holds[Property.ARGUMENTS] = f"the arguments of {counts['shown']} calls equal what the model sent{more}"
    if counts["paired"] and not counts["unpaired"]:
        findings.holds[Property.CALLS] = f"each of the model's {counts['paired']} calls has a beginning and an end"


def _judge_results(evidence: LiveEvidence, findings: LedgerFindings, expected: Sequence[ExpectedCall]) -> None:
    """Report tool results that the model got and a client did not.

    If no client gets a result, the backend may hide results.
    """
    given = {id_ for made in evidence.ledger.calls for id_ in made.results}
    shown = [each for each in expected if each.kinds and each.call.id in given]
    missing = (
        []
        if evidence.dialect.lacks("kinds.tool_result")
        else [each for each in shown if "tool_result" not in each.kinds]
    )
    for client, prompt, call, *_ in missing if len(missing) < len(shown) else ():
        message = f"client {client.id} received no result of {call.id} ({call.name}), which the model got"
        findings.broken(Property.CALLS, "result not shown", prompt, message)
    if missing and len(missing) == len(shown):
        reason = f"the results of {len(missing)} calls are shown to no client: no frame is a kinds.tool_result"
        findings.unknown(Property.CALLS, reason)


class ExpectedCall(NamedTuple):
    """A call that one client must receive, with the arguments and the kinds of frames that it received."""

    client: ObservedClient
    prompt: UserPrompt
    call: SentCall
    values: list[Any]
    kinds: set[str]


def _expected_calls(evidence: LiveEvidence, ids: Collection[str]) -> Iterator[ExpectedCall]:
    for canary, calls in evidence.main.items():
        prompt = evidence.prompts[canary]
        for name, made in itertools.product(prompt.clients, calls):
            if (canary, name) not in evidence.excuses and made.outcome is CallOutcome.COMPLETE:
                for call in made.calls:
                    client = evidence.clients[name]
                    yield ExpectedCall(client, prompt, call, *_received(client, call, ids))


def _received(client: ObservedClient, call: SentCall, ids: Collection[str]) -> tuple[list[Any], set[str]]:
    """Return the arguments of a call as a client received them, and the kinds of the call's frames.

    A call is recognized by its id. If the backend's ids differ from the model's, a marker identifies the call.
    """
    marker = next(iter(markers_in(call.arguments)), None)
    prefix = "" if marker is None else f"[{marker.canary}.{marker.call}.{marker.channel}."

    def belongs(id_: str | None, text: str) -> bool:
        return id_ == call.id or (bool(prefix) and id_ not in ids and prefix in text)

    found = [(run.id, run.text) for run in client.runs if run.kind == "arguments"]
    found += [(id_, value) for id_, value, _ in client.wholes if id_ is not None]
    own = [(id_, value) for id_, value in found if value and belongs(id_, raw_text(value))]
    kinds = {kind for id_ in {call.id, *(id_ for id_, _ in own if id_)} for kind in client.call_kinds.get(id_, ())}
    return [value for _, value in own], kinds


def _judge_values(
    evidence: LiveEvidence, findings: LedgerFindings, client: ObservedClient, prompt: UserPrompt, call: SentCall,
    values: list[Any],
) -> None:  # fmt: skip
    if not values and not _same("", call.arguments):
        message = f"client {client.id} received no arguments of {call.id} ({call.name})"
        findings.broken(Property.ARGUMENTS, "arguments missing", prompt, message)
    wrong = [value for value in values if not _same(value, call.arguments)]
    if not wrong:
        return
    if client.last_connection and evidence.dialect.lacks("position"):
        findings.unknown(
            Property.ARGUMENTS,
            f"the dialect {evidence.dialect.name} has no position, and the arguments of "
            f"{call.id} may hold copies after a reconnect",
        )
        return
    findings.broken(
        Property.ARGUMENTS, "arguments differ", prompt,
        f"client {client.id} received other arguments of {call.id}: {raw_text(wrong[0])[:80]!r} instead of "
        f"{call.arguments[:80]!r}",
    )  # fmt: skip


def _same(value: Any, arguments: str) -> bool:
    """Return whether two values are the same JSON. A received text that is not JSON equals nothing."""
    return (not isinstance(value, str) or is_json(value)) and fingerprint(value) == fingerprint(arguments)


def _judge_repeated(evidence: LiveEvidence, findings: LedgerFindings) -> int:
    """Compare the arguments in later requests with those that the model sent. Return the number of comparisons.

    For each call, only the first difference is reported.
    """
    sent = {
        call.id: call for made in evidence.ledger.calls for call in made.calls if made.outcome is CallOutcome.COMPLETE
    }
    compared, reported = 0, set[str]()
    for made in evidence.ledger.calls:
        for id_, arguments in made.arguments.items():
            if id_ not in sent:
                continue
            compared += 1
            if not _same(arguments, sent[id_].arguments) and id_ not in reported:
                reported.add(id_)
                findings.broken(
                    Property.ARGUMENTS, "arguments repeated wrongly", evidence.prompts.get(made.canary),
                    f"the backend repeated other arguments of {id_} to the model: {arguments[:80]!r} instead of "
                    f"{sent[id_].arguments[:80]!r}: model to backend",
                )  # fmt: skip
    return compared


# Ends of runs


def judge_ends(evidence: LiveEvidence, findings: LedgerFindings) -> None:
    """Compare the number of end frames with that of runs.

    If runs have no ids, also find pieces after their run's end.
    """
    if "ended" not in evidence.dialect.kinds:
        return
    has_ids = not evidence.dialect.lacks("run")
    total = 0
    for client in evidence.clients.values():
        prompts = [prompt for prompt in evidence.ledger.prompts if client.id in prompt.clients]
        least = sum((prompt.canary, client.id) not in evidence.excuses for prompt in prompts)
        total += least
        ends = [each for each in client.ends if each.index not in evidence.foreign]
        _judge_count(findings, client, prompts, ends, least, exact=not has_ids and not client.last_connection)
        if not has_ids:
            _judge_after_end(evidence, findings, client)
    if total:
        findings.holds[Property.ENDED] = f"each of {total} runs has an end"
        if not has_ids:
            findings.holds[Property.END_LAST] = "no piece of a run follows its end"


def _judge_count(
    findings: LedgerFindings, client: ObservedClient, prompts: Sequence[UserPrompt], ends: Sequence[Message],
    least: int, *, exact: bool,
) -> None:  # fmt: skip
    """Compare the number of a client's end frames with the number of its runs.

    Surplus end frames are a violation only if `exact` is True. A run with an id may have one end frame for each
    response, and a reconnect may repeat an end frame.
    """
    prompt = prompts[-1] if prompts else None
    message = f"client {client.id} received {len(ends)} ends of {len(prompts)} runs"
    if len(ends) < least and client.last_kind == "other":
        findings.unknown(Property.ENDED, f"the last frame of client {client.id} is of a kind that has no name")
    elif len(ends) < least:
        findings.broken(Property.ENDED, "no end", prompt, message)
    elif len(ends) > len(prompts) and exact:
        findings.broken(Property.ENDED, "too many ends", prompt, message, [excerpt(ends[-1])])


def _judge_after_end(evidence: LiveEvidence, findings: LedgerFindings, client: ObservedClient) -> None:
    """Find pieces that follow the end of their run.

    An end frame names no run here, so it ends the only open run. If several runs are open, it ends none of them.
    """
    ends = iter([*client.ends, None])
    end = next(ends)
    open_, ended, first = set[str](), set[str](), set[object]()
    for marker, message in client.arrivals:
        while end is not None and end.place < message.place:
            if len(open_) == 1:
                ended |= open_
                open_ = set()
            end = next(ends)
        if marker.canary in ended and marker not in first and marker.canary in evidence.prompts:
            findings.broken(
                Property.END_LAST, "after the end", evidence.prompts[marker.canary],
                f"client {client.id} received a piece of {marker.canary} after the end of its run", (excerpt(message),),
            )  # fmt: skip
        elif marker.canary not in ended:
            open_.add(marker.canary)
        first.add(marker)


# The model's requests


def judge_requests(evidence: LiveEvidence, findings: LedgerFindings) -> None:
    """Find prompts that the model got too often or never, and model requests that contain another user's text."""
    retried = 0
    for canary, prompt in evidence.prompts.items():
        attempts = evidence.ledger.calls_of(canary)
        retried += sum(each.outcome in (CallOutcome.REFUSED, CallOutcome.ENDED_EARLY) for each in attempts)
        if attempts:
            _judge_attempts(findings, prompt, attempts)
            continue
        keys = ((canary, name) for name in prompt.clients)
        excuse = next((evidence.excuses[key] for key in keys if key in evidence.excuses), None)
        if excuse is not None:
            findings.unknown(Property.MODEL, f"the backend did not call the model for {canary}, and {excuse}")
        else:
            findings.broken(Property.MODEL, "not called", prompt, f"the backend never called the model for {canary}")
    if evidence.prompts:
        more = f"; {retried} attempts failed, as their scenario says, and may be repeated" if retried else ""
        findings.holds[Property.MODEL] = f"the model was asked once for each answer{more}"
    _judge_context(evidence, findings)


def _judge_attempts(findings: LedgerFindings, prompt: UserPrompt, attempts: Sequence[ModelCall]) -> None:
    asked = defaultdict[tuple[int, str], list[str]](list)
    for call in attempts:
        if call.outcome in (CallOutcome.COMPLETE, CallOutcome.CLOSED):
            asked[call.round, call.setting].append(str(call.number))
    for numbers in asked.values():
        if len(numbers) > 1:
            message = f"the backend asked the model {len(numbers)} times for one answer to {prompt.canary}"
            findings.broken(Property.MODEL, "called twice", prompt, f"{message}: calls {', '.join(numbers)}")


def _judge_context(evidence: LiveEvidence, findings: LedgerFindings) -> None:
    requests = [(call.canary, call.held) for call in evidence.ledger.calls]
    requests += [(each.canary or "", each.held) for each in evidence.ledger.neutral]
    for canary, held in requests:
        known = [evidence.prompts[each] for each in held if each in evidence.prompts]
        prompt = evidence.prompts.get(canary) or next(iter(known), None)
        for other in known:
            if prompt is None or other.canary == prompt.canary:
                continue
            if other.user != prompt.user:
                findings.broken(
                    Property.CONTEXT, "another user's text", prompt,
                    f"a request to the model for user {prompt.user}, thread {prompt.thread} contained text of user "
                    f"{other.user}, thread {other.thread} ({other.canary})",
                )  # fmt: skip
            elif other.thread != prompt.thread:
                findings.unknown(
                    Property.CONTEXT,
                    f"a request to the model for thread {prompt.thread} contained text of thread {other.thread} of the "
                    "same user, which may be a memory",
                )
    if len({prompt.user for prompt in evidence.prompts.values()}) > 1 and evidence.ledger.calls:
        findings.holds[Property.CONTEXT] = f"{len(requests)} requests to the model contained text of one user each"
    else:
        findings.unknown(Property.CONTEXT, "the run had only one user")
