"""A small agent behind the AG-UI protocol: each POST /agui is one run, and its response streams the run's events.

The model is behind OpenAI's Responses API, and may call two tools. A bearer token identifies the user.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]
ATTEMPTS = 3
USERS = {"token-ann": "ann", "token-ben": "ben", "token-cleo": "cleo"}
TEMPERATURES = {"Basel": 19, "Bern": 17}


def get_weather(city: str) -> str:
    return f"{TEMPERATURES[city]} °C in {city}"


def send_mail(text: str) -> str:
    return f"sent: {text}"


TOOLS = {"get_weather": (get_weather, "city"), "send_mail": (send_mail, "text")}
SCHEMAS = [
    {"type": "function", "name": name, "description": name, "parameters": {
        "type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}}
    for name, (_, parameter) in TOOLS.items()
]  # fmt: skip


class ResponsesModel:
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(self) -> None:
        key = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
        self.http = httpx.AsyncClient(base_url=os.environ["OPENAI_BASE_URL"], headers=key, timeout=60)

    async def stream(self, context: list[Json]) -> AsyncIterator[Json]:
        """Yield the events of one answer. A model that is busy is asked again. Raises httpx.HTTPError."""
        body = {"model": "gpt-5-mini", "input": context, "tools": SCHEMAS, "stream": True}
        for attempt in range(1, ATTEMPTS + 1):
            async with self.http.stream("POST", "/responses", json=body) as response:
                if response.status_code == 503 and attempt < ATTEMPTS:
                    await anyio.sleep(0.05 * attempt)
                    continue
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        event = json.loads(line.removeprefix("data:"))
                        yield event
                        if event["type"] == "response.completed":
                            return
            raise httpx.RemoteProtocolError("the answer of the model has no end")


class AgUiAgent:
    """Answers the last message of one request: one run."""

    def __init__(self, request: Json, user: str, model: ResponsesModel) -> None:
        self.thread_id, self.run_id, self.user, self.model = request["threadId"], request["runId"], user, model
        self.context = [{"role": each["role"], "content": each["content"]} for each in request["messages"]]
        self.messages: list[Json] = list(request["messages"])

    async def events(self) -> AsyncIterator[Json]:
        """Yield the events of the run. The last one is RUN_FINISHED or RUN_ERROR."""
        ids = {"threadId": self.thread_id, "runId": self.run_id}
        yield {"type": "RUN_STARTED", **ids}
        try:
            calls = True
            while calls:
                calls = False
                async for item in self.model.stream(self.context):
                    for event in self.translate(item):
                        yield event
                    if item["type"] == "response.completed":
                        for call in self.remember(item["response"]["output"]):
                            calls = True
                            yield self.use_tool(call)
        except httpx.HTTPError as error:
            yield {"type": "RUN_ERROR", "message": str(error)}
            return
        yield {"type": "MESSAGES_SNAPSHOT", "messages": self.messages}
        yield {"type": "RUN_FINISHED", **ids}

    def translate(self, item: Json) -> list[Json]:
        """Return the AG-UI events for an event of the model."""
        kind, item_id, delta = item["type"].removeprefix("response."), item.get("item_id"), item.get("delta")
        made = item.get("item", {})
        match kind, made.get("type"):
            case "reasoning_summary_text.delta", _:
                return [{"type": "REASONING_MESSAGE_CONTENT", "messageId": item_id, "delta": delta}]
            case "content_part.added", _:
                return [{"type": "TEXT_MESSAGE_START", "messageId": item_id, "role": "assistant"}]
            case "output_text.delta", _:
                return [{"type": "TEXT_MESSAGE_CONTENT", "messageId": item_id, "delta": delta}]
            case "content_part.done", _:
                return [{"type": "TEXT_MESSAGE_END", "messageId": item_id}]
            case "output_item.added", "function_call":
                return [{"type": "TOOL_CALL_START", "toolCallId": made["id"], "toolCallName": made["name"]}]
            case "function_call_arguments.delta", _ if delta:
                return [{"type": "TOOL_CALL_ARGS", "toolCallId": item_id, "delta": delta}]
            case "output_item.done", "function_call":
                return [{"type": "TOOL_CALL_END", "toolCallId": made["id"]}]
        return []

    def remember(self, output: list[Json]) -> list[Json]:
        """Add the model's answer to the context and to the messages. Return its calls."""
        self.context += output
        for item in output:
            if item["type"] == "message":
                text = "".join(part["text"] for part in item["content"])
                self.messages.append({"id": item["id"], "role": "assistant", "content": text})
            elif item["type"] == "function_call":
                function = {"name": item["name"], "arguments": item["arguments"]}
                call = {"id": item["id"], "type": "function", "function": function}
                self.messages.append({"id": f"m-{item['id']}", "role": "assistant", "toolCalls": [call]})
        return [item for item in output if item["type"] == "function_call"]

    def use_tool(self, call: Json) -> Json:
        """Run a tool. The model gets its error, if it fails."""
        try:
            result = self.run_tool(call["name"], call["arguments"])
        except (LookupError, TypeError, ValueError) as error:
            result = f"error: {error!r}"
        self.context.append({"type": "function_call_output", "call_id": call["call_id"], "output": result})
        ids = {"messageId": f"r-{call['id']}", "toolCallId": call["id"]}
        self.messages.append({"id": ids["messageId"], "role": "tool", "content": result, "toolCallId": call["id"]})
        return {"type": "TOOL_CALL_RESULT", **ids, "content": result, "role": "tool"}

    def run_tool(self, name: str, arguments: str) -> str:
        tool, _ = TOOLS[name]
        return tool(**json.loads(arguments))


def create_app(agent_class: type[AgUiAgent] = AgUiAgent) -> Starlette:
    model: list[ResponsesModel] = []

    async def run(request: Request) -> Response:
        user = USERS.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if user is None:
            return JSONResponse({"error": "unknown token"}, 401)
        if not model:
            model.append(ResponsesModel())
        agent = agent_class(await request.json(), user, model[0])
        return StreamingResponse(encoded(agent), media_type="text/event-stream")

    async def encoded(agent: AgUiAgent) -> AsyncIterator[str]:
        async with aclosing(agent.events()) as events:
            async for event in events:
                yield f"data: {json.dumps(event)}\n\n"

    def ready(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ready")

    return Starlette(routes=[Route("/ready", ready), Route("/agui", run, methods=["POST"])])


app = create_app()
