"""Link 1: the only place where a bridge is made. It is handed on from here, and checked before anybody may use it.

There is no accessor that makes a bridge on demand: two callers of one could end up with two bridges, and a
bridge that no socket is attached to loses everything that is sent over it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final

from starlette.applications import Starlette

from bridgekit import ids
from bridgekit.chain.collaborators import (
    LLMManager,
    PythonTools,
    ScriptedModel,
    SessionFactory,
    ToolDispatcher,
    UnsharedThreadStore,
)
from bridgekit.chain.link_2_supervisor import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_core import AgentExecutionCore
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.self_check import SOUND_CHECKS, SelfCheck
from bridgekit.counters import DeliveryCounters
from bridgekit.errors import BridgekitError, DeterministicStartupError, UnknownName
from bridgekit.ids import RunIdScheme, SignedRunIds, ThreadId, UserId
from bridgekit.mapping import MappingStore, RunThreadMappingService
from bridgekit.resolution import Carried, MappingLookup, Resolver
from bridgekit.stores import MEMORY, StoreFactory, Stores
from bridgekit.transport.asgi import routes
from bridgekit.transport.authorization import Authorizer, ThreadOwners
from bridgekit.transport.connections import DRAIN_TIMEOUT_SECONDS, ConnectionRegistry
from bridgekit.transport.graceful_shutdown import drain_on_shutdown
from bridgekit.transport.hub import Hub
from bridgekit.transport.listeners import single_worker_lock
from bridgekit.transport.log import EventLog
from bridgekit.transport.outbox import OUTBOX_LIMITS, OutboxLimits
from bridgekit.transport.tickets import Tickets
from bridgekit.transport.used_tickets import UsedTickets

__all__ = [
    "RUNS_TIMEOUT_SECONDS",
    "Application",
    "ApplicationFactory",
    "BridgeConfig",
    "create_app",
    "lifespan",
    "shut_down",
    "start_application",
]

MISSING_THREAD_STORE: Final = (
    "the {store} store keeps logs for longer than this process knows whose threads they are, and somebody else could"
    " claim one; give BridgeConfig a db_session_factory that opens sessions of your own database"
)
RUNS_TIMEOUT_SECONDS: Final = 10.0
"""How long runs that are under way may go on when the server stops."""


def carried_or_mapped(mapping: RunThreadMappingService) -> Resolver:
    """The sound way: the run's context says the thread; a caller with nothing but a run id has it looked up."""
    return Carried(otherwise=MappingLookup(mapping))


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """What an application is put together from. Every part but the agents has a sound default."""

    agents: Mapping[str, type[BaseAgent]]
    db_session_factory: SessionFactory = field(default_factory=UnsharedThreadStore)
    """Opens sessions of the database that says whose a thread is. The default is right for the memory store only."""
    llm_manager: LLMManager = field(default_factory=ScriptedModel)
    tool_dispatcher: ToolDispatcher = field(default_factory=lambda: PythonTools({}))
    run_ids: RunIdScheme = field(default_factory=SignedRunIds)
    stores: StoreFactory = MEMORY
    """Where routes, logs and spent tickets are kept: memory, SQLite or Redis."""
    mapping: Callable[[MappingStore], RunThreadMappingService] = RunThreadMappingService
    resolver: Callable[[RunThreadMappingService], Resolver] = carried_or_mapped
    hub: Callable[[EventLog], Hub] = Hub
    authorizer: Callable[[ThreadOwners, UsedTickets], Authorizer] = Tickets
    """Who is let in: whoever brings a ticket. Workers that share a store need a key that they share too."""
    origins: tuple[str, ...] = ()
    """Other sites whose pages may open sockets here, such as "https://app.example.org"; "*" for any."""
    bridge: type[AgentWebSocketBridge] = AgentWebSocketBridge
    supervisor: type[SupervisorAgent] = SupervisorAgent
    registry: type[AgentRegistry] = AgentRegistry
    engine: type[ExecutionEngine] = ExecutionEngine
    core: type[AgentExecutionCore] = AgentExecutionCore
    adapter: type[WebSocketBridgeAdapter] = WebSocketBridgeAdapter
    outbox: OutboxLimits = OUTBOX_LIMITS
    """How much may wait for each socket. Never more than the stores retain."""
    runs_seconds: float = RUNS_TIMEOUT_SECONDS
    """How long runs that are under way may go on when the server stops."""
    drain_seconds: float = DRAIN_TIMEOUT_SECONDS
    """How long sockets may take after that to read what waits for them. Both together must fit into the time that
    whatever stops the server leaves it: 30 s in Kubernetes, 90 s under systemd, only 10 s under Docker."""
    self_checks: tuple[SelfCheck, ...] = SOUND_CHECKS


