"""The two edges, side by side: what each is called where it is chosen, and where it can stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ASGI", "EDGES", "NATIVE", "Edge"]


@dataclass(frozen=True, slots=True)
class Edge:
    """One way to serve sockets."""

    name: str
    """As people write it."""
    key: str
    """As `serving` and `bridgekit serve --edge` want it."""
    stands: str
    """Where it can be had."""


ASGI: Final = Edge("ASGI", "asgi", "any ASGI server, on asyncio or trio, behind any middleware")
NATIVE: Final = Edge("native", "native", "bridgekit serve, on asyncio, where no middleware wants to see the sockets")

EDGES: Final = (ASGI, NATIVE)
