"""Link 1: startup creates the application's only bridge, passes it to the later links, and checks it before use.

No function creates a bridge on demand, because two callers could then get two bridges. A second bridge would have no
sockets and would lose every event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from inspect import iscoroutinefunction
from typing import Any, Final

import anyio
from starlette.applications import Starlette

from bridgekit import ids
from bridgekit.chain.error_text import ErrorText, user_error_text
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge, Observer, open_bridges
from bridgekit.chain.lost_runs import lost_runs_ended
from bridgekit.chain.models_tools_and_owners import (
    LLMManager,
    MemoryThreadStore,
    PythonTools,
    ScriptedModel,
    SessionFactory,
    ToolDispatcher,
    claim_thread,
)
from bridgekit.chain.self_check import SOUND_CHECKS, SelfCheck
from bridgekit.counters import DeliveryCounters
from bridgekit.errors import (
    BridgekitError,
    DeterministicStartupError,
    InvalidId,
    ServeError,
    StoreUnavailable,
    UnknownName,
)
from bridgekit.ids import RunIdScheme, SignedRunIds, ThreadId, UserId
from bridgekit.mapping import MappingStore, RunThreadMappingService
from bridgekit.payload_encoding import PayloadHook
from bridgekit.stores import MEMORY, StoreFactory, Stores
from bridgekit.thread_resolvers import Carried, MappingLookup, Resolver
from bridgekit.transport.asgi import routes
from bridgekit.transport.authorization import Authorizer, ThreadOwners
from bridgekit.transport.connections import DRAIN_TIMEOUT_SECONDS, ConnectionRegistry
from bridgekit.transport.graceful_shutdown import drain_on_shutdown
from bridgekit.transport.hub import Hub
from bridgekit.transport.listeners_and_worker_lock import single_worker_lock
from bridgekit.transport.log import EventLog, require_seconds
from bridgekit.transport.metrics import counters_shared
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
    "publisher",
    "shut_down",
    "start_application",
]

MISSING_THREAD_STORE: Final = (
    "the {store} store retains logs after this process has forgotten the owners of their threads, so that another user"
    " could claim a thread; pass BridgeConfig a db_session_factory that opens sessions of your own database, not a"
    " MemoryThreadStore"
)
ASYNCHRONOUS: Final = (
    "{callback!r} is asynchronous, and the bridge does not await it; declare it as `def`, and let an observer pass its"
    " events to a task of your own"
)
RUNS: Final = "bridgekit_runs"
"""The attribute of an application's state that is True while the lifespan runs."""
STARTED_TWICE: Final = (
    "the application runs already, and a second bridge would take over its sockets; run its lifespan once: not in"
    " another server or test client at the same time, and not in a router that it includes as well"
)
RUNS_TIMEOUT_SECONDS: Final = 10.0
"""How long graceful shutdown waits for active runs to end."""
SESSION_TIMEOUT_SECONDS: Final = 5.0
"""How long startup waits for a session, to check that it is not a MemoryThreadStore."""


def carried_or_mapped(mapping: RunThreadMappingService) -> Resolver:
    """Create the default resolver, which returns the thread that the event carries, or else looks up the run id.

    An event that carries a thread other than its run's gets no route: see `Carried`.
    """
    return Carried(otherwise=MappingLookup(mapping), known=mapping.known, shared=mapping.shared)


@dataclass(frozen=True, kw_only=True, repr=False)
class BridgeConfig:
    """The configuration of an application. Every field except `agents` has a sound default."""

    agents: Mapping[str, type[BaseAgent]]
    db_session_factory: SessionFactory = field(default_factory=MemoryThreadStore)
    """Opens sessions of the database that records the owners of threads. The default works only with the memory
    store."""
    llm_manager: LLMManager = field(default_factory=ScriptedModel)
    tool_dispatcher: ToolDispatcher = field(default_factory=lambda: PythonTools({}))
    run_ids: RunIdScheme = field(default_factory=SignedRunIds)
    stores: StoreFactory = MEMORY
    """Where routes, logs and used tickets are stored: in memory, in SQLite or in Redis."""
    mapping: Callable[[MappingStore], RunThreadMappingService] = RunThreadMappingService
    resolver: Callable[[RunThreadMappingService], Resolver] = carried_or_mapped
    hub: Callable[[EventLog], Hub] = Hub
    authorizer: Callable[[ThreadOwners, UsedTickets], Authorizer] = Tickets
    """Authorizes subscriptions. The default requires a ticket. Workers that share a store must share a ticket key."""
    origins: tuple[str, ...] = ()
    """Other origins whose pages may open sockets, for example "https://app.example.org". "*" allows every origin."""
    bridge: type[AgentWebSocketBridge] = AgentWebSocketBridge
    supervisor: type[SupervisorAgent] = SupervisorAgent
    registry: type[AgentRegistry] = AgentRegistry
    engine: type[ExecutionEngine] = ExecutionEngine
    core: type[AgentExecutionCore] = AgentExecutionCore
    adapter: type[WebSocketBridgeAdapter] = WebSocketBridgeAdapter
    payload_hook: PayloadHook | None = None
    """Converts values of the application's own types in every payload: see `bridgekit.payload_encoding.apply_hook`."""
    error_text: ErrorText = user_error_text
    """Returns the text that the user gets for an error of a run. The default text has the types of the error's causes,
    and the messages that cannot contain a secret: see `bridgekit.errors.text_for_users`. The Python logger gets the
    whole error."""
    observers: tuple[Observer, ...] = ()
    """The bridge calls each observer with every event and its receipt, for logs, traces and metrics of the
    application."""
    outbox: OutboxLimits = OUTBOX_LIMITS
    """The bounds of each subscriber's outbox. An outbox never holds more than the stores retain, or
    64 KiB."""
    runs_seconds: float = RUNS_TIMEOUT_SECONDS
    """How long graceful shutdown waits for active runs to end."""
    drain_seconds: float = DRAIN_TIMEOUT_SECONDS
    """How long graceful shutdown waits for clients to read their outboxes, after the runs have ended. `runs_seconds`
    plus `drain_seconds` must be shorter than the grace period of the process supervisor: by default, 30 s in
    Kubernetes, 90 s with systemd, and 10 s with Docker."""
    self_checks: tuple[SelfCheck, ...] = SOUND_CHECKS

    def __post_init__(self) -> None:
        for name in ("runs_seconds", "drain_seconds"):
            require_seconds(f"BridgeConfig.{name}", getattr(self, name))

    def __repr__(self) -> str:
        # The other fields may contain secrets, such as ticket keys.
        return f"{type(self).__name__}(agents={list(self.agents)})"


