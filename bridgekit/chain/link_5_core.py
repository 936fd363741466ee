"""Link 5: the core runs one agent for one run, sets its bridge, and emits the run's first and last event."""

from __future__ import annotations

import time
from typing import Protocol

import anyio

from bridgekit.chain.context import ERROR_NOTIFY_TIMEOUT_SECONDS, RunContext, user_error_text
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge

__all__ = ["AgentExecutionCore", "AgentSource"]


class AgentSource(Protocol):
    """The part of the registry that the core uses."""

    def create(self, name: str) -> BaseAgent: ...


class AgentExecutionCore:
    """Executes runs. It emits `agent_started` at the start of each run and exactly one end event."""

    def __init__(self, registry: AgentSource, websocket_bridge: AgentWebSocketBridge) -> None:
        self.registry = registry
        self.websocket_bridge = websocket_bridge

    async def execute_agent(self, context: RunContext) -> object:
        """Run the agent and return its result. If the agent raises an error, emit `agent_error` and raise it again.

        A result that JSON cannot represent is handled as such an error, so that the user still gets an end event.
        """
        notify, run = self.websocket_bridge, (context.run_id, context.agent_name)
        started = time.perf_counter()
        await notify.notify_agent_started(*run, context={"request": context.request}, thread_id=context.thread_id)
        try:
            result = await self._prepared(context).execute(context)
            await notify.notify_agent_completed(
                *run,
                result=result,
                execution_time_ms=(time.perf_counter() - started) * 1_000,
                thread_id=context.thread_id,
            )
        except BaseException as error:
            # A cancelled run is over for its user too, so `agent_error` is sent in spite of the cancellation.
            with anyio.move_on_after(ERROR_NOTIFY_TIMEOUT_SECONDS, shield=True):
                await notify.notify_agent_error(
                    *run,
                    user_error_text(error),
                    error_context={"request": context.request},
                    thread_id=context.thread_id,
                )
            raise
        return result

    def _prepared(self, context: RunContext) -> BaseAgent:
        """Create an agent for this run only, bound to the bridge, the run and the thread."""
        agent = self.registry.create(context.agent_name)
        agent.set_websocket_bridge(self.websocket_bridge, context.run_id, thread_id=context.thread_id)
        return agent
