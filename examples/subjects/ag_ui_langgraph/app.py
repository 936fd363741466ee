"""An agent of LangChain behind ag-ui-langgraph: /agui is its endpoint, /shared uses one agent object for all."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ag_ui.core import RunAgentInput
from ag_ui.encoder import EventEncoder
from ag_ui_langgraph import LangGraphAgent, add_langgraph_fastapi_endpoint
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import MemorySaver


@tool
async def take_note(note: str) -> str:
    """Store a note."""
    return f"noted: {note}"


@tool
async def send_mail(text: str) -> str:
    """Send a mail."""
    return f"sent: {text}"


graph = create_agent(ChatOpenAI(model="scripted"), tools=[take_note, send_mail], checkpointer=MemorySaver())
agent = LangGraphAgent(name="agent", graph=graph)
app = FastAPI()
add_langgraph_fastapi_endpoint(app, agent, "/agui")


@app.post("/shared")
async def shared(request: RunAgentInput) -> StreamingResponse:
    encoder = EventEncoder()

    async def events() -> AsyncIterator[str]:
        async for event in agent.run(request):
            yield event if isinstance(event, str) else encoder.encode(event)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/ready")
async def ready() -> str:
    return "ready"
