"""How a frame reaches a browser."""

from bridgekit.transport.hub import Connection, Hub
from bridgekit.transport.outbox import Outbox

__all__ = ["Connection", "Hub", "Outbox"]
