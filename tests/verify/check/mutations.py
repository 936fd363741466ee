"""Ten kinds of damage to the recording of `samples.recording`, each with the property that it concerns."""

from __future__ import annotations

import random
from collections.abc import Callable

from bridgekit_verify.check.property_answers import Property
from tests.verify.check.samples import Line

Lines = list[Line]
DELTAS = ("delta", "inputTextDelta", "d")


def pieces(line: Line) -> list[tuple[dict[str, str], str]]:
    """Return where a line has a delta: the object, and the name in it."""
    objects = [line.value, line.value.get("payload", {})]
    return [(each, name) for each in objects for name in DELTAS if isinstance(each.get(name), str)]


def kind(line: Line) -> str:
    return str(line.value.get("type", line.value.get("t")))


ENDS = {"agent_completed", "RUN_FINISHED", "response.completed", "finish", "done"}
SIGNALS = {"subscribed"}
CALL_DELTAS = {"TOOL_CALL_ARGS", "response.function_call_arguments.delta", "tool-input-delta", "arg", "tool_completed"}
CALL_IDS = ("toolCallId", "item_id", "call", "tool_call_id")


def choose(lines: Lines, rng: random.Random, *, ends: bool = False) -> int:
    """Return the index of an event that is not an end, or of an end."""
    return rng.choice([n for n, line in enumerate(lines) if (kind(line) in ENDS) == ends and kind(line) not in SIGNALS])


def drop(lines: Lines, rng: random.Random) -> Lines:
    index = choose(lines, rng)
    return [*lines[:index], *lines[index + 1 :]]


def duplicate(lines: Lines, rng: random.Random) -> Lines:
    index = choose(lines, rng)
    return [*lines[: index + 1], *lines[index:]]


def swap(lines: Lines, rng: random.Random) -> Lines:
    """Exchange an event with the next one of its socket."""
    lines = lines.copy()
    index = choose(lines, rng)
    other = next(n for n in range(index + 1, len(lines)) if lines[n].socket == lines[index].socket)
    lines[index], lines[other] = lines[other], lines[index]
    return lines


def move(user: bool) -> Callable[[Lines, random.Random], Lines]:
    def moved(lines: Lines, rng: random.Random) -> Lines:
        index = choose(lines, rng)
        source = lines[index]
        targets = [each for each in lines if (each.user != source.user) == user and each.thread != source.thread]
        if not targets:  # this user has one thread: move the event of another user
            return moved(lines, rng)
        target = rng.choice(targets)
        rest = [*lines[:index], *lines[index + 1 :]]
        after = rng.randrange(1, len(rest))
        return [*rest[:after], target._replace(value=source.value), *rest[after:]]

    return moved


def truncate(lines: Lines, rng: random.Random) -> Lines:
    lines = lines.copy()
    index = rng.choice([n for n, line in enumerate(lines) if pieces(line)])
    value = {**lines[index].value}
    if "payload" in value:
        value["payload"] = {**value["payload"]}
    lines[index] = lines[index]._replace(value=value)
    place, name = pieces(lines[index])[0]
    place[name] = place[name][:-1]
    return lines


def merge_calls(lines: Lines, rng: random.Random) -> Lines:
    """Give the arguments of one call, or where they are not streamed its completion, to the other call of the run."""
    socket = rng.choice(lines).socket
    found = [n for n, line in enumerate(lines) if line.socket == socket and kind(line) in CALL_DELTAS]
    objects = {n: lines[n].value if "payload" not in lines[n].value else lines[n].value["payload"] for n in found}
    ids = {n: next((name, each[name]) for name in CALL_IDS if name in each) for n, each in objects.items()}
    first = ids[found[0]][1]
    merged = lines.copy()
    for n, (name, value) in ids.items():
        if value != first:
            body = {**objects[n], name: first}
            merged[n] = lines[n]._replace(
                value={**lines[n].value, "payload": body} if "payload" in lines[n].value else body
            )
    return merged


def drop_end(lines: Lines, rng: random.Random) -> Lines:
    index = choose(lines, rng, ends=True)
    return [*lines[:index], *lines[index + 1 :]]


def add_end(lines: Lines, rng: random.Random) -> Lines:
    """Put a copy of an end after any later event."""
    index = choose(lines, rng, ends=True)
    after = rng.randrange(index, len(lines)) + 1
    return [*lines[:after], lines[index], *lines[after:]]


def foreign_end(lines: Lines, rng: random.Random) -> Lines:
    """Replace a run's end by the end of another run."""
    index = choose(lines, rng, ends=True)
    others = [line for line in lines if kind(line) in ENDS and line.socket != lines[index].socket]
    return [*lines[:index], lines[index]._replace(value=rng.choice(others).value), *lines[index + 1 :]]


MUTATIONS: dict[str, tuple[Callable[[Lines, random.Random], Lines], tuple[Property, ...]]] = {
    "drop": (drop, (Property.LOST,)),
    "duplicate": (duplicate, (Property.DUPLICATED,)),
    "swap": (swap, (Property.ORDER,)),
    "move to another user": (move(user=True), (Property.USER,)),
    "move to another thread": (move(user=False), (Property.THREAD,)),
    "truncate": (truncate, (Property.TEXT, Property.ARGUMENTS)),
    "merge calls": (merge_calls, (Property.ARGUMENTS,)),
    "drop end": (drop_end, (Property.ENDED,)),
    "add end": (add_end, (Property.ENDED,)),
    "another run's end": (foreign_end, (Property.ENDED, Property.THREAD)),
}
