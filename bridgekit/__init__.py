"""bridgekit: proving that the events an AI agent emits reach the user who waits for them.

The floors, lowest first; a module imports from its own floor and those below, never from above:

    0  ids, payloads, events, signals,
       errors, counters                           words; no I/O
    1  mapping, resolution                     where a run belongs
    2  transport, stores                       how a frame reaches a browser
    3  chain                                   the nine links; link N imports only later links
    4  invariants                              what must hold of a recorded stream of events
    5  serve, testing, pytest_plugin,
       __main__                                what stands on all of it

`bridgekit_verify`, the suite that measures, stands on this package. Nothing here imports it; `__main__` knows its
commands by name.

The public names are looked up when they are first used: pytest imports this package wherever it is installed, for its
plugin, and need not wait for servers and sockets that no test asks for.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridgekit.chain import LINKS
    from bridgekit.chain.collaborators import MemoryThreadStore, PythonTools, ScriptedModel
    from bridgekit.chain.context import RunContext, RunResult
    from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app, lifespan, start_application
    from bridgekit.chain.link_2_supervisor import SupervisorAgent
    from bridgekit.chain.link_6_agent import BaseAgent
    from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
    from bridgekit.errors import BridgekitError
    from bridgekit.events import AgentEvent, EventType, Outcome, Receipt, RoutedEvent
    from bridgekit.mapping import RunThreadMappingService
    from bridgekit.serve.in_process import serving
    from bridgekit.signals import Cursor, Gap, GapReason
    from bridgekit.stores import memory_stores, redis_stores, sqlite_stores, stores_from
    from bridgekit.transport.asgi import routes
    from bridgekit.transport.authorization import OwnerAuthorizer
    from bridgekit.transport.client import EventClient, connect
    from bridgekit.transport.log import Retention
    from bridgekit.transport.outbox import OutboxLimits
    from bridgekit.transport.resuming_client import ResumingClient, subscribe
    from bridgekit.transport.tickets import Tickets

__version__ = "0.2.0"

__all__ = [
    "LINKS",
    "AgentEvent",
    "AgentWebSocketBridge",
    "Application",
    "BaseAgent",
    "BridgeConfig",
    "BridgekitError",
    "Cursor",
    "EventClient",
    "EventType",
    "Gap",
    "GapReason",
    "MemoryThreadStore",
    "OutboxLimits",
    "Outcome",
    "OwnerAuthorizer",
    "PythonTools",
    "Receipt",
    "ResumingClient",
    "Retention",
    "RoutedEvent",
    "RunContext",
    "RunResult",
    "RunThreadMappingService",
    "ScriptedModel",
    "SupervisorAgent",
    "Tickets",
    "connect",
    "create_app",
    "lifespan",
    "memory_stores",
    "redis_stores",
    "routes",
    "serving",
    "sqlite_stores",
    "start_application",
    "stores_from",
    "subscribe",
]

# A library says nothing on its own: without this, warnings of an application that set up no logging go to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_LAZY_EXPORTS = {
    "bridgekit.chain": ("LINKS",),
    "bridgekit.chain.collaborators": ("MemoryThreadStore", "PythonTools", "ScriptedModel"),
    "bridgekit.chain.context": ("RunContext", "RunResult"),
    "bridgekit.chain.link_1_startup": ("Application", "BridgeConfig", "create_app", "lifespan", "start_application"),
    "bridgekit.chain.link_2_supervisor": ("SupervisorAgent",),
    "bridgekit.chain.link_6_agent": ("BaseAgent",),
    "bridgekit.chain.link_9_bridge": ("AgentWebSocketBridge",),
    "bridgekit.errors": ("BridgekitError",),
    "bridgekit.events": ("AgentEvent", "EventType", "Outcome", "Receipt", "RoutedEvent"),
    "bridgekit.mapping": ("RunThreadMappingService",),
    "bridgekit.serve.in_process": ("serving",),
    "bridgekit.signals": ("Cursor", "Gap", "GapReason"),
    "bridgekit.stores": ("memory_stores", "redis_stores", "sqlite_stores", "stores_from"),
    "bridgekit.transport.authorization": ("OwnerAuthorizer",),
    "bridgekit.transport.asgi": ("routes",),
    "bridgekit.transport.log": ("Retention",),
    "bridgekit.transport.client": ("EventClient", "connect"),
    "bridgekit.transport.resuming_client": ("ResumingClient", "subscribe"),
    "bridgekit.transport.outbox": ("OutboxLimits",),
    "bridgekit.transport.tickets": ("Tickets",),
}
"""Which module each public name is from."""

_MOVED = {"VARIANTS": "bridgekit_verify.variants"}
"""Names that this package had, and where they are now."""

if not TYPE_CHECKING:  # a type checker reads the imports above; this would make it believe in any name at all

    def __getattr__(name: str) -> object:
        home = next((module for module, names in _LAZY_EXPORTS.items() if name in names), None)
        if name in _MOVED:
            raise AttributeError(f"{__name__}.{name} has moved: from {_MOVED[name]} import {name}")
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(home), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
