"""Judge tool calls, which belong to link 6: each runs its tool once, between the two events that show the call."""

from __future__ import annotations

from collections import Counter

from bridgekit_verify.probes.judgement import Judgement, ViolationKind, expect_duration
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.recorded_calls import RecordedCall
from bridgekit_verify.probes.scenario_agents import BROKEN, FAILING_TOOLS, AgentFailed, ToolRun

__all__ = ["judge_tools"]


def judge_tools(link: Judgement, seen: Observation) -> None:
    """Check that each tool call emits its start and its end, with the parameters and the result of the tool."""
    by_result = {id(run.result): run for run in seen.tools.runs if run.error is None}
    by_error = {id(run.error): run for run in seen.tools.runs if run.error is not None}
    judged = set[int]()
    ids = Counter[tuple[int, object]]()
    for call in seen.recording.of("agent", "use_tool"):
        name = call.given["tool_name"]
        fails = name in FAILING_TOOLS
        if call.left is None or (call.raised is not None and not fails):
            # Another link raised, so that the agent did not get the tool's result.
            judged |= {id(run) for run in seen.tools.runs if run.tool == name and _within(call, run)}
            continue
        run = by_error.get(id(call.raised)) if fails else by_result.get(id(call.result))
        shown = seen.recording.within(call, "agent", "emit_tool_executing", "emit_tool_completed")
        names = [each.name for each in shown]
        if not link.expect(
            names == ["emit_tool_executing", "emit_tool_completed"],
            ViolationKind.LOST,
            f"a call of the tool {name!a} shows {', '.join(names) or 'nothing'}",
        ):
            continue
        _judge_events(link, seen, call, shown[0], shown[1])
        ids[id(call.owner), shown[0].given.get("tool_call_id")] += 1
        if fails:
            link.expect(
                _is_error_of(name, call.raised), ViolationKind.CHANGED, f"the agent gets another result of {name!a}"
            )
        else:
            link.expect(run is not None, ViolationKind.CHANGED, f"the agent gets another result of {name!a}")
        if run is not None:
            _judge_run(link, call, run, shown[0], shown[1])
            link.expect(
                id(run) not in judged, ViolationKind.CHANGED, f"two calls of the tool {name!a} get the same result"
            )
            judged.add(id(run))
    link.expect(
        all(count == 1 for count in ids.values()),
        ViolationKind.CHANGED,
        lambda: f"{max(ids.values())} tool calls of one run have the same tool_call_id",
    )
    alone = [run for run in seen.tools.runs if run.waited_in_vain and _pair_of(run, seen)]
    link.expect(not alone, ViolationKind.REORDERED, "two tools that an agent uses at once run one after the other")
    unseen = [run for run in seen.tools.runs if id(run) not in judged and not run.cancelled]
    if seen.complete:
        link.expect(
            not unseen,
            ViolationKind.DUPLICATED,
            lambda: f"the tool {unseen[0].tool!a} ran, but no call of an agent got its result",
        )


def _pair_of(run: ToolRun, seen: Observation) -> bool:
    """Return whether both tools that an agent used at once were run."""
    request = run.parameters.get("request")
    return (
        len([each for each in seen.tools.runs if (each.tool, each.parameters.get("request")) == (run.tool, request)])
        > 1
    )


def _within(call: RecordedCall, run: ToolRun) -> bool:
    return call.entered < run.first and (call.left is None or run.first < call.left)


def _judge_events(
    link: Judgement, seen: Observation, call: RecordedCall, start: RecordedCall, end: RecordedCall
) -> None:
    name, fails = call.given["tool_name"], call.given["tool_name"] in FAILING_TOOLS
    parameters = {key: each for key, each in call.given.items() if key != "tool_name"}
    link.equal((name, parameters), (start.given.get("tool_name"), start.given.get("parameters")), "tool_executing")
    result, shown = call.result, end.given.get("result")
    if call.raised is not None:
        bound = call.owner.has_websocket_bridge()  # without a bridge, the agent cannot get the application's text
        result = seen.application.bridge.error_text(call.raised) if bound else shown
    link.equal((name, result), (end.given.get("tool_name"), shown), "tool_completed")
    link.expect(
        start.given.get("tool_call_id") == end.given.get("tool_call_id"),
        ViolationKind.CHANGED,
        f"start and end of a call of {name!a} have different ids",
    )
    link.equal("error" if fails else "success", end.given.get("status", "success"), f"the status of {name!a}")


def _judge_run(link: Judgement, call: RecordedCall, run: ToolRun, start: RecordedCall, end: RecordedCall) -> None:
    """Check the tool's execution against the events that show it."""
    name = call.given["tool_name"]
    parameters = {key: each for key, each in call.given.items() if key != "tool_name"}
    link.equal((name, parameters), (run.tool, run.parameters), f"the parameters that the tool {name!a} receives")
    link.expect(
        (start.left or 0) <= run.first and run.last < end.entered,
        ViolationKind.REORDERED,
        f"the tool {name!a} does not run between its events tool_executing and tool_completed",
    )
    expect_duration(
        link, end.given.get("execution_time_ms"), (run.ended - run.started, end.started - call.started), f"{name!a}"
    )


def _is_error_of(tool: str, error: BaseException | None) -> bool:
    """Return whether the error is expected: AgentFailed from the tool "broken", a cancellation from "endless"."""
    return isinstance(error, AgentFailed) if tool == BROKEN else not isinstance(error, Exception | None)
