"""Judge links 6 to 8: agent and adapter must keep the bridge that they receive, and pass on each event."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridgekit.chain.link_7_8_adapter import Emitter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.event_types import END_EVENTS
from bridgekit.events import EventType, Outcome, Receipt
from bridgekit_verify.probes.judgement import (
    Judgement,
    Match,
    ViolationKind,
    canonical,
    error_text,
    expect_time,
    match,
    same_outcome,
)
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.recorded_calls import PARAMETERS, Binding, RecordedCall
from bridgekit_verify.probes.rules_of_tools import judge_tools

__all__ = [
    "EMITTERS",
    "expect_in_order",
    "judge_adapter_binding",
    "judge_agent",
    "judge_emission",
    "payload_of",
    "replaced_by_agent",
]

Given = Mapping[str, Any]
PAYLOADS: Final[Mapping[EventType, Callable[[Given], dict[str, Any]]]] = {
    EventType.AGENT_STARTED: lambda given: {
        "status": "started",
        "context": given.get("context") or {},
        "message": given.get("message"),
    },
    EventType.AGENT_THINKING: lambda given: {
        "reasoning": given["reasoning"],
        "step_number": given.get("step_number"),
        "progress_percentage": given.get("progress_percentage"),
    },
    EventType.TOOL_EXECUTING: lambda given: {
        "tool_call_id": given["tool_call_id"],
        "tool_name": given["tool_name"],
        "parameters": given.get("parameters") or {},
    },
    EventType.TOOL_COMPLETED: lambda given: {
        "tool_call_id": given["tool_call_id"],
        "tool_name": given["tool_name"],
        "result": given.get("result"),
        "execution_time_ms": given.get("execution_time_ms"),
        "status": given.get("status", "success"),
    },
    EventType.AGENT_COMPLETED: lambda given: {
        "status": "completed",
        "result": given.get("result"),
        "execution_time_ms": given.get("execution_time_ms"),
    },
    EventType.AGENT_ERROR: lambda given: {
        "error_message": given["error_message"],
        "error_context": given.get("error_context") or {},
    },
    EventType.PROGRESS_UPDATE: lambda given: dict(given["progress"]),
    EventType.TEXT_DELTA: lambda given: {"message_id": given["message_id"], "delta": given["delta"]},
}
"""For each event type, a function that builds the payload from the arguments of the method that emits the event."""
TYPE_OF_METHOD: Final = {
    "emit_thinking": EventType.AGENT_THINKING,
    "emit_error": EventType.AGENT_ERROR,
    "emit_progress": EventType.PROGRESS_UPDATE,
    "emit_text": EventType.TEXT_DELTA,
} | {f"{verb}_{each}": each for verb in ("emit", "notify") for each in EventType}
EMITTERS: Final = tuple(name for name in PARAMETERS["agent"] if name.startswith("emit_"))


def payload_of(call: RecordedCall) -> tuple[EventType, dict[str, Any]]:
    """Return the type and payload of the event that a call of an `emit_*` or `notify_*` method must produce."""
    kind = TYPE_OF_METHOD[call.name]
    return kind, PAYLOADS[kind](call.given)


def expect_in_order(
    link: Judgement, found: Match, group: Callable[[RecordedCall], Any], what: Callable[[RecordedCall], str]
) -> None:
    """Record a violation for each event that was passed on after a later event of the same group."""
    for late, earlier in found.overtaken(group):
        link.expect(
            _may_wait(late, earlier),
            ViolationKind.REORDERED,
            f"{what(late)} is passed on after {what(earlier)}, which was emitted later",
        )


def _may_wait(late: RecordedCall, earlier: RecordedCall) -> bool:
    """Return whether the event `late` may wait for room, because its caller emitted the other one without awaiting."""
    return late.name == "notify_when_room" and (late.left is None or late.left > earlier.entered)


def judge_agent(seen: Observation) -> Judgement:
    """Judge link 6: the adapter must receive the agent's bindings and events, including the events of tool calls."""
    link, recording = Judgement(6), seen.recording
    bindings = recording.of("agent", "set_websocket_bridge", startup=True)
    for call in bindings:
        given = call.given
        wanted = (given.get("bridge"), given.get("run_id"), call.owner.name, given.get("thread_id"))
        bound = [
            tuple(each.given.get(name) for name in Binding._fields)
            for each in recording.within(call, "adapter", "set_websocket_bridge")
        ]
        if "run_id" not in given:
            continue  # a caller's mistake, which raises TypeError
        evidence = "the agent changes the binding of its adapter" if bound else "the agent does not bind its adapter"
        if call.raised is not None:
            evidence = error_text(call.raised)
        link.expect(bound == [wanted], ViolationKind.LOST, evidence)
    _judge_composition(link, seen, own=True)
    _judge_passed_to_adapter(link, seen)
    calls = recording.of("agent", "emit")
    received = [each for each in recording.of("adapter", "emit") if each.within is not None]
    found = match(calls, received, _content, _content)
    _expect_passed_on(link, found, "the agent", "its adapter")
    for call, made in found.pairs:
        link.equal(_content_of(call), _content_of(made), f"the {_type(call)} that the adapter receives")
        link.expect(
            same_outcome(call, made), ViolationKind.FALSE_RECEIPT, "the agent returns another receipt than its adapter"
        )
    expect_in_order(link, found, lambda call: id(call.owner), _type)
    _judge_unbound(link, seen)
    judge_tools(link, seen)
    link.tried = min(len(calls), len(bindings))
    link.summary = f"the adapter receives each of {len(bindings):,} bindings and {len(calls):,} events unchanged"
    return link


