"""Whatever an agent or tool raises, returns or is: its user gets exactly one end event, with the cause."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.chain.context import RunContext
from bridgekit.chain.error_text import ERROR_BYTES
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.chain.self_check import ProbeConnection
from bridgekit.counters import RUN_ENDED
from bridgekit.errors import AgentExited, BridgekitError, FrameTooLarge, PayloadError
from bridgekit.events import END_EVENTS, AgentEvent, EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryRunRegistry
from bridgekit.transport.hub import LINK, Hub
from tests.chain.agents import Broken, started, subscribe
from tests.factories import ALICE, THREAD

TIMEOUT_SECONDS = 60.0


class Unprintable(Exception):
    """Fails when it is formatted."""

    def __str__(self) -> str:
        raise Broken

    __repr__ = __str__


class NoText(Unprintable):
    def __str__(self) -> Any:
        return 7


class Stop(BaseException):
    """A control exception of a library, which is no Exception."""


class Hostile(Exception):
    """Fails whatever is asked of it."""

    def _fail(self, *_: object) -> Any:
        raise Stop

    __bool__ = __eq__ = __str__ = __repr__ = _fail
    __hash__ = None  # type: ignore[assignment]
    __class__ = property(_fail)


class Exiting(Mapping[str, object]):
    """Ends the process when it is read."""

    def __iter__(self) -> Any:
        raise SystemExit(1)

    __len__ = __getitem__ = __iter__  # type: ignore[assignment]


class Step(BaseAgent):
    """An agent whose `execute` is replaced by each row of the table."""

    async def execute(self, context: RunContext) -> object:
        raise NotImplementedError


def raising(error: BaseException) -> type[BaseAgent]:
    class Raising(Step):
        async def execute(self, context: RunContext) -> object:
            raise error

    return Raising


def raising_in_a_tool(error: BaseException, *, blocking: bool) -> type[BaseAgent]:
    def block() -> None:
        raise error

    async def wait() -> None:
        raise error

    class Calling(Step):
        async def execute(self, context: RunContext) -> object:
            return await PythonTools({"tool": block if blocking else wait}).dispatch("tool", {}, self)

    return Calling


def returning(result: object) -> type[BaseAgent]:
    class Returning(Step):
        async def execute(self, context: RunContext) -> object:
            return result

    return Returning


class Unconstructible(Step):
    def __init__(self, *arguments: Any) -> None:
        raise Broken("no configuration")


class Blocking(Step):
    def execute(self, context: RunContext) -> Any:
        return 5


class Generating(Step):
    async def execute(self, context: RunContext) -> Any:
        yield 5


class InATaskGroup(Step):
    async def execute(self, context: RunContext) -> object:
        async def fail() -> None:
            raise ValueError("the quota of the model is used up")

        async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
            outer.start_soon(anyio.sleep_forever)
            inner.start_soon(fail)
        return None


class EndingItself(Step):
    async def execute(self, context: RunContext) -> object:
        await self.emit_agent_completed("mine")
        receipt = await self.emit_error("twice")
        assert (receipt.outcome, receipt.link, receipt.reason) == (Outcome.REFUSED, 8, RUN_ENDED)
        return "the core's"


class EndingOnce(Step):
    async def execute(self, context: RunContext) -> object:
        await self.emit_agent_completed("mine")
        return "the core's"


class EndingItselfAndFailing(Step):
    async def execute(self, context: RunContext) -> object:
        await self.emit_error("mine")
        raise Broken("the core's")


class EndingItselfBadly(Step):
    async def execute(self, context: RunContext) -> object:
        await self.emit_agent_completed(object())
        return None


class CancellingItself(Step):
    async def execute(self, context: RunContext) -> object:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        return "after its own scope"


def nested(depth: int) -> BaseException:
    error: BaseException = ValueError("deep")
    for _ in range(depth):
        error = BaseExceptionGroup("group", [error])
    return error


class Row(NamedTuple):
    """An agent, the type of the error that its caller gets, and the text that its user reads."""

    agent: type[BaseAgent]
    raised: type[BaseException] | None
    text: str
    """The start of the error message, or of the result."""


GROUP = ExceptionGroup("group", [ValueError("one"), ExceptionGroup("inner", [KeyError("two"), OSError("three")])])
LONG = "x" * 2_000_000
TABLE = {
    "error": Row(raising(Broken("why")), Broken, "Broken: why"),
    "error without message": Row(raising(Broken()), Broken, "Broken"),
    "error whose str fails": Row(
        raising(Unprintable()), Unprintable, "Unprintable: its message could not be formatted"
    ),
    "error whose str is no text": Row(raising(NoText()), NoText, "NoText: its message could not be formatted"),
    "error of 2 MB": Row(raising(Broken("no " * 700_000)), Broken, "Broken: no no"),
    "lone surrogate": Row(raising(Broken("\ud800")), Broken, "Broken (the server's log has the message)"),
    "StopIteration": Row(raising(StopIteration()), RuntimeError, "RuntimeError (the server's log"),
    "StopAsyncIteration": Row(raising(StopAsyncIteration("x")), StopAsyncIteration, "StopAsyncIteration: x"),
    "timeout": Row(raising(TimeoutError()), TimeoutError, "TimeoutError"),
    "error of bridgekit": Row(raising(BridgekitError("no")), BridgekitError, "BridgekitError: no"),
    "BaseException": Row(raising(Stop("now")), Stop, "Stop: now"),
    "SystemExit": Row(raising(SystemExit(3)), AgentExited, "AgentExited: agent 'agent' raised SystemExit(3)"),
    "SystemExit in a group": Row(
        raising(BaseExceptionGroup("group", [SystemExit("no")])),
        AgentExited,
        "AgentExited: agent 'agent' raised SystemExit;",
    ),
    "SystemExit without text": Row(
        raising(SystemExit(Unprintable())), AgentExited, "AgentExited: agent 'agent' raised"
    ),
    "KeyboardInterrupt": Row(
        raising(KeyboardInterrupt()), AgentExited, "AgentExited: agent 'agent' raised KeyboardInterrupt;"
    ),
    "GeneratorExit": Row(raising(GeneratorExit()), GeneratorExit, "GeneratorExit"),
    "group": Row(
        raising(GROUP), ExceptionGroup, "ValueError: one; KeyError (the server's log has the message); OSError: three"
    ),
    "group of many": Row(
        raising(ExceptionGroup("group", [Broken("abcdefghi"[number]) for number in range(9)])),
        ExceptionGroup,
        "Broken: a; Broken: b; Broken: c; and 6 more",
    ),
    "group of unprintable": Row(
        raising(ExceptionGroup("group", [Unprintable()])), ExceptionGroup, "Unprintable: its message"
    ),
    "deep group": Row(raising(nested(500)), BaseExceptionGroup, "ValueError: deep"),
    "task group": Row(InATaskGroup, ExceptionGroup, "ValueError: the quota of the model is used up"),
    "constructor": Row(Unconstructible, Broken, "Broken: no configuration"),
    "execute is no coroutine function": Row(Blocking, TypeError, "TypeError (the server's log has"),
    "execute is a generator": Row(Generating, TypeError, "TypeError (the server's log has"),
    "no result": Row(returning(None), None, "None"),
    "result": Row(returning([1, {"a": 2}]), None, "[1, {'a': 2}]"),
    "result that JSON cannot carry": Row(returning(object()), PayloadError, "PayloadError: payload of agent_completed"),
    "result that is a class": Row(returning(Step), PayloadError, "PayloadError: payload of agent_completed"),
    "result that exits": Row(returning([Exiting()]), AgentExited, "AgentExited: agent 'agent' raised SystemExit(1)"),
    "result of NaN": Row(returning([float("nan")]), PayloadError, "PayloadError: payload of agent_completed"),
    "result of 2 MB": Row(returning(LONG), FrameTooLarge, "FrameTooLarge: agent_completed"),
    "own end": Row(EndingItself, None, "mine"),
    "own error, then another": Row(EndingItselfAndFailing, Broken, "mine"),
    "own end that JSON cannot carry": Row(EndingItselfBadly, PayloadError, "PayloadError: payload of agent_completed"),
    "own cancellation": Row(CancellingItself, None, "after its own scope"),
    "tool": Row(raising_in_a_tool(Broken("why"), blocking=False), Broken, "Broken: why"),
    "blocking tool": Row(raising_in_a_tool(Broken("why"), blocking=True), Broken, "Broken: why"),
    "SystemExit in a blocking tool": Row(raising_in_a_tool(SystemExit(1), blocking=True), AgentExited, "AgentExited"),
    "StopIteration in a blocking tool": Row(
        raising_in_a_tool(StopIteration(), blocking=True), RuntimeError, "RuntimeError"
    ),
    "BaseException in a blocking tool": Row(raising_in_a_tool(Stop("now"), blocking=True), Stop, "Stop: now"),
    "unprintable in a tool": Row(
        raising_in_a_tool(Unprintable(), blocking=False), Unprintable, "Unprintable: its message"
    ),
}


async def run(application: Application, request: str = "why?") -> object:
    done = await application.supervisor.run(agent_name="agent", thread_id=THREAD, user_id=ALICE, request=request)
    return done.result


def ends(connection: ProbeConnection) -> list[str]:
    """Return what each end event tells the user."""
    payloads = [frame.event.payload for frame in connection.frames if frame.event.type in END_EVENTS]
    return [str(payload.get("error_message", payload.get("result"))) for payload in payloads]


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_user_gets_exactly_one_end_event_with_the_cause(row: Row, caplog: pytest.LogCaptureFixture) -> None:
    application = await started(agents={"agent": row.agent})
    connection = subscribe(application)
    with caplog.at_level(logging.ERROR, "bridgekit.chain.link_5_execution_core"):
        if row.raised is None:
            await run(application)
        else:
            with pytest.raises(row.raised):
                await run(application)
    types = [frame.event.type for frame in connection.frames]
    assert types[0] is EventType.AGENT_STARTED
    assert types[-1] in END_EVENTS
    [text] = ends(connection)
    assert text.startswith(row.text)
    assert len(text.encode()) <= ERROR_BYTES
    assert len(caplog.records) == (row.raised is not None)
    executing, completed = types.count(EventType.TOOL_EXECUTING), types.count(EventType.TOOL_COMPLETED)
    assert executing == completed


async def test_unknown_agent_ends_with_the_known_names() -> None:
    application = await started(agents={"researcher": returning(None)})
    connection = subscribe(application)
    with pytest.raises(LookupError):
        await run(application)
    assert ends(connection) == ["UnknownAgent: no agent is called 'agent'; known: 'researcher'"]


async def test_request_is_left_out_when_there_is_no_room_for_it() -> None:
    application = await started(
        agents={"agent": raising(Broken("why"))}, hub=lambda log: Hub(log, frame_bytes=2_000), self_checks=()
    )
    connection = subscribe(application)
    with pytest.raises(FrameTooLarge):
        await run(application, "x" * 3_000)
    assert [text.partition(":")[0] for text in ends(connection)] == ["FrameTooLarge"]
    assert connection.frames[-1].event.payload["error_context"] == {}


@pytest.mark.parametrize("blocking", [False, True], ids=["waiting", "in a blocking tool"])
async def test_cancelled_run_ends_at_once(blocking: bool) -> None:
    """A thread that runs a tool cannot be stopped. Its user does not wait for it."""
    entered, released = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        released.wait(TIMEOUT_SECONDS)

    class Waiting(Step):
        async def execute(self, context: RunContext) -> object:
            if blocking:
                await PythonTools({"block": block}).dispatch("block", {}, self)
            entered.set()
            await anyio.sleep_forever()
            return None

    application = await started(agents={"agent": Waiting})
    connection = subscribe(application)
    try:
        with anyio.fail_after(TIMEOUT_SECONDS / 2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run, application)
                while not entered.is_set():
                    await checkpoint()
                tasks.cancel_scope.cancel()
        assert ends(connection) == ["Cancelled: the run was cancelled"]
        assert not released.is_set()
    finally:
        released.set()


class CancelledWhileItEnds(Hub):
    """Cancels the run at the moment in which an event of this type is published, once or before it is stored."""

    scope: anyio.CancelScope
    of: EventType

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Any:
        receipt = super().publish(event, thread_id)
        if event.type is not self.of:
            return receipt
        self.scope.cancel()

        async def stored() -> Receipt:
            await checkpoint()
            return await receipt

        return stored()


@pytest.mark.parametrize("of", [EventType.AGENT_STARTED, EventType.TOOL_COMPLETED, *sorted(END_EVENTS)], ids=str)
@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
async def test_run_that_is_cancelled_while_an_event_is_stored_ends_once(of: EventType, fails: bool) -> None:
    class Calling(Step):
        async def execute(self, context: RunContext) -> object:
            await PythonTools({"tool": lambda: 5}).dispatch("tool", {}, self)
            if fails:
                raise Broken("why")
            return "done"

    application = await started(agents={"agent": Calling}, hub=CancelledWhileItEnds, self_checks=())
    hub = application.bridge.hub
    assert isinstance(hub, CancelledWhileItEnds)
    connection = subscribe(application)
    with anyio.CancelScope() as hub.scope:
        hub.of = of
        try:
            await run(application)
        except Broken:
            assert fails
    assert len(ends(connection)) == 1
    types = [frame.event.type for frame in connection.frames]
    assert types.count(EventType.TOOL_EXECUTING) == types.count(EventType.TOOL_COMPLETED)


class Refusing(Hub):
    """Refuses the first end events, as a store with a full disk does."""

    refusals = 2

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Any:
        if event.type in END_EVENTS and self.refusals:
            self.refusals -= 1
            return Receipt(outcome=Outcome.REFUSED, thread_id=thread_id, link=LINK, reason="full")
        return super().publish(event, thread_id)


async def test_end_event_is_sent_again_while_the_store_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgekit.chain.link_5_execution_core.RETRY_SECONDS", 0.001)
    application = await started(agents={"agent": returning("done")}, hub=Refusing, self_checks=())
    connection = subscribe(application)
    assert await run(application) == "done"
    assert ends(connection) == ["done"]


async def test_run_whose_end_event_the_store_refuses_to_the_end_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bridgekit.chain.link_5_execution_core.END_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(Refusing, "refusals", 1_000_000)
    assert await run(await started(agents={"agent": returning("done")}, hub=Refusing, self_checks=())) == "done"
    assert caplog.messages[-1].endswith(" has no end event: none was accepted in time")


class RefusingLater(Refusing):
    """Answers as a store in another process does."""

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Any:
        receipt = super().publish(event, thread_id)

        async def stored() -> Any:
            await checkpoint()
            return await receipt

        return stored()


async def test_run_whose_agent_sends_its_end_and_the_store_refuses_it_is_ended_by_the_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridgekit.chain.link_5_execution_core.RETRY_SECONDS", 0.001)
    application = await started(agents={"agent": EndingOnce}, hub=RefusingLater, self_checks=())
    connection = subscribe(application)
    assert await run(application) == "the core's"
    assert ends(connection) == ["the core's"]


@pytest.mark.parametrize("agent", [raising(Hostile()), raising_in_a_tool(Hostile(), blocking=False)])
async def test_error_that_fails_whatever_is_asked_of_it_ends_the_run(agent: type[BaseAgent]) -> None:
    """Python cannot format its traceback for the log either."""
    application = await started(agents={"agent": agent})
    connection = subscribe(application)
    with suppress(BaseException):
        await run(application)
    assert ends(connection) == ["Hostile: its message could not be formatted"]


async def test_payload_hook_whose_error_fails_ends_the_run() -> None:
    def convert(value: object) -> object:
        raise Hostile

    application = await started(agents={"agent": returning(object())}, payload_hook=convert)
    connection = subscribe(application)
    with suppress(BaseException):
        await run(application)
    [text] = ends(connection)
    assert text.startswith("PayloadError: payload of agent_completed: payload_hook failed: Hostile")


async def test_log_handler_that_fails_does_not_keep_the_end_from_the_user() -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise Broken("no disk")

    application = await started(agents={"agent": raising(Broken("why"))})
    connection = subscribe(application)
    logger, handler = logging.getLogger("bridgekit"), Failing()
    logger.addHandler(handler)
    try:
        with pytest.raises(Broken, match="no disk"):
            await run(application)
    finally:
        logger.removeHandler(handler)
    assert ends(connection) == ["Broken: why"]


class Unanswering(MemoryRunRegistry):
    """Does not answer whether the worker still holds a run."""

    def __init__(self) -> None:
        self.asked = 0

    async def holds(self, run_id: RunId) -> bool:
        self.asked += 1
        await anyio.sleep_forever()
        return True


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("agent", [returning("done"), raising(Broken("why"))], ids=["returns", "raises"])
async def test_run_that_asyncio_cancels_again_and_again_ends_once(agent: type[BaseAgent]) -> None:
    """`Task.cancel` has effect also where anyio shields."""
    application = await started(agents={"agent": agent})
    connection, runs = subscribe(application), Unanswering()
    application.bridge.runs = runs
    running = asyncio.ensure_future(run(application))
    with anyio.fail_after(TIMEOUT_SECONDS):
        while not running.done():
            asked = runs.asked
            while runs.asked == asked and not running.done():
                await checkpoint()
            running.cancel()
    assert running.cancelled()
    assert len(ends(connection)) == 1


async def test_observer_that_raises_changes_no_run_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    application = await started(agents={"agent": returning("done")})
    connection = subscribe(application)

    observed: list[EventType] = []

    def observe(event: AgentEvent, receipt: Receipt) -> None:
        raise Broken

    application.bridge.observers += [observe, lambda event, _: observed.append(event.type)]
    assert await run(application) == "done"
    assert ends(connection) == ["done"]
    assert observed == ["agent_started", "agent_completed"]
    assert caplog.text.count("an observer failed at agent_") == 2


async def test_run_whose_coroutine_is_closed_ends() -> None:
    class Suspended(Step):
        async def execute(self, context: RunContext) -> object:
            class Forever:
                def __await__(self) -> Any:
                    yield

            await Forever()
            return None

    application = await started(agents={"agent": Suspended})
    connection = subscribe(application)
    context = RunContext(
        run_id=application.config.run_ids.new(THREAD), thread_id=THREAD, user_id=ALICE, agent_name="agent", request=""
    )
    running: Any = application.supervisor.engine.execute(context)
    running.send(None)
    running.close()
    assert ends(connection) == ["GeneratorExit"]
    assert connection.frames[-1].event.payload["error_context"] == {}


@pytest.mark.parametrize(
    ("choose", "text"),
    [
        (lambda error: f"sorry, no {len(str(error))}", "sorry, no 3"),
        (lambda error: "é" * 10_000, "é" * (ERROR_BYTES // 2)),
        (lambda error: "\ud800", "?"),
        (lambda error: 5, "Broken"),
        (lambda error: 1 / 0, "Broken"),
    ],
    ids=["own text", "too long", "lone surrogate", "no text", "raises"],
)
async def test_application_chooses_the_text_of_runs_and_tools(choose: Callable[..., Any], text: str) -> None:
    agent = raising_in_a_tool(Broken("why"), blocking=False)
    application = await started(agents={"agent": agent}, error_text=choose)
    connection = subscribe(application)
    with pytest.raises(Broken):
        await run(application)
    assert ends(connection) == [text]
    assert [frame.event.payload["result"] for frame in connection.frames if frame.event.type == "tool_completed"] == [
        text
    ]


async def test_error_names_the_tool_when_no_frame_can_carry_its_result() -> None:
    for result, error in ((object(), PayloadError), ("x" * 2_000_000, FrameTooLarge)):

        class Calling(Step):
            value = result

            async def execute(self, context: RunContext) -> object:
                return await PythonTools({"stats": lambda: {"rows": [self.value]}}).dispatch("stats", {}, self)

        application = await started(agents={"agent": Calling})
        connection = subscribe(application)
        with pytest.raises(error, match="result of tool 'stats'"):
            await run(application)
        assert "'stats'" in ends(connection)[0]


class ClientThatStoppedReading:
    """Is in the hub's list of crowded outboxes, and counts as slow."""

    thread_id, code = THREAD, None

    def is_slow(self) -> bool:
        return True

    def is_full(self) -> bool:
        return True


async def test_end_event_is_published_before_anything_can_cancel_it_while_an_outbox_is_crowded() -> None:
    bridge = (await started()).bridge
    bridge.hub.crowded.add(ClientThatStoppedReading())  # type: ignore[arg-type]
    ending = bridge.notify_agent_completed(RunId("run_1"), "agent", thread_id=THREAD)
    with suppress(StopIteration):
        ending.send(None)  # until it first waits
    ending.close()
    [frame] = await bridge.hub.retained(THREAD)
    assert frame.event.type is EventType.AGENT_COMPLETED
