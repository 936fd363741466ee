"""The same chat on bridgekit: the agent asks the model and the tools, and bridgekit carries what it emits.

bridgekit serve on_bridgekit:app --port 8000
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any

import httpx
from model import TOOLS, ChatModel, Json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse

from bridgekit import (
    BaseAgent,
    BridgeConfig,
    PythonTools,
    RunContext,
    Tickets,
    lifespan,
    routes,
    stores_from,
)
from bridgekit.errors import ThreadNotOwned
from bridgekit.ids import new_id

model = cache(ChatModel)


class ThreadOwners:
    """Stands for the table of a database that records the owner of each thread."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[ThreadOwners]:
        yield self

    async def owner_of(self, thread_id: str) -> str | None:
        return self.owners.get(thread_id)

    async def claim(self, thread_id: str, user_id: str) -> None:
        if self.owners.setdefault(thread_id, user_id) != user_id:
            raise ThreadNotOwned(thread_id, user_id)


class StreamingChat(BaseAgent):
    async def execute(self, context: RunContext) -> object:
        messages: list[Json] = [{"role": "user", "content": context.request}]
        while True:
            messages.append(answer := await self.answer(messages))
            if "tool_calls" not in answer:
                return answer["content"]
            for call in answer["tool_calls"]:
                result = await self.call(call["function"])
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})

    async def answer(self, messages: list[Json]) -> Json:
        text, calls, message_id = "", dict[int, Json](), new_id()
        async for delta in model().stream(messages):
            if thought := delta.get("reasoning_content"):
                await self.emit_thinking(thought)
            if piece := delta.get("content"):
                text += piece
                await self.emit_text(piece, message_id=message_id)
            for part in delta.get("tool_calls") or ():
                function = part.get("function", {})
                new = {"name": function.get("name"), "arguments": ""}
                call = calls.setdefault(part["index"], {"id": part.get("id"), "type": "function", "function": new})
                call["function"]["arguments"] += function.get("arguments") or ""
        answer: Json = {"role": "assistant", "content": text or None}
        return answer | ({"tool_calls": list(calls.values())} if calls else {})

    async def call(self, function: Json) -> str:
        try:
            return str(await self.use_tool(function["name"], **json.loads(function["arguments"])))
        except LookupError as error:
            return f"error: {error!r}"


async def ask(request: Request) -> JSONResponse:
    """Run the agent until it ends. If it fails, its user has got the error as an event."""
    asked: dict[str, Any] = await request.json()
    try:
        await request.app.state.bridgekit.supervisor.run(agent_name="chat", **asked)
    except httpx.HTTPError as error:
        return JSONResponse({"error": str(error)}, 502)
    return JSONResponse({})


async def open_thread(request: Request) -> JSONResponse:
    application, owned = request.app.state.bridgekit, await request.json()
    await application.open_thread(**owned)
    return JSONResponse({"ticket": application.ticket(**owned)})


config = BridgeConfig(
    agents={"chat": StreamingChat},
    tool_dispatcher=PythonTools(TOOLS),
    stores=stores_from(os.environ.get("STORE", "memory:")),
    authorizer=partial(Tickets, keys=[os.environ.get("TICKET_KEY", "only for this example, not a secret").encode()]),
    db_session_factory=ThreadOwners(),
)
app = Starlette(lifespan=lifespan(config), routes=routes())
app.add_route("/ask", ask, methods=["POST"])
app.add_route("/threads", open_thread, methods=["POST"])
