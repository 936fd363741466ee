"""A small chat backend: one WebSocket for each user and thread, and an agent that calls a model and two tools.

A client opens /ws?user=ann&thread=t1 and sends {"text": "…"}. It receives numbered events, and resumes with &after=12.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import anyio
import httpx
from model import TOOLS, ChatModel, Json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


class ChatThread:
    """One conversation: its events, numbered from 1, and the messages that the model has seen."""

    def __init__(self, user: str, name: str) -> None:
        self.user, self.name = user, name
        self.events: list[Json] = []
        self.history: list[Json] = []
        self.changed = anyio.Event()

    def publish(self, event: Json) -> None:
        self.events.append({"n": len(self.events) + 1, "thread": self.name, **event})
        self.changed.set()
        self.changed = anyio.Event()

    async def subscribe(self, after: int) -> AsyncIterator[Json]:
        """Yield every event after this number, in order, and wait for more."""
        while True:
            while after < len(self.events):
                after += 1
                yield self.events[after - 1]
            await self.changed.wait()


class ChatAgent:
    """Answers one question: one run."""

    def __init__(self, thread: ChatThread, model: ChatModel) -> None:
        self.thread, self.model, self.run_id = thread, model, uuid4().hex[:8]
        self.turn = 0

    def emit(self, kind: str, **fields: Any) -> None:
        self.thread.publish({"type": kind, "run": self.run_id, **fields})

    async def run(self, question: str) -> None:
        self.emit("started")
        messages = self.context(question)
        known = len(messages) - 1
        try:
            while True:
                messages.append(answer := await self.answer(messages))
                if "tool_calls" not in answer:
                    break
                messages += [self.use_tool(call) for call in answer["tool_calls"]]
        except httpx.HTTPError as error:
            self.emit("error", reason=str(error))
            return
        self.thread.history += messages[known:]
        self.finish()

    def context(self, question: str) -> list[Json]:
        """Return what the model gets: earlier messages of this thread, and the question."""
        return [*self.thread.history, {"role": "user", "content": question}]

    def finish(self) -> None:
        self.emit("usage", turns=self.turn)
        self.emit("done")

    async def answer(self, messages: list[Json]) -> Json:
        """Ask the model once, and pass on what it streams. Return its answer as a message."""
        self.turn += 1
        text, calls, message = "", dict[int, Json](), f"{self.run_id}-{self.turn}"
        async for delta in self.model.stream(messages):
            if thought := delta.get("reasoning_content"):
                self.think(thought)
            if piece := delta.get("content"):
                if not text:
                    self.emit("text_begin", message=message)
                text += piece
                self.say(message, piece)
            for part in delta.get("tool_calls") or ():
                self.add_to_call(calls, part)
        if text:
            self.end_text(message, text)
        for call in calls.values():
            self.emit("call_end", call=call["id"], arguments=call["function"]["arguments"])
        answer: Json = {"role": "assistant", "content": text or None}
        return answer | ({"tool_calls": list(calls.values())} if calls else {})

    def think(self, thought: str) -> None:
        self.emit("thinking", delta=thought)

    def say(self, message: str, piece: str) -> None:
        self.emit("text", message=message, delta=piece)

    def end_text(self, message: str, text: str) -> None:
        self.emit("text_end", message=message, full=text)

    def add_to_call(self, calls: dict[int, Json], part: Json) -> None:
        """Append a piece of a call. Only the first piece of a call has its id and name."""
        index, function = part["index"], part.get("function", {})
        if index not in calls:
            new = {"name": function["name"], "arguments": ""}
            calls[index] = {"id": part["id"], "type": "function", "function": new}
            self.emit("call_begin", call=part["id"], name=new["name"])
        if piece := function.get("arguments"):
            call = self.call_of(calls, index)
            call["function"]["arguments"] += piece
            self.emit("call_delta", call=call["id"], delta=piece)

    def call_of(self, calls: dict[int, Json], index: int) -> Json:
        return calls[index]

    def use_tool(self, call: Json) -> Json:
        """Run a tool. The model gets its error, if it fails."""
        try:
            result = self.run_tool(**call["function"])
        except (LookupError, TypeError, ValueError) as error:
            result = f"error: {error!r}"
        self.emit("call_result", call=call["id"], result=result)
        return {"role": "tool", "tool_call_id": call["id"], "content": result}

    def run_tool(self, name: str, arguments: str) -> str:
        return TOOLS[name](**json.loads(arguments))


def create_app(thread_class: type[ChatThread] = ChatThread, agent_class: type[ChatAgent] = ChatAgent) -> Starlette:
    threads: dict[tuple[str, str], ChatThread] = {}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.model = ChatModel()
        async with anyio.create_task_group() as app.state.runs:  # a run goes on if its user loses the connection
            yield
            app.state.runs.cancel_scope.cancel()

    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        user, name = key = socket.query_params["user"], socket.query_params["thread"]
        thread = threads.setdefault(key, thread_class(user, name))
        after = int(socket.query_params.get("after") or 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, socket, thread, after)
            try:
                async for message in socket.iter_json():
                    agent = agent_class(thread, socket.app.state.model)
                    socket.app.state.runs.start_soon(agent.run, message["text"])
            finally:
                tasks.cancel_scope.cancel()

    async def send(socket: WebSocket, thread: ChatThread, after: int) -> None:
        with suppress(WebSocketDisconnect):
            async for event in thread.subscribe(after):
                await socket.send_json(event)

    def ready(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ready")

    return Starlette(routes=[Route("/ready", ready), WebSocketRoute("/ws", chat)], lifespan=lifespan)


app = create_app()
