"""Pure functions that parse a backend's request to the model (Chat Completions or Responses) into one form."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bridgekit.errors import BridgekitError
from bridgekit_verify.check.live.markers import PROMPT, canaries_in
from bridgekit_verify.check.live.model_scripts import OfferedTool

__all__ = ["BadModelRequest", "ModelRequest", "RequestEntry", "read_chat", "read_responses"]

ROLES = ("system", "developer", "user", "assistant", "tool")


class BadModelRequest(BridgekitError, ValueError):
    """A request that the model's protocol does not allow. The error's text names the parameter."""


@dataclass
class RequestEntry:
    """One message, tool call or tool result of a request."""

    role: str
    text: str = ""
    calls: dict[str, str] = field(default_factory=dict)
    """For each call id, the arguments in an assistant's message."""
    result_of: str | None = None


@dataclass
class ModelRequest:
    """The content of a request, in a form that both APIs share."""

    api: Literal["chat", "responses"]
    model: str
    stream: bool
    entries: list[RequestEntry]
    tools: list[OfferedTool]
    parallel: bool = True
    include_usage: bool = False
    previous: str | None = None
    """The id of the response that this request continues, instead of repeating earlier messages."""
    raw: str = ""

    def prompts(self) -> list[tuple[str, str, int]]:
        """Return each prompt's canary, its scenario and the index of its entry, the latest prompt first.

        Prompts in users' messages precede those in the instructions, where some backends put the prompt.
        """
        return [
            (*found, index)
            for roles in (("user",), ("system", "developer"))
            for index in range(len(self.entries) - 1, -1, -1)
            if self.entries[index].role in roles
            for found in reversed(PROMPT.findall(self.entries[index].text))
        ]

    def rounds_after(self, index: int) -> int:
        """Return the number of rounds of tool results after an entry."""
        roles = [entry.role for entry in self.entries[index + 1 :]]
        return sum(role == "tool" and roles[n + 1 : n + 2] != ["tool"] for n, role in enumerate(roles))

    def setting(self) -> str:
        """Fingerprint the tools' names and the instructions, without prompts and numbers such as the time."""
        system = [
            re.sub(r"\d+", "", PROMPT.sub("", each.text))
            for each in self.entries
            if each.role in ("system", "developer")
        ]
        names = sorted(tool.name for tool in self.tools)
        return hashlib.blake2b(json.dumps([system, names]).encode(), digest_size=6).hexdigest()

    def held(self) -> tuple[str, ...]:
        return tuple(sorted(canaries_in(self.raw)))


def read_chat(body: object) -> ModelRequest:
    """Read the body of a chat completions request. Raises BadModelRequest, which names the problem."""
    request = _object(body)
    entries = [_chat_entry(each, number) for number, each in enumerate(_list(request, "messages"))]
    if request.get("n") not in (None, 1):
        raise BadModelRequest(f"n must be 1, not {request['n']!r}: the scripted model sends one choice")
    tools = [_tool(_part(each, "function", f"tools[{n}]"), f"tools[{n}]") for n, each in _functions(request)]
    options = request.get("stream_options") or {}
    return _checked(
        ModelRequest(
            "chat", _model(request), _boolean(request, "stream"), entries, _chosen(request, tools),
            parallel=request.get("parallel_tool_calls") is not False,
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            raw=json.dumps(body, ensure_ascii=False),
        )
    )  # fmt: skip


def read_responses(body: object) -> ModelRequest:
    """Read the body of a Responses request. Raises BadModelRequest, which names the problem."""
    request = _object(body)
    given = request.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else _list(request, "input")
    entries = [entry for number, each in enumerate(items) for entry in _item(each, number)]
    if isinstance(request.get("instructions"), str):
        entries.insert(0, RequestEntry("system", request["instructions"]))
    previous = request.get("previous_response_id")
    if previous is not None and not isinstance(previous, str):
        raise BadModelRequest(f"previous_response_id must be a string, not {previous!r}")
    tools = [_tool(each, f"tools[{number}]") for number, each in _functions(request)]
    return _checked(
        ModelRequest(
            "responses", _model(request), _boolean(request, "stream"), entries, _chosen(request, tools),
            parallel=request.get("parallel_tool_calls") is not False, previous=previous,
            raw=json.dumps(body, ensure_ascii=False),
        )
    )  # fmt: skip


