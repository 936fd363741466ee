"""Encoding and decoding of the wire format, and the values that they refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.errors import BridgekitError, FrameTooLarge, MalformedFrame, PayloadError
from bridgekit.events import (
    FRAME_BYTES,
    AgentEvent,
    EventType,
    RoutedEvent,
    decode,
    decode_frame,
    encode,
    encode_unnumbered,
    numbered,
)
from bridgekit.ids import RunId, ThreadId
from bridgekit.payload_encoding import MAX_DEPTH
from tests.factories import emitted, frame, routed

GOLDEN = (
    '{"seq":17,"type":"tool_executing","thread_id":"thread_123","run_id":"run_1","agent_name":"researcher",'
    '"event_id":"e1","timestamp":"2026-11-22T12:00:00.000001Z",'
    '"payload":{"tool_call_id":"c1","tool_name":"look_up","parameters":{"städte":["Zürich"],"n":null}}}'
)
GOLDEN_PAYLOAD: dict[str, object] = {
    "tool_call_id": "c1",
    "tool_name": "look_up",
    "parameters": {"städte": ["Zürich"], "n": None},
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
integers = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | integers | floats | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=12,
)
routed_events = st.builds(
    RoutedEvent,
    type=st.sampled_from(EventType),
    thread_id=texts.map(ThreadId),
    run_id=texts.map(RunId),
    agent_name=texts,
    seq=st.integers(1, 2**53),
    event_id=texts,
    timestamp=st.datetimes(timezones=st.just(UTC)),
    payload=st.dictionaries(texts, json_values, max_size=4),
)


@dataclass
class Point:
    x: float


class NotRepresentable:
    pass


def test_frame_equals_the_wire_format_byte_for_byte() -> None:
    data = encode(routed(GOLDEN_PAYLOAD, seq=17))
    assert data.decode() == GOLDEN
    assert list(json.loads(data)) == [
        "seq",
        "type",
        "thread_id",
        "run_id",
        "agent_name",
        "event_id",
        "timestamp",
        "payload",
    ]


@pytest.mark.parametrize("data", [GOLDEN, GOLDEN.encode()], ids=["text", "bytes"])
def test_golden_frame_decodes_to_its_event(data: str | bytes) -> None:
    assert decode(data) == routed(GOLDEN_PAYLOAD, seq=17)


@given(routed_events)
def test_event_is_unchanged_when_it_is_encoded_and_decoded(event: RoutedEvent) -> None:
    assert decode(encode(event)) == event


@given(routed_events)
def test_frame_is_valid_json_when_another_parser_reads_it(event: RoutedEvent) -> None:
    data = encode(event)
    assert json.loads(data)["payload"] == event.payload
    assert b"\n" not in data


@given(routed_events, st.booleans())
def test_frame_is_the_same_when_seq_is_added_after_encoding(event: RoutedEvent, plain: bool) -> None:
    emission = AgentEvent(
        type=event.type,
        run_id=event.run_id,
        agent_name=event.agent_name,
        event_id=event.event_id,
        timestamp=event.timestamp,
        payload=event.payload if plain else MappingProxyType(event.payload),
        thread_id=event.thread_id,
    )
    assert numbered(event.seq, encode_unnumbered(emission)) == encode(event)
    assert emission.seq == 0
    emission.seq = event.seq
    assert encode(emission) == encode(event)


def test_unknown_fields_are_ignored_when_a_frame_is_decoded() -> None:
    assert decode(GOLDEN[:-1] + ',"colour":"red"}').seq == 17


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda value: {"a": value}, "payload['a']"),
        (lambda value: {"a": {"b": value}}, "payload['a']['b']"),
        (lambda value: {"a": [value]}, "payload['a'][0]"),
        (lambda value: {"a": [1, {"b": (None, value)}]}, "payload['a'][1]['b'][1]"),
        (lambda value: {"a": Point(value)}, "payload['a']['x']"),
    ],
    ids=["plain", "in an object", "in a list", "nested", "in a dataclass"],
)
def test_error_names_the_path_when_a_number_is_not_finite(wrap: object, path: str, value: float) -> None:
    assert callable(wrap)
    with pytest.raises(PayloadError) as refused:
        encode(routed(wrap(value)))
    assert refused.value.event_type == "tool_executing"
    assert refused.value.problem == f"JSON has no number for {path} = {value}"


def test_payload_is_accepted_when_it_contains_null() -> None:
    payload: dict[str, object] = {"null": None, "a": ["null", None, 1.5]}
    assert decode(encode(routed(payload))).payload == payload


@pytest.mark.parametrize(
    "value", [NotRepresentable(), "\ud800", {"\udfff": 1}, lambda: None], ids=["object", "text", "key", "function"]
)
def test_payload_is_refused_when_json_cannot_represent_it(value: object) -> None:
    with pytest.raises(PayloadError, match=r"^payload of tool_executing: JSON cannot carry (the key )?payload\['a'\]"):
        encode(routed({"a": value}))


class Traced(AgentEvent):
    """A caller's subclass of an event, with a private field."""

    trace: str = "private"


