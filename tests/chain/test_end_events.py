"""Link 5: what the end event of a run contains, and which errors of a run are raised and logged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import start_application
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.errors import AgentExited
from bridgekit.events import END_EVENTS, EventType
from bridgekit.ids import RunId
from bridgekit.mapping import ActiveRun, MemoryRunRegistry
from bridgekit.stores import in_memory
from bridgekit.transport.hub import Hub
from tests.chain.agents import Broken, config, context, event_types, started, subscribe
from tests.factories import ALICE, THREAD

RUN = {"agent_name": "agent", "thread_id": THREAD, "user_id": ALICE, "request": "why?"}


def agent_that_raises(error: BaseException) -> dict[str, type[BaseAgent]]:
    class Raising(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            raise error

    return {"agent": Raising}


@pytest.mark.parametrize(
    ("request_", "text", "shown"),
    [
        ("why?", "no", ("no", {"request": "why?"})),
        ("x" * 300, "n" * 300, ("n" * 300, {})),
        *(("why?", text, ("Broken", {})) for text in ("x" * 900, "ü" * 500, "\x00" * 300)),
    ],
    ids=["fits", "large request", "large text", "large text of other letters", "large text of escaped characters"],
)
async def test_end_event_omits_what_does_not_fit_into_a_frame(
    request_: str, text: str, shown: tuple[str, dict[str, str]]
) -> None:
    application = await started(
        agents=agent_that_raises(Broken()),
        hub=lambda log: Hub(log, frame_bytes=700),
        error_text=lambda error: text,
        self_checks=(),
    )
    connection = subscribe(application)
    with pytest.raises(Broken):
        await application.supervisor.run(**{**RUN, "request": request_})
    [end] = [frame for frame in connection.frames if frame.event.type in END_EVENTS]
    assert (end.event.payload["error_message"], end.event.payload["error_context"]) == shown


@pytest.mark.parametrize("first", [SystemExit(3), KeyboardInterrupt("stop")])
async def test_first_exit_of_a_group_is_named_and_the_group_is_the_cause(first: BaseException) -> None:
    group = BaseExceptionGroup("several", [ValueError("why"), first, SystemExit(4)])
    application = await started(agents=agent_that_raises(group))
    with pytest.raises(AgentExited) as raised:
        await application.supervisor.run(**RUN)
    assert str(raised.value) == str(AgentExited("agent", first))
    assert raised.value.__cause__ is group


async def test_logged_error_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    application = await started(agents=agent_that_raises(error := Broken("why")))
    with pytest.raises(Broken):
        await application.supervisor.run(**RUN)
    [logged] = [record.exc_info for record in caplog.records]
    assert logged is not None
    assert logged[:2] == (Broken, error)
    assert logged[2] is not None


class HeldRuns(MemoryRunRegistry):
    """A registry of the runs that this worker holds."""

    def __init__(self) -> None:
        self.held = set[RunId]()

    async def open(self, run: ActiveRun) -> None:
        self.held.add(run.run_id)

    async def holds(self, run_id: RunId) -> bool:
        return run_id in self.held


@pytest.mark.parametrize("lost", [False, True])
async def test_run_has_an_end_event_only_while_its_worker_holds_it(
    lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Agent(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            if lost:
                runs.held.discard(context.run_id)
            return "done"

    stores, runs = in_memory(), HeldRuns()
    object.__setattr__(stores, "runs", runs)
    application = await start_application(config(agents={"agent": Agent}), stores)
    connection = subscribe(application)
    done = await application.supervisor.run(**RUN)
    assert event_types(connection) == ["agent_started"] + ["agent_completed"] * (not lost)
    assert caplog.messages == [f"run {done.context.run_id} was ended by another worker"] * lost


async def test_end_event_of_an_agent_that_is_not_asynchronous_is_the_only_one() -> None:
    class Synchronous(BaseAgent):
        def execute(self, context: RunContext) -> Any:
            self.emit(EventType.AGENT_COMPLETED, {})
            raise Broken("why")

    application = await started(agents={"agent": Synchronous})
    connection = subscribe(application)
    with pytest.raises(Broken):
        await application.supervisor.run(**RUN)
    assert event_types(connection) == ["agent_started", "agent_completed"]


async def test_error_of_a_run_is_logged_even_if_the_agent_cannot_be_ended(caplog: pytest.LogCaptureFixture) -> None:
    class Unending(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            raise Broken("the first error")

        def end_run(self, run_id: RunId) -> bool:
            raise ValueError("the second error")

    application = await started(agents={"agent": Unending})
    connection = subscribe(application)
    with pytest.raises(Broken, match="the first error"):
        await application.supervisor.run(**RUN)
    assert "the first error" in caplog.text
    assert event_types(connection) == ["agent_started", "agent_error"]


def test_run_is_logged_if_its_coroutine_is_closed_after_its_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    """No socket is open then, and `notify` fails."""

    async def begin() -> Coroutine[Any, Any, object]:
        application = await started()
        application.bridge.bind_to_event_loop()
        running = application.supervisor.engine.execute(context(agent_name="waiting"))
        running.send(None)
        return running

    asyncio.run(begin()).close()
    assert caplog.messages == ["run run_1 of agent waiting failed"]
