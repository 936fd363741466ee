"""Delivery of frames from the thread's log to a browser's WebSocket."""

from bridgekit.transport.hub import Connection, Hub
from bridgekit.transport.outbox import OutboxLimits

__all__ = ["Connection", "Hub", "OutboxLimits"]
