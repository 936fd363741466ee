"""Defines the class of dialects, and the built-in dialects: bridgekit, AG-UI, OpenAI Responses, and Vercel's UI
stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from bridgekit_verify.check.frames import Message, ObservedFrame, split

__all__ = ["BUILT_IN", "StreamDialect", "built_in", "type_of"]


@dataclass(frozen=True)
class StreamDialect:
    """A protocol: how to read its frames, and which facts its frames can state."""

    name: str
    frames: Callable[[Message], Iterable[ObservedFrame]]
    fields: frozenset[str]
    """The names in FIELDS of the fields that the protocol's frames have."""
    kinds: frozenset[str]
    position_per: str = "client"
    """The scope of one numbering: a client, thread, run or connection."""
    first_position: int | None = None
    """The first number of a numbering, or None if it may begin with any number."""
    run_is_connection: bool = False
    """True if each response or connection is one run, so that frames name no run."""
    json_arguments: bool = True
    """True if the arguments of a call are always JSON."""
    source: str = "built in"
    reads_text: bool = False
    """True if the dialect decodes text that is not JSON, such as text after a prefix."""
    numbers_messages: bool = False
    """True if a position is that of a message, and not of each message of a batch."""
    reads_events: bool = False
    """True if the names of server-sent events are the kinds of frames. Events without data are then frames too."""
    reads_lists: bool = False
    """True if a list is one message, and not a batch of messages."""
    recognized_by: frozenset[str] = frozenset()
    """Types that no other protocol has. The dialect is detected only if a message has one of these types, or a type
    that begins with one of `type_prefixes`."""
    known_types: frozenset[str] = frozenset()
    type_prefixes: tuple[str, ...] = ()

    def read(self, message: Message) -> Iterable[ObservedFrame]:
        """Return the facts that a message states, or that each message of a batch states."""
        if isinstance(message.value, dict):
            return self.frames(message)
        if message.value == "" and message.event and not self.reads_events:
            return ()
        parts = split(message.value, lists=not self.reads_lists)
        messages = (replace(message, value=each, part=part) for part, each in enumerate(parts))
        return [frame for each in messages for frame in self.frames(each)]

    def numbering_of(self, frame: ObservedFrame, run: str | None) -> str | None:
        """Return the key of a frame's numbering, or None if the client has only one numbering."""
        match self.position_per:
            case "thread":
                return frame.thread
            case "run":
                return run
            case "connection":
                return str(frame.origin.connection)
        return None

    def lacks(self, names: str) -> bool:
        """Return whether the dialect has none of the alternatives in `names`, such as `args|whole` or `kinds.ended`."""
        return not any(
            name.removeprefix("kinds.") in (self.kinds if name.startswith("kinds.") else self.fields)
            or (name == "run" and self.run_is_connection)
            for name in names.split("|")
        )

    def describe_lack(self, *names: str) -> str:
        """Return a text that names the fields and kinds that the dialect lacks, or an empty text if none is lacking."""
        lacking = dict.fromkeys(name.replace("|", " or ") for name in names if self.lacks(name))
        return f"the dialect {self.name} has no {' and no '.join(lacking)}" if lacking else ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return value if type(value) is int else None


