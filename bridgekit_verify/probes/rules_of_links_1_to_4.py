"""Judge links 1 to 4: each link must pass on the bridge and the runs that it receives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit_verify.probes.judgement import (
    Judgement,
    ViolationKind,
    error_text,
    is_within,
    run_label,
    same_outcome,
    shown,
)
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.recorded_calls import RecordedCall, Recording

__all__ = ["is_run", "judge_engine", "judge_registry", "judge_startup", "judge_supervisor", "passed_on_once"]


COLLABORATORS: Final = ("db_session_factory", "llm_manager", "tool_dispatcher", "run_ids")
"""The parts that startup passes from the configuration to the supervisor."""


def judge_startup(seen: Observation) -> Judgement:
    """Judge link 1: all parts must share one bridge of the configured class, and its counters must begin at zero."""
    link, application = Judgement(1), seen.application
    bridge, supervisor, config = application.bridge, application.supervisor, seen.config
    link.expect(
        seen.app.state.agent_websocket_bridge is bridge,
        ViolationKind.HANDOVER,
        "app.state holds a bridge that is not the application's",
    )
    link.expect(isinstance(bridge, config.bridge), ViolationKind.HANDOVER, "the bridge is not of the configured class")
    link.expect(bridge.counters is application.counters, ViolationKind.HANDOVER, "the application has other counters")
    for call in seen.recording.of("supervisor", "__init__", startup=True):
        if call.owner is supervisor:
            _expect_parts(link, "startup gives the supervisor", call.given, {"websocket_bridge": bridge})
            _expect_parts(
                link, "startup gives the supervisor", call.given, {n: getattr(config, n) for n in COLLABORATORS}
            )
            link.equal(config.agents, call.given.get("agents"), "the agents of the supervisor", ViolationKind.HANDOVER)
    _expect_parts(link, "startup gives the bridge", vars(bridge), {"choose_error_text": config.error_text})
    held = {"hub": bridge.hub, "counters": application.counters}
    _expect_parts(link, "startup gives the sockets", vars(seen.edge), held)
    link.equal(
        config.outbox.within(bridge.hub.retention), seen.edge.scheduler.limits, "the limits of the sockets' outboxes"
    )
    given = [call.given.get("bridge") for call in seen.recording.of("registry", "set_websocket_bridge", startup=True)]
    link.expect(bool(given), ViolationKind.HANDOVER, "startup gives the registry no bridge")
    link.expect(
        not given or given[-1] is bridge,
        ViolationKind.HANDOVER,
        "startup gives the registry a bridge that is not the application's",
    )
    left_over = Counter[str]()
    if (first := seen.first_counters) is not None:
        left_over = Counter({"sent": first.sent.total(), "kept": first.kept.total(), "lost": first.lost.total()})
    link.expect(
        not left_over.total(), ViolationKind.MISCOUNTED, f"before the first run, the counters are {dict(left_over)}"
    )
    link.tried = 1
    link.summary = "app.state holds the bridge, and the supervisor and the registry receive it"
    return link


def _expect_parts(link: Judgement, who: str, given: Mapping[str, Any], parts: Mapping[str, object]) -> None:
    for name, part in parts.items():
        link.expect(given.get(name) is part, ViolationKind.HANDOVER, f"{who} another `{name}` than it received")


def judge_supervisor(seen: Observation) -> Judgement:
    """Judge link 2: each request must become one run of its own thread, user and agent, with a registered route."""
    link, recording = Judgement(2), seen.recording
    _expect_constructor(link, seen, "supervisor", "engine")
    _judge_registry_of(link, seen)
    for opened in recording.of("supervisor", "open_run"):
        _judge_opened(link, seen, opened)
    for run in recording.of("supervisor", "run"):
        what = run_label(run.given["request"])
        contexts = [call.result for call in recording.within(run, "supervisor", "open_run") if call.raised is None]
        executed = recording.within(run, "engine", "execute")
        if _is_error_of_link_9(recording, run):
            continue
        if not passed_on_once(link, run, executed, f"the engine receives {what} {len(executed)} times"):
            continue
        if not link.expect(is_run(executed[0]), ViolationKind.CHANGED, f"the engine receives no run context of {what}"):
            continue
        if contexts:
            link.expect(
                executed[0].given["context"] == contexts[0],
                ViolationKind.CHANGED,
                f"the engine receives a different context of {what}",
            )
        _expect_run(link, run.given, executed[0].given["context"])
        link.expect(
            executed[0].run is executed[0].given["context"] and run.run_after is run.run,
            ViolationKind.CHANGED,
            f"during or after {what}, `current_run` returns another run",
        )
        result = run.raised is executed[0].raised and (
            run.raised is not None or getattr(run.result, "result", None) is executed[0].result
        )
        link.expect(
            result, ViolationKind.CHANGED, f"the caller of {what} gets another result or error than the engine's"
        )
    _judge_closing(link, seen)
    for user in seen.accepted_users:
        link.expect(False, ViolationKind.MISROUTED, f"a run of {shown(user)} in a thread of another user is accepted")
    link.tried = len(recording.of("supervisor", "run", "open_run"))
    runs = len(recording.of("engine", "execute"))
    link.summary = f"each of {runs} runs reaches the engine once, with its own thread, user, agent and request"
    return link


def _judge_registry_of(link: Judgement, seen: Observation) -> None:
    """Check that the supervisor gives the registry the model, the tools and the agents that it received."""
    for call in seen.recording.of("supervisor", "__init__", startup=True):
        for built in seen.recording.within(call, "registry", "__init__"):
            given = {name: call.given.get(name) for name in ("llm_manager", "tool_dispatcher")}
            _expect_parts(link, "the supervisor gives the registry", built.given, given)
            agents = call.given.get("agents"), built.given.get("agents")
            link.equal(*agents, "the agents of the registry", ViolationKind.HANDOVER)


def _is_error_of_link_9(recording: Recording, run: RecordedCall) -> bool:
    """Return whether the run ended with an error of the mapping or of the scheme of run ids."""
    opened = recording.within(run, "supervisor", "open_run", "close_run")
    return run.raised is not None and any(
        each.raised is run.raised
        for call in opened
        for each in (
            *recording.within(call, "mapping", "register_mapping", "cleanup_mapping"),
            *recording.within(call, "run_ids", "new"),
        )
    )


def _judge_opened(link: Judgement, seen: Observation, opened: RecordedCall) -> None:
    if opened.raised is not None:
        return
    if not link.expect(
        isinstance(opened.result, RunContext), ViolationKind.CHANGED, "a request is opened without a context"
    ):
        return
    context, recording = opened.result, seen.recording
    _expect_run(link, opened.given, context)
    made = [call.result for call in recording.within(opened, "run_ids", "new")]
    link.expect(
        made == [context.run_id],
        ViolationKind.CHANGED,
        f"{run_label(context.request)} has another run id than the scheme made",
    )
    registered = [
        (call.given["run_id"], call.given["thread_id"])
        for call in recording.within(opened, "mapping", "register_mapping")
    ]
    link.expect(
        registered == [(context.run_id, opened.given["thread_id"])],
        ViolationKind.LOST,
        f"the route of {run_label(context.request)} is not registered before the run begins",
    )


def _judge_closing(link: Judgement, seen: Observation) -> None:
    """Check that each route is closed exactly once, after its own run has ended."""
    recording = seen.recording
    left = recording.of("mapping", "cleanup_mapping")
    # A run may contain runs of sub-agents. The inner runs began later, and are judged first.
    for call in reversed(recording.of("supervisor", "run", "close_run")):
        if call.name == "close_run" and call.within is not None:
            continue
        made = [each for each in left if is_within(each, call)]
        left = [each for each in left if each not in made]
        executed = recording.within(call, "engine", "execute")
        given = executed[0] if executed else call
        if not is_run(given):
            continue
        run = given.given["context"]
        closed = [each.given["run_id"] for each in made]
        link.expect(closed == [run.run_id], ViolationKind.LOST, f"{run_label(run.request)} closes {len(closed)} routes")
        link.expect(
            not executed or all(each.entered > (executed[0].left or 0) for each in made),
            ViolationKind.LOST,
            "a route is closed although its run is in progress",
        )
    link.expect(not left, ViolationKind.LOST, "a route is closed although no run has ended")


def _expect_run(link: Judgement, request: dict[str, Any], context: Any) -> None:
    for name in ("thread_id", "user_id", "agent_name", "request"):
        kind = ViolationKind.MISROUTED if name in ("thread_id", "user_id") else ViolationKind.CHANGED
        link.equal(request[name], getattr(context, name), f"{name} of {run_label(request['request'])}", kind)


def judge_registry(seen: Observation) -> Judgement:
    """Judge link 3: each request must get a new agent with its own adapter. `create_bound` must also bind the agent."""
    link, recording = Judgement(3), seen.recording
    set_calls = recording.of("registry", "set_websocket_bridge", startup=True)
    if set_calls:
        held = seen.application.supervisor.registry.websocket_bridge
        link.expect(
            held is set_calls[-1].given.get("bridge"), ViolationKind.HANDOVER, "the registry holds another bridge"
        )
    agents: dict[int, str] = {}
    adapters: dict[int, str] = {}
    created = recording.of("registry", "create", startup=True)
    for call in created:
        if call.raised is None and link.expect(
            isinstance(call.result, BaseAgent), ViolationKind.CHANGED, "the registry returns no agent"
        ):
            _judge_created(link, seen, call, agents, adapters)
    bound = recording.of("registry", "create_bound")
    given_out: set[int] = set()
    for call in bound:
        context, agent = call.given["context"], call.result
        bindings = recording.within(call, "agent", "set_websocket_bridge")
        if call.raised is not None:
            blamed = set_calls and not any(each.raised is call.raised for each in bindings)
            link.expect(not blamed, ViolationKind.LOST, error_text(call.raised))
            continue
        if not link.expect(isinstance(agent, BaseAgent), ViolationKind.CHANGED, "the registry returns no agent"):
            continue
        link.expect(
            id(agent) not in given_out, ViolationKind.MISROUTED, "two runs receive the same agent from the registry"
        )
        given_out.add(id(agent))
        link.expect(
            agent.name == context.agent_name, ViolationKind.CHANGED, f"an agent has the wrong name {agent.name!r}"
        )
        if not link.expect(bool(bindings), ViolationKind.LOST, "the registry does not bind an agent"):
            continue
        given = [(each.given.get("run_id"), each.given.get("thread_id")) for each in bindings if each.owner is agent]
        link.expect(
            given == [(context.run_id, context.thread_id)],
            ViolationKind.MISROUTED,
            f"the agent of {run_label(context.request)} is bound to another run or thread",
        )
    link.tried = min(len(created), len(bound))
    link.summary = (
        f"each of {len(created)} agents is new and has its own adapter; {len(bound)} agents are bound to their run"
    )
    return link


def _judge_created(
    link: Judgement, seen: Observation, call: RecordedCall, agents: dict[int, str], adapters: dict[int, str]
) -> None:
    name, agent = call.given["name"], call.result
    config = seen.config
    adapter = agent._websocket_adapter
    link.expect(
        id(agent) not in agents,
        ViolationKind.MISROUTED,
        f"two requests for an agent receive the same object ({name!a})",
    )
    link.expect(
        id(adapter) not in adapters or id(agent) in agents,
        ViolationKind.MISROUTED,
        f"two agents share an adapter ({name!a})",
    )
    agents[id(agent)] = adapters[id(adapter)] = name
    wanted = config.agents.get(name)
    link.expect(type(agent) is wanted, ViolationKind.CHANGED, f"{name!a} is an agent of another class")
    link.expect(agent.name == name, ViolationKind.CHANGED, f"the agent {name!a} is called {agent.name!a}")
    held = {"llm_manager": agent.llm_manager, "tool_dispatcher": agent.tool_dispatcher}
    for built in seen.recording.of("registry", "__init__", startup=True):
        if built.owner is call.owner:
            _expect_parts(link, f"the registry gives the agent {name!a}", built.given, held)
    link.expect(
        isinstance(adapter, config.adapter), ViolationKind.HANDOVER, f"the adapter of {name!a} is of another class"
    )


def judge_engine(seen: Observation) -> Judgement:
    """Judge link 4: the core must receive each run once, as the engine received it."""
    link, recording = Judgement(4), seen.recording
    _expect_constructor(link, seen, "engine", "core")
    executed = [call for call in recording.of("engine", "execute") if is_run(call)]
    for call in executed:
        what = run_label(call.given["context"].request)
        passed_on = recording.within(call, "core", "execute_agent")
        if not passed_on_once(link, call, passed_on, f"the core receives {what} {len(passed_on)} times"):
            continue
        link.expect(
            passed_on[0].given.get("context") == call.given["context"],
            ViolationKind.CHANGED,
            f"the core and the engine receive different contexts of {what}",
        )
        link.expect(same_outcome(call, passed_on[0]), ViolationKind.CHANGED, f"the engine changes the result of {what}")
        for built in recording.of("core", "__init__", startup=True):
            if built.owner is passed_on[0].owner:
                held = {"websocket_bridge": call.owner.websocket_bridge}
                _expect_parts(link, f"the engine gives the core of {what}", built.given, held)
    link.tried = len(executed)
    link.summary = f"the core receives the engine's bridge, and receives each of {len(executed)} runs once"
    return link


def _expect_constructor(link: Judgement, seen: Observation, part: str, next_part: str) -> None:
    """Check that a link holds the bridge that it was given, and gives the same bridge to the next link."""
    supervisor = seen.application.supervisor
    owner: Any = supervisor if part == "supervisor" else supervisor.engine
    built = [call for call in seen.recording.of(part, "__init__", startup=True) if call.owner is owner]
    if not built:
        return
    given = built[-1].given.get("websocket_bridge")
    link.expect(
        owner.websocket_bridge is given, ViolationKind.HANDOVER, f"the {part} does not hold the bridge that it received"
    )
    for call in seen.recording.within(built[-1], next_part, "__init__"):
        link.expect(
            call.given.get("websocket_bridge") is given,
            ViolationKind.HANDOVER,
            f"the {next_part} and the {part} receive different bridges",
        )


def is_run(call: RecordedCall) -> bool:
    return isinstance(call.given.get("context"), RunContext)


def passed_on_once(link: Judgement, call: RecordedCall, made: list[RecordedCall], evidence: str) -> bool:
    if not made and call.raised is not None:
        evidence = error_text(call.raised)
    return link.expect(len(made) == 1, ViolationKind.DUPLICATED if made else ViolationKind.LOST, evidence)
