"""Small agents, started applications and in-memory subscribers for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, BridgeConfig, start_application
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.chain.self_check import ProbeConnection
from bridgekit.events import AgentEvent, EventType, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.stores import in_memory
from bridgekit.transport.hub import Hub
from tests.factories import ALICE, THREAD, emitted
from tests.transport.outboxes import Box


class Broken(Exception):
    """The error that agents and tools of tests raise."""


class Researcher(BaseAgent):
    """Emits one thought, uses a tool and returns an answer."""

    async def execute(self, context: RunContext) -> object:
        await self.emit_thinking(f"about {context.request}", step_number=1)
        return {"answer": await self.use_tool("look_up", topic=context.request)}


class Failing(BaseAgent):
    """Emits one thought and raises Broken with the request's text."""

    async def execute(self, context: RunContext) -> object:
        await self.emit_thinking("this will not end well")
        raise Broken(context.request)


class Answering(BaseAgent):
    """Returns a value that JSON cannot represent."""

    async def execute(self, context: RunContext) -> object:
        return object()


class Waiting(BaseAgent):
    """Never returns."""

    async def execute(self, context: RunContext) -> object:
        await anyio.sleep_forever()
        return None


AGENTS: Mapping[str, type[BaseAgent]] = {
    "researcher": Researcher,
    "failing": Failing,
    "answering": Answering,
    "waiting": Waiting,
}


def fail(**parameters: object) -> object:
    raise Broken("the tool is broken")


TOOLS = PythonTools({"look_up": lambda topic: f"{topic}!", "fail": fail})


def config(**choices: Any) -> BridgeConfig:
    return BridgeConfig(**{"agents": AGENTS, "tool_dispatcher": TOOLS, **choices})


async def started(**choices: Any) -> Application:
    return await start_application(config(**choices), in_memory())


def subscribe(application: Application, thread_id: ThreadId = THREAD, user_id: UserId = ALICE) -> ProbeConnection:
    connection = ProbeConnection(thread_id, user_id)
    application.bridge.hub.attach(connection)
    return connection


class HubThatStoresLater(Hub):
    """Answers after the event loop has run other tasks, as with a log in another process."""

    error: BaseException | None = None
    """What the log raises."""
    receipt: Receipt | None = None
    """What the log answers in place of its own receipt."""

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Any:
        async def stored() -> Receipt:
            await checkpoint()
            if self.error is not None:
                raise self.error
            if self.receipt is not None:
                return self.receipt
            return await super(HubThatStoresLater, self).publish(event, thread_id)

        return stored()


def subscribe_crowded(application: Application) -> Box:
    """Subscribe a client whose outbox one event of THREAD crowds, until the test takes it with `next_frames`."""
    hub = application.bridge.hub
    box = Box(hub.crowded, events=2)
    hub.attach(box)
    Hub.publish(hub, emitted(), THREAD)  # at once, even if the hub stores later
    assert THREAD in hub.crowded.by_thread
    return box


async def retained_types(application: Application, thread_id: ThreadId = THREAD) -> list[str]:
    """Return the types of the events that were published to a thread."""
    return [str(frame.event.type) for frame in await application.bridge.hub.retained(thread_id)]


def context(number: int = 1, *, agent_name: str = "researcher") -> RunContext:
    """Create the context of a run that the supervisor has not opened, with its own thread, user and request."""
    return RunContext(
        run_id=RunId(f"run_{number}"),
        thread_id=ThreadId(f"thread_{number}"),
        user_id=UserId(f"user_{number}"),
        agent_name=agent_name,
        request=f"question {number}",
    )


def event_types(connection: ProbeConnection) -> list[str]:
    return [str(frame.event.type) for frame in connection.frames]


def payloads(connection: ProbeConnection, event_type: EventType) -> list[dict[str, Any]]:
    return [frame.event.payload for frame in connection.frames if frame.event.type is event_type]
