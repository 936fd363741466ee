"""bridgekit's ASGI edge with whole runs through all nine links: signed ids, registered routes, claimed threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from benchmarks.peers.bridgekit_stack import USER, BridgekitStack, emit
from benchmarks.peers.stack_context import StackContext
from benchmarks.workload import AGENT, EVENTS, AgentRun, EventBody
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.serve.in_process import serving
from bridgekit.transport.authorization import OwnerAuthorizer

__all__ = ["serve"]


class _ScriptedAgent(BaseAgent):
    """Emits the events of the run's script.

    The core emits the run's first and last event.
    """

    scripts: dict[str, tuple[Sequence[EventBody], bool]] = {}  # noqa: RUF012  # the registry creates the agents

    async def execute(self, context: RunContext) -> object:
        bodies, yielding = self.scripts[context.request]
        for body in bodies[1:-1]:
            if yielding:
                await asyncio.sleep(0)
            await emit(self, body)
        if yielding:
            await asyncio.sleep(0)
        return bodies[-1].payload["result"]


class WholeRunStack(BridgekitStack):
    async def run(self, run: AgentRun, bodies: Sequence[EventBody], yield_after: int) -> None:
        _ScriptedAgent.scripts[run.request] = bodies, yield_after == 1
        try:
            await self.application.supervisor.run(
                agent_name=AGENT, thread_id=run.thread_id, user_id=USER, request=run.request
            )
        finally:
            del _ScriptedAgent.scripts[run.request]
        if 0 < yield_after <= EVENTS:
            await asyncio.sleep(0)


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[BridgekitStack]:
    app = create_app(BridgeConfig(agents={AGENT: _ScriptedAgent}, authorizer=OwnerAuthorizer))
    async with serving(app, **context.server_options) as url:
        yield WholeRunStack(app.state.bridgekit, urlsplit(url).port or 0)
