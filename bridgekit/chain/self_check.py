"""What startup makes sure of before it says that the application is up. Each check can fail, and names the link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from bridgekit.chain.link_2_supervisor import SupervisorAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import DeterministicStartupError
from bridgekit.events import AgentEvent, EventType, Frame
from bridgekit.ids import RunId, ThreadId, UserId, new_id

__all__ = ["SOUND_CHECKS", "WITHOUT_HANDOVER", "WITHOUT_ROUTING", "Inbox", "SelfCheck"]

ARRIVAL_SECONDS: Final = 5.0
"""How long a check waits for an event that was sent."""

SelfCheck = Callable[[AgentWebSocketBridge, SupervisorAgent], Awaitable[None]]
"""Raises DeterministicStartupError where something does not hold."""


class Inbox:
    """A Connection that keeps its frames: a listener inside the process."""

    def __init__(self, thread_id: ThreadId, user_id: UserId) -> None:
        self.thread_id = thread_id
        self.user_id = user_id
        self.frames: list[Frame] = []
        self._news = anyio.Event()

    def put(self, frame: Frame) -> bool:
        self.frames.append(frame)
        self._news.set()
        return True

    def force_reconnect(self) -> None:
        """Nothing has been read of the old numbering that could be missed."""

    async def holds(self, count: int) -> bool:
        """Whether so many frames come in time: a store that workers share brings them a moment later."""
        with anyio.move_on_after(ARRIVAL_SECONDS):
            while len(self.frames) < count:
                self._news = anyio.Event()
                await self._news.wait()
        return len(self.frames) >= count


async def check_handover(bridge: AgentWebSocketBridge, supervisor: SupervisorAgent) -> None:
    """Each of the links 2 to 5 holds this very bridge, not one that looks like it."""
    holders = (
        (2, "supervisor", supervisor.websocket_bridge),
        (3, "registry", supervisor.registry.websocket_bridge),
        (4, "engine", supervisor.engine.websocket_bridge),
        (5, "core", supervisor.engine.agent_core.websocket_bridge),
    )
    for link, holder, held in holders:
        if held is not bridge:
            raise DeterministicStartupError(link, f"the {holder} holds another bridge than the application")


async def check_delivery(bridge: AgentWebSocketBridge, supervisor: SupervisorAgent) -> None:
    """An event to a listening thread arrives, and an event to a thread without listeners is not called sent."""
    inbox = Inbox(ThreadId(f"self-check-{new_id()}"), UserId("self-check"))
    event = _probe(inbox.thread_id)
    with DeterministicStartupError.at(10, "a delivery"):
        if await bridge.hub.publish(event, inbox.thread_id):
            raise DeterministicStartupError(10, "an event that nobody listened to was called sent")
        async with bridge.hub.joined(inbox):
            receipt = await bridge.hub.publish(event, inbox.thread_id)
            arrived = bool(receipt) and await inbox.holds(1)
    if not arrived:
        raise DeterministicStartupError(10, "an event to a listening thread did not arrive")


async def check_routing(bridge: AgentWebSocketBridge, supervisor: SupervisorAgent) -> None:
    """A run's events find its thread: the thread carried by the run, and the thread looked up by its id."""
    inbox = Inbox(ThreadId(f"self-check-{new_id()}"), UserId("self-check"))
    run_id = RunId(f"self-check-{new_id()}")
    with DeterministicStartupError.at(9, "a route"):
        await bridge.mapping.register_mapping(run_id, inbox.thread_id)
        async with bridge.hub.joined(inbox):
            carried = await bridge.notify(_probe(inbox.thread_id))
            looked_up = await bridge.notify_agent_started(run_id, "self-check")
        await bridge.mapping.cleanup_mapping(run_id)
    for how, receipt in (("carried with the event", carried), ("looked up by run id", looked_up)):
        if receipt.thread_id != inbox.thread_id:
            raise DeterministicStartupError(9, f"the thread {how} was not found: {receipt.reason}")


def _probe(thread_id: ThreadId) -> AgentEvent:
    return AgentEvent(
        type=EventType.PROGRESS_UPDATE,
        run_id=RunId(f"self-check-{new_id()}"),
        agent_name="self-check",
        payload={},
        thread_id=thread_id,
    )


WITHOUT_ROUTING: Final[tuple[SelfCheck, ...]] = (check_handover, check_delivery)
WITHOUT_HANDOVER: Final[tuple[SelfCheck, ...]] = (check_delivery, check_routing)
SOUND_CHECKS: Final[tuple[SelfCheck, ...]] = (check_handover, check_delivery, check_routing)
