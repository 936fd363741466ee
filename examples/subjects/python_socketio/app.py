"""A chat on python-socketio: one room for each thread, into which the answer of the model is emitted."""

from __future__ import annotations

import json
import os
from typing import Any

import httpx
import socketio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")


async def ready(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ready")


app = socketio.ASGIApp(server, Starlette(routes=[Route("/ready", ready)]))


@server.event
async def join(sid: str, thread: str) -> None:
    await server.enter_room(sid, thread)


@server.event
async def ask(sid: str, question: dict[str, str]) -> None:
    server.start_background_task(answer, question)


async def answer(question: dict[str, str]) -> None:
    run: dict[str, Any] = {"run": question["run"], "thread": question["thread"]}
    await server.emit("started", run, room=question["thread"])
    body = {"model": "scripted", "messages": [{"role": "user", "content": question["text"]}], "stream": True}
    url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
    try:
        async with httpx.AsyncClient(timeout=60) as http, http.stream("POST", url, json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line.removeprefix("data: "))["choices"]:
                        if piece := choice["delta"].get("content"):
                            await server.emit("text", {**run, "delta": piece}, room=question["thread"])
    except httpx.HTTPError as error:
        await server.emit("failed", {**run, "reason": str(error)}, room=question["thread"])
        return
    await server.emit("done", run, room=question["thread"])
