"""Every value of a payload arrives unchanged, or is refused with an error that names it; and the application's hook."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.errors import PayloadError
from bridgekit.events import EventType, decode, encode, encode_unnumbered, numbered
from bridgekit.payload_encoding import EXACT_INTEGER, apply_hook
from tests.chain.agents import started, subscribe
from tests.factories import ALICE, THREAD, emitted


class Text(str):
    """A subclass, as markup libraries define it."""

    __slots__ = ()


class Whole(int):
    pass


class Number(float):
    pass


class Frozen(dt.datetime):
    """A subclass, as test tools that stop the clock define it."""


class Day(dt.date):
    pass


class Bits(bytes):
    pass


class Money(decimal.Decimal):
    pass


class Colour(enum.Enum):
    RED = "red"
    NOTHING = math.nan


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: object


class Record(msgspec.Struct):
    x: object


@attrs.define
class Public:
    x: object


@attrs.define
class Private:
    x: object
    _y: object = 2


@attrs.define(slots=False)
class Extended:
    x: object = 1


EXTENDED = Extended()
EXTENDED.z = math.nan  # type: ignore[attr-defined]  # no field


class Proxy:
    """Stands for a value and says that it has its type, as proxies of web frameworks do."""

    def __init__(self, value: object) -> None:
        self.value = value

    @property  # type: ignore[misc]  # object's is writable
    def __class__(self) -> Any:
        return type(object.__getattribute__(self, "value"))

    def __eq__(self, other: object) -> bool:
        return self.value == other

    def __hash__(self) -> int:
        return hash(self.value)

    def __int__(self) -> int:
        return int(self.value)  # type: ignore[call-overload, no-any-return]  # a number


class Opaque:
    """A type of the application."""

    def __init__(self, text: str = "opaque") -> None:
        self.text = text


class NoSession(Exception):
    """An error of a library, such as a closed database session."""


@dataclasses.dataclass
class Detached:
    x: object = dataclasses.field(init=False)

    def __getattr__(self, name: str) -> object:
        raise NoSession("no session")


class Closed(collections.UserDict[str, object]):
    def __iter__(self) -> Any:
        raise NoSession("no session")


class Unconvertible(Number):
    def __float__(self) -> float:
        raise NoSession("no session")


NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
NAIVE = dt.datetime(2026, 1, 1, 12)  # noqa: DTZ001
ODD_ZONE = dt.timezone(dt.timedelta(minutes=19, seconds=32))
Pair = collections.namedtuple("Pair", "a b")

DELIVERED: Mapping[str, tuple[object, object]] = {
    "text": ("ü\U0001f600\x00\u2028", "ü\U0001f600\x00\u2028"),
    "null": (None, None),
    "boolean": (True, True),
    "integer beyond what browsers represent": (2**53 + 1, 2**53 + 1),
    "integer of 64 bits": (2**64 - 1, 2**64 - 1),
    "negative integer": (-(2**63), -(2**63)),
    "float": (0.1 + 0.2, 0.30000000000000004),
    "tiny float": (5e-324, 5e-324),
    "huge float": (1.7976931348623157e308, 1.7976931348623157e308),
    "tuple": ((1, (2,)), [1, [2]]),
    "named tuple": (Pair(1, 2), [1, 2]),
    "set": ({7}, [7]),
    "frozen set": (frozenset({"a"}), ["a"]),
    "bytes": (b"\xff", "/w=="),
    "bytearray": (bytearray(b"\xff"), "/w=="),
    "decimal": (decimal.Decimal("1.10"), "1.10"),
    "large decimal": (decimal.Decimal("1E+400"), "1E+400"),
    "uuid": (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    "aware datetime": (NOON, "2026-01-01T12:00:00Z"),
    "date": (dt.date(2026, 1, 1), "2026-01-01"),
    "time": (dt.time(9, 30), "09:30:00"),
    "duration": (dt.timedelta(seconds=1.5), "PT1.5S"),
    "dataclass": (Point({"y": [1]}), {"x": {"y": [1]}}),
    "struct": (Record(1), {"x": 1}),
    "attrs class": (Public({"y": [1]}), {"x": {"y": [1]}}),
    "proxy of a number": (Proxy(5), 5),
    "enum": (Colour.RED, "red"),
    "number enum": (Level.HIGH, 3),
    "numeric key": ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}),
    "key of an enum": ({Colour.RED: 1}, {"red": 1}),
    "key of a date": ({dt.date(2026, 1, 1): 1}, {"2026-01-01": 1}),
    "key of a subclass": ({Text("a"): 1}, {"a": 1}),
    "subclass of str": (Text("a"), "a"),
    "subclass of int": (Whole(5), 5),
    "subclass of float": (Number(1.5), 1.5),
    "subclass of datetime": (Frozen(2026, 1, 1, 12, tzinfo=dt.UTC), "2026-01-01T12:00:00Z"),
    "subclass of date": (Day(2026, 1, 1), "2026-01-01"),
    "subclass of bytes": (Bits(b"\xff"), "/w=="),
    "subclass of Decimal": (Money("1.5"), "1.5"),
    "subclass of dict": (collections.OrderedDict(a=collections.Counter("b")), {"a": {"b": 1}}),
    "another mapping": (types.MappingProxyType({"a": collections.ChainMap({"b": 1})}), {"a": {"b": 1}}),
    "fraction that is a float": (fractions.Fraction(1, 2), 0.5),
    "numpy float": (np.float64(1.5), 1.5),
    "numpy float of 32 bits": (np.float32(0.1), float(np.float32(0.1))),
    "numpy integer": (np.int64(2**53 + 1), 2**53 + 1),
    "numpy text": (np.str_("a"), "a"),
    "pandas timestamp": (pd.Timestamp("2026-01-01T12:00", tz="UTC"), "2026-01-01T12:00:00Z"),
}
"""Values that arrive unchanged, or in the representation that the documentation states."""

NO_NUMBER, NO_ZONE, TYPE, EQUAL = (
    "JSON has no number for",
    "has no time zone",
    "it is of type",
    "which are equal in JSON",
)
REFUSED: Mapping[str, tuple[object, str]] = {
    "NaN": (math.nan, NO_NUMBER),
    "infinity": (-math.inf, NO_NUMBER),
    "NaN of a subclass": (Number("nan"), NO_NUMBER),
    "NaN of numpy": (np.float64("nan"), NO_NUMBER),
    "NaN of 32 bits": (np.float32("inf"), NO_NUMBER),
    "NaN of an enum": (Colour.NOTHING, NO_NUMBER),
    "decimal NaN": (decimal.Decimal("NaN"), NO_NUMBER),
    "signalling NaN": (decimal.Decimal("sNaN"), NO_NUMBER),
    "decimal infinity": (Money("-Infinity"), NO_NUMBER),
    "NaN as a key": ({math.nan: 1}, NO_NUMBER),
    "decimal NaN as a key": ({decimal.Decimal("NaN"): 1}, NO_NUMBER),
    "naive datetime": (NAIVE, NO_ZONE),
    "naive datetime of a subclass": (Frozen(2026, 1, 1), NO_ZONE),
    "naive datetime as a key": ({NAIVE: 1}, NO_ZONE),
    "naive timestamp": (pd.Timestamp("2026-01-01"), NO_ZONE),
    "zone with seconds": (NOON.astimezone(ODD_ZONE), "which would be rounded"),
    "time in a zone with seconds": (dt.time(9, 30, tzinfo=ODD_ZONE), "which would be rounded"),
    "time as a key": ({dt.time(9, 30, tzinfo=ODD_ZONE): 1}, "which would be rounded"),
    "time in a zone that depends on the date": (dt.time(9, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), NO_ZONE),
    "view of every other byte": (memoryview(b"abcd")[::2], "JSON cannot carry"),
    "attribute that raises": (Detached(), "no session"),
    "mapping that raises": (Closed(), "no session"),
    "conversion that raises": (Unconvertible(), "no session"),
    "timestamp with nanoseconds": (pd.Timestamp("2026-01-01T00:00:00.000000001", tz="UTC"), TYPE),
    "no timestamp": (pd.NaT, TYPE),
    "no value": (pd.NA, TYPE),
    "equal keys": ({1: "a", "1": "b"}, EQUAL),
    "equal keys of floats": ({1.5: "a", "1.5": "b"}, EQUAL),
    "equal keys, nested": ({"a": [{"b": {2: 1, "2": 1}}]}, EQUAL),
    "equal keys of an enum": ({Colour.RED: 1, "red": 2}, EQUAL),
    "equal keys of a date": ({dt.date(2026, 1, 1): 1, "2026-01-01": 2}, EQUAL),
    "equal keys of decimals": ({decimal.Decimal("1.0"): 1, "1.0": 2}, EQUAL),
    "equal keys of a uuid": ({uuid.UUID(int=7): 1, str(uuid.UUID(int=7)): 2}, EQUAL),
    "private field of an attrs class": (Private(1), "with exactly its fields x, _y"),
    "attribute of an attrs object that is no field": (EXTENDED, "with exactly its fields x"),
    "proxy of a boolean": (Proxy(True), TYPE),
    "boolean key": ({True: 1}, "JSON cannot carry the key"),
    "null key": ({None: 1}, "JSON cannot carry the key"),
    "tuple key": ({(1, 2): 1}, "JSON cannot carry the key"),
    "fraction": (fractions.Fraction(1, 3), TYPE),
    "complex": (1j, TYPE),
    "numpy array": (np.array([1, 2]), TYPE),
    "numpy boolean": (np.bool_(True), TYPE),
    "numpy long double": (np.longdouble("0.1"), TYPE),
    "data frame": (pd.DataFrame({"a": [1]}), TYPE),
    "object": (Opaque(), TYPE),
    "class": (Opaque, TYPE),
    "function": (len, TYPE),
    "range": (range(3), TYPE),
    "generator": ((number for number in range(1)), TYPE),
    "deque": (collections.deque([1]), TYPE),
    "lone surrogate": ("\ud800", "surrogates not allowed"),
    "lone surrogate in a key": ({"\ud800": 1}, "surrogates not allowed"),
    "encoded JSON": (msgspec.Raw(b'1},"thread_id":"thread_of_bob","payload":{"b":2'), "encoded elsewhere"),
    "unset": (msgspec.UNSET, TYPE),
}
"""Values that would arrive as another value, or not at all, and a part of the error."""

PLACES: Mapping[str, tuple[Callable[[Any], dict[str, object]], str]] = {
    "plain": (lambda value: {"a": value}, "payload['a']"),
    "in a dict": (lambda value: {"x": 1, "a": {"b": value}}, "payload['a']['b']"),
    "in a list": (lambda value: {"a": [None, value]}, "payload['a'][1]"),
    "deep": (lambda value: {"a": [{"b": ({"c": value},)}]}, "payload['a'][0]['b'][0]['c']"),
    "in a dataclass": (lambda value: {"a": Point(value)}, "payload['a']['x']"),
    "in a mapping": (lambda value: {"a": types.MappingProxyType({"b": value})}, "payload['a']['b']"),
}


def pick(value: Any, place: str) -> Any:
    """Return what is at the place of a decoded payload."""
    for step in {"plain": "a", "in a dict": "ab", "in a list": "a1", "deep": "a0b0c", "in a dataclass": "ax"}.get(
        place, "ab"
    ):
        value = value[int(step) if step.isdigit() else step]
    return value


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", DELIVERED)
def test_value_arrives_unchanged(name: str, place: str) -> None:
    value, expected = DELIVERED[name]
    event = emitted(payload=PLACES[place][0](value))
    event.seq = 1
    data = encode(event)
    for arrived in (pick(decode(data).payload, place), pick(json.loads(data)["payload"], place)):
        assert arrived == expected
        assert type(arrived) is type(expected)
    assert numbered(1, encode_unnumbered(event)) == data


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", REFUSED)
def test_value_is_refused_by_name(name: str, place: str) -> None:
    value, problem = REFUSED[name]
    wrap, path = PLACES[place]
    with pytest.raises(PayloadError) as refused:
        encode(emitted(payload=wrap(value)))
    assert problem in refused.value.problem
    assert path in refused.value.problem
    assert refused.value.event_type == "agent_thinking"


@pytest.mark.parametrize(
    "payload", [{1: "a", "1": "b"}, {math.nan: 1}, {(1,): 1}, {True: 1}], ids=["equal", "NaN", "tuple", "boolean"]
)
def test_keys_of_the_payload_itself_are_checked(payload: dict[Any, object]) -> None:
    with pytest.raises(PayloadError):
        encode(emitted(payload=payload))


keys = st.integers(-3, 3) | st.sampled_from(["1", "-2", "1.5", "0"]) | st.sampled_from([0.5, 1.5, -2.0])
values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.decimals() | st.datetimes(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(keys, children, max_size=4),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(keys | st.text(max_size=3), values, max_size=4))
def test_payload_is_delivered_or_refused(payload: dict[Any, object]) -> None:
    event = emitted(payload=payload)
    event.seq = 1
    try:
        arrived = json.loads(encode(event))["payload"]
    except PayloadError:
        return
    assert same(payload, arrived)


def same(sent: Any, arrived: Any) -> bool:
    """Compare, with the keys and decimals of JSON."""
    if isinstance(sent, dict):
        by_name = {key if isinstance(key, str) else json.dumps(key): value for key, value in sent.items()}
        return by_name.keys() == arrived.keys() and all(same(by_name[key], arrived[key]) for key in by_name)
    if isinstance(sent, list):
        return len(sent) == len(arrived) and all(map(same, sent, arrived))
    return bool(arrived == (str(sent) if isinstance(sent, decimal.Decimal) else sent))


class Reporting(BaseAgent):
    """Passes a value as a tool's parameter and as its result, and returns it."""

    value: object

    async def execute(self, context: RunContext) -> object:
        tools = PythonTools({"stats": lambda **parameters: {"rows": [{"mean": self.value}]}})
        if context.request == "parameter":
            await tools.dispatch("stats", {"limits": {"low": self.value}}, self)
        if context.request == "result":
            await tools.dispatch("stats", {}, self)
        return [self.value] if context.request == "return" else None


