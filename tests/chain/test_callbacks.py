"""Whatever an application's callback raises: each run has one end event, and the application serves the next run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import MemoryThreadStore, ThreadSession
from bridgekit.errors import AgentExited, PayloadError
from bridgekit.events import END_EVENTS, EventType
from bridgekit.ids import ThreadId, UserId
from tests.chain.agents import Broken, started, subscribe
from tests.factories import ALICE, THREAD

TIMEOUT_SECONDS = 60.0


class Silent(Exception):
    """Fails when it is formatted."""

    def __str__(self) -> str:
        raise Broken

    __repr__ = __str__


class Panic(BaseException):
    """An exception of a library that is no Exception."""


RAISED: Mapping[str, BaseException] = {
    "error": ValueError("why"),
    "group": ExceptionGroup("several", [ValueError("why"), KeyError("what")]),
    "error whose str fails": Silent(),
    "SystemExit": SystemExit(3),
    "group with SystemExit": BaseExceptionGroup("several", [SystemExit(3)]),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "cancellation that nothing requested": asyncio.CancelledError(),
    "another BaseException": Panic(),
}


class Switch:
    """Raises an exception while it is on."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.on = error, True

    def __call__(self, *_: object) -> Any:
        if self.on:
            raise self.error
        return "done"


class Failing(Mapping[str, object]):
    """A value whose class raises an exception when the value is encoded."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch

    def __getitem__(self, key: str) -> object:
        return self.switch()

    def __iter__(self) -> Any:
        self.switch()
        return iter(())

    def __len__(self) -> int:
        return 0


def threads(switch: Switch, method: str) -> Any:
    class Threads(MemoryThreadStore):
        async def owner_of(self, thread_id: ThreadId) -> UserId | None:
            if method == "owner_of":
                switch()
            return await super().owner_of(thread_id)

        async def claim(self, thread_id: ThreadId, user_id: UserId) -> None:
            if method == "claim":
                switch()
            await super().claim(thread_id, user_id)

    store = Threads()

    @asynccontextmanager
    async def session() -> AsyncIterator[ThreadSession]:
        if method == "session":
            switch()
        yield store

    return session


class Callback(NamedTuple):
    """A callback of the application that raises an exception while the switch is on."""

    choices: Callable[[Switch], dict[str, object]]
    fails: bool = False
    """Whether the agent raises an error, so that the callback is called."""
    returns: Callable[[Switch], object] = lambda switch: switch.on
    opens_no_run: bool = False
    """Whether the run is refused before its first event."""


CALLBACKS: Mapping[str, Callback] = {
    "observer": Callback(lambda switch: {"observers": (switch,)}),
    "payload_hook": Callback(lambda switch: {"payload_hook": switch}, returns=lambda switch: {1j}),
    "a value's class": Callback(lambda switch: {}, returns=Failing),
    "error_text": Callback(lambda switch: {"error_text": switch}, fails=True),
    **{
        f"{method} of the thread store": Callback(
            lambda switch, method=method: {"db_session_factory": threads(switch, method)},  # type: ignore[misc]
            opens_no_run=True,
        )
        for method in ("session", "claim", "owner_of")
    },
}


async def run(application: Application) -> object:
    done = await application.supervisor.run(agent_name="agent", thread_id=THREAD, user_id=ALICE, request="")
    return done.result


@pytest.mark.parametrize("raised", RAISED.values(), ids=RAISED)
@pytest.mark.parametrize("name", CALLBACKS)
async def test_run_ends_once_and_the_next_run_succeeds(
    name: str, raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    callback, switch = CALLBACKS[name], Switch(raised)

    class Agent(BaseAgent):
        async def execute(self, context: RunContext) -> object:
            if callback.fails and switch.on:
                raise Broken("the agent's")
            return callback.returns(switch)

    application = await started(agents={"agent": Agent}, **callback.choices(switch))
    connection = subscribe(application)
    outcome: object = None
    with caplog.at_level(logging.ERROR, "bridgekit"):
        try:
            outcome = await run(application)
        except BaseException as error:  # noqa: BLE001  # what the table is about
            outcome = error
    types = [frame.event.type for frame in connection.frames]
    assert sum(kind in END_EVENTS for kind in types) == (not callback.opens_no_run), types
    if name == "observer":
        assert outcome is True
    elif name == "error_text":
        assert isinstance(outcome, Broken)
    elif callback.opens_no_run:
        assert outcome is raised
    elif isinstance(raised, Exception):
        assert isinstance(outcome, PayloadError)
    else:
        assert isinstance(outcome, AgentExited) or outcome is raised
    assert caplog.records or callback.opens_no_run or "cancellation" in str(types) or not isinstance(raised, Exception)

    switch.on = False
    connection.frames.clear()
    with suppress(PayloadError):  # of a value that JSON cannot carry
        await run(application)
    assert connection.frames[0].event.type is EventType.AGENT_STARTED
    assert connection.frames[-1].event.type in END_EVENTS
    await application.supervisor.close(seconds=TIMEOUT_SECONDS)
