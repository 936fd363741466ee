"""An agent of the OpenAI Agents SDK. Its events are sent as server-sent events, as its guide on streaming does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Runner, function_tool, set_tracing_disabled
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

set_tracing_disabled(True)


@function_tool
async def take_note(note: str) -> str:
    """Store a note."""
    return f"noted: {note}"


@function_tool
async def send_mail(text: str) -> str:
    """Send a mail."""
    return f"sent: {text}"


agent = Agent(name="agent", model="scripted", tools=[take_note, send_mail])
app = FastAPI()


def translate(event: Any) -> dict[str, Any] | None:
    """Return what the user gets for an event of the SDK."""
    if event.type == "raw_response_event":
        data = event.data
        if data.type == "response.output_text.delta":
            return {"type": "text", "message": data.item_id, "delta": data.delta}
        if data.type == "response.reasoning_summary_text.delta":
            return {"type": "thinking", "delta": data.delta}
    elif event.type == "run_item_stream_event" and event.name == "tool_called":
        call = event.item.raw_item
        return {"type": "call", "call": call.call_id, "name": call.name, "arguments": call.arguments}
    elif event.type == "run_item_stream_event" and event.name == "tool_output":
        return {"type": "result", "call": event.item.raw_item["call_id"], "result": str(event.item.output)}
    return None


@app.post("/chat")
async def chat(request: dict[str, str]) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        run = {"run": request["run"]}
        yield f"data: {json.dumps({'type': 'started', **run})}\n\n"
        try:
            async for event in Runner.run_streamed(agent, request["text"]).stream_events():
                if sent := translate(event):
                    yield f"data: {json.dumps(sent | run)}\n\n"
        except Exception as error:
            yield f"data: {json.dumps({'type': 'error', 'reason': str(error), **run})}\n\n"
            raise
        yield f"data: {json.dumps({'type': 'done', **run})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/ready")
async def ready() -> str:
    return "ready"