USES = {
    "parameter": (EventType.TOOL_EXECUTING, "['parameters']['limits']['low']", "stats"),
    "result": (EventType.TOOL_COMPLETED, "['result']['rows'][0]['mean']", "stats"),
    "return": (EventType.AGENT_COMPLETED, "['result'][0]", ""),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ["equal keys", "NaN", "naive datetime", "object"])
async def test_run_ends_with_the_place_of_a_refused_value(use: str, name: str) -> None:
    application = await started(agents={"agent": type("Agent", (Reporting,), {"value": REFUSED[name][0]})})
    connection = subscribe(application)
    _, path, tool = USES[use]
    with pytest.raises(PayloadError) as refused:
        await application.supervisor.run(agent_name="agent", thread_id=THREAD, user_id=ALICE, request=use)
    shown = connection.frames[-1].event.payload["error_message"]
    assert path in str(refused.value)
    assert str(refused.value) in str(shown)
    assert use != "result" or tool in str(shown)
    assert sum(application.counters.lost.values()) == 1


def to_json(value: object) -> object:
    if isinstance(value, Opaque):
        return {"text": value.text, "when": NAIVE}
    if isinstance(value, dt.datetime) and value.tzinfo is None:
        return value.replace(tzinfo=dt.UTC)
    if isinstance(value, np.ndarray | np.bool_):
        return value.tolist()
    if isinstance(value, pd.DataFrame):
        return value.to_dict("records")
    if isinstance(value, float):
        return None
    return str(value) if isinstance(value, int) else value