@dataclass(frozen=True)
class Application:
    """A started application: the bridge, and what it was handed to."""

    config: BridgeConfig
    stores: Stores
    bridge: AgentWebSocketBridge
    supervisor: SupervisorAgent

    @property
    def counters(self) -> DeliveryCounters:
        return self.bridge.counters

    async def open_thread(self, thread_id: str, user_id: str) -> None:
        """Make a thread for a user, as a front end does before it opens its socket. InvalidId, or ThreadNotOwned."""
        async with self.config.db_session_factory() as session:
            await session.claim(ids.thread_id(thread_id), ids.user_id(user_id))

    @cached_property
    def authorizer(self) -> Authorizer:
        """Who is let in."""
        return self.config.authorizer(self, self.stores.used_tickets)

    def ticket(self, thread_id: str, user_id: str) -> str:
        """A ticket for one socket of that user on that thread: give it to a user whom you have authenticated.

        UnknownName where the application admits by something else than tickets.
        """
        if not isinstance(self.authorizer, Tickets):
            raise UnknownName("authorizer by ticket", type(self.authorizer).__name__, ("Tickets",))
        return self.authorizer.issue(user_id, thread_id)

    async def owner_of(self, thread_id: ThreadId) -> UserId | None:
        async with self.config.db_session_factory() as session:
            return await session.owner_of(thread_id)


async def start_application(config: BridgeConfig, stores: Stores) -> Application:
    """Make the parts in the order of the chain, on stores that are open; hand the bridge on, and check that it works.

    DeterministicStartupError names the link that failed and why; then nothing of the application is left.
    """
    with DeterministicStartupError.at(1, "the bridge"):
        counters = DeliveryCounters()
        mapping = config.mapping(stores.routes)
        bridge = config.bridge(config.hub(stores.log), config.resolver(mapping), mapping, counters)
    if stores.durable and isinstance(config.db_session_factory, UnsharedThreadStore):
        raise DeterministicStartupError(2, MISSING_THREAD_STORE.format(store=stores.name))
    with DeterministicStartupError.at(2, "the supervisor"):
        supervisor = config.supervisor(
            config.db_session_factory,
            config.llm_manager,
            bridge,
            config.tool_dispatcher,
            agents=config.agents,
            run_ids=config.run_ids,
            registry=config.registry,
            engine=config.engine,
            core=config.core,
            adapter=config.adapter,
        )
    with DeterministicStartupError.at(3, "the registry's bridge"):
        supervisor.registry.set_websocket_bridge(bridge)
    for check in config.self_checks:
        with DeterministicStartupError.at(1, check.__name__):
            await check(bridge, supervisor)
    counters.clear()
    application = Application(config, stores, bridge, supervisor)
    _check_key(application)
    return application


def _check_key(application: Application) -> None:
    """Another worker would refuse every ticket that this one gives, and this one every ticket of another's."""
    authorizer = application.authorizer
    if application.stores.shared and isinstance(authorizer, Tickets) and authorizer.has_random_key:
        raise DeterministicStartupError(
            10,
            f"workers that share the {application.stores.name} store must share a key for tickets too,"
            " and none was given: authorizer=partial(Tickets, keys=(key,))",
        )


ApplicationFactory = Callable[[BridgeConfig, Stores], Awaitable[Application]]
"""Puts an application together; `start_application` is the sound one."""


def lifespan(
    config: BridgeConfig, *, start: ApplicationFactory = start_application
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """A lifespan for a Starlette or FastAPI application that has bridgekit's `routes()` among its own.

    While it runs, the bridge is at `app.state.agent_websocket_bridge`, where the audit looks for it, and the
    whole of it at `app.state.bridgekit`.
    """

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            with DeterministicStartupError.at(1, "the application"):
                application = await start(config, await _require_single_worker(stack, config))
            edge = ConnectionRegistry(
                application.bridge.hub,
                application.authorizer,
                application.counters,
                origins=config.origins,
                outbox=config.outbox,
            )
            app.state.bridgekit = application
            app.state.agent_websocket_bridge = application.bridge
            app.state.bridgekit_connections = edge
            async with edge, drain_on_shutdown(partial(shut_down, application, edge)):
                yield

    return running


async def _require_single_worker(stack: AsyncExitStack, config: BridgeConfig) -> Stores:
    """The stores, open until the stack is left; and where they serve one process, that this one is it."""
    try:
        stores = await stack.enter_async_context(config.stores())
        if not stores.shared:
            stack.enter_context(single_worker_lock(stores.name))
    except BridgekitError as refusal:
        # Its text says all. What a server would print of the way here only hides it.
        raise DeterministicStartupError(1, str(refusal)) from None
    return stores


async def shut_down(application: Application, edge: ConnectionRegistry) -> None:
    """Take no new run and no new socket, let the runs under way come to their end, then see every socket out.

    Both within the parts' stated times: a run that takes longer goes on, and its users resume elsewhere, or later.
    """
    edge.stop_accepting()
    await application.supervisor.close(seconds=application.config.runs_seconds)
    await edge.close(seconds=application.config.drain_seconds)


def create_app(config: BridgeConfig, *, start: ApplicationFactory = start_application) -> Starlette:
    """An ASGI application of its own, with `/ws`, `/metrics` and `/healthz`."""
    return Starlette(routes=routes(), lifespan=lifespan(config, start=start))
