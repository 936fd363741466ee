"""Ten kinds of damage to a sound live run, each with the property that must be broken and those that may follow."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from bridgekit_verify.check.dialects import StreamDialect
from bridgekit_verify.check.frames import Message, ObservedFrame
from bridgekit_verify.check.live.saved_run import LiveRun
from bridgekit_verify.check.property_answers import Property

Mutate = Callable[[list[Message], StreamDialect, random.Random], list[Message] | None]
DELTAS = ("text", "thinking", "tool_args")
ENDS = ("ended", "error")


def batched(run: LiveRun, size: int) -> LiveRun:
    """Let each client receive its messages in lists of this size."""
    messages: list[Message] = []
    for client in dict.fromkeys(message.client for message in run.messages):
        own = [message for message in run.messages if message.client == client]
        groups = [own[n : n + size] for n in range(0, len(own), size)]
        messages += [msgspec.structs.replace(group[0], value=[each.value for each in group]) for group in groups]
    return msgspec.structs.replace(run, messages=messages)


def frames_of(messages: list[Message], dialect: StreamDialect, *kinds: str) -> list[tuple[int, ObservedFrame]]:
    """Return the index and the first frame of each message that has a frame of these kinds."""
    found = []
    for index, message in enumerate(messages):
        frame = next((each for each in dialect.frames(message) if each.kind in kinds), None)
        if frame is not None:
            found.append((index, frame))
    return found


def deltas(messages: list[Message], dialect: StreamDialect) -> list[tuple[int, ObservedFrame]]:
    return [(index, frame) for index, frame in frames_of(messages, dialect, *DELTAS) if "[K" in (frame.text or "")]


def replaced(value: Any, old: str, new: str) -> Any:
    """Return JSON in which each string that equals `old` is `new`."""
    if isinstance(value, dict):
        return {name: replaced(each, old, new) for name, each in value.items()}
    if isinstance(value, list):
        return [replaced(each, old, new) for each in value]
    return new if value == old else value


def drop(messages: list[Message], dialect: StreamDialect, rng: random.Random) -> list[Message]:
    index, _ = rng.choice(deltas(messages, dialect))
    return [*messages[:index], *messages[index + 1 :]]


def duplicate(messages: list[Message], dialect: StreamDialect, rng: random.Random) -> list[Message]:
    index, _ = rng.choice(deltas(messages, dialect))
    return [*messages[: index + 1], *messages[index:]]


def text_of(frame: ObservedFrame) -> tuple[str | None, ...]:
    return frame.origin.client, frame.kind, frame.run, frame.message, frame.call


def swap(messages: list[Message], dialect: StreamDialect, rng: random.Random) -> list[Message] | None:
    """Exchange a delta with the next one of its text or call."""
    found = deltas(messages, dialect)
    index, frame = rng.choice(found)
    key = text_of(frame)
    later = [n for n, each in found if n > index and text_of(each) == key]
    if not later:
        return None
    result = messages.copy()
    result[index], result[later[0]] = result[later[0]], result[index]
    return result


def move(user: bool) -> Mutate:
    def moved(messages: list[Message], dialect: StreamDialect, rng: random.Random) -> list[Message] | None:
        index, frame = rng.choice(deltas(messages, dialect))
        own = frame.origin
        targets = [each for each in messages if (each.user != own.user) == user and each.thread != own.thread]
        if not targets:  # this user has one thread
            return None
        target = rng.choice(targets)
        rest = [*messages[:index], *messages[index + 1 :]]
        after = rng.randrange(1, len(rest))
        return [*rest[:after], msgspec.structs.replace(target, value=own.value), *rest[after:]]

    return moved


def truncate(messages: list[Message], dialect: StreamDialect, rng: random.Random) -> list[Message]:
    index, frame = rng.choice(deltas(messages, dialect))
    text = frame.text or ""
    return changed(messages, index, text, text[: -rng.randint(1, 2)])


def changed(messages: list[Message], index: int, old: str, new: str) -> list[Message]:
    message = msgspec.structs.replace(messages[index], value=replaced(messages[index].value, old, new))
    return [*messages[:index], message, *messages[index + 1 :]]


def merge_calls(messages: list[Message], dialect: StreamDialect, rng: random.Random) -> list[Message] | None:
    """Give the arguments of one call to another call of the same client."""
    found = [each for each in deltas(messages, dialect) if each[1].call is not None]
    if not found:
        return None
    client = rng.choice(found)[1].origin.client
    own = [(index, frame.call) for index, frame in found if frame.origin.client == client]
    first = own[0][1]
    result = messages
    for index, call in own:
        if call != first:
            result = changed(result, index, str(call), str(first))
    return result


def drop_end(messages: list[Message], dialect: StreamDialect, rng: random.Random) -> list[Message]:
    index, _ = rng.choice(frames_of(messages, dialect, *ENDS))
    return [*messages[:index], *messages[index + 1 :]]


def add_end(messages: list[Message], dialect: StreamDialect, rng: random.Random) -> list[Message]:
    """Put a copy of an end anywhere into its client's stream."""
    index, frame = rng.choice(frames_of(messages, dialect, *ENDS))
    first = next(n for n, each in enumerate(messages) if each.client == frame.origin.client)
    after = rng.randrange(first + 1, len(messages) + 1)
    return [*messages[:after], messages[index], *messages[after:]]


def foreign_end(messages: list[Message], dialect: StreamDialect, rng: random.Random) -> list[Message]:
    """Replace the end of a run by the end of another one."""
    ends = frames_of(messages, dialect, *ENDS)
    (index, frame), (_, other) = rng.sample(ends, 2)
    return [
        *messages[:index],
        msgspec.structs.replace(frame.origin, value=other.origin.value),
        *messages[index + 1 :],
    ]


class Damage(NamedTuple):
    """A mutation. One of `named` must be broken, and nothing but `named` and `consequences`."""

    mutate: Mutate
    named: frozenset[Property]
    consequences: frozenset[Property] = frozenset()


CONTENT = frozenset({Property.TEXT, Property.ARGUMENTS, Property.SNAPSHOT})
MUTATIONS: dict[str, Damage] = {
    "drop": Damage(drop, frozenset({Property.LOST}), CONTENT),
    "duplicate": Damage(duplicate, frozenset({Property.DUPLICATED}), CONTENT),
    "swap": Damage(swap, frozenset({Property.ORDER}), CONTENT),
    "move to another user": Damage(
        move(user=True), frozenset({Property.USER}), CONTENT | {Property.LOST, Property.THREAD}
    ),
    "move to another thread": Damage(move(user=False), frozenset({Property.THREAD}), CONTENT | {Property.LOST}),
    "truncate": Damage(truncate, frozenset({Property.TEXT, Property.ARGUMENTS}), CONTENT),
    "merge calls": Damage(merge_calls, frozenset({Property.ARGUMENTS}), CONTENT - {Property.TEXT}),
    "drop end": Damage(drop_end, frozenset({Property.ENDED})),
    "add end": Damage(add_end, frozenset({Property.ENDED}), frozenset({Property.END_LAST, Property.DUPLICATED})),
    "another run's end": Damage(
        foreign_end, frozenset({Property.ENDED}), frozenset({Property.USER, Property.THREAD, Property.DUPLICATED})
    ),
}
