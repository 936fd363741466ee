"""The agents, tools and threads of the scenario."""

from __future__ import annotations

import copy
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.errors import FrameTooLarge, PayloadError, unwrap_single_error
from bridgekit.events import FRAME_BYTES
from bridgekit.ids import ThreadId, UserId
from bridgekit_verify.measure.workload import AGENT, OwnedThread, RunBarrier, thread_ids
from bridgekit_verify.probes.judgement import label
from bridgekit_verify.probes.recorded_calls import Recording
from bridgekit_verify.probes.scenario_values import NESTED, TEXT

__all__ = [
    "AGENTS",
    "BROKEN",
    "CONFUSABLE",
    "FAILING_TOOLS",
    "OTHER_USERS",
    "UNKNOWN_AGENT",
    "AgentFailed",
    "RunPlan",
    "ToolCalls",
    "ToolRun",
    "audited_threads",
    "family_threads",
    "scenario_agent",
    "thinking",
]

AGENTS: Final = (AGENT, " writer e\u0301 \U0001f58b\ufe0f ", "Researcher")
"""Names of agents. The first and the last name differ only in case. The second changes if it is trimmed or composed."""
UNKNOWN_AGENT: Final = "writer"
"""The name of no agent."""
LOOK_UP, SEARCH, DELEGATE, MEET, BROKEN, ENDLESS = TOOLS = (
    "look_up", "search.web \U0001f52d", "delegate", "meet", "broken", "endless",
)  # fmt: skip
"""Names of tools. The tool "delegate" calls "search.web". Of two calls of "meet" at once, the first ends first."""
FAILING_TOOLS: Final = (BROKEN, ENDLESS)
"""Tools that never return a result: the first raises an error, the second runs until it is cancelled."""
MEETING_SECONDS: Final = 2.0
"""How long a call of "meet" waits for the other call."""
SIZES: Final = (3_000, 20_000, 70_000, 200_000, 900_000)
"""Sizes of large payloads in bytes. The largest payload just fits into a frame."""
USERS: Final = (UserId("alice e\u0301 \U0001f6f0\ufe0f "), UserId("Alice e\u0301 \U0001f6f0\ufe0f "))
"""The owners of the threads. They differ only in case."""
OTHER_USERS: Final = (
    USERS[1],
    *map(UserId, ("alice e\u0301 \U0001f6f0\ufe0f", "alice \u00e9 \U0001f6f0\ufe0f ", "alice")),
)
"""Users whose ids are easily confused with that of the first user, because they differ in case, in spaces, in the form
of a character or in their length."""
CONFUSABLE: Final = "confusable"
"""The family name for which `family_threads` returns `audited_threads`."""
_LONG: Final = f"thread_{'x' * 300}"


class AgentFailed(Exception):
    """Raised by an agent of the scenario on purpose."""

    for_users = True


@dataclass
class RunPlan:
    """What the agent of one run does in addition to the usual events."""

    barrier: RunBarrier | None = None
    """A barrier of two steps. Between the steps, all runs of the group are in progress."""
    size: int = 0
    """Payload size in bytes of a large event. The run's tool call and result have this size as well."""
    burst: int = 0
    """How many events the agent emits in a row."""
    ending: str = "returns"
    """How the agent ends: "returns", "fails", "hangs" (until it is cancelled), "unencodable" (returns a value that JSON
    cannot represent), "refused" (emits two events that are refused) or "ends itself" (emits an end event twice). A run
    that no agent executes is "unknown"."""
    sub_agent: Callable[[], Awaitable[None]] | None = None
    """Executes another run while this one is in progress."""
    tools_at_once: bool = False
    """Whether the agent uses two tools at once."""
    met: tuple[anyio.Event, anyio.Event] = field(default_factory=lambda: (anyio.Event(), anyio.Event()))
    """Set when the second call of "meet" has begun, and when the first call has ended."""
    results: tuple[Any, ...] = ()
    """The first item is the agent's result. If the tuple is empty, the agent returns its usual result."""
    started: anyio.Event = field(default_factory=anyio.Event)
    """Set when the agent has emitted its events, or the run has ended."""
    agent: Any = None
    """The agent that executed the run."""


