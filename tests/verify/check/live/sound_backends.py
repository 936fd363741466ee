"""A sound agent that asks the scripted model over HTTP, and writes what the model sent in each dialect.

It shares no code with the checker: it reads the model's stream as a client library does.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import msgspec

from bridgekit_verify.check.frames import Message
from bridgekit_verify.check.live.model_ledger import ModelLedger, UserPrompt
from bridgekit_verify.check.live.model_server import ModelServer
from bridgekit_verify.check.live.saved_run import LiveRun

Value = dict[str, Any]
PARAMETERS: Value = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}}}
TOOLS: list[Value] = [
    {"type": "function", "function": {"name": name, "description": "looks up", "parameters": PARAMETERS}}
    for name in ("look_up", "search")
]
CLIENTS = (("s1", "ann", "t1"), ("s2", "ann", "t2"), ("s3", "ben", "t3"))


class Event(NamedTuple):
    """A step of the agent: a piece of a text or of arguments, or the beginning, end or result of a call."""

    kind: str
    text: str = ""
    call: str = ""
    name: str = ""


def ask(  # noqa: C901  # the loop of an agent, at a glance
    client: httpx.Client, prompt: str, *, history: list[Value] | None = None
) -> Iterator[Event]:
    """Run the agent for one prompt: ask the model, run its tools, and ask again until it calls none."""
    messages = [*(history or []), {"role": "user", "content": prompt}]
    while True:
        answer: Value = {"role": "assistant", "content": ""}
        calls: dict[int, Value] = {}
        body = {"model": "m", "stream": True, "messages": messages, "tools": TOOLS}
        with client.stream("POST", "chat/completions", json=body) as response:
            if response.status_code == 503:
                continue
            response.raise_for_status()
            for delta in chunks(response):
                if delta.get("reasoning_content"):
                    yield Event("thinking", delta["reasoning_content"])
                if delta.get("content"):
                    answer["content"] += delta["content"]
                    yield Event("before" if calls else "text", delta["content"])
                for part in delta.get("tool_calls") or ():
                    yield from call_events(calls, part)
        if not calls:
            return
        answer["tool_calls"] = list(calls.values())
        messages.append(answer)
        for call in calls.values():
            yield Event("end", call["function"]["arguments"], call["id"], call["function"]["name"])
            yield Event("result", "3", call["id"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": "3"})


def chunks(response: httpx.Response) -> Iterator[Value]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                yield choice["delta"]


def call_events(calls: dict[int, Value], part: Value) -> Iterator[Event]:
    if part["index"] not in calls:
        calls[part["index"]] = {**part, "function": {"name": part["function"]["name"], "arguments": ""}}
        yield Event("begin", "", part["id"], part["function"]["name"])
    call = calls[part["index"]]
    call["function"]["arguments"] += part["function"]["arguments"]
    if part["function"]["arguments"]:
        yield Event("arguments", part["function"]["arguments"], call["id"])


def texts(events: list[Event]) -> Iterator[tuple[str, list[Event]]]:
    """Group events: a text is the pieces that follow each other."""
    for kind, group in itertools.groupby(events, key=lambda each: each.kind):
        yield kind, list(group)


def ag_ui(  # noqa: C901  # one branch for each kind of event
    run: str, thread: str, events: list[Event]
) -> Iterator[Value]:
    yield {"type": "RUN_STARTED", "threadId": thread, "runId": run}
    snapshot: list[Value] = [{"id": "u", "role": "user", "content": "?"}]
    for number, (kind, group) in enumerate(texts(events)):
        id_ = f"m{number}-{run}"
        if kind == "text":
            yield {"type": "TEXT_MESSAGE_START", "messageId": id_, "role": "assistant"}
            yield from ({"type": "TEXT_MESSAGE_CONTENT", "messageId": id_, "delta": each.text} for each in group)
            yield {"type": "TEXT_MESSAGE_END", "messageId": id_}
            snapshot.append({"id": id_, "role": "assistant", "content": "".join(each.text for each in group)})
            continue
        for each in group:
            if kind == "thinking":
                yield {"type": "REASONING_MESSAGE_CONTENT", "messageId": id_, "delta": each.text}
            elif kind == "begin":
                yield {"type": "TOOL_CALL_START", "toolCallId": each.call, "toolCallName": each.name}
            elif kind == "arguments":
                yield {"type": "TOOL_CALL_ARGS", "toolCallId": each.call, "delta": each.text}
            elif kind == "end":
                yield {"type": "TOOL_CALL_END", "toolCallId": each.call}
                function = {"name": each.name, "arguments": each.text}
                calls = [{"id": each.call, "type": "function", "function": function}]
                snapshot.append({"id": f"a-{each.call}", "role": "assistant", "toolCalls": calls})
            elif kind == "result":
                yield {"type": "TOOL_CALL_RESULT", "messageId": f"r-{each.call}", "toolCallId": each.call,
                       "content": each.text, "role": "tool"}  # fmt: skip
    yield {"type": "MESSAGES_SNAPSHOT", "messages": snapshot}
    yield {"type": "RUN_FINISHED", "threadId": thread, "runId": run}


def openai(run: str, thread: str, events: list[Event]) -> Iterator[Value]:
    yield from ({**value, "sequence_number": number} for number, value in enumerate(_openai(run, events)))


def _openai(run: str, events: list[Event]) -> Iterator[Value]:  # noqa: C901  # one branch for each kind of event
    yield {"type": "response.created", "response": {"id": run, "output": []}}
    output: list[Value] = []
    items: dict[str, Value] = {}
    for number, (kind, group) in enumerate(texts(events)):
        item, whole = f"i{number}-{run}", "".join(each.text for each in group)
        if kind == "text":
            part = {"type": "output_text", "text": ""}
            yield {"type": "response.output_item.added", "item": {"id": item, "type": "message"}}
            yield {"type": "response.content_part.added", "item_id": item, "content_index": 0, "part": part}
            for each in group:
                yield {"type": "response.output_text.delta", "item_id": item, "content_index": 0, "delta": each.text}
            yield {"type": "response.output_text.done", "item_id": item, "content_index": 0, "text": whole}
            output.append({"id": item, "type": "message", "content": [{"type": "output_text", "text": whole}]})
            yield {"type": "response.output_item.done", "item": output[-1]}
            continue
        for each in group:
            if kind == "thinking":
                yield {"type": "response.reasoning_summary_text.delta", "item_id": item, "delta": each.text}
            elif kind == "begin":
                items[each.call] = {"id": f"fc-{each.call}", "type": "function_call", "call_id": each.call}
                yield {"type": "response.output_item.added", "item": {**items[each.call], "arguments": ""}}
            elif kind == "arguments":
                id_ = items[each.call]["id"]
                yield {"type": "response.function_call_arguments.delta", "item_id": id_, "delta": each.text}
            elif kind == "end":
                id_ = items[each.call]["id"]
                yield {"type": "response.function_call_arguments.done", "item_id": id_, "arguments": each.text}
                output.append({**items[each.call], "arguments": each.text})
                yield {"type": "response.output_item.done", "item": output[-1]}
    yield {"type": "response.completed", "response": {"id": run, "output": output}}


def vercel(  # noqa: C901  # one branch for each kind of event
    run: str, thread: str, events: list[Event]
) -> Iterator[Value]:
    yield {"type": "start", "messageId": f"m-{run}"}
    for number, (kind, group) in enumerate(texts(events)):
        if kind == "text":
            yield {"type": "text-start", "id": f"{number}"}
            yield from ({"type": "text-delta", "id": f"{number}", "delta": each.text} for each in group)
            yield {"type": "text-end", "id": f"{number}"}
            continue
        for each in group:
            if kind == "thinking":
                yield {"type": "reasoning-delta", "id": f"{number}", "delta": each.text}
            elif kind == "begin":
                yield {"type": "tool-input-start", "toolCallId": each.call, "toolName": each.name}
            elif kind == "arguments":
                yield {"type": "tool-input-delta", "toolCallId": each.call, "inputTextDelta": each.text}
            elif kind == "end":
                yield {"type": "tool-input-available", "toolCallId": each.call, "input": json.loads(each.text)}
            elif kind == "result":
                yield {"type": "tool-output-available", "toolCallId": each.call, "output": {"n": each.text}}
    yield {"type": "finish"}


def bridgekit(run: str, thread: str, events: list[Event]) -> Iterator[Value]:
    yield {"type": "subscribed", "thread_id": thread, "epoch": "0" * 16, "seq": 0}
    for seq, (kind, payload) in enumerate(_bridgekit(run, events), 1):
        envelope = {"thread_id": thread, "run_id": run, "agent_name": "a", "event_id": f"{run}-{seq}"}
        yield {"type": kind, **envelope, "seq": seq, "timestamp": "2026-11-22T12:00:00Z", "payload": payload}


def _bridgekit(run: str, events: list[Event]) -> Iterator[tuple[str, Value]]:
    yield "agent_started", {}
    for number, (kind, group) in enumerate(texts(events)):
        for each in group:
            call = {"tool_call_id": each.call, "tool_name": each.name}
            if kind == "thinking":
                yield "agent_thinking", {"reasoning": each.text}
            elif kind == "text":
                yield "text_delta", {"message_id": f"m{number}-{run}", "delta": each.text}
            elif kind == "begin":
                yield "tool_executing", call
            elif kind == "result":
                yield "tool_completed", call
    yield "agent_completed", {"result": None}


TABLE: dict[str, Any] = {
    "name": "chat", "kind": "t", "run": "run", "thread": "room", "message": "msg", "call": "call", "text": "d",
    "whole": "full", "args": "full", "position": {"path": "n", "per": "run", "first": 1},
    "kinds": {"started": "go", "text_begin": "open", "text": "say", "text_end": "said", "thinking": "think",
              "tool_begin": "call", "tool_args": "arg", "tool_end": "called", "ended": "done"},
}  # fmt: skip


def table(run: str, thread: str, events: list[Event]) -> Iterator[Value]:
    for number, value in enumerate(_table(run, events), 1):
        yield {**value, "run": run, "room": thread, "n": number}


def _table(run: str, events: list[Event]) -> Iterator[Value]:
    yield {"t": "go"}
    for number, (kind, group) in enumerate(texts(events)):
        id_, whole = f"m{number}-{run}", "".join(each.text for each in group)
        if kind == "text":
            yield {"t": "open", "msg": id_}
            yield from ({"t": "say", "msg": id_, "d": each.text} for each in group)
            yield {"t": "said", "msg": id_, "full": whole}
            continue
        for each in group:
            if kind == "thinking":
                yield {"t": "think", "msg": id_, "d": each.text}
            elif kind == "begin":
                yield {"t": "call", "call": each.call}
            elif kind == "arguments":
                yield {"t": "arg", "call": each.call, "d": each.text}
            elif kind == "end":
                yield {"t": "called", "call": each.call, "full": each.text}
    yield {"t": "done"}


FLAT: dict[str, Any] = {**TABLE, "name": "flat", "position": {"path": "n", "per": "client", "first": 1}}
del FLAT["message"]
BARE: dict[str, Any] = {
    "name": "bare", "kind": "t", "call": "call", "text": "d", "args": "full",
    "kinds": {"text": "say", "thinking": "think", "tool_begin": "call", "tool_args": "arg", "tool_end": "called",
              "ended": "done"},
}  # fmt: skip


def bare(run: str, thread: str, events: list[Event]) -> Iterator[Value]:
    """Frames that name neither their run nor their message."""
    for value in _table(run, events):
        if value["t"] not in ("go", "open", "said"):
            yield {name: each for name, each in value.items() if name != "msg"}


Encoder = Callable[[str, str, list[Event]], Iterator[Value]]
DIALECTS: dict[str, tuple[Encoder, str | dict[str, Any]]] = {
    "bridgekit": (bridgekit, "bridgekit"),
    "AG-UI": (ag_ui, "AG-UI"),
    "OpenAI Responses": (openai, "OpenAI Responses"),
    "Vercel UI stream": (vercel, "Vercel UI stream"),
    "chat": (table, TABLE),
    "flat": (table, FLAT),
    "bare": (bare, BARE),
}


def answered(scenario: str) -> tuple[ModelLedger, list[tuple[UserPrompt, list[Event]]]]:
    """Ask the scripted model for each client, and return the ledger with what the agent did for each prompt."""
    ledger = ModelLedger()
    with ModelServer(ledger) as model, httpx.Client(base_url=model.url) as client:
        prompts = [
            ledger.add_prompt(user=user, thread=thread, clients=[name], scenario=scenario)
            for name, user, thread in CLIENTS
        ]
        return ledger, [(prompt, list(ask(client, prompt.text))) for prompt in prompts]


def interrupted(scenario: str) -> tuple[ModelLedger, list[tuple[UserPrompt, list[Event]]]]:
    """As `answered`, with a model that dies: the agent shows what it got."""
    ledger = ModelLedger()
    with ModelServer(ledger) as model, httpx.Client(base_url=model.url) as client:
        prompts = [ledger.add_prompt(user=u, thread=t, clients=[name], scenario=scenario) for name, u, t in CLIENTS]
        asked = []
        for prompt in prompts:
            events: list[Event] = []
            with suppress(httpx.RemoteProtocolError):
                for event in ask(client, prompt.text):
                    events.append(event)  # noqa: PERF402  # an error must leave those before it
            asked.append((prompt, events))
    return ledger, asked


def sound_run(dialect: str, ledger: ModelLedger, asked: list[tuple[UserPrompt, list[Event]]]) -> LiveRun:
    """Return the run of a sound backend: one run a client, interleaved frame by frame."""
    encode, named = DIALECTS[dialect]
    streams = [
        [
            Message(prompt.clients[0], 0, 0, value, prompt.user, prompt.thread)
            for value in encode(f"run-{prompt.clients[0]}", prompt.thread, events)
        ]
        for prompt, events in asked
    ]
    messages = [each for group in itertools.zip_longest(*streams) for each in group if each is not None]
    return LiveRun(ledger, messages, named)


@functools.cache
def _asked(scenario: str) -> bytes:
    return msgspec.msgpack.encode(answered(scenario))


def sound(dialect: str, scenario: str = "calls") -> LiveRun:
    """Return the run of a sound backend. Each caller gets its own, which it may change."""
    ledger, asked = msgspec.msgpack.decode(
        _asked(scenario), type=tuple[ModelLedger, list[tuple[UserPrompt, list[Event]]]]
    )
    return sound_run(dialect, ledger, asked)
