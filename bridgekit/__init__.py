"""bridgekit carries an AI agent's events to the user's WebSocket, and proves that they arrive.

Layout, lowest layer first. A module imports only from its own layer and lower layers.

    0  ids, payload_encoding, events, errors, …     data types and pure functions, without I/O
    1  mapping, thread_resolvers                  which thread a run belongs to
    2  transport, stores                          how a frame reaches a browser, and where routes and logs are stored
    3  chain                                      the nine links; link N imports only later links
    4  invariants                                 the rules that every recorded event stream must satisfy
    5  serve, testing, pytest_plugin, __main__    the server, the test tools and the command line

The verification suite, `bridgekit_verify`, imports this package. No module of `bridgekit` imports `bridgekit_verify` at
load time. `__main__` imports the module of a command when the command runs.

Public names are imported on first use, because pytest imports `bridgekit` for the plugin even if no test needs servers
and sockets.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridgekit.chain.context import RunContext, RunResult, current_run
    from bridgekit.chain.link_1_startup import (
        Application,
        BridgeConfig,
        create_app,
        lifespan,
        publisher,
        start_application,
    )
    from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
    from bridgekit.chain.link_6_base_agent import BaseAgent
    from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
    from bridgekit.chain.models_tools_and_owners import MemoryThreadStore, PythonTools, ScriptedModel, ThreadSession
    from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason
    from bridgekit.errors import BridgekitError, StoreUnavailable, SubscriptionRefused, ThreadNotOwned
    from bridgekit.event_types import EventType, Policy, define_event_type
    from bridgekit.events import AgentEvent, Outcome, Receipt, RoutedEvent
    from bridgekit.ids import RunId, ThreadId, UserId
    from bridgekit.mapping import RunThreadMappingService
    from bridgekit.serve.in_process import serving
    from bridgekit.stores import memory_stores, redis_stores, sqlite_stores, stores_from
    from bridgekit.transport.asgi import routes
    from bridgekit.transport.authorization import (
        Authorizer,
        Handshake,
        OwnerAuthorizer,
        Subscription,
        ThreadOwners,
        authorize_owner,
    )
    from bridgekit.transport.client import EventClient, connect
    from bridgekit.transport.log import Retention
    from bridgekit.transport.outbox import OutboxLimits
    from bridgekit.transport.resuming_client import ResumingClient, subscribe
    from bridgekit.transport.tickets import Tickets

__version__ = "0.2.0"

__all__ = [
    "AgentEvent", "AgentWebSocketBridge", "Application", "Authorizer", "BaseAgent", "BridgeConfig",
    "BridgekitError", "Cursor", "EventClient", "EventType", "Gap", "GapReason", "Handshake", "MemoryThreadStore",
    "OutboxLimits", "Outcome", "OwnerAuthorizer", "Policy", "PythonTools", "Receipt", "ResumingClient", "Retention",
    "RoutedEvent", "RunContext", "RunId", "RunResult", "RunThreadMappingService", "ScriptedModel", "StoreUnavailable",
    "Subscription", "SubscriptionRefused", "SupervisorAgent", "ThreadId", "ThreadNotOwned", "ThreadOwners",
    "ThreadSession", "Tickets", "UserId", "authorize_owner", "connect", "create_app", "current_run",
    "define_event_type", "lifespan", "memory_stores", "publisher", "redis_stores", "routes", "serving",
    "sqlite_stores", "start_application", "stores_from", "subscribe",
]  # fmt: skip

# Without a handler, Python writes a library's warnings to stderr if the application configures no logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_LAZY_EXPORTS = {
    "bridgekit.chain.models_tools_and_owners": ("MemoryThreadStore", "PythonTools", "ScriptedModel", "ThreadSession"),
    "bridgekit.chain.context": ("RunContext", "RunResult", "current_run"),
    "bridgekit.chain.link_1_startup": (
        "Application", "BridgeConfig", "create_app", "lifespan", "publisher", "start_application"
    ),
    "bridgekit.chain.link_2_supervisor_agent": ("SupervisorAgent",),
    "bridgekit.chain.link_6_base_agent": ("BaseAgent",),
    "bridgekit.chain.link_9_bridge": ("AgentWebSocketBridge",),
    "bridgekit.errors": ("BridgekitError", "StoreUnavailable", "SubscriptionRefused", "ThreadNotOwned"),
    "bridgekit.event_types": ("EventType", "Policy", "define_event_type"),
    "bridgekit.events": ("AgentEvent", "Outcome", "Receipt", "RoutedEvent"),
    "bridgekit.ids": ("RunId", "ThreadId", "UserId"),
    "bridgekit.mapping": ("RunThreadMappingService",),
    "bridgekit.serve.in_process": ("serving",),
    "bridgekit.cursors_and_gaps": ("Cursor", "Gap", "GapReason"),
    "bridgekit.stores": ("memory_stores", "redis_stores", "sqlite_stores", "stores_from"),
    "bridgekit.transport.authorization": (
        "Authorizer", "Handshake", "OwnerAuthorizer", "Subscription", "ThreadOwners", "authorize_owner"
    ),
    "bridgekit.transport.asgi": ("routes",),
    "bridgekit.transport.log": ("Retention",),
    "bridgekit.transport.client": ("EventClient", "connect"),
    "bridgekit.transport.resuming_client": ("ResumingClient", "subscribe"),
    "bridgekit.transport.outbox": ("OutboxLimits",),
    "bridgekit.transport.tickets": ("Tickets",),
}  # fmt: skip
"""The public names of each module."""

_MOVED = {"LINKS": "bridgekit_verify.links", "VARIANTS": "bridgekit_verify.variants"}
"""Names that were moved out of this package, and the modules that define them now."""

if not TYPE_CHECKING:  # If a type checker saw `__getattr__`, it would accept any name.

    def __getattr__(name: str) -> object:
        module = next((module for module, names in _LAZY_EXPORTS.items() if name in names), None)
        if name in _MOVED:
            raise AttributeError(f"{__name__}.{name} has moved: use `from {_MOVED[name]} import {name}`")
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(module), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
