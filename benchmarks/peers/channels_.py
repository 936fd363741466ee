"""Django Channels: each consumer joins its thread's group. The channel layer is in memory or over Redis pub/sub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

from benchmarks.peers.stack_context import HandRolled, StackContext, on_uvicorn, thread_of
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve"]

CAPACITY: Final = 100_000
"""Capacity of a channel in messages. With the in-memory layer's default of 100, a full channel would silently drop
messages."""


class _Consumer(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        self.thread = thread_of(f"?{self.scope['query_string'].decode()}")
        await self.channel_layer.group_add(self.thread, self.channel_name)
        await self.accept()
        await self.send_json({"type": "subscribed"})

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.thread, self.channel_name)

    async def agent_event(self, message: dict[str, Any]) -> None:
        await self.send_json(message["event"])


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    layer: dict[str, Any] = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": CAPACITY}}
    if context.broker:
        layer = {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [context.broker]},
        }
    settings.configure(CHANNEL_LAYERS={"default": layer}, SECRET_KEY="only here", USE_TZ=True)
    django.setup()
    group_send = get_channel_layer().group_send
    envelopes = EnvelopeFactory()

    async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
        event = envelopes.envelope(thread_id, run_id, body, datetime.now(UTC).isoformat())
        await group_send(thread_id, {"type": "agent.event", "event": event})

    if context.sockets:
        app = ProtocolTypeRouter({"websocket": URLRouter([path("ws", _Consumer.as_asgi())])})
        async with on_uvicorn(app, context) as port:
            yield HandRolled(port, emit_event)
    else:
        yield HandRolled(0, emit_event)
