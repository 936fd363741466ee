"""How a check connects to the chat on bridgekit, and starts a run."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import connect


class BridgekitClient:
    """Opens each socket with a new ticket, after the last frame that the client received."""

    def __init__(self) -> None:
        self.cursors: dict[str, dict[str, Any]] = {}

    async def listen(self, client: Any) -> None:
        owned = {"thread_id": client.thread, "user_id": client.user}
        async with httpx.AsyncClient(base_url=client.base_url) as http:
            ticket = (await http.post("/threads", json=owned)).raise_for_status().json()["ticket"]
        cursor = self.cursors.setdefault(client.id, {})
        url = f"{client.base_url.replace('http', 'ws', 1)}/ws?{urlencode(cursor)}"
        async with connect(url, subprotocols=["bridgekit.v1", f"bridgekit.ticket.{ticket}"]) as socket:  # type: ignore[list-item]
            async for text in socket:
                frame = json.loads(text)
                client.received(frame)
                cursor |= {"epoch": frame["epoch"]} if frame["type"] == "subscribed" else {}
                cursor |= {"seq": frame["to"] if frame["type"] == "gap" else frame["seq"]}

    async def start(self, client: Any, run: Any) -> None:
        asked = {"thread_id": client.thread, "user_id": client.user, "request": run.prompt}
        # The run's events show whether it fails, also where its connection is cut.
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as http:
                await http.post("/ask", json=asked)