def _list(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _value_and_type(message: Message) -> tuple[dict[str, Any], str]:
    """Return the message's object and its type. The type is empty if the message is not an object or names no type."""
    return message.value if isinstance(message.value, dict) else {}, type_of(message.value)


def type_of(value: object) -> str:
    """Return the type of an object, or an empty text if it has none."""
    found = value.get("type") if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


BRIDGEKIT: Final = {
    "agent_started": "started",
    "agent_thinking": "event",
    "tool_executing": "tool_begin",
    "tool_completed": "tool_end",
    "agent_completed": "ended",
    "agent_error": "error",
    "progress_update": "event",
    "text_delta": "text",
    "subscribed": "subscribed",
    "gap": "gap",
}


def read_bridgekit(message: Message) -> Iterator[ObservedFrame]:
    value, type_ = _value_and_type(message)
    kind = BRIDGEKIT.get(type_, "other")
    payload = value.get("payload")
    payload = payload if isinstance(payload, dict) else {}
    frame = ObservedFrame(message, kind, _text(value.get("run_id")), _text(value.get("thread_id")))
    frame.position = _number(value.get("to" if kind == "gap" else "seq"))
    frame.first_position = _number(value.get("from" if kind == "gap" else "first_seq"))
    frame.group, frame.text = _text(value.get("epoch")), _text(value.get("reason"))
    if kind == "text":
        frame.message, frame.text, frame.implicit = _text(payload.get("message_id")), payload.get("delta"), True
    elif kind in ("tool_begin", "tool_end"):
        frame.call = _text(payload.get("tool_call_id"))
    yield frame


AG_UI: Final = {
    "RUN_STARTED": "started",
    "RUN_FINISHED": "ended",
    "RUN_ERROR": "error",
    "TEXT_MESSAGE_START": "text_begin",
    "TEXT_MESSAGE_CONTENT": "text",
    "TEXT_MESSAGE_CHUNK": "text",
    "TEXT_MESSAGE_END": "text_end",
    "THINKING_TEXT_MESSAGE_CONTENT": "thinking",
    "REASONING_MESSAGE_CONTENT": "thinking",
    "REASONING_MESSAGE_CHUNK": "thinking",
    "TOOL_CALL_START": "tool_begin",
    "TOOL_CALL_ARGS": "tool_args",
    "TOOL_CALL_CHUNK": "tool_args",
    "TOOL_CALL_END": "tool_end",
    "TOOL_CALL_RESULT": "tool_result",
    "MESSAGES_SNAPSHOT": "snapshot",
    **dict.fromkeys(
        (
            "STEP_STARTED", "STEP_FINISHED", "STATE_SNAPSHOT", "STATE_DELTA", "ACTIVITY_SNAPSHOT", "ACTIVITY_DELTA",
            "RAW", "CUSTOM", "META", "THINKING_START", "THINKING_END", "THINKING_TEXT_MESSAGE_START",
            "THINKING_TEXT_MESSAGE_END", "REASONING_START", "REASONING_END", "REASONING_MESSAGE_START",
            "REASONING_MESSAGE_END", "REASONING_ENCRYPTED_VALUE", "SUBAGENT_STARTED", "SUBAGENT_FINISHED",
            "SUBAGENT_ERROR",
        ),
        "event",
    ),
}  # fmt: skip
_AG_UI_CHUNKS: Final = {"TEXT_MESSAGE_CHUNK", "REASONING_MESSAGE_CHUNK", "TOOL_CALL_CHUNK"}


def read_ag_ui(message: Message) -> Iterator[ObservedFrame]:
    value, type_ = _value_and_type(message)
    kind = AG_UI.get(type_, "other")
    get = value.get
    frame = ObservedFrame(message, kind, _text(get("runId")), _text(get("threadId")), _text(get("messageId")))
    frame.group = _text(get("subagentRunId"))
    if kind in ("tool_begin", "tool_args", "tool_end", "tool_result", "other"):
        frame.call = _text(get("toolCallId"))
    if kind in ("text", "thinking", "tool_args", "other"):
        frame.text, frame.implicit = get("delta"), type_ in _AG_UI_CHUNKS and kind != "other"
    yield frame
    if kind == "snapshot":
        yield from _ag_ui_snapshot(message, frame, _list(get("messages")))


def _ag_ui_snapshot(message: Message, whole: ObservedFrame, entries: list[dict[str, Any]]) -> Iterator[ObservedFrame]:
    for entry in entries:
        content = entry.get("content")
        if entry.get("role") in ("assistant", "reasoning") and isinstance(content, str) and content:
            yield ObservedFrame(message, "snapshot", whole.run, whole.thread, _text(entry.get("id")), whole=content)
        for call in _list(entry.get("toolCalls") or entry.get("tool_calls")):
            function = call.get("function")
            if isinstance(function, dict):
                arguments = function.get("arguments")
                yield ObservedFrame(
                    message, "snapshot", whole.run, whole.thread, call=_text(call.get("id")), whole=arguments
                )


OPENAI: Final = {
    "response.created": "started",
    "response.queued": "event",
    "response.in_progress": "event",
    "response.completed": "ended",
    "response.incomplete": "error",
    "response.failed": "error",
    "error": "error",
    "response.output_item.added": "tool_begin",
    "response.content_part.added": "text_begin",
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.output_text.done": "text_end",
    "response.refusal.done": "text_end",
    "response.content_part.done": "snapshot",
    "response.reasoning_summary_part.done": "snapshot",
    "response.reasoning_text.delta": "thinking",
    "response.reasoning_text.done": "snapshot",
    "response.reasoning_summary_text.delta": "thinking",
    "response.reasoning_summary_text.done": "snapshot",
    "response.function_call_arguments.delta": "tool_args",
    "response.function_call_arguments.done": "tool_end",
    "response.mcp_call_arguments.delta": "tool_args",
    "response.mcp_call_arguments.done": "tool_end",
    "response.custom_tool_call_input.delta": "tool_args",
    "response.custom_tool_call_input.done": "tool_end",
    "response.code_interpreter_call_code.delta": "tool_args",
    "response.code_interpreter_call_code.done": "tool_end",
    "response.output_item.done": "event",
}
_PROGRESS: Final = (
    ".in_progress", ".searching", ".interpreting", ".generating", ".completed", ".failed", ".partial_image",
    ".annotation.added", "_part.added",
)  # fmt: skip
"""Suffixes of further OpenAI types, which report the progress of a call or of a message's part."""
_REPLIES: Final = ("output_text", "refusal", "text")
"""The types of a message's parts that have a text."""
_INPUTS: Final = {
    "function_call": "arguments", "mcp_call": "arguments", "custom_tool_call": "input", "code_interpreter_call": "code",
}  # fmt: skip
"""The types of output items that are calls, each with the field that holds the arguments."""


def read_openai(message: Message) -> Iterator[ObservedFrame]:
    value, type_ = _value_and_type(message)
    get = value.get
    kind = OPENAI.get(type_) or ("event" if type_.startswith("response.") and type_.endswith(_PROGRESS) else "other")
    item, response, part = get("item"), get("response"), get("part")
    if (kind == "tool_begin" and _input_of(item) is None) or (kind == "text_begin" and type_of(part) not in _REPLIES):
        kind = "event"
    frame = ObservedFrame(message, kind, position=_number(get("sequence_number")), implicit=type_ == "error")
    if kind in ("tool_args", "tool_end") or (kind == "other" and "_call" in type_):
        frame.call, frame.text = _text(get("item_id")), get("delta")
        frame.whole = get("arguments", get("input", get("code")))
    elif kind == "tool_begin" and isinstance(item, dict):
        frame.call = _text(item.get("id"))
    elif kind in ("text_begin", "text", "text_end", "thinking", "snapshot", "other"):
        is_summary = type_.startswith("response.reasoning_summary")
        index = get("summary_index" if is_summary else "content_index")
        frame.message = _part_id(get("item_id"), index, is_summary=is_summary)
        frame.text, frame.whole = get("delta"), get("text", get("refusal", _text_of(part)))
    items = [item] if type_ == "response.output_item.done" else None
    if isinstance(response, dict):
        frame.run, items = _text(response.get("id")), response.get("output")
    if items:
        yield from _openai_items(message, frame.run, _list(items))
    yield frame


def _input_of(item: object) -> str | None:
    """Return the name of the field that holds an output item's arguments, or None if the item is not a call."""
    return _INPUTS.get(type_of(item))


def _text_of(part: object) -> object:
    """Return the text of a part of a message, of a refusal, or of reasoning, or None if the part has no text."""
    return part.get("text", part.get("refusal")) if isinstance(part, dict) else None


def _part_id(item: object, index: object, *, is_summary: bool) -> str | None:
    """Return the id of a part. Parts of a reasoning item's content and of its summary have the same indexes."""
    return f"{item}/{'summary/' if is_summary else ''}{index or 0}" if isinstance(item, str) else None


def _openai_items(message: Message, run: str | None, items: list[dict[str, Any]]) -> Iterator[ObservedFrame]:
    for item in items:
        if (name := _input_of(item)) is not None:
            yield ObservedFrame(message, "snapshot", run, call=_text(item.get("id")), whole=item.get(name))
        for field in ("content", "summary"):
            for index, part in enumerate(_list(item.get(field))):
                if (text := _text_of(part)) is not None:
                    id_ = _part_id(item.get("id"), index, is_summary=field == "summary")
                    yield ObservedFrame(message, "snapshot", run, message=id_, whole=text)


VERCEL: Final = {
    "start": "started",
    "finish": "ended",
    "error": "error",
    "abort": "error",
    "text-start": "text_begin",
    "text-delta": "text",
    "text-end": "text_end",
    "reasoning-delta": "thinking",
    "tool-input-start": "tool_begin",
    "tool-input-delta": "tool_args",
    "tool-input-available": "tool_end",
    "tool-input-error": "tool_end",
    "tool-output-available": "tool_result",
    "tool-output-error": "tool_result",
    "tool-output-denied": "tool_result",
    **dict.fromkeys(
        (
            "start-step", "finish-step", "reasoning-start", "reasoning-end", "source-url", "source-document", "file",
            "message-metadata", "tool-approval-request", "custom", "reasoning-file",
        ),
        "event",
    ),
}  # fmt: skip


def read_vercel(message: Message) -> Iterator[ObservedFrame]:
    value, type_ = _value_and_type(message)
    kind = VERCEL.get(type_, "event" if type_.startswith("data-") else "other")
    if kind == "tool_result" and value.get("preliminary"):
        kind = "event"
    frame = ObservedFrame(message, kind, implicit=type_ == "error")
    if kind in ("text_begin", "text", "text_end", "thinking", "other"):
        frame.message, frame.text = _text(value.get("id")), value.get("delta")
    if kind in ("tool_begin", "tool_args", "tool_end", "tool_result", "other") and "toolCallId" in value:
        frame.call = _text(value.get("toolCallId"))
        frame.text = value.get("inputTextDelta")
        if kind == "tool_end":
            frame.whole, frame.implicit = value.get("input"), True
    yield frame


def _dialect(
    name: str, read: Callable[[Message], Iterator[ObservedFrame]], types: Mapping[str, str], shared: set[str],
    fields: set[str], **options: Any,
) -> StreamDialect:  # fmt: skip
    """Return a built-in dialect. Other protocols may also have the `shared` types."""
    known = frozenset(types)
    return StreamDialect(
        name, read, frozenset(fields), frozenset(types.values()), known_types=known, recognized_by=known - shared,
        **options,
    )  # fmt: skip


BUILT_IN: Final[Mapping[str, StreamDialect]] = {
    each.name: each
    for each in (
        _dialect(
            "bridgekit", read_bridgekit, BRIDGEKIT, {"gap", "error"},
            {"kind", "run", "thread", "message", "call", "text", "position"},
            position_per="thread", first_position=1,
        ),
        _dialect(
            "AG-UI", read_ag_ui, AG_UI, {"RAW", "CUSTOM", "META"},
            {"kind", "run", "thread", "message", "call", "text", "whole", "args"},
        ),
        _dialect(
            "OpenAI Responses", read_openai, OPENAI, {"error"},
            {"kind", "run", "message", "call", "text", "whole", "args", "position"},
            position_per="run", first_position=0, type_prefixes=("response.",), json_arguments=False,
        ),
        _dialect(
            "Vercel UI stream", read_vercel, VERCEL, {"start", "finish", "error", "abort", "file", "custom"},
            {"kind", "message", "call", "text", "args"},
            run_is_connection=True, type_prefixes=("data-",),
        ),
    )
}  # fmt: skip


def built_in(name: str) -> StreamDialect | None:
    """Return the built-in dialect with this name (case-insensitive), or None."""
    return next((each for each in BUILT_IN.values() if each.name.lower() == name.lower()), None)
