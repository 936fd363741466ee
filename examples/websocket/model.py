"""The model, behind an OpenAI-compatible endpoint, and the two tools that it may call."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx

Json = dict[str, Any]
ATTEMPTS = 3
POPULATION = {"Basel": 178_000, "Bern": 134_000}


def find_city(city: str) -> str:
    return f"{city} has {POPULATION[city]:,} inhabitants"


def take_note(note: str) -> str:
    return f"noted: {note}"


TOOLS: dict[str, Callable[..., str]] = {"find_city": find_city, "take_note": take_note}


def schema(name: str, parameter: str) -> Json:
    parameters = {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


SCHEMAS = [schema("find_city", "city"), schema("take_note", "note")]


class ChatModel:
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(self) -> None:
        key = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
        self.http = httpx.AsyncClient(base_url=os.environ["OPENAI_BASE_URL"], headers=key, timeout=60)

    async def stream(self, messages: list[Json]) -> AsyncIterator[Json]:
        """Yield the deltas of one answer. A model that is busy is asked again. Raises httpx.HTTPError."""
        body = {"model": "gpt-5-mini", "messages": messages, "tools": SCHEMAS, "stream": True}
        for attempt in range(1, ATTEMPTS + 1):
            async with self.http.stream("POST", "/chat/completions", json=body) as response:
                if response.status_code == 503 and attempt < ATTEMPTS:
                    await anyio.sleep(0.05 * attempt)
                    continue
                response.raise_for_status()
                async for line in response.aiter_lines():
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    if line.startswith("data:") and (choices := json.loads(data).get("choices")):
                        yield choices[0]["delta"]
            raise httpx.RemoteProtocolError("the answer of the model has no end")