@dataclass
class ToolRun:
    """One execution of a tool."""

    tool: str
    parameters: dict[str, Any]
    first: int
    """The position in the recording when the tool began."""
    started: float
    last: int = 0
    """The position in the recording when the tool ended."""
    ended: float = 0.0
    result: Any = None
    error: BaseException | None = None
    waited_in_vain: bool = False
    """Whether the tool "meet" waited for the other call until its time limit."""

    @property
    def cancelled(self) -> bool:
        return self.error is not None and not isinstance(self.error, Exception)


@dataclass
class ToolCalls:
    """The tools of the scenario, and their executions."""

    plans: dict[str, RunPlan]
    recording: Recording
    runs: list[ToolRun] = field(default_factory=list)

    def dispatcher(self) -> PythonTools:
        """Return a dispatcher of the tools: coroutine functions, and one function that runs in a thread."""

        async def look_up(**parameters: Any) -> Any:
            with self._running(LOOK_UP, parameters) as run:
                return run.result

        def search(**parameters: Any) -> Any:
            with self._running(SEARCH, parameters) as run:
                return run.result

        async def delegate(**parameters: Any) -> Any:
            with self._running(DELEGATE, parameters) as run:
                await self._plan(parameters).agent.use_tool(SEARCH, **parameters)
                return run.result

        async def meet(**parameters: Any) -> Any:
            second_began, first_ended = self._plan(parameters).met
            with self._running(MEET, parameters) as run, anyio.move_on_after(MEETING_SECONDS) as limit:
                if parameters["number"] == 1:
                    await second_began.wait()
                else:
                    second_began.set()
                    await first_ended.wait()
            run.waited_in_vain = limit.cancelled_caught
            return run.result

        async def broken(**parameters: Any) -> Any:
            with self._running(BROKEN, parameters):
                raise AgentFailed(f"{parameters['request']} {TEXT}")

        async def endless(**parameters: Any) -> Any:
            with self._running(ENDLESS, parameters):
                self._plan(parameters).started.set()
                await anyio.sleep_forever()

        return PythonTools(dict(zip(TOOLS, (look_up, search, delegate, meet, broken, endless), strict=True)))

    def _plan(self, parameters: dict[str, Any]) -> RunPlan:
        """Return the plan of the run that called the tool. Raises AgentFailed if a link changed the request."""
        plan = self.plans.get(label(parameters.get("request")))
        if plan is None:
            raise AgentFailed("the parameters of a tool contain no request of the scenario")
        return plan

    @contextmanager
    def _running(self, tool: str, parameters: dict[str, Any]) -> Iterator[ToolRun]:
        """Record the execution of a tool. Each execution has a result of its own."""
        run = ToolRun(tool, parameters, self.recording.position, time.perf_counter())
        run.result = {"found": [TEXT, parameters]}
        self.runs.append(run)
        try:
            yield run
        except BaseException as error:
            run.error = error
            raise
        finally:
            run.last, run.ended = self.recording.position, time.perf_counter()


