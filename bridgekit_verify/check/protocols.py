"""Defines what a dialect is, and the built-in dialects: bridgekit, AG-UI, OpenAI Responses, and Vercel's UI stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridgekit_verify.check.frames import Message, ObservedFrame

__all__ = ["BUILT_IN", "StreamDialect", "built_in"]


@dataclass(frozen=True)
class StreamDialect:
    """A protocol: how to read its frames, and which facts its frames can state."""

    name: str
    frames: Callable[[Message], Iterable[ObservedFrame]]
    fields: frozenset[str]
    """The fields of FIELDS that the protocol's frames have."""
    kinds: frozenset[str]
    position_per: str = "client"
    """The scope of a numbering: one of PER."""
    first_position: int | None = None
    """The first number of a numbering, or None if it may begin with any number."""
    run_is_connection: bool = False
    """True if each response or connection is one run, so that frames name no run."""
    json_arguments: bool = True
    """True if the arguments of a call are always JSON."""
    source: str = "built in"
    prefix: str = ""
    """The text before the JSON of a text message."""
    recognized_by: frozenset[str] = frozenset()
    """Types that no other protocol has. The dialect is detected only if a message has one of them, or a type that
    begins with one of `type_prefixes`."""
    known_types: frozenset[str] = frozenset()
    type_prefixes: tuple[str, ...] = ()

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
        """Return whether the dialect has none of these fields and kinds, such as `args|whole` and `kinds.ended`."""
        return not any(
            name.removeprefix("kinds.") in (self.kinds if name.startswith("kinds.") else self.fields)
            or (name == "run" and self.run_is_connection)
            for name in names.split("|")
        )

    def describe_lack(self, *names: str) -> str:
        """Return a reason that names which of these fields and kinds the dialect lacks, or an empty string."""
        lacking = dict.fromkeys(name.replace("|", " or ") for name in names if self.lacks(name))
        return f"the dialect {self.name} has no {' and no '.join(lacking)}" if lacking else ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return value if type(value) is int else None


def _list(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _value_and_type(message: Message) -> tuple[dict[str, Any], str]:
    """Return the message's object and its type.

    A value that is no object, or that has no type, gets a type that no dialect knows.
    """
    value = message.value if isinstance(message.value, dict) else {}
    type_ = value.get("type")
    return value, type_ if isinstance(type_, str) else ""


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
    frame.name = _text(value.get("reason" if kind == "gap" else "epoch"))
    if kind == "text":
        frame.message, frame.text, frame.implicit = _text(payload.get("message_id")), payload.get("delta"), True
    elif kind in ("tool_begin", "tool_end"):
        frame.call, frame.name = _text(payload.get("tool_call_id")), _text(payload.get("tool_name"))
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
            "REASONING_MESSAGE_END", "REASONING_ENCRYPTED_VALUE",
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
    if kind in ("text", "thinking"):
        frame.text, frame.implicit = get("delta"), type_ in _AG_UI_CHUNKS
    elif kind in ("tool_begin", "tool_args", "tool_end", "tool_result"):
        frame.message, frame.call = None, _text(get("toolCallId"))
        if kind == "tool_args":
            frame.text, frame.implicit = get("delta"), type_ in _AG_UI_CHUNKS
    yield frame
    if kind == "snapshot":
        yield from _ag_ui_snapshot(message, frame, _list(get("messages")))


def _ag_ui_snapshot(message: Message, whole: ObservedFrame, entries: list[dict[str, Any]]) -> Iterator[ObservedFrame]:
    for entry in entries:
        content = entry.get("content")
        if entry.get("role") == "assistant" and isinstance(content, str) and content:
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
    "response.reasoning_text.delta": "thinking",
    "response.reasoning_summary_text.delta": "thinking",
    "response.function_call_arguments.delta": "tool_args",
    "response.function_call_arguments.done": "tool_end",
    "response.output_item.done": "snapshot",
}
_REPLIES: Final = {"output_text": "text", "refusal": "refusal"}