@dataclass(frozen=True)
class Application:
    """A started application: its configuration, its open stores, the bridge and the supervisor."""

    config: BridgeConfig
    stores: Stores
    bridge: AgentWebSocketBridge
    supervisor: SupervisorAgent

    @property
    def counters(self) -> DeliveryCounters:
        return self.bridge.counters

    async def open_thread(self, thread_id: str, user_id: str) -> None:
        """Create a thread for a user, as a front end does before it opens a socket.

        Raises InvalidId if an id is not valid. Raises ThreadNotOwned if the thread belongs to another user.
        """
        await claim_thread(self.config.db_session_factory, ids.thread_id(thread_id), ids.user_id(user_id))

    @cached_property
    def authorizer(self) -> Authorizer:
        """Decides which clients may subscribe to which threads."""
        return self.config.authorizer(self, self.stores.used_tickets)

    def ticket(self, thread_id: str, user_id: str) -> str:
        """Issue a ticket that lets the user open one socket on the thread. Authenticate the user first.

        Raises UnknownName if the application's authorizer does not use tickets, and InvalidId if an id is malformed.
        """
        if not isinstance(self.authorizer, Tickets):
            raise UnknownName("authorizer by ticket", type(self.authorizer).__name__, ("Tickets",))
        return self.authorizer.issue(user_id, thread_id)

    async def owner_of(self, thread_id: ThreadId) -> UserId | None:
        """Return the thread's owner, or None if the thread does not exist."""
        async with self.config.db_session_factory() as session:
            return await session.owner_of(thread_id)


async def start_application(config: BridgeConfig, stores: Stores) -> Application:
    """Create the links in the order of the chain, pass the bridge to them, and run the self-checks.

    The stores must be open. Raises DeterministicStartupError, with the link and the reason, if a link or a self-check
    fails. After an error, no part of the application is left running.
    """
    if not isinstance(config.observers, tuple | list):
        raise InvalidId("observers", f"must be a sequence of functions, such as (observer,), not {config.observers!r}")
    _require_synchronous(*config.observers, config.payload_hook, config.error_text)
    with DeterministicStartupError.at(1, "the bridge"):
        counters = DeliveryCounters()
        mapping = config.mapping(stores.routes)
        bridge = config.bridge(config.hub(stores.log), config.resolver(mapping), mapping, counters)
        bridge.runs, bridge.choose_error_text = stores.runs, config.error_text
        bridge.payload_hook = config.payload_hook
        if stores.durable:
            bridge.bind_to_event_loop()  # the stores were opened on this event loop
    if stores.durable and await _forgets_owners(config.db_session_factory):
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
    bridge.observers += config.observers
    application = Application(config, stores, bridge, supervisor)
    _require_shared_ticket_key(application)
    open_bridges.add(bridge)
    return application


def _require_synchronous(*callbacks: Any) -> None:
    for callback in callbacks:
        if callback is not None and not callable(callback):
            raise InvalidId(
                "callback", f"{callback!r} is not a function, as an observer, payload_hook or error_text is"
            )
        if iscoroutinefunction(callback) or iscoroutinefunction(type(callback).__call__):
            raise DeterministicStartupError(9, ASYNCHRONOUS.format(callback=callback))


