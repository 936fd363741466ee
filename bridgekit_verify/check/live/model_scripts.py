"""Plans the answers of the scripted model: a pure function from a scenario and the offered tools to numbered pieces."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from bridgekit_verify.check.live.markers import CANARY_LENGTH, MARKER, Marker

__all__ = ["SCENARIOS", "ModelScript", "OfferedTool", "SentCall", "SentPiece", "Turn", "plan_turn"]

WORDS: Final = (
    "tide",
    "na\u00efve",
    "\u201cquoted\u201d",
    "back\\slash",
    "\u6f6e\u6c50",
    "\N{OCTOPUS}",
    "a<b>&c",
    "end",
)
"""The words of the model's texts. A wrong encoding, or a cut inside a character, damages some of these words."""
PLAIN_WORDS: Final = ("north", "east", "south")
"""The words of the model's arguments. JSON does not escape these words, so each piece is plain text."""
MAX_DEPTH: Final = 8


class SentPiece(msgspec.Struct, frozen=True, array_like=True):
    """One delta, as the model wrote it."""

    channel: str
    text: str


class SentCall(msgspec.Struct, frozen=True):
    """One tool call, as the model planned it."""

    channel: str
    id: str
    name: str
    arguments: str


class ModelScript(msgspec.Struct, frozen=True):
    """One scenario. Counts are numbers of pieces, unless stated otherwise."""

    texts: int = 8
    thinking: int = 0
    before_calls: int = 0
    """The number of pieces of text before the tool calls of an answer."""
    calls: int = 0
    """The number of calls in each round, if the request offers tools."""
    rounds: int = 1
    """The number of answers that call tools before the final text."""
    arguments: Literal["pieces", "beside", "whole"] = "pieces"
    """How arguments are sent: in `pieces` after an empty first piece, with the first piece `beside` the tool's name, or
    `whole` with the name."""
    interleaved: bool = False
    """True if the pieces of parallel calls alternate. Few models do this, so it is a stress case."""
    split: bool = False
    """True if each marker is split across two deltas."""
    refusals: int = 0
    """The model answers this many attempts with status 503 before it answers normally."""
    ends_in: Literal["", "text", "arguments"] = ""
    """The channel in which the model ends the connection, on every attempt."""
    pause_seconds: float = 0.002


SCENARIOS: Final[Mapping[str, ModelScript]] = {
    "text": ModelScript(),
    "thinking": ModelScript(thinking=4),
    "calls": ModelScript(before_calls=2, calls=2),
    "whole": ModelScript(calls=2, arguments="whole"),
    "beside": ModelScript(calls=2, arguments="beside"),
    "interleaved": ModelScript(calls=2, interleaved=True),
    "rounds": ModelScript(calls=1, rounds=3),
    "split": ModelScript(before_calls=2, calls=2, split=True),
    "burst": ModelScript(texts=80, pause_seconds=0.0),
    "slow": ModelScript(texts=12, pause_seconds=0.05),
    "retry": ModelScript(calls=1, refusals=1),
    "refuses": ModelScript(refusals=1_000_000),
    "dies": ModelScript(ends_in="text"),
    "dies_in_call": ModelScript(calls=2, ends_in="arguments"),
    "everything": ModelScript(thinking=3, before_calls=2, calls=2, interleaved=True, split=True, refusals=1),
}
"""The scenarios by name. `interleaved` and `everything` are stress cases."""


class OfferedTool(NamedTuple):
    """A tool that a request offers to the model."""

    name: str
    schema: Mapping[str, Any]


class Turn(NamedTuple):
    """One answer of the model."""

    pieces: Sequence[SentPiece]
    calls: Sequence[SentCall]
    ends_after: int | None = None
    """The number of pieces after which the connection ends, or None for a complete answer."""


