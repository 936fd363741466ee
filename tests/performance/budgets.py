"""Budgets for the cost of an event. Lowering a budget is always welcome; raising one needs a reason next to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ASGI",
    "BLOCKS_PER_RETAINED_EVENT",
    "BYTES_PER_RETAINED_EVENT",
    "CALLS_PER_EMIT",
    "CALLS_PER_LOOKUP",
    "CALLS_PER_SOCKET",
    "EDGES",
    "NATIVE",
    "OBJECTS_PER_RETAINED_EVENT",
    "ON_TRIO",
    "OWN_MODULES",
    "STEPS_PER_EXTRA_BATCH",
    "Edge",
]


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One edge on one async backend, and its budget for delivering a burst to sockets."""

    edge: str
    """"native" or "asgi"."""
    backend: str = "asyncio"
    steps: int = 1
    """Task switches per burst, independent of its length and of the number of sockets."""
    steps_per_socket: int = 0
    """Additional switches for each socket."""
    steps_per_event: int = 0
    """Additional switches for each event at each socket."""
    writes: int = 0
    """System calls per burst and socket, if the burst fits into one write."""
    writes_per_event: int = 0
    """Additional system calls for each event."""
    iterations: int = 1
    """Event-loop iterations after which a single event has been written to its socket."""
    own_calls: int | None = None
    """Calls of bridgekit's functions per event of a burst, from the agent to the socket."""
    own_calls_single: int | None = None
    """Calls of bridgekit's functions for a single event in its event-loop iteration."""

    @property
    def name(self) -> str:
        return self.edge if self.backend == "asyncio" else f"{self.edge}-on-{self.backend}"


NATIVE: Final = Edge(edge="native", writes=1, own_calls=11, own_calls_single=20)
ASGI: Final = Edge(edge="asgi", writes_per_event=1, own_calls=12, own_calls_single=26)
# Hypercorn awaits twice per message, so each socket needs a task. Handing the rest to another task can take one more
# switch per socket, because trio schedules tasks in random order.
ON_TRIO: Final = Edge(
    edge="asgi", backend="trio", steps=0, steps_per_socket=2, steps_per_event=2, writes_per_event=1, iterations=3
)
EDGES: Final = (NATIVE, ASGI, ON_TRIO)

STEPS_PER_EXTRA_BATCH: Final = 1
"""Additional task switches if one iteration enqueues so much that the writer yields again to batch more events."""
CALLS_PER_EMIT: Final = 32
"""Calls of Python and builtin functions from `emit_thinking` to the bytes in the outbox."""
CALLS_PER_LOOKUP: Final = 23
"""Additional calls if the thread is looked up by run id in memory, which is a coroutine."""
CALLS_PER_SOCKET: Final = 7
"""Additional calls for each further socket of the thread."""

OWN_MODULES: Final = 9
"""Modules of bridgekit on the path of an event from the agent to a socket."""

BLOCKS_PER_RETAINED_EVENT: Final = 5
"""Memory blocks of a retained event: the frame, its number, its bytes, its time, and a share of the queues."""
OBJECTS_PER_RETAINED_EVENT: Final = 0
"""Objects of a retained event that the garbage collector tracks."""
BYTES_PER_RETAINED_EVENT: Final = 480
"""Memory of a retained event with a frame of 290 bytes."""
