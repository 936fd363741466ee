"""bridgekit with logs in Redis Streams: agents in one process, sockets on the native edge in another process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

from benchmarks.peers.bridgekit_stack import BridgekitStack
from benchmarks.peers.stack_context import StackContext
from benchmarks.workload import AgentRun
from bridgekit.chain.link_1_startup import BridgeConfig, create_app, start_application
from bridgekit.ids import RunId, ThreadId
from bridgekit.serve.in_process import serving
from bridgekit.stores import redis_stores
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit_verify.harness.declared_owners import DeclaredOwners

__all__ = ["serve", "serve_on"]


class RegisteringStack(BridgekitStack):
    """Registers runs, as the supervisor does.

    With Redis, the bridge must look up the thread of each event if the run is not registered in its process.
    """

    async def register(self, runs: Sequence[AgentRun]) -> None:
        for run in runs:
            await self.application.bridge.mapping.register_mapping(RunId(run.run_id), ThreadId(run.thread_id))


def serve(context: StackContext) -> AbstractAsyncContextManager[BridgekitStack]:
    return serve_on(context, "native")


@asynccontextmanager
async def serve_on(context: StackContext, edge: str) -> AsyncIterator[BridgekitStack]:
    """Run the stack, with its sockets on the named edge."""
    # A real application stores the owners of threads in a database. In the benchmark, each process creates the same
    # threads.
    threads = DeclaredOwners()
    config = BridgeConfig(
        agents={}, db_session_factory=threads, authorizer=OwnerAuthorizer, stores=redis_stores(context.broker)
    )
    if context.sockets:
        app = create_app(config)
        async with serving(app, edge=edge, **context.server_options) as url:
            yield BridgekitStack(app.state.bridgekit, urlsplit(url).port or 0)
    else:
        async with config.stores() as stores:
            yield RegisteringStack(await start_application(config, stores))
