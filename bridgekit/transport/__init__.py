"""Delivers frames from a thread's log to the WebSockets of its clients."""

from bridgekit.transport.hub import Connection, Hub
from bridgekit.transport.outbox import OutboxLimits

__all__ = ["Connection", "Hub", "OutboxLimits"]
