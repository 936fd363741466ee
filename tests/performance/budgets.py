"""What an event may cost, as numbers. To lower one is always welcome; to raise one wants a reason beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ASGI",
    "BLOCKS_KEPT",
    "BYTES_KEPT",
    "CALLS_AN_EMIT",
    "CALLS_A_LOOKUP",
    "CALLS_A_SOCKET",
    "EDGES",
    "NATIVE",
    "OBJECTS_KEPT",
    "ON_TRIO",
    "OWN_MODULES",
    "Edge",
]


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One of the two edges on one of the backends, and what it may cost there to bring a burst to its sockets."""

    name: str
    serves: str
    """"native" or "asgi"."""
    backend: str
    steps: int
    """Task switches a burst, however long it is and however many sockets read it."""
    steps_in_company: int = 0
    """And where so much is put in one turn that the flusher looks once more whether the agents go on."""
    steps_a_socket: int = 0
    """And for each socket that reads it."""
    steps_an_event: int = 0
    """And for each of its events at each of these sockets."""
    callbacks: int = 0
    """Calls of the loop's own a burst."""
    writes: int = 0
    """System calls a burst and socket, as long as a burst fits into one write."""
    writes_an_event: int = 0
    """And for each of its events."""
    turns: int
    """Turns of the loop after which a lone event is on its way to its socket."""
    own_calls: int | None = None
    """Calls of bridgekit's own functions for an event in a burst, from the agent to the socket."""
    own_calls_alone: int | None = None
    """And for an event that is alone in its iteration of the event loop."""


NATIVE: Final = Edge(
    name="native",
    serves="native",
    backend="asyncio",
    steps=1,
    steps_in_company=1,
    writes=1,
    turns=1,
    own_calls=11,
    own_calls_alone=20,
)
ASGI: Final = Edge(
    name="asgi",
    serves="asgi",
    backend="asyncio",
    steps=1,
    steps_in_company=1,
    writes_an_event=1,
    turns=1,
    own_calls=12,
    own_calls_alone=26,
)
# Hypercorn waits twice for each message that it is given, so that each socket keeps a task; and to hand the rest over
# to another task may take a switch a socket, as trio draws by lot who is next.
ON_TRIO: Final = Edge(
    name="asgi-on-trio",
    serves="asgi",
    backend="trio",
    steps=0,
    steps_in_company=1,
    steps_a_socket=2,
    steps_an_event=2,
    writes_an_event=1,
    turns=3,
)
EDGES: Final = (NATIVE, ASGI, ON_TRIO)

CALLS_AN_EMIT: Final = 32
"""Functions that are called, Python's and the interpreter's, from `emit_thinking` to the bytes in the outbox."""
CALLS_A_LOOKUP: Final = 22
"""And where the thread has to be found by the run id, in memory: a coroutine, because the mapping's method is one."""
CALLS_A_SOCKET: Final = 7
"""And for each further socket of the thread."""

OWN_MODULES: Final = 9
"""Modules of bridgekit that an event passes on its way from the agent to a socket."""

BLOCKS_KEPT: Final = 5
"""Blocks of memory that an event holds while it is kept for who resumes: the frame, its number, its bytes, its time,
and a share of the queues."""
OBJECTS_KEPT: Final = 0
"""Objects of it that the garbage collector must look at, again and again."""
BYTES_KEPT: Final = 480
"""Of an event whose frame has 290."""
