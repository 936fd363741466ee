"""Backends that write as products do: batches, events without data, pings, and Socket.IO with acknowledgements."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from bridgekit_verify.check.dialect_tables import parse_table
from bridgekit_verify.check.live.backend_check import check_app
from bridgekit_verify.check.live.backend_file import parse_backend
from bridgekit_verify.check.live.clients import LiveClient, RequestedRun
from bridgekit_verify.check.live.recorder import LiveRecorder
from bridgekit_verify.check.live.scenarios import Load
from bridgekit_verify.check.property_answers import Property, State
from bridgekit_verify.errors import UnusableBackend

LOAD = Load(users=2, threads=1, runs=1, quiet_seconds=0.3, settle_seconds=0.1)
START = '[start]\nenv = { OPENAI_BASE_URL = "{model}/v1" }\nready = "/events"\n'
EVENTS = """
[run]
request = "POST /events"
body = { text = "{prompt}" }
[listen]
kind = "response"
[dialect]
kind = "@event"
run = "@connection"
text = "@text"
[dialect.kinds]
started = "start"
text = "token"
ended = "end"
"""
NAMED = EVENTS.replace("/events", "/named").replace('"@event"', '"t"').replace('"@text"', '"d"')
SOCKET_IO = """
[run]
send = '42["ask",{"text":"{prompt}","run":"{run}"}]'
[listen]
kind = "websocket"
url = "/socket?user={user}&thread={thread}"
[dialect]
prefix = "42"
kind = "0"
run = "1.run"
text = "1.delta"
[dialect.kinds]
started = "begin"
text = "say"
ended = "finish"
"""


async def pieces(prompt: str) -> AsyncIterator[str]:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    client = httpx.AsyncClient(base_url=os.environ["OPENAI_BASE_URL"], trust_env=False)
    async with client, client.stream("POST", "/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield "".join(each["delta"].get("content") or "" for each in json.loads(line[6:])["choices"])


async def events_of(prompt: str, *, ends: bool) -> AsyncIterator[str]:
    yield "event: start\n\n"
    async for piece in pieces(prompt):
        yield f"event: token\ndata: {piece}\n\n"
    yield "event: end\ndata:\n\n" if ends else ""


async def named_events_of(prompt: str, *, ends: bool) -> AsyncIterator[str]:
    """Yield events whose data repeats the name, and a ping without data."""
    async for event in events_of(prompt, ends=ends):
        if event:
            name, _, piece = event.removeprefix("event: ").rstrip("\n").partition("\ndata:")
            yield f"event: {name}\ndata: {json.dumps({'t': name, 'd': piece[1:]})}\n\n"
    yield "event: ping\n\n"


def create_app(*, ends: bool) -> Starlette:
    async def events(request: Request) -> StreamingResponse:
        encode = named_events_of if request.url.path == "/named" else events_of
        return StreamingResponse(encode((await request.json())["text"], ends=ends), media_type="text/event-stream")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            _, asked = json.loads(text[2:])
            run, number = {"run": asked["run"]}, 0
            await websocket.send_text(f"42{json.dumps(['begin', run])}")
            async for piece in pieces(asked["text"]):
                number += 1
                await websocket.send_text(f"42{number}{json.dumps(['say', {**run, 'delta': piece}])}")
            if ends:
                await websocket.send_text(f"42{json.dumps(['finish', run])}")
            await websocket.send_text("2")

    posts = [Route(path, events, methods=["POST"]) for path in ("/events", "/named")]
    return Starlette(routes=[*posts, WebSocketRoute("/socket", socket)])


async def test_recorder_attributes_each_frame_of_a_batch_to_its_own_run() -> None:
    dialect = parse_table({"kind": "t", "run": "run", "text": "d", "kinds": {"text": "say", "ended": "done"}}, "table")
    recorder, client = LiveRecorder(dialect), LiveClient("s", {"user": "ann"}, "", lambda *_: None)
    runs = [RequestedRun(f"asked {name}", f"K{name * 8}", "", 1, {}) for name in "ab"]
    for run in runs:
        recorder.add(run)
    batch = [{"t": "say", "run": run.canary[-1], "d": f"[{run.canary}.1.t.1]"} for run in runs]
    recorder.record(client, json.dumps([*batch, {"t": "done", "run": "a"}]), runs, event=None, event_id=None)
    assert [run.ended for run in runs] == [True, False]


@pytest.mark.parametrize("name", ["json:dumps", "pathlib:sys", "zipfile:ZipFile"])
def test_driver_that_cannot_be_made_gives_one_line(name: str) -> None:
    backend = parse_backend({**tomllib.loads(START), "driver": {"class": name}})
    with pytest.raises(UnusableBackend, match=f"class '{name}' must be a class that needs no arguments: "):
        check_app(backend, create_app(ends=True), load=LOAD)


@pytest.mark.parametrize("ends", [True, False], ids=["sound", "without ends"])
@pytest.mark.parametrize("table", [EVENTS, NAMED, SOCKET_IO], ids=["events", "named JSON", "Socket.IO"])
def test_ends_are_found_and_missed(table: str, ends: bool) -> None:
    backend = parse_backend(tomllib.loads(START + table))
    found = check_app(backend, create_app(ends=ends), load=LOAD, scenarios=("text",)).verdict
    broken = {each.property for each in found.answers if each.state is State.BROKEN}
    assert broken == (set() if ends else {Property.ENDED})
    holds = {each.property for each in found.answers if each.state is State.HOLDS}
    assert {Property.LOST, Property.TEXT, Property.USER} <= holds
    assert {each in holds for each in (Property.ENDED, Property.END_LAST)} == {ends}
