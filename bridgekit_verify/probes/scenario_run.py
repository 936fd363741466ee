"""Start a variant that records every call, run the scenario, and judge each link by its calls."""

from __future__ import annotations

import copy
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import anyio

from bridgekit.chain.error_text import user_error_text
from bridgekit.chain.link_1_startup import create_app
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.errors import unwrap_single_error
from bridgekit.events import Receipt
from bridgekit.serve.in_process import serving
from bridgekit.transport.outbox import OutboxLimits
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from bridgekit_verify.measure.workload import OwnedThread, seeded
from bridgekit_verify.probes.judgement import Judgement, ViolationKind, error_text
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.recorded_calls import RecordedCall, Recording, recorded
from bridgekit_verify.probes.route_lifetimes import judge_lifetimes
from bridgekit_verify.probes.rules_of_link_5 import judge_core
from bridgekit_verify.probes.rules_of_link_9 import judge_routing
from bridgekit_verify.probes.rules_of_link_10 import judge_hub
from bridgekit_verify.probes.rules_of_links_1_to_4 import (
    judge_engine,
    judge_registry,
    judge_startup,
    judge_supervisor,
)
from bridgekit_verify.probes.rules_of_links_6_to_8 import (
    EMITTERS,
    judge_adapter_binding,
    judge_agent,
    judge_emission,
    replaced_by_agent,
)
from bridgekit_verify.probes.scenario import play
from bridgekit_verify.probes.scenario_agents import AGENTS, RunPlan, ToolCalls, scenario_agent
from bridgekit_verify.variants import Variant

__all__ = ["JUDGES", "SCENARIO_TIMEOUT_SECONDS", "judge", "judge_all", "observe", "quiet"]

SCENARIO_TIMEOUT_SECONDS: Final = 20.0
"""Timeout of a scenario. After the timeout, the calls that were recorded before it are judged."""
OUTBOX: Final = OutboxLimits(events=96)
"""A small limit, so that the scenario can fill an outbox."""
LINK_OF_PART: Final = {
    "supervisor": 2, "registry": 3, "engine": 4, "core": 5, "agent": 6, "adapter": 8, "bridge": 9, "mapping": 9,
    "run_ids": 9, "hub": 10,
}  # fmt: skip

JUDGES: Final[Mapping[int, Callable[[Observation], Judgement]]] = {
    1: judge_startup,
    2: judge_supervisor,
    3: judge_registry,
    4: judge_engine,
    5: judge_core,
    6: judge_agent,
    7: judge_adapter_binding,
    8: judge_emission,
    9: judge_routing,
    10: judge_hub,
}

Step = Callable[[Observation], Awaitable[None]]


def text_of_errors(error: BaseException) -> str:
    """Return the usual text of an error. Startup must pass this function on, and not use the default."""
    return user_error_text(error)


async def observe(
    variant: Variant,
    threads: tuple[OwnedThread, ...],
    *,
    seed: int = 0,
    edge: str = "asgi",
    and_then: Step | None = None,
    timeout_seconds: float = SCENARIO_TIMEOUT_SECONDS,
) -> Observation:
    """Serve the variant on 127.0.0.1, run the scenario in these threads, and return the recorded calls and frames.

    `and_then` runs after the scenario, on the same application. Raises DeterministicStartupError if the application
    does not start. Errors of the harness propagate. Errors that a link raises are part of the observation.
    """
    recording, plans = Recording(), dict[str, RunPlan]()
    tools = ToolCalls(plans, recording)
    agents = {name: recording.subclass("agent", scenario_agent(variant.agent, plans)) for name in AGENTS}
    config = recorded(variant, recording).config(agents, hex_source=seeded(seed), tools=tools.dispatcher(), seed=seed)
    config = replace(config, db_session_factory=DeclaredOwners(), outbox=OUTBOX, error_text=text_of_errors)
    app = create_app(config, start=variant.start)
    with quiet(), unwrap_single_error():
        async with serving(app, edge=edge) as url:
            seen = Observation(app, config, url, recording, threads, plans, tools)
            seen.lifetimes = await judge_lifetimes(variant.mapping)
            seen.first_counters = copy.deepcopy(seen.application.counters)
            with anyio.move_on_after(timeout_seconds) as recording.limit:
                await play(seen)
                if and_then is not None:
                    await and_then(seen)
            _close(recording)
            return seen


def _close(recording: Recording) -> None:
    """Move the calls that have not ended from `recording.calls` to `recording.unfinished`."""
    recording.unfinished = [call for call in recording.calls if call.left is None]
    recording.calls = [call for call in recording.calls if call.left is not None]


def judge_all(seen: Observation) -> dict[int, Judgement]:
    """Return the judgement of each link on one observation."""
    return {number: judge(number, seen) for number in JUDGES}


def judge(number: int, seen: Observation) -> Judgement:
    """Return the judgement of one link, including the errors that it raised and the calls that did not return."""
    found = JUDGES[number](seen)
    raised = [error for link, error in seen.errors if _origin(seen, link, error) == number]
    # A link that receives a wrong value may raise, so that only the link that passed the value on is at fault.
    if raised and not found.violations and not any(JUDGES[n](seen).violations for n in JUDGES if n != number):
        found.expect(False, ViolationKind.LOST, error_text(raised[0]))
    inner = {id(call.within) for call in seen.recording.unfinished}
    for call in seen.recording.unfinished:
        caller = _abandoned_by(call)
        if caller is not None:
            text = f"{caller.name} returned, but its call of {call.name} never did"
            found.expect(id(call) in inner or _link_of(caller) != number, ViolationKind.LOST, text)
        elif id(call) not in inner and _link_of(call) == number:
            found.expect(False, ViolationKind.LOST, f"{call.name} did not return within {SCENARIO_TIMEOUT_SECONDS:g} s")
    return found


def _origin(seen: Observation, link: int, error: Exception) -> int | None:
    """Return the link of the last recorded call that raised the error, or `link` if there is no such call.

    Return None if the suite's own agent raised the error.
    """
    calls = [call for call in seen.recording.calls if call.raised is error]
    if not calls:
        return link
    # A link that returns no receipt, or no agent, makes its caller raise.
    wrong = [call for call in seen.recording.calls if call.within is calls[-1] and not _returned_its_kind(call)]
    return _link_of(wrong[-1] if wrong else calls[-1])


def _returned_its_kind(call: RecordedCall) -> bool:
    """Return whether the call returned an agent or a receipt, if its method must return one."""
    if call.name == "create":
        return isinstance(call.result, BaseAgent)
    return not call.name.startswith(("emit", "notify")) or isinstance(call.result, Receipt)


def _abandoned_by(call: RecordedCall) -> RecordedCall | None:
    """Return the innermost caller that returned without awaiting the unfinished call, or None."""
    caller = call.within
    while caller is not None and caller.left is None:
        caller = caller.within
    return caller


def _link_of(call: RecordedCall) -> int | None:
    if call.part == "agent" and call.name == "execute":
        return None  # the suite's own agent
    if call.part == "adapter" and call.name == "set_websocket_bridge":
        return 7
    if call.name in EMITTERS and not replaced_by_agent(call):
        return 8
    return LINK_OF_PART[call.part]


@contextmanager
def quiet() -> Iterator[None]:
    """Disable logging while the block runs, because the block provokes errors on purpose."""
    loggers = [logging.getLogger(name) for name in ("bridgekit", "bridgekit_verify", "uvicorn", "websockets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
