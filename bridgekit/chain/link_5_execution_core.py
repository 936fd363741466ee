"""Link 5: the core creates a run's agent, sets its bridge, runs it, and emits the run's first and last event."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from inspect import isasyncgen, isawaitable, iscoroutine, isgenerator
from typing import Final, Protocol

import anyio

from bridgekit.chain.context import END_TIMEOUT_SECONDS, RunContext
from bridgekit.chain.error_text import causes_of, is_cancellation
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import AgentExited, FrameTooLarge, PayloadError
from bridgekit.events import AgentEvent, EventType, Outcome, Receipt
from bridgekit.transport.cancellation import ends_task
from bridgekit.transport.hub import LINK

__all__ = ["AgentExecutionCore", "AgentSource"]

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0
"""Time between attempts to send an end event that the store refuses, for example because its disk is full."""
ROOM_TIMEOUT_SECONDS: Final = 2.0
"""How long the first and the last event of a run wait for room in a crowded outbox."""


class AgentSource(Protocol):
    """The part of the registry that the core uses."""

    def create(self, name: str) -> BaseAgent: ...


class AgentExecutionCore:
    """Executes runs. The core emits `agent_started` for each run, and an end event unless the agent has emitted one."""

    def __init__(self, registry: AgentSource, websocket_bridge: AgentWebSocketBridge) -> None:
        self.registry = registry
        self.websocket_bridge = websocket_bridge

    async def execute_agent(self, context: RunContext) -> object:
        """Run the agent and return its result.

        If the agent raises an error, the core emits `agent_error` and raises the error again. A result that JSON cannot
        represent counts as an error of the agent, so that the user still gets an end event. The core raises AgentExited
        in place of SystemExit and KeyboardInterrupt, so that an agent ends only its own run.
        """
        end, run = _RunEnd(self.websocket_bridge, context), (context.run_id, context.agent_name)
        try:
            await _wait_for_room(self.websocket_bridge, context)
            await self.websocket_bridge.notify_agent_started(
                *run, context={"request": context.request}, thread_id=context.thread_id
            )
            agent = self._prepared(context)
            end.close_agent = partial(agent.end_run, context.run_id)
            executing: object = agent.execute(context)
            if not isawaitable(executing):
                advice = "declare it as `async def`, and return its result"
                if isasyncgen(executing) or isgenerator(executing):
                    advice = "it contains `yield`; use `emit_text` or another `emit_*` instead, and return the result"
                raise TypeError(
                    f"`execute` of agent {context.agent_name!r} returned {type(executing).__name__}; {advice}"
                )
            result = await executing
            await end.completed(result)
        except GeneratorExit as error:
            end.closed(error)
            raise
        except BaseException as error:
            exits = [each for each in causes_of(error) if issubclass(type(each), SystemExit | KeyboardInterrupt)]
            failure = AgentExited(context.agent_name, exits[0]) if exits else error
            await end.failed(failure)
            if failure is error:
                raise
            raise failure from error
        return result

    def _prepared(self, context: RunContext) -> BaseAgent:
        """Create an agent for this run only, bound to the bridge, the run and the thread."""
        agent = self.registry.create(context.agent_name)
        agent.set_websocket_bridge(self.websocket_bridge, context.run_id, thread_id=context.thread_id)
        agent.begin_run()
        return agent


async def _wait_for_room(bridge: AgentWebSocketBridge, context: RunContext) -> None:
    """Wait at most ROOM_TIMEOUT_SECONDS for room in the thread's outboxes, because `notify_*` publishes without
    waiting."""
    if context.thread_id in bridge.crowded:
        with anyio.move_on_after(ROOM_TIMEOUT_SECONDS):
            await bridge.hub.wait_for_room(context.thread_id)


def _agent_did_not_start() -> bool:
    return True


class _RunEnd:
    """Sends the end event of one run at most once."""

    def __init__(self, bridge: AgentWebSocketBridge, context: RunContext) -> None:
        self._bridge = bridge
        self._context = context
        self._started = time.perf_counter()
        self._decided = False
        """True if this object or another worker sent the end event."""
        self.close_agent: Callable[[], bool] = _agent_did_not_start
        """Refuses further end events of the run's agent. Returns False if the agent has already emitted an end
        event."""

    async def completed(self, result: object) -> None:
        """Send `agent_completed`. Raises PayloadError or FrameTooLarge if no frame can carry the result."""
        send = partial(
            self._bridge.notify_agent_completed,
            self._context.run_id,
            self._context.agent_name,
            result=result,
            execution_time_ms=(time.perf_counter() - self._started) * 1_000,
            thread_id=self._context.thread_id,
        )
        await self._send(send)

    async def failed(self, error: BaseException) -> None:
        """Send `agent_error`, and log the error."""
        try:
            await self._send_error(error)
        finally:
            self.closed(error)  # asyncio may cancel the run again during the await

    async def _send_error(self, error: BaseException) -> None:
        text = self._bridge.error_text(error)
        request = {"request": self._context.request}
        for error_context, message in ((request, text), ({}, text), ({}, type(error).__name__)):
            send = partial(
                self._bridge.notify_agent_error,
                self._context.run_id,
                self._context.agent_name,
                message,
                error_context=error_context,
                thread_id=self._context.thread_id,
            )
            # If the application sets a small frame limit, neither the request nor the text may fit into the frame.
            with suppress(FrameTooLarge):
                await self._send(send)
                return

    def closed(self, error: BaseException) -> None:
        """Publish `agent_error` without waiting, unless an end event was sent, and log the error.

        The method must not wait, because the run's coroutine may be closing.
        """
        try:
            if not self._decided and self._must_send():
                self._publish(error)
        finally:
            self._log(error)

    def _must_send(self) -> bool:
        with suppress(Exception):  # the agent may have deleted or replaced its own parts
            return self.close_agent()
        return True

    def _publish(self, error: BaseException) -> None:
        event = AgentEvent(
            type=EventType.AGENT_ERROR,
            run_id=self._context.run_id,
            agent_name=self._context.agent_name,
            thread_id=self._context.thread_id,
            payload={"error_message": self._bridge.error_text(error), "error_context": {}},
        )
        # `notify` fails if the event loop has ended, but then no socket is open either.
        with suppress(Exception):
            answer = self._bridge.notify(event)
            if iscoroutine(answer):
                answer.close()

    async def _send(self, send: Callable[[], Awaitable[Receipt]]) -> None:
        """Send the end event, even if the run was cancelled, unless an end event was already sent.

        Try again while the store refuses the event, until END_TIMEOUT_SECONDS have passed.
        """
        if self._decided or not self._must_send():
            return
        self.close_agent = _agent_did_not_start
        with anyio.move_on_after(END_TIMEOUT_SECONDS, shield=True):
            if not await self._bridge.runs.holds(self._context.run_id):
                logger.warning("run %s was ended by another worker", self._context.run_id)
                self._decided = True
            while not self._decided:
                await _wait_for_room(self._bridge, self._context)
                self._decided = True  # set before the await, because asyncio's `Task.cancel` ignores the shield
                try:
                    receipt = await send()
                except (PayloadError, FrameTooLarge):
                    self._decided = False
                    raise
                except BaseException as error:
                    # An Exception may be raised after the event was published.
                    self._decided = isinstance(error, Exception) or ends_task(error)
                    raise
                if receipt.outcome is Outcome.REFUSED and receipt.link == LINK:
                    self._decided = False
                    await anyio.sleep(RETRY_SECONDS)
        if not self._decided:
            logger.error("run %s has no end event: none was accepted in time", self._context.run_id)

    def _log(self, error: BaseException) -> None:
        run_id, name = self._context.run_id, self._context.agent_name
        if any(map(is_cancellation, causes_of(error))):
            logger.info("run %s of agent %s was cancelled", run_id, name)
        else:
            details = (type(error), error, error.__traceback__)  # `bool(error)` may be False
            logger.error("run %s of agent %s failed", run_id, name, exc_info=details)
