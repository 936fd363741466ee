"""Sound runs in each dialect, as decoded messages: a text in five deltas and two calls whose arguments are streamed."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.tree import ROOT

Value = dict[str, Any]
WORDS = ("The ", "bridge ", "bridge ", "is ", "open.")
"""The second and third are equal: equal deltas are no duplicates."""
ARGUMENTS = ('{"city": "Bas', 'el", "n"', ": 1}")
RECORDINGS = ROOT / "examples" / "recordings"


class Line(NamedTuple):
    """One line of a recording."""

    socket: str
    user: str
    thread: str
    value: Value

    def encode(self) -> str:
        return json.dumps({"socket": self.socket, "user": self.user, "thread": self.thread, "frame": self.value})


def ag_ui(run: str, thread: str, *, snapshot: bool = True) -> Iterator[Value]:
    text, calls = f"m-{run}", [f"c1-{run}", f"c2-{run}"]
    yield {"type": "RUN_STARTED", "threadId": thread, "runId": run}
    yield {"type": "STEP_STARTED", "stepName": "model"}
    for call in calls:
        yield {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": "look_up", "parentMessageId": text}
    for piece in ARGUMENTS:
        for call in calls:
            yield {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": piece}
    for call in calls:
        yield {"type": "TOOL_CALL_END", "toolCallId": call}
        yield {"type": "TOOL_CALL_RESULT", "messageId": f"r-{call}", "toolCallId": call, "content": "3", "role": "tool"}
    yield {"type": "TEXT_MESSAGE_START", "messageId": text, "role": "assistant"}
    yield from ({"type": "TEXT_MESSAGE_CONTENT", "messageId": text, "delta": word} for word in WORDS)
    yield {"type": "TEXT_MESSAGE_END", "messageId": text}
    if snapshot:
        functions = [{"id": call, "type": "function", "function": {"name": "look_up", "arguments": "".join(ARGUMENTS)}}
                     for call in calls]  # fmt: skip
        message = {"id": text, "role": "assistant", "content": "".join(WORDS), "toolCalls": functions}
        yield {"type": "MESSAGES_SNAPSHOT", "messages": [{"id": "u", "role": "user", "content": "?"}, message]}
    yield {"type": "RUN_FINISHED", "threadId": thread, "runId": run}


def openai(run: str, thread: str) -> Iterator[Value]:
    for number, value in enumerate(_openai(run)):
        yield {**value, "sequence_number": number}


def _openai(run: str) -> Iterator[Value]:
    yield {"type": "response.created", "response": {"id": run, "output": []}}
    output = []
    for index in range(2):
        item = f"fc{index}-{run}"
        call = {"id": item, "type": "function_call", "call_id": f"call{index}-{run}", "name": "look_up"}
        yield {"type": "response.output_item.added", "output_index": index, "item": {**call, "arguments": ""}}
        for piece in ARGUMENTS:
            yield {"type": "response.function_call_arguments.delta", "item_id": item, "delta": piece}
        whole = "".join(ARGUMENTS)
        yield {"type": "response.function_call_arguments.done", "item_id": item, "arguments": whole}
        output.append({**call, "arguments": whole})
        yield {"type": "response.output_item.done", "output_index": index, "item": output[-1]}
    item, part = f"msg-{run}", {"type": "output_text", "text": ""}
    yield {"type": "response.output_item.added", "output_index": 2, "item": {"id": item, "type": "message"}}
    yield {"type": "response.content_part.added", "item_id": item, "content_index": 0, "part": part}
    for word in WORDS:
        yield {"type": "response.output_text.delta", "item_id": item, "content_index": 0, "delta": word}
    text = "".join(WORDS)
    yield {"type": "response.output_text.done", "item_id": item, "content_index": 0, "text": text}
    message = {"id": item, "type": "message", "content": [{"type": "output_text", "text": text}]}
    yield {"type": "response.output_item.done", "output_index": 2, "item": message}
    yield {"type": "response.completed", "response": {"id": run, "output": [*output, message]}}


def vercel(run: str, thread: str) -> Iterator[Value]:
    yield {"type": "start", "messageId": f"m-{run}"}
    yield {"type": "start-step"}
    for index in range(2):
        call = f"c{index}-{run}"
        yield {"type": "tool-input-start", "toolCallId": call, "toolName": "look_up"}
        for piece in ARGUMENTS:
            yield {"type": "tool-input-delta", "toolCallId": call, "inputTextDelta": piece}
        inputs = json.loads("".join(ARGUMENTS))
        yield {"type": "tool-input-available", "toolCallId": call, "toolName": "look_up", "input": inputs}
        yield {"type": "tool-output-available", "toolCallId": call, "output": {"n": 3}}
    yield {"type": "text-start", "id": "0"}
    yield from ({"type": "text-delta", "id": "0", "delta": word} for word in WORDS)
    yield {"type": "text-end", "id": "0"}
    yield {"type": "finish-step"}
    yield {"type": "finish"}


def bridgekit(run: str, thread: str) -> Iterator[Value]:
    yield {"type": "subscribed", "thread_id": thread, "epoch": "0" * 16, "seq": 0}
    for seq, (kind, payload) in enumerate(_bridgekit(run), 1):
        envelope = {"thread_id": thread, "run_id": run, "agent_name": "a", "event_id": f"{run}-{seq}"}
        yield {"type": kind, **envelope, "seq": seq, "timestamp": "2026-11-22T12:00:00Z", "payload": payload}


def _bridgekit(run: str) -> Iterator[tuple[str, Value]]:
    yield "agent_started", {}
    yield "agent_thinking", {"reasoning": "hm"}
    for index in range(2):
        call = {"tool_call_id": f"c{index}-{run}", "tool_name": "look_up"}
        yield "tool_executing", call
        yield "tool_completed", call
    yield from (("text_delta", {"message_id": f"m-{run}", "delta": word}) for word in WORDS)
    yield "agent_completed", {"result": None}


TABLE = """
[dialect]
name = "chat"
kind = "t"
run = "run"
thread = "room"
message = "msg"
call = "call"
text = "d"
whole = "full"
args = "full"
position = { path = "n", per = "run", first = 1 }
[dialect.kinds]
started = "go"
text_begin = "open"
text = "say"
text_end = "said"
tool_begin = "call"
tool_args = "arg"
tool_end = "called"
ended = "done"
"""


def table(run: str, thread: str) -> Iterator[Value]:
    for number, value in enumerate(_table(run), 1):
        yield {**value, "run": run, "room": thread, "n": number}


def _table(run: str) -> Iterator[Value]:
    yield {"t": "go"}
    for index in range(2):
        call = f"c{index}-{run}"
        yield {"t": "call", "call": call}
        yield from ({"t": "arg", "call": call, "d": piece} for piece in ARGUMENTS)
        yield {"t": "called", "call": call, "full": "".join(ARGUMENTS)}
    yield {"t": "open", "msg": f"m-{run}"}
    yield from ({"t": "say", "msg": f"m-{run}", "d": word} for word in WORDS)
    yield {"t": "said", "msg": f"m-{run}", "full": "".join(WORDS)}
    yield {"t": "done"}


DIALECTS: dict[str, Callable[[str, str], Iterator[Value]]] = {
    "bridgekit": bridgekit,
    "AG-UI": ag_ui,
    "OpenAI Responses": openai,
    "Vercel UI stream": vercel,
    "chat": table,
}


def recording(dialect: str) -> list[Line]:
    """Three clients, two users, three threads: one run each, interleaved frame by frame."""
    clients = (("s1", "ann", "t1"), ("s2", "ann", "t2"), ("s3", "ben", "t3"))
    runs = [[Line(*client, value) for value in DIALECTS[dialect](f"run-{client[0]}", client[2])] for client in clients]
    return [line for lines in itertools.zip_longest(*runs) for line in lines if line is not None]


def recorded() -> list[Line]:
    """The two sound recordings as two users received them, one of them twice with other ids."""
    streamed = (RECORDINGS / "lg_streamed.jsonl").read_text(encoding="utf-8")
    good = (RECORDINGS / "good.jsonl").read_text(encoding="utf-8")
    renamed = re.sub(r'"([rtmc])(\d)"', r'"\g<1>9\2"', good)
    clients = (("s1", "ann", "t0-a4a8"), ("s2", "ben", "t1"), ("s3", "ann", "t91"))
    runs = [
        [Line(*client, json.loads(line)) for line in text.splitlines()]
        for client, text in zip(clients, (streamed, good, renamed), strict=True)
    ]
    return [line for lines in itertools.zip_longest(*runs) for line in lines if line is not None]


def write(path: Path, lines: list[Line]) -> Path:
    path.write_text("".join(f"{line.encode()}\n" for line in lines), encoding="utf-8")
    return path
