"""Sound runs with the less usual parts of each protocol: chunks, subagents, interrupts, several outputs, errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.verify.check.samples import ARGUMENTS, WORDS, Value

TEXT, WHOLE = "".join(WORDS), "".join(ARGUMENTS)


def ag_ui_call(call: str) -> Value:
    return {"id": call, "type": "function", "function": {"name": "look_up", "arguments": WHOLE}}


def ag_ui_assistant(message: str, content: str | None = TEXT, *calls: str) -> Value:
    return {"id": message, "role": "assistant", "content": content, "toolCalls": [ag_ui_call(each) for each in calls]}


def ag_ui_run(run: str, values: Sequence[Value], *messages: Value) -> Iterator[Value]:
    yield {"type": "RUN_STARTED", "threadId": "t", "runId": run}
    yield from values
    yield {"type": "MESSAGES_SNAPSHOT", "messages": [*messages]}
    yield {"type": "RUN_FINISHED", "threadId": "t", "runId": run}


def streamed(kind: str, name: str, id_: str, deltas: Sequence[str]) -> list[Value]:
    pieces = [{"type": f"{kind}_{'ARGS' if kind == 'TOOL_CALL' else 'CONTENT'}", name: id_, "delta": d} for d in deltas]
    return [{"type": f"{kind}_START", name: id_}, *pieces, {"type": f"{kind}_END", name: id_}]


def chunked(kind: str, name: str, id_: str, deltas: Sequence[str], **members: str) -> list[Value]:
    """Return chunks of which only the first names its message or call."""
    values: list[Value] = [{"type": f"{kind}_CHUNK", "delta": delta, **members} for delta in deltas]
    values[0][name] = id_
    return values


def ag_ui_chunks(run: str) -> Iterator[Value]:
    texts = chunked("TEXT_MESSAGE", "messageId", f"m-{run}", WORDS)
    calls = chunked("TOOL_CALL", "toolCallId", f"c-{run}", ARGUMENTS)
    thoughts = chunked("REASONING_MESSAGE", "messageId", f"th-{run}", WORDS)
    values = [value for row in zip(texts[:3], calls, thoughts[:3], strict=True) for value in row]
    reasoning = {"id": f"th-{run}", "role": "reasoning", "content": TEXT}
    return ag_ui_run(
        run, [*values, *texts[3:], *thoughts[3:]], ag_ui_assistant(f"m-{run}", TEXT, f"c-{run}"), reasoning
    )


def ag_ui_subagents(run: str) -> Iterator[Value]:
    """Three subagents at once. Their chunks name only the subagent."""
    subagents = [f"{run}-{n}" for n in range(3)]
    chunks = [chunked("TEXT_MESSAGE", "messageId", f"m-{each}", WORDS, subagentRunId=each) for each in subagents]
    values = [value for row in zip(*chunks, strict=True) for value in row]
    begin = [{"type": "SUBAGENT_STARTED", "subagentRunId": each, "name": "x"} for each in subagents]
    end = [{"type": "SUBAGENT_FINISHED", "subagentRunId": each} for each in subagents]
    return ag_ui_run(run, [*begin, *values, *end], *(ag_ui_assistant(f"m-{each}") for each in subagents))


def ag_ui_interrupt(run: str) -> Iterator[Value]:
    """The call of a run that the user must confirm, and its result in the next run."""
    call = streamed("TOOL_CALL", "toolCallId", f"c-{run}", ARGUMENTS)
    yield from ag_ui_run(f"{run}-a", call, ag_ui_assistant(f"m-{run}", None, f"c-{run}"))
    result = {"type": "TOOL_CALL_RESULT", "messageId": f"res-{run}", "toolCallId": f"c-{run}", "content": "yes"}
    text = streamed("TEXT_MESSAGE", "messageId", f"n-{run}", WORDS)
    messages = (ag_ui_assistant(f"m-{run}", None, f"c-{run}"), ag_ui_assistant(f"n-{run}"))
    yield from ag_ui_run(f"{run}-b", [result, *text], *messages)


def ag_ui_reasoning(run: str) -> Iterator[Value]:
    thoughts = streamed("REASONING_MESSAGE", "messageId", f"th-{run}", WORDS)
    state: list[Value] = [{"type": "STATE_SNAPSHOT", "snapshot": {}}]
    state.append({"type": "STATE_DELTA", "delta": [{"op": "add"}]})
    text = streamed("TEXT_MESSAGE", "messageId", f"m-{run}", WORDS)
    return ag_ui_run(run, [*thoughts, *state, *text], ag_ui_assistant(f"m-{run}"))


def numbered(values: Iterator[Value]) -> Iterator[Value]:
    return ({**value, "sequence_number": number} for number, value in enumerate(values))


def response(type_: str, run: str, *output: Value) -> Value:
    return {"type": f"response.{type_}", "response": {"id": run, "output": [*output]}}


CALLS = (
    ("function_call", "function_call_arguments", "arguments", ARGUMENTS),
    ("mcp_call", "mcp_call_arguments", "arguments", ARGUMENTS),
    ("custom_tool_call", "custom_tool_call_input", "input", WORDS),
    ("code_interpreter_call", "code_interpreter_call_code", "code", ("[x for", " x in y]")),
)


def openai_calls(run: str) -> Iterator[Value]:
    """One call of each type, whose arguments are JSON, text, or code."""
    yield response("created", run)
    output = []
    for type_, event, name, pieces in CALLS:
        item = {"id": f"{type_}-{run}", "type": type_}
        place = {"item_id": item["id"]}
        yield {"type": "response.output_item.added", "item": item}
        yield from ({"type": f"response.{event}.delta", **place, "delta": piece} for piece in pieces)
        output.append({**item, name: "".join(pieces)})
        yield {"type": f"response.{event}.done", **place, name: output[-1][name]}
        yield {"type": "response.output_item.done", "item": output[-1]}
    yield response("completed", run, *output)


def openai_parts(run: str) -> Iterator[Value]:
    """A reasoning with two summaries and another text of its own, and a message of a text and a refusal."""
    yield response("created", run)
    for index in range(2):
        place = {"item_id": f"rs-{run}", "summary_index": index}
        yield from ({"type": "response.reasoning_summary_text.delta", **place, "delta": word} for word in WORDS)
        yield {"type": "response.reasoning_summary_text.done", **place, "text": TEXT}
    place = {"item_id": f"rs-{run}", "content_index": 0}
    yield from ({"type": "response.reasoning_text.delta", **place, "delta": word} for word in WORDS[1:])
    yield {"type": "response.reasoning_text.done", **place, "text": TEXT[len(WORDS[0]) :]}
    summary = [{"type": "summary_text", "text": TEXT} for _ in range(2)]
    content = [{"type": "reasoning_text", "text": TEXT[len(WORDS[0]) :]}]
    reasoning = {"id": f"rs-{run}", "type": "reasoning", "summary": summary, "content": content}
    yield {"type": "response.output_item.done", "item": reasoning}
    parts: list[Value] = []
    for index, (type_, name) in enumerate((("output_text", "text"), ("refusal", "refusal"))):
        place = {"item_id": f"m-{run}", "content_index": index}
        yield {"type": "response.content_part.added", **place, "part": {"type": type_, name: ""}}
        yield from ({"type": f"response.{type_}.delta", **place, "delta": word} for word in WORDS)
        yield {"type": f"response.{type_}.done", **place, name: TEXT}
        parts.append({"type": type_, name: TEXT})
    yield response("completed", run, reasoning, {"id": f"m-{run}", "type": "message", "content": parts})


def openai_failed(run: str) -> Iterator[Value]:
    """An error is followed by the end of its run."""
    yield response("created", run)
    part = {"type": "output_text", "text": ""}
    yield {"type": "response.content_part.added", "item_id": f"m-{run}", "content_index": 0, "part": part}
    for word in WORDS:
        yield {"type": "response.output_text.delta", "item_id": f"m-{run}", "content_index": 0, "delta": word}
    yield {"type": "error", "message": "x"}
    yield response("failed", run)


def vercel_results(run: str) -> Iterator[Value]:
    """Preliminary results, and a call whose input is not streamed."""
    calls = [f"c{n}-{run}" for n in range(2)]
    yield {"type": "start", "messageId": f"m-{run}"}
    yield {"type": "tool-input-start", "toolCallId": calls[0], "toolName": "look_up"}
    yield from ({"type": "tool-input-delta", "toolCallId": calls[0], "inputTextDelta": piece} for piece in ARGUMENTS)
    yield from ({"type": "tool-input-available", "toolCallId": call, "input": json.loads(WHOLE)} for call in calls)
    yield from ({"type": "tool-output-available", "toolCallId": calls[0], "preliminary": True} for _ in range(2))
    yield from ({"type": "tool-output-available", "toolCallId": call, "output": 3} for call in calls)
    yield from vercel_text()
    yield {"type": "finish"}


def vercel_text() -> Iterator[Value]:
    yield {"type": "text-start", "id": "0"}
    yield from ({"type": "text-delta", "id": "0", "delta": word} for word in WORDS)
    yield {"type": "text-end", "id": "0"}


def vercel_error(run: str) -> Iterator[Value]:
    """An error is followed by the end of its run."""
    yield {"type": "start", "messageId": f"m-{run}"}
    yield from list(vercel_text())[:-1]
    yield from ({"type": each} for each in ("error", "finish-step", "finish"))


INDEXED = """
[dialect]
kind = "t"
run = "r"
message = "i"
text = "d"
whole = "f"
[dialect.kinds]
started = "S"
text = "T"
text_end = "E"
ended = "X"
"""


def indexed(run: str) -> Iterator[Value]:
    """Two runs at once, whose messages have the same numbers."""
    runs = [f"{run}-{n}" for n in range(2)]
    yield from ({"t": "S", "r": each} for each in runs)
    for index in range(2):
        yield from ({"t": "T", "r": each, "i": index, "d": word + each} for word in WORDS for each in runs)
        yield from ({"t": "E", "r": each, "i": index, "f": "".join(word + each for word in WORDS)} for each in runs)
    yield from ({"t": "X", "r": each} for each in runs)


PROTOCOLS: dict[str, tuple[Callable[[str], Iterator[Value]], str]] = {
    "AG-UI chunks": (ag_ui_chunks, ""),
    "AG-UI subagents": (ag_ui_subagents, ""),
    "AG-UI interrupt": (ag_ui_interrupt, ""),
    "AG-UI reasoning": (ag_ui_reasoning, ""),
    "OpenAI calls": (lambda run: numbered(openai_calls(run)), ""),
    "OpenAI parts": (lambda run: numbered(openai_parts(run)), ""),
    "OpenAI failed": (lambda run: numbered(openai_failed(run)), ""),
    "Vercel results": (vercel_results, ""),
    "Vercel error": (vercel_error, ""),
    "message ids of each run": (indexed, INDEXED),
}


def with_shorter_delta(values: list[Value], index: int) -> list[Value] | None:
    """Return the messages with the last character of one delta removed; None if the message has no delta."""
    name = next((name for name in ("delta", "inputTextDelta", "d") if isinstance(values[index].get(name), str)), None)
    if name is None:
        return None
    shorter: dict[str, Any] = {**values[index], name: values[index][name][:-1]}
    return [*values[:index], shorter, *values[index + 1 :]]
