"""Pure functions that encode a turn as a whole or streamed answer of Chat Completions or Responses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bridgekit_verify.check.live.model_requests import ModelRequest
from bridgekit_verify.check.live.model_scripts import SentPiece, Turn

__all__ = ["AnswerHead", "Step", "whole_answer", "write_answer"]

Value = dict[str, Any]


@dataclass(frozen=True)
class AnswerHead:
    """The id, model and time that an answer states."""

    id: str
    model: str
    created: int


Step = tuple[SentPiece | None, bytes]
"""A piece of the turn with its encoded bytes, or None with the bytes of a frame that contains no piece."""


def write_answer(request: ModelRequest, turn: Turn, head: AnswerHead) -> Iterator[Step]:
    """Yield the server-sent events of a streamed answer."""
    if request.api == "chat":
        return _chat_steps(turn, head, request.include_usage)
    return _ResponsesStream(turn, head).steps()


def whole_answer(request: ModelRequest, turn: Turn, head: AnswerHead) -> Value:
    """Return the JSON object of an answer that is not streamed."""
    if request.api == "responses":
        stream = _ResponsesStream(turn, head)
        for piece in turn.pieces:
            stream.sent[piece.channel] = stream.sent.get(piece.channel, "") + piece.text
        return stream.response("completed", [stream.item(channel, "completed") for channel in stream.order])
    texts = {channel: "".join(p.text for p in turn.pieces if p.channel in channel) for channel in ("pt", "r")}
    message: Value = {"role": "assistant", "content": texts["pt"] or None, "refusal": None}
    if texts["r"]:
        message["reasoning_content"] = texts["r"]
    if turn.calls:
        functions = [(call.id, {"name": call.name, "arguments": call.arguments}) for call in turn.calls]
        message["tool_calls"] = [{"id": id_, "type": "function", "function": function} for id_, function in functions]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(turn)}
    return {**_chat_head(head, "chat.completion"), "choices": [choice], "usage": CHAT_USAGE}


CHAT_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def _chat_head(head: AnswerHead, kind: str) -> Value:
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model}


def _finish(turn: Turn) -> str:
    return "tool_calls" if turn.calls else "stop"


def _chat_steps(turn: Turn, head: AnswerHead, include_usage: bool) -> Iterator[Step]:
    def chunk(delta: Value, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**_chat_head(head, "chat.completion.chunk"), "choices": [choice]})

    calls = {call.channel: (index, call) for index, call in enumerate(turn.calls)}
    begun = set[str]()
    yield None, chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in turn.pieces:
        if piece.channel not in calls:
            yield piece, chunk({"reasoning_content" if piece.channel == "r" else "content": piece.text})
            continue
        index, call = calls[piece.channel]
        part: Value = {"index": index, "function": {"arguments": piece.text}}
        if piece.channel not in begun:
            begun.add(piece.channel)
            part = {"index": index, "id": call.id, "type": "function",
                    "function": {"name": call.name, "arguments": piece.text}}  # fmt: skip
        yield piece, chunk({"tool_calls": [part]})
    yield None, chunk({}, _finish(turn))
    if include_usage:
        yield None, _data({**_chat_head(head, "chat.completion.chunk"), "choices": [], "usage": CHAT_USAGE})
    yield None, b"data: [DONE]\n\n"


def _data(value: Value) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


class _ResponsesStream:
    """The items and events of one response. Each channel is one output item."""

    def __init__(self, turn: Turn, head: AnswerHead) -> None:
        self._turn, self._head = turn, head
        self._calls = {call.channel: call for call in turn.calls}
        self.order = list(dict.fromkeys(piece.channel for piece in turn.pieces))
        self.sent: dict[str, str] = {}
        self._number = -1

    def steps(self) -> Iterator[Step]:
        left = Counter(piece.channel for piece in self._turn.pieces)
        yield None, self._event("response.created", response=self.response("in_progress", []))
        yield None, self._event("response.in_progress", response=self.response("in_progress", []))
        for piece in self._turn.pieces:
            channel = piece.channel
            if channel not in self.sent:
                self.sent[channel] = ""
                yield from ((None, event) for event in self._begin(channel))
            self.sent[channel] += piece.text
            left[channel] -= 1
            if piece.text:  # output_item.added already states an empty first piece of arguments.
                yield piece, self._delta(piece)
            if not left[channel]:
                yield from ((None, event) for event in self._end(channel))
        yield (
            None,
            self._event(
                "response.completed",
                response=self.response("completed", [self.item(c, "completed") for c in self.order]),
            ),
        )

    def _event(self, kind: str, **members: Any) -> bytes:
        self._number += 1
        value = {"type": kind, "sequence_number": self._number, **members}
        return f"event: {kind}\ndata: {json.dumps(value)}\n\n".encode()

    def _place(self, channel: str) -> Value:
        return {"item_id": self._item_id(channel), "output_index": self.order.index(channel)}

    def _item_id(self, channel: str) -> str:
        prefix = "rs" if channel == "r" else "fc" if channel in self._calls else "msg"
        return f"{prefix}_{self._head.id}_{self.order.index(channel)}"

    def _begin(self, channel: str) -> Iterator[bytes]:
        place = self._place(channel)
        item = self.item(channel, "in_progress")
        yield self._event("response.output_item.added", output_index=place["output_index"], item=item)
        if channel == "r":
            part: Value = {"type": "summary_text", "text": ""}
            yield self._event("response.reasoning_summary_part.added", **place, summary_index=0, part=part)
        elif channel not in self._calls:
            yield self._event("response.content_part.added", **place, content_index=0, part=self._text_part(""))

    def _delta(self, piece: SentPiece) -> bytes:
        place = self._place(piece.channel)
        if piece.channel == "r":
            return self._event("response.reasoning_summary_text.delta", **place, summary_index=0, delta=piece.text)
        if piece.channel in self._calls:
            return self._event("response.function_call_arguments.delta", **place, delta=piece.text)
        return self._event("response.output_text.delta", **place, content_index=0, delta=piece.text, logprobs=[])

    def _end(self, channel: str) -> Iterator[bytes]:
        place, text = self._place(channel), self.sent[channel]
        if channel == "r":
            part: Value = {"type": "summary_text", "text": text}
            yield self._event("response.reasoning_summary_text.done", **place, summary_index=0, text=text)
            yield self._event("response.reasoning_summary_part.done", **place, summary_index=0, part=part)
        elif channel in self._calls:
            name = self._calls[channel].name
            yield self._event("response.function_call_arguments.done", **place, name=name, arguments=text)
        else:
            part = self._text_part(text)
            yield self._event("response.output_text.done", **place, content_index=0, text=text, logprobs=[])
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        item = self.item(channel, "completed")
        yield self._event("response.output_item.done", output_index=place["output_index"], item=item)

    @staticmethod
    def _text_part(text: str) -> Value:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def item(self, channel: str, status: str) -> Value:
        """Return an output item, which has no text unless its status is `completed`."""
        text = self.sent.get(channel, "") if status == "completed" else ""
        id_ = self._item_id(channel)
        if channel == "r":
            return {"id": id_, "type": "reasoning", "summary": [{"type": "summary_text", "text": text}] if text else []}
        if channel in self._calls:
            call = self._calls[channel]
            return {"id": id_, "type": "function_call", "status": status, "call_id": call.id, "name": call.name,
                    "arguments": text}  # fmt: skip
        content = [self._text_part(text)] if status == "completed" else []
        return {"id": id_, "type": "message", "role": "assistant", "status": status, "content": content}

    def response(self, status: str, output: list[Value]) -> Value:
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, **details}
        return {
            "id": self._head.id, "object": "response", "created_at": self._head.created, "status": status,
            "model": self._head.model, "output": output, "error": None, "incomplete_details": None,
            "instructions": None, "metadata": {}, "parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0,
            "tool_choice": "auto", "tools": [], "previous_response_id": None, "max_output_tokens": None,
            "usage": usage if status == "completed" else None,
        }  # fmt: skip
