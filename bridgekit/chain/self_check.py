"""The self-checks that startup runs before the application accepts requests. A failing check names the link that
failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import DeterministicStartupError
from bridgekit.events import AgentEvent, EventType, Frame
from bridgekit.ids import RunId, ThreadId, UserId, new_id

__all__ = ["SOUND_CHECKS", "ProbeConnection", "SelfCheck"]

ARRIVAL_TIMEOUT_SECONDS: Final = 5.0
"""How long a check waits for an event that it published."""

SelfCheck = Callable[[AgentWebSocketBridge, SupervisorAgent], Awaitable[None]]
"""A check of a started chain. A check raises DeterministicStartupError if the chain is not sound."""


class ProbeConnection:
    """An in-memory Connection that stores the frames it receives, so that a check needs no socket."""

    def __init__(self, thread_id: ThreadId, user_id: UserId) -> None:
        self.thread_id = thread_id
        self.user_id = user_id
        self.frames: list[Frame] = []
        self._arrived = anyio.Event()

    def put(self, frame: Frame) -> bool:
        self.frames.append(frame)
        self._arrived.set()
        return True

    def force_reconnect(self) -> None:
        """Do nothing, because a check does not depend on the epoch."""

    async def received(self, count: int) -> bool:
        """Return whether `count` frames arrive within ARRIVAL_TIMEOUT_SECONDS.

        The method waits, because a shared store delivers frames with a delay.
        """
        with anyio.move_on_after(ARRIVAL_TIMEOUT_SECONDS):
            while len(self.frames) < count:
                self._arrived = anyio.Event()
                await self._arrived.wait()
        return len(self.frames) >= count


async def check_handover(bridge: AgentWebSocketBridge, supervisor: SupervisorAgent) -> None:
    """Check that links 2 to 5 hold the application's bridge, and not another instance."""
    holders = (
        (2, "supervisor", supervisor.websocket_bridge),
        (3, "registry", supervisor.registry.websocket_bridge),
        (4, "engine", supervisor.engine.websocket_bridge),
        (5, "core", supervisor.engine.agent_core.websocket_bridge),
    )
    for link, holder, held in holders:
        if held is not bridge:
            raise DeterministicStartupError(link, f"the {holder} holds a bridge other than the application's")


async def check_delivery(bridge: AgentWebSocketBridge, supervisor: SupervisorAgent) -> None:
    """Check that an event reaches a subscriber, and that an event without a subscriber is not reported as sent."""
    probe = ProbeConnection(ThreadId(f"self-check-{new_id()}"), UserId("self-check"))
    event = _probe_event(probe.thread_id)
    with DeterministicStartupError.at(10, "a delivery"):
        if await bridge.hub.publish(event, probe.thread_id):
            raise DeterministicStartupError(10, "an event without a subscriber was reported as sent")
        async with bridge.hub.joined(probe):
            receipt = await bridge.hub.publish(event, probe.thread_id)
            arrived = bool(receipt) and await probe.received(1)
    if not arrived:
        raise DeterministicStartupError(10, "an event to a subscribed thread did not arrive")


async def check_routing(bridge: AgentWebSocketBridge, supervisor: SupervisorAgent) -> None:
    """Check that the bridge finds the thread that an event carries, and the thread that a run id is mapped to."""
    probe = ProbeConnection(ThreadId(f"self-check-{new_id()}"), UserId("self-check"))
    run_id = RunId(f"self-check-{new_id()}")
    with DeterministicStartupError.at(9, "a route"):
        await bridge.mapping.register_mapping(run_id, probe.thread_id)
        async with bridge.hub.joined(probe):
            carried = await bridge.notify(_probe_event(probe.thread_id))
            looked_up = await bridge.notify_agent_started(run_id, "self-check")
        await bridge.mapping.cleanup_mapping(run_id)
        for how, receipt in (("carried by the event", carried), ("looked up by run id", looked_up)):
            if receipt.thread_id != probe.thread_id:
                raise DeterministicStartupError(9, f"the thread {how} was not found: {receipt.reason}")


def _probe_event(thread_id: ThreadId) -> AgentEvent:
    return AgentEvent(
        type=EventType.PROGRESS_UPDATE,
        run_id=RunId(f"self-check-{new_id()}"),
        agent_name="self-check",
        payload={},
        thread_id=thread_id,
    )


SOUND_CHECKS: Final[tuple[SelfCheck, ...]] = (check_handover, check_delivery, check_routing)