def _judge_unbound(link: Judgement, seen: Observation) -> None:
    """Check that an agent reports, as its adapter does, that it has no bridge."""
    config = seen.config
    for name, kind in config.agents.items():
        adapter = config.adapter()
        agent = kind(name, config.llm_manager, config.tool_dispatcher, adapter)
        link.expect(
            agent.has_websocket_bridge() is adapter.has_websocket_bridge(),
            ViolationKind.HANDOVER,
            "a new agent reports that it has a bridge",
        )


def _judge_passed_to_adapter(link: Judgement, seen: Observation) -> None:
    """Check that the agent passes `begin_run` and `end_run` on to its adapter, and returns the adapter's answer."""
    for call in seen.recording.of("agent", "begin_run", "end_run"):
        made = seen.recording.within(call, "adapter", call.name)
        passed = [(each.given, each.result if call.name == "end_run" else None) for each in made]
        link.expect(
            passed == [(call.given, call.result)],
            ViolationKind.DUPLICATED,
            f"the agent does not pass {call.name} on to its adapter, so a run may have two end events",
        )


def _judge_composition(link: Judgement, seen: Observation, *, own: bool) -> None:
    """Check that each `emit_*` method emits the event that its arguments describe.

    With `own`, check only methods that the agent class replaces. Without `own`, check only the inherited methods.
    """
    for call in seen.recording.of("agent", *EMITTERS):
        if replaced_by_agent(call) is not own:
            continue
        emitted = seen.recording.within(call, "agent", "emit")
        kind, payload = payload_of(call)
        if link.expect(
            len(emitted) == 1,
            ViolationKind.DUPLICATED if emitted else ViolationKind.LOST,
            f"{call.name} emits {len(emitted)} events",
        ):
            link.equal((kind, payload), _content_of(emitted[0]), f"the event of {call.name}")
            link.expect(
                same_outcome(call, emitted[0]), ViolationKind.FALSE_RECEIPT, f"{call.name} returns another receipt"
            )


def replaced_by_agent(call: RecordedCall) -> bool:
    """Return whether the agent class replaces the method, so that the method belongs to link 6 and not to link 8."""
    defined = next(kind for kind in type(call.owner).__mro__[1:] if call.name in vars(kind))
    return defined is not Emitter