def scenario_agent(base: type[BaseAgent], plans: dict[str, RunPlan]) -> type[BaseAgent]:
    """Return an agent class that emits events of every type and follows the plan of its request."""

    class ScenarioAgent(base):  # type: ignore[valid-type,misc]  # the base class is the variant's link 6
        async def execute(self, context: RunContext) -> object:
            # The first words of a request identify the plan, because a link may change the rest.
            plan, request = plans.get(label(context.request), RunPlan()), context.request
            plan.agent = self
            await self.emit_thinking(f"{request} {TEXT}", step_number=1, progress_percentage=0.1 + 0.2)
            large = _text_of(plan.size)
            await self.use_tool(
                LOOK_UP, request=request, large=large[: len(large) // 2], **{TEXT: copy.deepcopy(NESTED)}
            )
            barrier, plan.barrier = plan.barrier, None
            if barrier is not None:
                await barrier.step()
                await barrier.step()
            if plan.sub_agent is not None:
                await plan.sub_agent()
            await _emit_events(self, plan, request)
            if plan.tools_at_once:
                await _use_two_tools_at_once(self, plan, request)
            if plan.ending == "hangs":
                await self.use_tool(ENDLESS, request=request)
            plan.started.set()
            return await _ended(self, plan, request)

    return ScenarioAgent


async def _emit_events(agent: BaseAgent, plan: RunPlan, request: str) -> None:
    for _ in range(2):  # equal events are different events
        await agent.emit_progress({})
    await agent.emit_progress({"request": request, **copy.deepcopy(NESTED)})
    if plan.size:
        await agent.emit_progress({"request": request, "large": _text_of(plan.size)})
    for number in range(plan.burst):
        await agent.emit_progress({"number": number})
    for delta in (TEXT, "", request):
        await agent.emit_text(delta, message_id=request)
    await agent.use_tool(DELEGATE, request=request, empty="", nothing=None)
    with suppress(AgentFailed):
        await agent.use_tool(BROKEN, request=request)
    await agent.emit_thinking("", step_number=0)


async def _use_two_tools_at_once(agent: BaseAgent, plan: RunPlan, request: str) -> None:
    second_began, first_ended = plan.met = anyio.Event(), anyio.Event()

    async def use(number: int, done: anyio.Event) -> None:
        try:
            await agent.use_tool(MEET, request=request, number=number)
        finally:
            done.set()

    with unwrap_single_error():
        async with anyio.create_task_group() as calls:
            calls.start_soon(use, 1, first_ended)
            calls.start_soon(use, 2, second_began)


async def _emit_refused(agent: BaseAgent, request: str) -> None:
    for progress in ({"request": request, "n": float("nan")}, {"large": "x" * FRAME_BYTES}):
        with suppress(PayloadError, FrameTooLarge):
            await agent.emit_progress(progress)


def _text_of(size: int) -> str:
    """Return text of `size` bytes that consists of characters beyond U+FFFF."""
    return "\U0001f6f0" * (size // 4)


async def _ended(agent: BaseAgent, plan: RunPlan, request: str) -> object:
    ending = plan.ending
    if ending == "refused":
        await _emit_refused(agent, request)
    if ending == "ends itself":
        await agent.emit_agent_completed({"request": request}, execution_time_ms=0.0)
        await agent.emit_error(request)
    if ending == "fails":
        raise AgentFailed(f"{request} {TEXT}")
    if ending == "unencodable":
        return {"request": request, "number": float("inf")}
    return (
        copy.deepcopy(plan.results[0])
        if plan.results
        else {"request": request, "answer": [TEXT, copy.deepcopy(NESTED)], "large": _text_of(plan.size)}
    )


def audited_threads() -> tuple[OwnedThread, ...]:
    """Return two users' threads with easily confused ids, such as ids that differ only in case or spaces."""
    ids = (
        "thread_1",
        "thread_10",
        "Thread_1",
        f"{_LONG}a",
        f"{_LONG}b",
        "thread_é\U0001f6f0\ufe0f",
        "thread_e\u0301\U0001f6f0\ufe0f",
        "thread_1 ",
    )
    return _owned_by_two([ThreadId(each) for each in ids])


def family_threads(family: str, *, seed: int = 0) -> tuple[OwnedThread, ...]:
    """Return threads of a family that belong alternately to two users, as many as `audited_threads` returns."""
    if family == CONFUSABLE:
        return audited_threads()
    return _owned_by_two([owned.thread_id for owned in thread_ids(family, len(audited_threads()), seed=seed)])


def _owned_by_two(ids: list[ThreadId]) -> tuple[OwnedThread, ...]:
    return tuple(OwnedThread(thread, USERS[number % 2]) for number, thread in enumerate(ids))


def thinking(base: type[BaseAgent]) -> type[BaseAgent]:
    """Return a class of agents that emit one event with the request that they received."""

    class ThinkingAgent(base):  # type: ignore[valid-type,misc]  # the base class is the variant's link 6
        async def execute(self, context: RunContext) -> object:
            await self.emit_thinking(context.request)
            return None

    return ThinkingAgent