def _object(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise BadModelRequest(f"the body must be a JSON object, not {type(body).__name__}")
    return body


def _model(request: Mapping[str, Any]) -> str:
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise BadModelRequest(f"model must be a string that is not empty, not {model!r}")
    return model


def _boolean(request: Mapping[str, Any], name: str) -> bool:
    value = request.get(name)
    if value not in (None, True, False):
        raise BadModelRequest(f"{name} must be true or false, not {value!r}")
    return bool(value)


def _list(request: Mapping[str, Any], name: str) -> list[Any]:
    value = request.get(name)
    if not isinstance(value, list) or not value:
        raise BadModelRequest(f"{name} must be a list that is not empty")
    return value


def _part(value: object, name: str, path: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise BadModelRequest(f"{path}.{name} must be an object")
    return found


def _functions(request: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    tools = request.get("tools") or []
    if not isinstance(tools, list):
        raise BadModelRequest("tools must be a list")
    for number, each in enumerate(tools):
        if not isinstance(each, dict) or not isinstance(each.get("type"), str):
            raise BadModelRequest(f"tools[{number}] must be an object with a type")
        if each["type"] == "function":
            yield number, each


def _tool(function: Mapping[str, Any], path: str) -> OfferedTool:
    name, schema = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise BadModelRequest(f"{path} must have a name")
    if schema is not None and not isinstance(schema, dict):
        raise BadModelRequest(f"{path}.parameters must be a JSON schema, an object")
    return OfferedTool(name, schema or {})


def _chosen(request: Mapping[str, Any], tools: list[OfferedTool]) -> list[OfferedTool]:
    """Return the tools that tool_choice allows: none, one function, or all of them."""
    choice = request.get("tool_choice")
    if choice == "none":
        return []
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else choice.get("name")
        return [tool for tool in tools if tool.name == name] or tools
    return tools


def text_of(content: object) -> str:
    """Return the text of a message's content, which is a string or a list of parts with texts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(text_of(part) for part in content)
    if isinstance(content, dict):
        return next((content[name] for name in ("text", "refusal") if isinstance(content.get(name), str)), "")
    return ""


def _chat_entry(value: object, number: int) -> RequestEntry:
    path = f"messages[{number}]"
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        raise BadModelRequest(f"{path} must be an object whose role is one of {', '.join(ROLES)}")
    role = value["role"]
    entry = RequestEntry(role, text_of(value.get("content")))
    calls = value.get("tool_calls") or []
    if not isinstance(calls, list):
        raise BadModelRequest(f"{path}.tool_calls must be a list")
    for index, call in enumerate(calls):
        function = _part(call, "function", f"{path}.tool_calls[{index}]")
        entry.calls[_string(call, "id", path)] = _string(function, "arguments", path)
    if role == "tool":
        entry.result_of = _string(value, "tool_call_id", path)
    return entry


def _item(value: object, number: int) -> Iterator[RequestEntry]:
    path = f"input[{number}]"
    if not isinstance(value, dict):
        raise BadModelRequest(f"{path} must be an object")
    kind = value.get("type", "message")
    if kind == "message":
        if value.get("role") not in ROLES[:4]:
            raise BadModelRequest(f"{path}.role must be one of {', '.join(ROLES[:4])}")
        yield RequestEntry(value["role"], text_of(value.get("content")))
    elif kind == "function_call":
        call = {_string(value, "call_id", path): _string(value, "arguments", path)}
        yield RequestEntry("assistant", calls=call)
    elif kind == "function_call_output":
        yield RequestEntry("tool", text_of(value.get("output")), result_of=_string(value, "call_id", path))


def _string(value: Mapping[str, Any], name: str, path: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, str):
        raise BadModelRequest(f"{path}: {name} must be a string, not {found!r}")
    return found


def _checked(request: ModelRequest) -> ModelRequest:
    """Refuse a tool result whose call is not in the request, unless the request continues a response."""
    known = {name for entry in request.entries for name in entry.calls}
    for entry in request.entries:
        if entry.result_of is not None and request.previous is None and entry.result_of not in known:
            raise BadModelRequest(f"the tool result of call {entry.result_of!r} follows no message with this call")
    return request