def judge_adapter_binding(seen: Observation) -> Judgement:
    """Judge link 7: the adapter must keep the binding that it received last."""
    link = Judgement(7)
    last: dict[int, Binding] = {}
    bindings = 0
    for call in seen.recording.of("adapter", "set_websocket_bridge", "emit", startup=True):
        if call.name == "emit":
            given = last.get(id(call.owner), Binding(None, None, "", None))
            link.expect(
                call.held == given,
                ViolationKind.HANDOVER,
                f"the adapter no longer holds the {_differing(given, call.held)}",
            )
            if call.held_after is not None:
                # if the call itself changed the binding, `judge_emission` judges the change
                last[id(call.owner)] = call.held_after
            continue
        if "run_id" not in call.given:
            continue  # a caller's mistake, which raises TypeError
        bindings += 1
        given = Binding(*(call.given.get(name) for name in Binding._fields))
        last[id(call.owner)] = given
        if call.raised is not None:
            link.expect(False, ViolationKind.LOST, error_text(call.raised))
        else:
            link.expect(
                call.held_after == given,
                ViolationKind.LOST,
                f"the adapter does not store the {_differing(given, call.held_after)}",
            )
            link.expect(
                call.owner.has_websocket_bridge() is (given.bridge is not None and given.run_id is not None),
                ViolationKind.HANDOVER,
                "the adapter reports wrongly whether it has a bridge",
            )
    unbound = seen.application.config.adapter()
    link.expect(
        not unbound.has_websocket_bridge(), ViolationKind.HANDOVER, "a new adapter reports that it has a bridge"
    )
    link.tried = bindings
    link.summary = f"the adapter stores the bridge, run id, agent name and thread id of each of {bindings} bindings"
    return link


def _differing(given: Binding, held: Binding | None) -> str:
    names = ("bridge", "run id", "agent name", "thread")
    pairs = zip(names, given, held or (), strict=False)
    return next((name for name, wanted, found in pairs if wanted != found), "binding")


def judge_emission(seen: Observation) -> Judgement:
    """Judge link 8: each event must reach the bridge once, in order, unchanged and with the adapter's run id."""
    link, recording = Judgement(8), seen.recording
    _judge_composition(link, seen, own=False)
    unbound = seen.unbound
    if isinstance(unbound, Receipt):
        text = f"an event that is emitted without a bridge is reported as {unbound.outcome} at link {unbound.link}"
        link.expect(not unbound and unbound.link == 7, ViolationKind.FALSE_RECEIPT, text)
    refused = _judge_ends(link, seen)
    calls = [call for call in recording.of("adapter", "emit") if _is_bound(call) and id(call) not in refused]
    entered = [
        each
        for each in recording.of("bridge", "notify", "notify_when_room")
        if each.within is not None and each.within.part == "adapter" and each.has_event
    ]
    found = match(calls, entered, _content, lambda call: (call.event.type, canonical(call.event.payload)))
    _expect_passed_on(link, found, "the adapter", "the bridge")
    ids = Counter(made.event.event_id for _, made in found.pairs)
    bound = [binding.entered for binding in recording.of("adapter", "set_websocket_bridge")]
    for call, made in found.pairs:
        _judge_event(link, call, made)
        link.expect(
            same_outcome(call, made), ViolationKind.FALSE_RECEIPT, "the adapter returns another receipt than the bridge"
        )
        link.expect(ids[made.event.event_id] == 1, ViolationKind.DUPLICATED, "two events have the same event_id")
        link.expect(
            not call.changed_payload, ViolationKind.CHANGED, f"emitting {_type(call)} changes the caller's payload"
        )
        # If link 7 is broken, adapters may share what they hold, so the binding of any adapter may change it.
        if bisect(bound, call.entered) == bisect(bound, call.left or call.entered):
            link.expect(call.held == call.held_after, ViolationKind.HANDOVER, "emitting changes what the adapter holds")
    expect_in_order(link, found, lambda call: id(call.owner), _type)
    kinds = {call.given["event_type"] for call in calls}
    link.tried = len(calls)
    link.summary = (
        f"each of {len(calls):,} events of {len(kinds)} types reaches the bridge once, unchanged and in order"
    )
    return link