def test_field_of_a_subclass_is_omitted_when_an_event_is_encoded() -> None:
    event = Traced(
        type=EventType.AGENT_THINKING, run_id=RunId("run_1"), agent_name="n", payload={}, thread_id=ThreadId("t")
    )
    assert b"private" not in encode(event)


@pytest.mark.parametrize("wrap", [lambda raw: raw, lambda raw: {"b": raw}, lambda raw: [{"b": [raw]}]])
@pytest.mark.parametrize(
    "raw", [b'1},"thread_id":"thread_of_bob","payload":{"b":2', b"[1,\n2]"], ids=["forged", "lines"]
)
def test_payload_is_refused_when_it_contains_raw_json(wrap: Callable[[object], object], raw: bytes) -> None:
    with pytest.raises(PayloadError):
        encode(routed({"a": wrap(msgspec.Raw(raw))}))


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), "2026-01-01"])  # noqa: DTZ001
def test_event_is_refused_when_its_timestamp_is_invalid(moment: object) -> None:
    with pytest.raises(PayloadError):
        encode(msgspec.structs.replace(emitted(), timestamp=moment))


@pytest.mark.parametrize("field", ["run_id", "agent_name", "event_id"])
@pytest.mark.parametrize("value", [7, None, b"run_1", UUID(int=7)], ids=repr)
def test_event_is_refused_when_a_client_could_not_read_its_field(field: str, value: Any) -> None:
    """A client decodes these fields as strings, and would fail at the frame at each attempt to resume."""
    event = emitted()
    setattr(event, field, value)
    with pytest.raises(PayloadError, match=f"its {field} must be a string, not {type(value).__name__}"):
        encode(event)


def nested(depth: int, wrap: Callable[[object], object]) -> object:
    value: object = None
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS: Mapping[str, Callable[[object], object]] = {
    "list": lambda value: [value],
    "dict": lambda value: {"b": value},
    "tuple": lambda value: (value, 1),
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1_500, 100_000])
def test_payload_is_refused_when_it_is_nested_too_deeply(depth: int, wrap: str) -> None:
    with pytest.raises(PayloadError, match="nested more than 100 levels deep"):
        encode(routed({"first": 1, "a": nested(depth, WRAPS[wrap])}))


@pytest.mark.parametrize("innermost", [[], {}])
def test_empty_object_or_array_counts_as_a_level(innermost: object) -> None:
    """Of a payload with many values, only the deep one is refused."""
    values: dict[str, object] = {f"row {number}": {"cells": []} for number in range(MAX_DEPTH)}
    for _ in range(MAX_DEPTH - 1):
        innermost = [innermost]
    encode(routed(values | {"a": innermost}))
    with pytest.raises(PayloadError, match=r"payload\['a'\] is nested more than 100 levels deep"):
        encode(routed(values | {"a": [innermost]}))


@pytest.mark.parametrize("wrap", WRAPS)
def test_payload_of_the_greatest_depth_is_read_by_a_reader_with_a_lower_recursion_limit(wrap: str) -> None:
    data = encode(routed({"a": nested(MAX_DEPTH, WRAPS[wrap]), "many": [[]] * MAX_DEPTH}))

    def read(calls: int) -> object:
        return read(calls - 1) if calls else (decode_frame(data).seq, decode(data).payload)

    seq, payload = cast("tuple[int, Any]", read(500))
    assert seq == 1
    assert payload == json.loads(data)["payload"]