def read_openai(message: Message) -> Iterator[ObservedFrame]:  # noqa: C901  # one branch for each shape of event
    value, type_ = _value_and_type(message)
    kind = OPENAI.get(type_, "event" if type_.startswith("response.") else "other")
    item, response, part = value.get("item"), value.get("response"), value.get("part")
    if kind == "tool_begin" and not _is_call(item):
        kind = "event"
    if kind == "text_begin" and not (isinstance(part, dict) and part.get("type") in _REPLIES):
        kind = "event"
    frame = ObservedFrame(message, kind, position=_number(value.get("sequence_number")))
    if isinstance(response, dict):
        frame.run = _text(response.get("id"))
    if kind in ("tool_args", "tool_end"):
        frame.call, frame.text, frame.whole = _text(value.get("item_id")), value.get("delta"), value.get("arguments")
    elif kind == "tool_begin" and isinstance(item, dict):
        frame.call = _text(item.get("id"))
    elif kind in ("text_begin", "text", "text_end", "thinking"):
        frame.message = _part_id(value.get("item_id"), value.get("content_index"))
        frame.text, frame.whole = value.get("delta"), value.get("text", value.get("refusal"))
    if kind == "snapshot":
        frame.kind = "event"
    items = [item] if kind == "snapshot" else response.get("output") if isinstance(response, dict) else None
    if kind in ("ended", "error", "snapshot") and items:
        yield from _openai_items(message, frame.run, _list(items))
    yield frame


def _is_call(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == "function_call"


def _part_id(item: object, index: object) -> str | None:
    return f"{item}/{index or 0}" if isinstance(item, str) else None


def _openai_items(message: Message, run: str | None, items: list[dict[str, Any]]) -> Iterator[ObservedFrame]:
    for item in items:
        if _is_call(item):
            yield ObservedFrame(message, "snapshot", run, call=_text(item.get("id")), whole=item.get("arguments"))
        elif item.get("type") == "message":
            for index, part in enumerate(_list(item.get("content"))):
                name = _REPLIES.get(str(part.get("type")))
                if name:
                    key = _part_id(item.get("id"), index)
                    yield ObservedFrame(message, "snapshot", run, message=key, whole=part.get(name))


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
    **dict.fromkeys(
        (
            "start-step", "finish-step", "reasoning-start", "reasoning-end", "source-url", "source-document", "file",
            "message-metadata", "tool-approval-request", "tool-output-denied", "custom", "reasoning-file",
        ),
        "event",
    ),
}  # fmt: skip


def read_vercel(message: Message) -> Iterator[ObservedFrame]:
    value, type_ = _value_and_type(message)
    kind = VERCEL.get(type_, "event" if type_.startswith("data-") else "other")
    frame = ObservedFrame(message, kind)
    if kind in ("text_begin", "text", "text_end", "thinking"):
        frame.message, frame.text = _text(value.get("id")), value.get("delta")
    elif kind in ("tool_begin", "tool_args", "tool_end", "tool_result"):
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
            {"kind", "run", "thread", "message", "call", "name", "text", "position"},
            position_per="thread", first_position=1,
        ),
        _dialect(
            "AG-UI", read_ag_ui, AG_UI, {"RAW", "CUSTOM", "META"},
            {"kind", "run", "thread", "message", "call", "name", "text", "whole", "args"},
        ),
        _dialect(
            "OpenAI Responses", read_openai, OPENAI, {"error"},
            {"kind", "run", "message", "call", "name", "text", "whole", "args", "position"},
            position_per="run", first_position=0, type_prefixes=("response.",),
        ),
        _dialect(
            "Vercel UI stream", read_vercel, VERCEL, {"start", "finish", "error", "abort", "file", "custom"},
            {"kind", "message", "call", "name", "text", "args"},
            run_is_connection=True, type_prefixes=("data-",),
        ),
    )
}  # fmt: skip


def built_in(name: str) -> StreamDialect | None:
    """Return a built-in dialect by its name, in upper or lower case."""
    return next((each for each in BUILT_IN.values() if each.name.lower() == name.lower()), None)