def _judge_ends(link: Judgement, seen: Observation) -> set[int]:
    """Check that adapters emit at most one end event per run. Return `id()` of each `emit` call to be refused."""
    guarded, ended, refused = dict[int, bool](), dict[int, object](), set[int]()
    for call in seen.recording.of("adapter", "set_websocket_bridge", "begin_run", "end_run", "emit"):
        adapter, run_id = id(call.owner), call.held.run_id if call.held is not None else None
        if call.name == "begin_run":
            guarded[adapter] = True
        elif call.name == "set_websocket_bridge":
            guarded[adapter] = guarded.get(adapter, False) and call.given.get("run_id") == run_id
        elif call.name == "end_run":
            link.expect(
                call.result is (ended.get(adapter) != call.given["run_id"]),
                ViolationKind.DUPLICATED,
                "the adapter answers wrongly whether the run has an end event",
            )
            ended[adapter] = call.given["run_id"]
        elif guarded.get(adapter) and call.given["event_type"] in END_EVENTS and _is_bound(call):
            if ended.get(adapter) == run_id:
                refused.add(id(call))
                _expect_refused(link, seen, call)
            elif call.raised is None and not _is_refused(call):
                ended[adapter] = run_id
    return refused


def _is_bound(call: RecordedCall) -> bool:
    """Return whether the adapter had a bridge and a run id when the call began."""
    held = call.held
    return held is not None and isinstance(held.bridge, AgentWebSocketBridge) and held.run_id is not None


def _expect_refused(link: Judgement, seen: Observation, call: RecordedCall) -> None:
    notified = seen.recording.within(call, "bridge", "notify", "notify_when_room")
    link.expect(not notified, ViolationKind.DUPLICATED, "a run that has ended gets another end event")
    counted = seen.recording.within(call, "bridge", "record")
    if any(each.raised is not None for each in counted):
        return  # the bridge, and not the adapter, is at fault
    link.expect(
        _is_refused(call) and call.result.link == 8 and len(counted) == 1,
        ViolationKind.FALSE_RECEIPT,
        "a second end event is not reported as refused by link 8, or not counted",
    )


def _is_refused(call: RecordedCall) -> bool:
    return isinstance(call.result, Receipt) and call.result.outcome is Outcome.REFUSED


def _judge_event(link: Judgement, call: RecordedCall, made: RecordedCall) -> None:
    event, held = made.event, call.held
    if held is None:
        return
    link.equal(_content_of(call), (event.type, event.payload), f"the {_type(call)} that the bridge receives")
    text = f"the type {event.type!a} is a text, and not an EventType"
    link.expect(type(event.type) is type(call.given["event_type"]), ViolationKind.CHANGED, text)
    found = (made.owner, event.run_id, event.agent_name, event.thread_id)
    link.expect(
        found == tuple(held),
        ViolationKind.MISROUTED,
        lambda: f"the {_differing(held, Binding(*found))} of an event is not the one that its adapter holds",
    )
    expect_time(link, event.timestamp, call, made)


def _expect_passed_on(link: Judgement, found: Match, caller: str, called: str) -> None:
    for call in found.lost:
        refused = call.raised is None and isinstance(call.result, Receipt) and not call.result
        evidence = f"{caller} does not pass {_type(call)} on to {called}"
        if call.raised is not None:
            evidence = error_text(call.raised)
        elif refused and call.result.reason:
            evidence += f": {call.result.reason}"
        link.expect(False, ViolationKind.LOST, evidence)
    for made in found.extra:
        link.expect(False, ViolationKind.DUPLICATED, f"{called} receives {_type(made)} twice")


def _content_of(call: RecordedCall) -> tuple[Any, Any]:
    return call.given.get("event_type"), call.given.get("payload")


def _content(call: RecordedCall) -> tuple[Any, Any]:
    return call.given.get("event_type"), canonical(call.given.get("payload"))


def _type(call: RecordedCall) -> str:
    return str(call.event.type if "event" in call.given else call.given.get("event_type"))