async def _forgets_owners(sessions: SessionFactory) -> bool:
    if isinstance(getattr(sessions, "__self__", sessions), MemoryThreadStore):
        return True
    # Another factory may open sessions of a MemoryThreadStore. A database need not be available at startup.
    with suppress(Exception), anyio.move_on_after(SESSION_TIMEOUT_SECONDS):
        async with sessions() as session:
            return isinstance(session, MemoryThreadStore)
    return False


def _require_shared_ticket_key(application: Application) -> None:
    """Refuse a generated ticket key if workers share the store, because each worker would reject the tickets of the
    other workers."""
    authorizer = application.authorizer
    if application.stores.shared and isinstance(authorizer, Tickets) and authorizer.has_random_key:
        raise DeterministicStartupError(
            10,
            f"workers that share the {application.stores.name} store must also share a ticket key, and none is"
            " configured; set authorizer=partial(Tickets, keys=(key,))",
        )


@asynccontextmanager
async def publisher(
    stores: StoreFactory, *, payload_hook: PayloadHook | None = None
) -> AsyncIterator[AgentWebSocketBridge]:
    """Open a bridge in a process that has only run ids and serves no sockets, such as a Celery worker or a cron job.

    The bridge's `notify_*` methods find the thread of a run that is open in any worker, and publish to the sockets of
    all workers. Raises ServeError if the stores are not shared, DeterministicStartupError if the hook is asynchronous,
    and the errors that opening the stores raises. The block raises StoreUnavailable at its end if the store has not
    confirmed every event, because these events may be lost.
    """
    _require_synchronous(payload_hook)
    async with stores() as opened:
        if not opened.shared:
            raise ServeError(f"the {opened.name} store", "it belongs to one process; a publisher needs redis_stores")
        mapping = RunThreadMappingService(opened.routes)
        bridge = AgentWebSocketBridge(Hub(opened.log), carried_or_mapped(mapping), mapping)
        bridge.payload_hook = payload_hook
        bridge.bind_to_event_loop()
        yield bridge
    if opened.log.unconfirmed:
        raise StoreUnavailable(opened.name, f"it did not confirm {opened.log.unconfirmed} events of the publisher")


ApplicationFactory = Callable[[BridgeConfig, Stores], Awaitable[Application]]
"""Starts an application from its configuration and open stores. `start_application` is the default."""


def lifespan(
    config: BridgeConfig, *, start: ApplicationFactory = start_application
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """Create the lifespan of a Starlette or FastAPI application whose routes include bridgekit's `routes()`.

    While the application runs, the bridge is `app.state.agent_websocket_bridge`, under the audit's name. The
    `Application` is `app.state.bridgekit`.
    """

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if getattr(app.state, RUNS, False):
                raise DeterministicStartupError(1, STARTED_TWICE)
            setattr(app.state, RUNS, True)
            stack.callback(setattr, app.state, RUNS, False)
            with DeterministicStartupError.at(1, "the application"):
                shutdown_seconds = config.runs_seconds + config.drain_seconds
                application = await start(config, await _require_single_worker(stack, config))
                edge = ConnectionRegistry(
                    application.bridge.hub,
                    application.authorizer,
                    application.counters,
                    origins=config.origins,
                    outbox=config.outbox,
                )
            stack.callback(open_bridges.discard, application.bridge)
            stack.callback(application.supervisor.refuse_runs)
            application.bridge.bind_to_event_loop()
            app.state.bridgekit = application
            app.state.agent_websocket_bridge = application.bridge
            app.state.bridgekit_connections = edge
            shutting_down = partial(shut_down, application, edge)
            async with (
                edge,
                counters_shared(application.counters, edge.hub),
                lost_runs_ended(application.bridge),
                drain_on_shutdown(shutting_down, seconds=shutdown_seconds),
            ):
                yield

    return running


async def _require_single_worker(stack: AsyncExitStack, config: BridgeConfig) -> Stores:
    """Open the stores, and close them when `stack` exits. If the store serves a single process, lock out other
    workers."""
    try:
        stores = await stack.enter_async_context(config.stores())
        if not stores.shared:
            stack.enter_context(single_worker_lock(stores.name))
    except BridgekitError as refusal:
        # The message is complete. A chained error would add a traceback that hides the message.
        raise DeterministicStartupError(1, str(refusal)) from None
    return stores


async def shut_down(application: Application, edge: ConnectionRegistry) -> None:
    """Shut down gracefully: refuse new runs and sockets, wait for active runs, then drain and close every socket.

    `runs_seconds` limits the wait for runs, and `drain_seconds` the wait for clients. A run that takes longer than
    `runs_seconds` continues until the process ends. Clients resume after the restart, or on another worker.
    """
    edge.stop_accepting()
    await application.supervisor.close(seconds=application.config.runs_seconds)
    await edge.drain(seconds=application.config.drain_seconds)


def create_app(config: BridgeConfig, *, start: ApplicationFactory = start_application) -> Starlette:
    """Create a complete ASGI application with the routes `/ws`, `/metrics` and `/healthz`."""
    return Starlette(routes=routes(), lifespan=lifespan(config, start=start))