def test_payload_is_refused_when_it_contains_itself() -> None:
    payload: dict[str, object] = {}
    payload["itself"] = payload
    with pytest.raises(PayloadError, match="or contains itself"):
        encode(routed(payload))


@pytest.mark.parametrize("seq", [1, 10**9, 10**18])
def test_frame_is_refused_when_it_exceeds_the_limit_by_one_byte(seq: int) -> None:
    longest = 10**18
    size = len(frame(longest, payload={"a": ""}).data)
    full = encode(routed({"a": "x" * (FRAME_BYTES - size)}, seq=seq))
    assert len(full) == FRAME_BYTES - len(str(longest)) + len(str(seq))
    assert decode(full).payload == {"a": "x" * (FRAME_BYTES - size)}
    with pytest.raises(FrameTooLarge) as refused:
        encode(routed({"a": "x" * (FRAME_BYTES - size + 1)}, seq=seq))
    assert (refused.value.size_bytes, refused.value.limit_bytes) == (FRAME_BYTES + 1, FRAME_BYTES)
    assert refused.value.what == "tool_executing of run 'run_1'"


@pytest.mark.parametrize("value", ["x", 0.5, [{"b": 1}]], ids=["plain", "float", "nested"])
def test_frame_has_room_for_the_longest_seq_when_it_is_encoded_without_one(value: object) -> None:
    """A store assigns `seq` after the check of the size, so the limit must leave room for any number."""
    longest, event = 10**18, emitted(payload={"a": value, "fill": ""})
    limit = len(numbered(longest, encode_unnumbered(event))) + 50
    event.payload = {"a": value, "fill": "x" * 50}
    assert len(numbered(longest, encode_unnumbered(event, limit))) == limit
    assert encode(event, limit)
    event.payload = {"a": value, "fill": "x" * 51}
    for refuse in (encode, encode_unnumbered):
        with pytest.raises(FrameTooLarge) as refused:
            refuse(event, limit)
        assert (refused.value.size_bytes, refused.value.limit_bytes) == (limit + 1, limit)


def test_incoming_frame_is_refused_when_it_exceeds_the_limit() -> None:
    with pytest.raises(FrameTooLarge, match="incoming frame"):
        decode(GOLDEN + " " * FRAME_BYTES)


def test_limit_counts_bytes_when_a_frame_has_multibyte_characters() -> None:
    with pytest.raises(FrameTooLarge):
        decode(GOLDEN, limit_bytes=len(GOLDEN))
    assert decode(GOLDEN, limit_bytes=len(GOLDEN.encode())).seq == 17


@pytest.mark.parametrize(
    "data",
    [
        "",
        "null",
        "[]",
        "{}",
        "not json",
        "\ud800",
        b"\xff",
        GOLDEN[:-1],
        GOLDEN.replace("tool_executing", "tool executing"),
        GOLDEN.replace('"seq":17', '"seq":"17"'),
        GOLDEN.replace('"seq":17', '"seq":0'),
        GOLDEN.replace('"seq":17,', ""),
        GOLDEN.replace("2026-11-22T", "yesterday "),
        GOLDEN.replace('Z"', '"'),
        GOLDEN[: GOLDEN.index('"payload"')] + '"payload":[]}',
        GOLDEN[:-1] + ',"colour":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=[
        "empty", "null", "list", "no fields", "no json", "lone surrogate", "no utf-8", "cut off", "type",
        "seq is a text", "seq is 0", "no seq", "no time", "no zone", "payload is a list", "nested too deep",
    ],
)  # fmt: skip
def test_frame_is_refused_when_it_is_malformed(data: str | bytes) -> None:
    with pytest.raises(MalformedFrame, match=r"^not an event frame: "):
        decode(data)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_decode_raises_only_bridgekit_errors_when_the_input_is_random(data: str | bytes) -> None:
    with pytest.raises(BridgekitError):
        decode(data)
