"""How a frame reaches a browser."""

from bridgekit.transport.hub import Connection, Hub
from bridgekit.transport.outbox import OutboxLimits

__all__ = ["Connection", "Hub", "OutboxLimits"]
