"""Judge link 5: each run must get its own bound agent, one start event first, and one end event last."""

from __future__ import annotations

from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.errors import FrameTooLarge, PayloadError, UnknownAgent
from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.transport.hub import LINK
from bridgekit_verify.probes.judgement import Judgement, ViolationKind, expect_duration, run_label, shown
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.recorded_calls import PARAMETERS, RecordedCall, Recording
from bridgekit_verify.probes.rules_of_links_1_to_4 import is_run, passed_on_once
from bridgekit_verify.probes.scenario_agents import AgentFailed

__all__ = ["judge_core"]

NOTIFIERS = ("notify_agent_started", "notify_agent_completed", "notify_agent_error")


def judge_core(seen: Observation) -> Judgement:
    """Judge link 5: each run must get its own bound agent, one start event first, and one end event last."""
    link, recording = Judgement(5), seen.recording
    runs = [call for call in recording.of("core", "execute_agent") if is_run(call)]
    for call in runs:
        _judge_run(link, seen, call)
    link.tried = len(runs)
    link.summary = f"each of {len(runs)} runs has its own agent, one start event and one end event"
    return link


def _judge_run(link: Judgement, seen: Observation, call: RecordedCall) -> None:
    recording, context = seen.recording, call.given["context"]
    what, bridge = run_label(context.request), call.owner.websocket_bridge
    built = next((each for each in recording.of("core", "__init__", startup=True) if each.owner is call.owner), None)
    if built is not None:
        given = built.given.get("websocket_bridge")
        link.expect(bridge is given, ViolationKind.HANDOVER, "the core does not hold the bridge that it received")
    notified = recording.within(call, "bridge", *NOTIFIERS)
    starts = [each for each in notified if each.name == NOTIFIERS[0]]
    ends = [each for each in notified if each.name != NOTIFIERS[0]]
    _expect_no_other_event(link, recording, call, what)
    if starts and starts[0].raised is not None and any(call.raised is each.raised for each in notified):
        return  # the bridge, and not the core, is at fault
    executed = recording.within(call, "agent", "execute")
    _judge_execution(link, seen, call, executed, what)
    kind = ViolationKind.DUPLICATED if len(starts) > 1 else ViolationKind.LOST
    link.expect(len(starts) == 1, kind, f"{what} has {len(starts)} start events")
    ended = [each for each in ends if _counts(each)]
    asked = recording.within(call, "agent", "end_run")
    link.expect(
        not executed or bool(asked),
        ViolationKind.DUPLICATED,
        f"the agent of {what} can emit an end event after the end event of the core",
    )
    wanted = 0 if any(each.raised is None and not each.result for each in asked) else 1
    link.expect(
        len(ended) == wanted,
        ViolationKind.DUPLICATED if len(ended) > wanted else ViolationKind.LOST,
        f"{what} has {len(ended)} end events"
        if wanted
        else f"{what} has an end event of its agent, and {len(ended)} of the core",
    )
    if executed and starts:
        link.expect(starts[0].entered < executed[0].entered, ViolationKind.REORDERED, f"{what} starts after its agent")
    for end in ended[:1]:
        _judge_end(link, call, executed, end, what)
    for each in notified:
        link.equal(
            (context.run_id, context.agent_name, context.thread_id),
            (each.given.get("run_id"), each.given.get("agent_name"), each.given.get("thread_id")),
            f"run, agent and thread of {each.name} of {what}",
            ViolationKind.MISROUTED,
        )
    if starts:
        link.equal({"request": context.request}, starts[0].given.get("context"), f"the context of {what}")
        link.equal(None, starts[0].given.get("message"), f"the message of the start of {what}")


def _expect_no_other_event(link: Judgement, recording: Recording, call: RecordedCall, what: str) -> None:
    """Check that the core emits only the first and the last event of a run."""
    for each in recording.within(call, "bridge", *PARAMETERS["bridge"]):
        kind = each.event.type if each.has_event else each.name.removeprefix("notify_")
        link.expect(
            each.name in (*NOTIFIERS, "record") or kind == EventType.AGENT_ERROR,
            ViolationKind.DUPLICATED,
            f"the core emits {kind} in {what}, which no agent emitted",
        )


def _counts(end: RecordedCall) -> bool:
    """Return whether the end event counts.

    If the event cannot be encoded or the hub refuses it, the core sends another one.
    """
    if end.raised is not None:
        return isinstance(end.raised, Exception) and not isinstance(end.raised, (PayloadError, FrameTooLarge))
    receipt = end.result
    return not (isinstance(receipt, Receipt) and receipt.outcome is Outcome.REFUSED and receipt.link == LINK)