def plan_turn(
    script: ModelScript, canary: str, number: int, round_: int, tools: Sequence[OfferedTool], parallel: bool = True
) -> Turn:
    """Return the answer to call `number` of a prompt, after `round_` rounds of tool results."""
    calls = list[SentCall]()
    texts = [("r", script.thinking)]
    if tools and round_ < script.rounds and script.calls:
        count = script.calls if parallel else 1
        calls = [_call(canary, number, index, tools[index % len(tools)]) for index in range(count)]
        texts.append(("p", script.before_calls))
    else:
        texts.append(("t", script.texts))
    pieces = [piece for channel, count in texts for piece in _texts(script, canary, number, channel, count)]
    ends_after = len(pieces) - script.texts // 2 if script.ends_in == "text" and not calls else None
    if calls and script.ends_in == "arguments":
        ends_after = len(pieces) + 2
    pieces += _argument_pieces(script, calls)
    return Turn(pieces, calls, ends_after)


def _texts(script: ModelScript, canary: str, number: int, channel: str, count: int) -> Iterator[SentPiece]:
    for index in range(count):
        marker = Marker(canary, number, channel, index + 1)
        text = f"{' ' if index else ''}{marker} {WORDS[index % len(WORDS)]}"
        yield from (SentPiece(channel, part) for part in _cut(script, text))


def _cut(script: ModelScript, text: str) -> list[str]:
    """Cut a piece in two after its first canary, if the scenario splits pieces."""
    found = MARKER.search(text)
    if not script.split or found is None:
        return [text]
    middle = found.start() + 1 + CANARY_LENGTH
    return [text[:middle], text[middle:]]


def _argument_pieces(script: ModelScript, calls: Sequence[SentCall]) -> list[SentPiece]:
    parts = []
    for call in calls:
        texts = [call.arguments]
        if script.arguments != "whole":
            texts = [part for text in _pieces_of(call.arguments) for part in _cut(script, text)]
        if script.arguments == "pieces":
            texts.insert(0, "")
        parts.append([SentPiece(call.channel, text) for text in texts])
    if not script.interleaved:
        return [piece for pieces in parts for piece in pieces]
    return [piece for pieces in itertools.zip_longest(*parts) for piece in pieces if piece is not None]


def _pieces_of(arguments: str) -> list[str]:
    """Cut arguments before each marker except the first, so that each piece has one marker.

    Arguments with fewer than two markers are cut in the middle.
    """
    starts = [found.start() for found in MARKER.finditer(arguments)][1:]
    bounds = [0, *(starts or [len(arguments) // 2]), len(arguments)]
    return [arguments[start:end] for start, end in itertools.pairwise(bounds)]


def _call(canary: str, number: int, index: int, tool: OfferedTool) -> SentCall:
    channel = f"a{index}"
    numbers = itertools.count(1)

    def text() -> str:
        return " ".join(f"{Marker(canary, number, channel, next(numbers))} {word}" for word in PLAIN_WORDS)

    value = _example(tool.schema, tool.schema, text, 0)
    arguments = json.dumps(value if isinstance(value, dict) else {})
    return SentCall(channel, f"call_{canary}_{number}_{index}", tool.name, arguments)


def _example(schema: Any, root: Mapping[str, Any], text: Any, depth: int) -> Any:  # noqa: C901  # one branch for each keyword
    """Return an example for a JSON schema, with markers in unrestricted strings. A string may violate its pattern."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        found: Any = root
        for step in reference.removeprefix("#/").split("/"):
            found = found.get(step) if isinstance(found, dict) else None
        return _example(found, root, text, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf", "allOf"):
        options = [each for each in schema.get(keyword) or () if isinstance(each, dict) and each.get("type") != "null"]
        if options:
            return _example(options[0], root, text, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), None)
    if kind == "object" or (kind is None and "properties" in schema):
        members = schema.get("properties")
        members = members if isinstance(members, dict) else {}
        return {name: _example(each, root, text, depth + 1) for name, each in members.items()}
    if kind == "array":
        return [_example(schema.get("items") or {"type": "string"}, root, text, depth + 1)]
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return True
    if kind == "null" or "format" in schema or "pattern" in schema or schema.get("maxLength", 999) < 100:
        return None if kind == "null" else FORMATS.get(schema.get("format", ""), "x")
    return text()


FORMATS: Final = {"date": "2026-01-01", "date-time": "2026-01-01T00:00:00Z", "time": "00:00:00Z",
                  "email": "ann@example.com", "uri": "http://127.0.0.1/",
                  "uuid": "00000000-0000-4000-8000-000000000000"}  # fmt: skip
