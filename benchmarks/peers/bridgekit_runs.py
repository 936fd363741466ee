"""The same edge, and whole runs through all nine links: ids sealed, routes registered, threads claimed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from benchmarks.peers.bridgekit_agents import USER, Bridged, emit
from benchmarks.peers.context import StackContext
from benchmarks.workload import AGENT, EVENTS, AgentRun, Said
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.serve.in_process import serving
from bridgekit.transport.authorization import OwnerAuthorizer

__all__ = ["up"]


class _Speaker(BaseAgent):
    """Says what the run's script holds for it. What comes before and after is said by the core."""

    scripts: dict[str, tuple[Sequence[Said], bool]] = {}  # noqa: RUF012  # agents are made by the registry: no other way

    async def execute(self, context: RunContext) -> object:
        said, yielding = self.scripts[context.request]
        for each in said[1:-1]:
            if yielding:
                await asyncio.sleep(0)
            await emit(self, each)
        if yielding:
            await asyncio.sleep(0)
        return said[-1].payload["result"]


class _Whole(Bridged):
    async def run(self, run: AgentRun, said: Sequence[Said], turn_after: int) -> None:
        _Speaker.scripts[run.request] = said, turn_after == 1
        try:
            await self.application.supervisor.run(
                agent_name=AGENT, thread_id=run.thread_id, user_id=USER, request=run.request
            )
        finally:
            del _Speaker.scripts[run.request]
        if 0 < turn_after <= EVENTS:
            await asyncio.sleep(0)


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[Bridged]:
    app = create_app(BridgeConfig(agents={AGENT: _Speaker}, authorizer=OwnerAuthorizer))
    async with serving(app, **place.how) as url:
        yield _Whole(app.state.bridgekit, urlsplit(url).port or 0)
