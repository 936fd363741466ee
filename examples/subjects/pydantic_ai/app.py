"""An agent of Pydantic AI behind its AG-UI adapter."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from pydantic_ai import Agent
from pydantic_ai.ui.ag_ui import AGUIAdapter

agent = Agent("openai-chat:scripted")
app = FastAPI()


@agent.tool_plain
async def take_note(note: str) -> str:
    """Store a note."""
    return f"noted: {note}"


@agent.tool_plain
async def send_mail(text: str) -> str:
    """Send a mail."""
    return f"sent: {text}"


@app.post("/agui")
async def agui(request: Request) -> Response:
    return await AGUIAdapter.dispatch_request(request, agent=agent)


@app.get("/ready")
async def ready() -> str:
    return "ready"
