"""The scripted model as a client library meets it: a real HTTP client, over a real socket, in both APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bridgekit_verify.check.live.markers import markers_in
from bridgekit_verify.check.live.model_ledger import CallOutcome, ModelLedger, UserPrompt
from bridgekit_verify.check.live.model_scripts import SCENARIOS
from bridgekit_verify.check.live.model_server import ModelServer
from bridgekit_verify.errors import InvalidParameter
from tests.verify.check.live.sound_backends import TOOLS, ask

Value = dict[str, Any]
RESPONSES_TOOLS = [{"type": "function", **tool["function"]} for tool in TOOLS]


class Asked:
    """A model that runs, its ledger, and a client of it."""

    def __init__(self, ledger: ModelLedger, http: httpx.Client) -> None:
        self.ledger, self.http = ledger, http

    def prompt(self, scenario: str = "text") -> UserPrompt:
        return self.ledger.add_prompt(user="ann", thread="t1", clients=["s1"], scenario=scenario)

    def chat(self, content: object, **more: Any) -> httpx.Response:
        messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
        return self.http.post("chat/completions", json={"model": "m", "messages": messages, **more})

    def responses(self, content: object, **more: Any) -> httpx.Response:
        return self.http.post("responses", json={"model": "m", "input": content, **more})


@pytest.fixture(scope="module")
def served() -> Iterator[Asked]:
    ledger = ModelLedger()
    with ModelServer(ledger) as model, httpx.Client(base_url=model.url) as http:
        yield Asked(ledger, http)


@pytest.fixture
def model(served: Asked) -> Asked:
    """The one server, with an empty ledger."""
    for name in served.ledger.__struct_fields__:
        getattr(served.ledger, name).clear()
    return served


def events(response: httpx.Response) -> list[Value]:
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def sent(ledger: ModelLedger) -> list[str]:
    """Return what the model sent, channel by channel, over all calls."""
    return [call.text(channel) for call in ledger.calls for channel in call.channels]


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in ("dies", "dies_in_call", "refuses")])
def test_agent_receives_exactly_what_the_ledger_holds(model: Asked, scenario: str) -> None:
    received: dict[tuple[str, str], str] = {}
    for each in ask(model.http, model.prompt(scenario).text):
        if each.kind in ("thinking", "text", "arguments"):
            key = (each.kind, each.call)
            received[key] = received.get(key, "") + each.text
    texts = [text for text in sent(model.ledger) if text]
    assert sorted("".join(received.values())) == sorted("".join(texts))
    assert all(markers_in(text) for text in texts)
    refusals = SCENARIOS[scenario].refusals
    outcomes = [call.outcome for call in model.ledger.calls]
    assert outcomes == [CallOutcome.REFUSED] * refusals + [CallOutcome.COMPLETE] * (len(outcomes) - refusals)


def deltas(response: httpx.Response) -> list[Value]:
    """Return the parts of calls in a streamed answer: index, whether the name is there, and the arguments."""
    parts = [part for each in events(response) for part in each["choices"][0]["delta"].get("tool_calls", ())]
    return [{"index": part["index"], "named": "name" in part["function"], "arguments": part["function"]["arguments"]}
            for part in parts]  # fmt: skip


def test_arguments_follow_an_empty_first_piece(model: Asked) -> None:
    parts = deltas(model.chat(model.prompt("calls").text, stream=True, tools=TOOLS))
    assert [(each["index"], each["named"], bool(each["arguments"])) for each in parts] == [
        (0, True, False), (0, False, True), (0, False, True), (0, False, True),
        (1, True, False), (1, False, True), (1, False, True), (1, False, True),
    ]  # fmt: skip


def test_first_piece_or_all_arguments_stand_beside_the_name(model: Asked) -> None:
    beside = deltas(model.chat(model.prompt("beside").text, stream=True, tools=TOOLS))
    assert [each["named"] for each in beside] == [True, False, False] * 2
    assert all(each["arguments"] for each in beside)
    whole = deltas(model.chat(model.prompt("whole").text, stream=True, tools=TOOLS))
    assert [each["named"] for each in whole] == [True, True]
    assert all(len(markers_in(each["arguments"])) == 3 for each in whole)


def test_arguments_of_two_calls_alternate_in_the_stress_case(model: Asked) -> None:
    parts = deltas(model.chat(model.prompt("interleaved").text, stream=True, tools=TOOLS))
    assert [each["index"] for each in parts] == [0, 1] * 4


@pytest.mark.parametrize("stream", [False, True])
def test_responses_repeat_every_item_at_the_end(model: Asked, stream: bool) -> None:
    answer = model.responses(model.prompt("calls").text, stream=stream, tools=RESPONSES_TOOLS)
    found = events(answer)[-1]["response"] if stream else answer.json()
    assert found["status"] == "completed"
    assert [item["type"] for item in found["output"]] == ["message", "function_call", "function_call"]
    assert [item["arguments"] for item in found["output"][1:]] == [
        call.arguments for call in model.ledger.calls[0].calls
    ]
    assert found["output"][0]["content"][0]["text"] == model.ledger.calls[0].text("p")


def test_responses_are_numbered_without_gaps_and_name_their_events(model: Asked) -> None:
    answer = model.responses(model.prompt("calls").text, stream=True, tools=RESPONSES_TOOLS)
    assert [each["sequence_number"] for each in events(answer)] == list(range(len(events(answer))))
    named = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert named == [each["type"] for each in events(answer)]


def test_next_turn_follows_a_tool_result_in_each_api(model: Asked) -> None:
    prompt = model.prompt("rounds")
    first = model.responses(prompt.text, tools=RESPONSES_TOOLS).json()
    call = first["output"][0]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "3"}
    second = model.responses([{"role": "user", "content": prompt.text}, call, result], tools=RESPONSES_TOOLS).json()
    # A continued response repeats neither the prompt nor the call.
    result = {"type": "function_call_output", "call_id": second["output"][0]["call_id"], "output": "4"}
    model.responses([result], previous_response_id=second["id"], tools=RESPONSES_TOOLS)
    assert [each.round for each in model.ledger.calls] == [0, 1, 2]
    assert model.ledger.calls[1].results == {call["call_id"]: "3"}
    assert model.ledger.calls[1].arguments == {call["call_id"]: call["arguments"]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_refused_attempt_is_503_and_its_retry_is_answered(model: Asked, api: str, stream: bool) -> None:
    post, prompt = getattr(model, api), model.prompt("retry")
    assert [post(prompt.text, stream=stream).status_code for _ in range(3)] == [503, 200, 200]
    assert [each.outcome for each in model.ledger.calls] == [
        CallOutcome.REFUSED,
        CallOutcome.COMPLETE,
        CallOutcome.COMPLETE,
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("scenario", ["dies", "dies_in_call"])
def test_connection_ends_in_mid_answer(model: Asked, api: str, stream: bool, scenario: str) -> None:
    tools = {"tools": TOOLS if api == "chat" else RESPONSES_TOOLS} if scenario == "dies_in_call" else {}
    with pytest.raises(httpx.RemoteProtocolError):
        getattr(model, api)(model.prompt(scenario).text, stream=stream, **tools)
    call = model.ledger.calls[0]
    assert call.outcome is CallOutcome.ENDED_EARLY
    assert bool(call.pieces) == stream


def test_ledger_records_that_the_backend_closed_the_connection(model: Asked) -> None:
    prompt = model.prompt("slow")
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": prompt.text}]}
    with model.http.stream("POST", "chat/completions", json=body) as response:
        next(line for line in response.iter_lines() if "[K" in line)
    for _ in range(1_000):  # the server sees the end while it serves others
        if model.ledger.calls[0].outcome is not CallOutcome.OPEN:
            break
        model.http.get("models")
    assert model.ledger.calls[0].outcome is CallOutcome.CLOSED
    assert 0 < len(model.ledger.calls[0].pieces) < SCENARIOS["slow"].texts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_request_without_a_prompt_gets_a_neutral_answer_and_is_listed(model: Asked, api: str, stream: bool) -> None:
    answer = getattr(model, api)("Write a title for: hello", stream=stream)
    assert "OK." in answer.text
    assert not markers_in(answer.text)
    assert model.ledger.calls == []
    assert ["title" in each.excerpt for each in model.ledger.neutral] == [True]


def test_title_for_a_prompt_that_was_already_sent_is_neutral(model: Asked) -> None:
    prompt = model.prompt()
    model.chat(prompt.text)
    answer = model.chat(f"Write a title for: {prompt.text}")
    assert not markers_in(answer.text)
    assert [each.canary for each in model.ledger.neutral] == [prompt.canary]


def test_request_lists_every_canary_that_it_holds(model: Asked) -> None:
    first, second = model.prompt(), model.prompt()
    answer = model.chat(first.text).json()["choices"][0]["message"]
    messages = [{"role": "user", "content": first.text}, answer, {"role": "user", "content": second.text}]
    model.chat(messages)
    assert model.ledger.calls[1].canary == second.canary
    assert set(model.ledger.calls[1].held) == {first.canary, second.canary}
    assert model.ledger.calls[1].texts == [answer["content"]]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"no JSON", "not JSON"),
        (b"[]", "must be a JSON object, not list"),
        (b"{}", "messages must be a list that is not empty"),
        (b'{"messages": [], "model": "m"}', "messages must be a list that is not empty"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "model must be a string"),
        (b'{"model": "m", "messages": ["x"]}', "messages[0] must be an object whose role"),
        (b'{"model": "m", "messages": [{"role": "robot"}]}', "messages[0] must be an object whose role"),
        (b'{"model": "m", "stream": "yes", "messages": [{"role": "user", "content": "x"}]}', "stream must be true or"),
        (b'{"model": "m", "n": 2, "messages": [{"role": "user", "content": "x"}]}', "n must be 1, not 2"),
        (b'{"model": "m", "tools": [{"type": "function"}], "messages": [{"role": "user"}]}', "tools[0].function must"),
        (b'{"model": "m", "tools": {"a": 1}, "messages": [{"role": "user"}]}', "tools must be a list"),
        (b'{"model": "m", "messages": [{"role": "tool", "tool_call_id": "c", "content": "3"}]}', "tool result of call"),
        (b'{"model": "m", "messages": [{"role": "tool", "content": "3"}]}', "tool_call_id must be a string"),
        (b'{"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}', "function must be an"),
        (b'{"model": "m", "messages": [{"role": "assistant", "tool_calls": 7}]}', "tool_calls must be a list"),
        (b'{"model": "m", "messages": ' + b"[" * 100_000 + b"}", "not JSON"),
    ],
)
def test_bad_request_is_400_with_a_reason_and_is_listed(model: Asked, body: bytes, problem: str) -> None:
    answer = model.http.post("chat/completions", content=body)
    assert answer.status_code == 400
    assert problem in answer.json()["error"]["message"]
    assert [each.status for each in model.ledger.rejected] == [400]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"model": "m"}, "input must be a list that is not empty"),
        ({"model": "m", "input": [7]}, "input[0] must be an object"),
        ({"model": "m", "input": [{"role": "robot", "content": "x"}]}, "input[0].role must be one of"),
        ({"model": "m", "input": [{"type": "function_call", "call_id": "c"}]}, "arguments must be a string"),
        ({"model": "m", "input": "x", "previous_response_id": 7}, "previous_response_id must be a string"),
        ({"model": "m", "input": "x", "tools": [{"type": "function"}]}, "tools[0] must have a name"),
    ],
)
def test_bad_responses_request_is_400_with_a_reason(model: Asked, body: Value, problem: str) -> None:
    answer = model.http.post("responses", json=body)
    assert answer.status_code == 400
    assert problem in answer.json()["error"]["message"]


def test_unknown_path_is_404_and_is_listed(model: Asked) -> None:
    assert model.http.post("embeddings", json={}).status_code == 404
    assert [(each.path, each.status) for each in model.ledger.rejected] == [("/v1/embeddings", 404)]
    assert model.http.get("models").json()["data"][0]["id"] == "scripted"
    assert model.http.get("models/gpt-5").json()["id"] == "gpt-5"


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, {}),
        ({"type": "object", "properties": {"a": {"type": "integer", "minimum": 5}}}, {"a": 5}),
        ({"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"const": 3}}}, {"a": "x", "b": 3}),
        ({"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}, {"type": "boolean"}]}}}, {"a": True}),
        ({"type": "object", "properties": {"a": {"type": ["null", "number"]}}}, {"a": 1}),
        ({"type": "object", "properties": {"a": {"type": "string", "format": "date"}}}, {"a": "2026-01-01"}),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {"const": 1}}}}}, {"a": 1}),
    ],
)
def test_arguments_satisfy_the_schema_of_their_tool(model: Asked, schema: Value, expected: Value) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    model.chat(model.prompt("whole").text, tools=tools)
    assert json.loads(model.ledger.calls[0].calls[0].arguments) == expected


def test_free_strings_in_nested_arguments_hold_markers(model: Asked) -> None:
    nested = {"type": "object", "properties": {"q": {"type": "string"}}}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": nested}, "b": {"type": "string"}}}
    model.chat(
        model.prompt("calls").text, tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}]
    )
    arguments = model.ledger.calls[0].calls[0].arguments
    assert [marker.number for marker in markers_in(arguments)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("more", "calls"),
    [({"parallel_tool_calls": False}, 1), ({"tool_choice": "none"}, 0), ({}, 2),
     ({"tool_choice": {"type": "function", "function": {"name": "search"}}}, 2)],
)  # fmt: skip
def test_request_limits_the_calls(model: Asked, more: Value, calls: int) -> None:
    model.chat(model.prompt("calls").text, tools=TOOLS, **more)
    assert len(model.ledger.calls[0].calls) == calls


def test_usage_is_sent_where_it_is_asked_for(model: Asked) -> None:
    answer = model.chat(model.prompt().text, stream=True, stream_options={"include_usage": True})
    assert [bool(each["choices"]) for each in events(answer)[-2:]] == [True, False]


def test_prompt_in_the_instructions_is_found(model: Asked) -> None:
    prompt = model.prompt()
    model.chat([{"role": "system", "content": f"Answer: {prompt.text}"}, {"role": "user", "content": "go on"}])
    assert [call.canary for call in model.ledger.calls] == [prompt.canary]


def test_prompt_needs_a_known_scenario_and_a_client() -> None:
    with pytest.raises(InvalidParameter, match="scenario must be one of text, thinking"):
        ModelLedger().add_prompt(user="ann", thread="t", clients=["s"], scenario="nonsense")
    with pytest.raises(InvalidParameter, match="at least one"):
        ModelLedger().add_prompt(user="ann", thread="t", clients=[])