class Renamed(msgspec.Struct, rename="camel", omit_defaults=True):
    row_id: Any
    parts: list[Any]
    count: int = 7


class Packed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    value: Any

    def __post_init__(self) -> None:
        assert not isinstance(self.value, str)


class Large(enum.Enum):
    ONE = 2**60


class Shade(enum.StrEnum):
    RED = "red"


@attrs.define
class Mass:
    kilograms: Any


HOOKED: Mapping[str, tuple[object, object]] = {
    "object": (Opaque("x"), {"text": "x", "when": "2026-01-01T12:00:00Z"}),
    "array": (np.array([[1, 2]]), [[1, 2]]),
    "data frame": (
        pd.DataFrame({"a": [Opaque("y")], "b": [math.nan]}),
        [{"a": {"text": "y", "when": "2026-01-01T12:00:00Z"}, "b": None}],
    ),
    "integer beyond what browsers represent": ([EXACT_INTEGER, EXACT_INTEGER + 1], [EXACT_INTEGER, "9007199254740993"]),
    "in a dataclass": (Point(Opaque("z")), {"x": {"text": "z", "when": "2026-01-01T12:00:00Z"}}),
    "in a Struct": (
        Renamed(2**60, [Opaque("z")]),
        {"rowId": str(2**60), "parts": [{"text": "z", "when": "2026-01-01T12:00:00Z"}]},
    ),
    "in a frozen Struct": (Packed(2**60), ["Packed", str(2**60)]),
    "in a Struct in a dataclass": (Point(Packed(Packed(1))), {"x": ["Packed", ["Packed", 1]]}),
    "in an Enum": ([Large.ONE, Shade.RED], [str(2**60), "red"]),
    "in an Enum in a Struct": (Packed(Large.ONE), ["Packed", str(2**60)]),
    "in an attrs object": (Mass(Large.ONE), {"kilograms": str(2**60)}),
    "in a set": ({2**60}, [str(2**60)]),
    "NaN": (math.nan, None),
    "plain": ({"a": [1, "b", True, None, 1.5]}, {"a": [1, "b", True, None, 1.5]}),
    "not converted": (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
}


def test_hook_changes_no_value_of_the_application() -> None:
    row = Renamed(2**60, [Packed(2**60)])
    apply_hook(to_json, {"rows": [row]})
    assert row == Renamed(2**60, [Packed(2**60)])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", HOOKED)
async def test_hook_converts_values_wherever_a_payload_is_encoded(name: str, use: str) -> None:
    value, expected = HOOKED[name]
    agents = {"agent": type("Agent", (Reporting,), {"value": value})}
    application = await started(agents=agents, payload_hook=to_json)
    connection = subscribe(application)
    await application.supervisor.run(agent_name="agent", thread_id=THREAD, user_id=ALICE, request=use)
    event_type, _, _ = USES[use]
    [payload] = [frame.event.payload for frame in connection.frames if frame.event.type is event_type]
    places: dict[str, Callable[[Any], object]] = {
        "parameter": lambda found: found["parameters"]["limits"]["low"],
        "result": lambda found: found["result"]["rows"][0]["mean"],
        "return": lambda found: found["result"][0],
    }
    assert places[use](payload) == expected


@pytest.mark.parametrize(
    ("hook", "problem"),
    [
        (lambda value: 1 / 0, "payload_hook failed: ZeroDivisionError"),
        (lambda value: [value], "payload_hook failed: RecursionError"),
        (lambda value: value, "it is of type tests.test_payload_encoding.Opaque"),
    ],
    ids=["raises", "never ends", "converts nothing"],
)
async def test_event_is_refused_when_the_hook_does_not_help(hook: Callable[[object], object], problem: str) -> None:
    application = await started(payload_hook=hook)
    with pytest.raises(PayloadError, match=problem):
        await application.bridge.notify(emitted(payload={"a": Opaque()}))
    assert application.counters.lost == {(8, "PayloadError"): 1}


class Emptying(collections.UserDict[str, object]):
    """A value whose own code empties the list that contains it, as another OS thread could."""

    def __init__(self, rows: list[object]) -> None:
        super().__init__(a=1)
        self.rows = rows

    def __iter__(self) -> Any:
        self.rows.clear()
        return super().__iter__()


def test_list_that_changes_while_it_is_encoded_does_not_end_the_process() -> None:
    rows: list[object] = []
    rows += [Emptying(rows), *([number] for number in range(1_000))]
    event = emitted(payload={"rows": rows})
    event.seq = 1
    assert decode(encode(event)).payload == {"rows": [{"a": 1}]}


class Panic(BaseException):
    """An exception of a library that is no Exception."""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), Panic()], ids=repr)
