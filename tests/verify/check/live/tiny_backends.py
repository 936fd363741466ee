"""A small chat backend over a streamed response, server-sent events and a WebSocket. DEFECT selects a mistake."""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

Event = dict[str, Any]
Key = tuple[str, str]
ATTEMPTS = 3
ALL_THREADS = "*"
TOKENS = {"secret-ann": "ann", "secret-bob": "bob"}


class TinyBackend:
    """The agent, and what each thread was sent."""

    def __init__(self, model: str, defect: str = "") -> None:
        self.model, self.defect = model, defect
        self.plain = os.environ.get("PLAIN", "")
        self.log: dict[Key, list[Event]] = defaultdict(list)
        self.readers: dict[Key, set[asyncio.Queue[Event]]] = defaultdict(set)
        self.tasks = set[asyncio.Task[None]]()
        self.http = httpx.AsyncClient(trust_env=bool(os.environ.get("TRUST_ENV")), timeout=30)

    async def events(self, thread: str, run: str, text: str) -> AsyncIterator[Event]:
        same = {"run": run, "thread": thread, "padding": "x" * int(os.environ.get("PADDING", "0"))}
        if self.defect != "silent":
            yield {"type": "go", **same}
        if self.defect == "exit":
            os.write(2, b"out of memory\n")
            os._exit(7)
        if os.environ.get("NOISE"):
            os.write(1, b"x" * 200_000)
        count = 0
        try:
            async for delta in self.deltas(text):
                count += 1
                if self.defect == "silent" or (self.defect == "drop" and count % 5 == 0):
                    continue
                yield {"type": "say", "delta": delta, **same}
        except (httpx.HTTPError, OSError) as error:
            yield {"type": "failed", "error": str(error), **same}
            return
        if self.defect not in ("no_end", "silent"):
            yield {"type": "done", **same}

    async def deltas(self, text: str) -> AsyncIterator[str]:
        if self.defect in ("echo", "no_model"):
            yield text if self.defect == "echo" else "I am a teapot."
            return
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]}
        for attempt in range(ATTEMPTS):
            async with self.http.stream("POST", f"{self.model}/chat/completions", json=body) as response:
                if response.status_code == 503 and attempt < ATTEMPTS - 1:
                    continue
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            if choice["delta"].get("content"):
                                yield choice["delta"]["content"]
                return

    def data(self, event: Event) -> str:
        """Return the data of a server-sent event: an object, or with PLAIN only a text, which may be a JSON string."""
        text: str = event.get("delta", f"[{event['type'].upper()}]")
        return text if self.plain == "text" else json.dumps(text if self.plain else event)

    async def publish(self, key: Key, run: str, text: str) -> None:
        async for event in self.events(key[1], run, text):
            event["n"] = len(self.log[key]) + 1
            if self.defect != "offline" or self.readers[key]:
                self.log[key].append(event)
            keys = [key, (key[0], ALL_THREADS)] if self.defect != "leak" else list(self.readers)
            for each in keys:
                for queue in self.readers[each]:
                    queue.put_nowait(event)

    def start(self, key: Key, run: str, text: str) -> None:
        task = asyncio.create_task(self.publish(key, run, text))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def read(self, key: Key, after: int) -> AsyncIterator[Event]:
        """Yield what followed a position, and then what is published. Both begin in one step, so nothing is lost."""
        queue = asyncio.Queue[Event]()
        self.readers[key].add(queue)
        if self.defect == "sent" and after:
            after = len(self.log[key])
        for event in self.log[key][after:]:
            queue.put_nowait(event)
        try:
            while True:
                yield await queue.get()
        finally:
            self.readers[key].discard(queue)


class Endpoints:
    """The same agent behind each way to listen."""

    def __init__(self, backend: TinyBackend) -> None:
        self.backend = backend
        self.sessions: dict[str, str] = {}

    async def login(self, request: Request) -> RedirectResponse:
        form = parse_qs((await request.body()).decode(), strict_parsing=True)
        name = f"session-{len(self.sessions)}"
        self.sessions[name] = form["user"][0]
        response = RedirectResponse("/health", 303, {"x-session": name})
        response.set_cookie("sid", name)
        return response

    async def chat(self, request: Request) -> StreamingResponse:
        asked = await request.json()

        async def lines() -> AsyncIterator[str]:
            async for event in self.backend.events(asked["thread"], asked["run"], asked["text"]):
                yield f"data: {self.backend.data(event)}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def post(self, request: Request) -> JSONResponse:
        asked = await request.json()
        user = TOKENS.get(request.headers.get("authorization", "").removeprefix("Bearer "), asked.get("user"))
        user = user or self.sessions[request.cookies["sid"]]
        run = (user, asked["thread"]), asked["run"], asked["text"]
        if self.backend.defect == "conflict":
            await self.backend.publish(*run)
            return JSONResponse({"error": "the thread is busy"}, 409)
        self.backend.start(*run)
        return JSONResponse({"run": {"id": asked["run"]}})

    async def stream(self, request: Request) -> StreamingResponse:
        key = request.query_params["user"], request.query_params["thread"]
        after = int(request.headers.get("last-event-id") or 0)

        async def lines() -> AsyncIterator[str]:
            yield ": connected\n\n"
            async for event in self.backend.read(key, after):
                yield f"id: {event['n']}\ndata: {self.backend.data(event)}\n\n"
                if event["type"] == "done" and request.query_params.get("until") == event["run"]:
                    return

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        key = websocket.query_params["user"], websocket.query_params.get("thread", ALL_THREADS)
        sending = asyncio.create_task(self.send(websocket, key, int(websocket.query_params.get("after") or 0)))
        try:
            while True:
                asked = json.loads(await websocket.receive_text())
                self.backend.start((key[0], asked.get("thread", key[1])), asked["run"], asked["text"])
        except WebSocketDisconnect:
            sending.cancel()

    async def send(self, websocket: WebSocket, key: Key, after: int) -> None:
        async for event in self.backend.read(key, after):
            await websocket.send_text(json.dumps(event))

    async def new_thread(self, request: Request) -> JSONResponse:
        return JSONResponse({"thread": {"id": f"t-{(await request.json())['title']}"}})

    async def history(self, request: Request) -> JSONResponse:
        thread = request.path_params["thread"]
        return JSONResponse([each for key, log in self.backend.log.items() if key[1] == thread for each in log])


async def health(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


def create_app() -> Starlette:
    """Return the application. It reads the model's address now, as many do when they are imported."""
    if path := os.environ.get("PID_FILE"):
        Path(path).write_text(str(os.getpid()), encoding="utf-8")
    served = Endpoints(TinyBackend(os.environ["OPENAI_BASE_URL"], os.environ.get("DEFECT", "")))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with served.backend.http:
            yield

    routes: list[BaseRoute] = [
        Route("/health", health),
        Route("/chat", served.chat, methods=["POST"]),
        Route("/post", served.post, methods=["POST"]),
        Route("/login", served.login, methods=["POST"]),
        Route("/events", served.stream),
        Route("/threads", served.new_thread, methods=["POST"]),
        Route("/threads/{thread}", served.history),
        WebSocketRoute("/ws", served.socket),
    ]
    prefix = os.environ.get("PREFIX", "")
    return Starlette(lifespan=lifespan, routes=[Mount(prefix, routes=routes)] if prefix else routes)