def _judge_end(link: Judgement, call: RecordedCall, runs: list[RecordedCall], end: RecordedCall, what: str) -> None:
    """Check the end event of a run whose agent was executed in `runs`, or that has no agent."""
    completed = end.name == NOTIFIERS[1]
    if end.raised is not None or not isinstance(end.result, Receipt):
        return  # the bridge, and not the core, is at fault
    if not runs:
        link.expect(not completed, ViolationKind.CHANGED, f"{what} has no agent, but is reported as completed")
        if not completed:
            _judge_error(link, call, call.raised, end, what)
        return
    executed = runs[0]
    if executed.left is None:
        return
    link.expect(end.entered > executed.left, ViolationKind.REORDERED, f"{what} ends before its agent")
    failed = executed.raised is not None or call.raised is not None
    link.expect(completed is not failed, ViolationKind.CHANGED, f"{what} ends with {end.name.removeprefix('notify_')}")
    if completed:
        link.equal(executed.result, end.given.get("result"), f"the result of {what}")
        link.expect(call.result is executed.result, ViolationKind.CHANGED, f"the core returns another result of {what}")
        within = ((executed.ended or 0) - executed.started, end.started - call.started)
        expect_duration(link, end.given.get("execution_time_ms"), within, what)
    else:
        _judge_error(link, call, executed.raised or call.raised, end, what)
    if executed.raised is not None:
        link.expect(
            call.raised is executed.raised, ViolationKind.CHANGED, f"the error of {what} is not raised to the caller"
        )


def _judge_error(
    link: Judgement, call: RecordedCall, error: BaseException | None, end: RecordedCall, what: str
) -> None:
    """Check that the end event has the text of the run's own error, and only the run's own request."""
    text = end.given.get("error_message")
    if isinstance(error, AgentFailed):
        link.equal(f"AgentFailed: {error}", text, f"the error of {what}")
    elif error is not None:
        error = call.raised or error
        if isinstance(error.__cause__, StopIteration):
            error = error.__cause__  # Python replaces a StopIteration that leaves a coroutine
        # The core shortens a text that does not fit into a frame to the name of the error's type.
        texts = (call.owner.websocket_bridge.error_text(error), type(error).__name__)
        link.expect(
            text in texts, ViolationKind.CHANGED, lambda: f"the error of {what} is {shown(text)}, not {shown(texts[0])}"
        )
    context = end.given.get("error_context") or {}
    wanted = {"request": call.given["context"].request} if context else {}
    link.equal(wanted, context, f"the error context of {what}", ViolationKind.MISROUTED)


def _judge_execution(
    link: Judgement, seen: Observation, call: RecordedCall, executed: list[RecordedCall], what: str
) -> None:
    """Check that the run's agent is executed once, or never if the registry has no agent of its name."""
    created = seen.recording.within(call, "registry", "create")
    failed = [each for each in _preparing(seen.recording, call) if each.raised is not None]
    if any(isinstance(each.raised, UnknownAgent) for each in created):
        link.expect(not executed, ViolationKind.MISROUTED, f"another agent executes {what}, whose agent does not exist")
    elif not executed and (failed or any(not isinstance(each.result, BaseAgent) for each in created)):
        return  # the registry or the agent, and not the core, is at fault
    elif passed_on_once(link, call, executed, f"the agent of {what} is executed {len(executed)} times"):
        _judge_agent_of(link, seen, call, executed[0])


def _preparing(recording: Recording, call: RecordedCall) -> list[RecordedCall]:
    """Return the calls with which the core creates and binds the agent of a run."""
    agent = recording.within(call, "agent", "set_websocket_bridge", "begin_run")
    return [*recording.within(call, "registry", "create"), *agent]


def _judge_agent_of(link: Judgement, seen: Observation, call: RecordedCall, executed: RecordedCall) -> None:
    recording, context, agent = seen.recording, call.given["context"], executed.owner
    what = run_label(context.request)
    created = recording.within(call, "registry", "create")
    link.expect(
        [(each.given.get("name"), each.result) for each in created] == [(context.agent_name, agent)],
        ViolationKind.MISROUTED,
        "an agent executes a run that it was not created for",
    )
    link.expect(
        executed.given["context"] == context, ViolationKind.CHANGED, f"the agent of {what} receives another run"
    )
    bound = [
        (each.given.get("bridge"), each.given.get("run_id"), each.given.get("thread_id"))
        for each in recording.of("agent", "set_websocket_bridge")
        if each.owner is agent and each.within is call and each.entered < executed.entered
    ]
    wanted = (call.owner.websocket_bridge, context.run_id, context.thread_id)
    begun = [each for each in recording.within(call, "agent", "begin_run") if each.owner is agent]
    link.expect(len(begun) == 1, ViolationKind.DUPLICATED, f"the agent of {what} can emit two end events")
    link.expect(bool(bound), ViolationKind.LOST, f"the agent of {what} gets no bridge before it begins")
    link.expect(
        not bound or bound == [wanted],
        ViolationKind.MISROUTED,
        f"the agent of {what} is bound to another bridge, run or thread",
    )