@pytest.mark.parametrize("place", ["value", "key", "attribute", "hook"])
async def test_exception_that_is_no_error_is_not_taken_for_one(place: str, error: BaseException) -> None:
    def fail(*_: object) -> Any:
        raise error

    value = type("Value", (collections.abc.Mapping,), dict.fromkeys(("__iter__", "__len__", "__getitem__"), fail))
    key = type("Key", (str,), {"__str__": fail, "__repr__": fail})
    detached = type("Detached", (Point,), {"x": property(fail, lambda *_: None)})
    payloads = {"value": {"a": value()}, "key": {key("a"): {1: 2, "1": 3}}, "attribute": {"a": detached(1)}}
    application = await started(payload_hook=fail if place == "hook" else None)
    with pytest.raises(type(error)) as raised:
        await application.bridge.notify(emitted(payload=payloads.get(place, {"a": Opaque()})))
    assert raised.value is error


class FrozenDay(dt.date):
    """What a stopped clock's `date` is."""


@pytest.mark.parametrize("value", [Frozen(2026, 1, 1, tzinfo=dt.UTC), FrozenDay(2026, 1, 1), NOON])
async def test_run_continues_while_a_test_tool_has_stopped_the_clock(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces `datetime` and `date` in every module by subclasses."""
    application = await started(agents={"agent": type("Agent", (Reporting,), {"value": value})})
    connection = subscribe(application)
    for name, module in list(sys.modules.items()):
        if name.startswith("bridgekit."):
            for attribute, fake in (("datetime", Frozen), ("date", FrozenDay)):
                if attribute in vars(module):
                    monkeypatch.setattr(module, attribute, fake)
    await application.supervisor.run(agent_name="agent", thread_id=THREAD, user_id=ALICE, request="return")
    assert str(connection.frames[-1].event.payload["result"]).startswith("['2026-01-01")
    with pytest.raises(PayloadError, match=NO_ZONE):
        await application.bridge.notify(emitted(payload={"a": NAIVE}))


def test_time_of_an_event_may_be_of_a_subclass() -> None:
    """As a test tool that stops the clock creates it."""
    event = msgspec.structs.replace(emitted(), timestamp=Frozen(2026, 1, 1, tzinfo=dt.UTC), seq=1)
    assert decode(encode(event)).timestamp == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
