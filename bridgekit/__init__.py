"""bridgekit: proving that the events an AI agent emits reach the user who waits for them.

The floors, lowest first; a module imports from its own floor and those below, never from above:

    0  ids, payloads, events, errors, tally    words; no I/O
    1  mapping, resolution                     where a run belongs
    2  transport                               how a frame reaches a browser
    3  chain                                   the nine links; link N imports only later links
    4  variants, ladder                        choices: sound, as audited, each fix, each repair
    5  measure                                 what was delivered, to whom, and where the rest died
    6  report                                  notebooks to findings to one file
"""

import logging

from bridgekit.chain import LINKS
from bridgekit.chain.collaborators import MemoryThreads, PythonTools, ScriptedModel
from bridgekit.chain.context import RunContext, RunResult
from bridgekit.chain.link_1_startup import Application, Parts, create_app, lifespan, start_application
from bridgekit.chain.link_2_supervisor import SupervisorAgent
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import BridgekitError
from bridgekit.events import AgentEvent, EventType, Outcome, Receipt, RoutedEvent
from bridgekit.mapping import RunThreadMappingService
from bridgekit.transport.asgi import routes
from bridgekit.transport.client import EventClient, connect
from bridgekit.transport.server import serving
from bridgekit.variants import VARIANTS

__version__ = "0.1.0"

__all__ = [
    "LINKS",
    "VARIANTS",
    "AgentEvent",
    "AgentWebSocketBridge",
    "Application",
    "BaseAgent",
    "BridgekitError",
    "EventClient",
    "EventType",
    "MemoryThreads",
    "Outcome",
    "Parts",
    "PythonTools",
    "Receipt",
    "RoutedEvent",
    "RunContext",
    "RunResult",
    "RunThreadMappingService",
    "ScriptedModel",
    "SupervisorAgent",
    "connect",
    "create_app",
    "lifespan",
    "routes",
    "serving",
    "start_application",
]

# A library says nothing on its own: without this, warnings of an application that set up no logging go to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())
