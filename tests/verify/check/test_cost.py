"""What judging costs, relative to decoding the same frames, and what it keeps in memory."""

from __future__ import annotations

import json
import time
import tomllib
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice

import pytest

from bridgekit_verify.check import rules
from bridgekit_verify.check.dialect_tables import parse_table
from bridgekit_verify.check.dialects import BUILT_IN
from bridgekit_verify.check.frames import Message
from bridgekit_verify.check.judge import Judge
from tests.verify.check.samples import DIALECTS, TABLE, Value

JUDGING_PER_DECODING = 5
REMEMBERED = {"KEPT_STREAMS": 1_000, "MAX_OPEN_STREAMS": 2_000, "KEPT_RUNS": 250}
"""A twentieth of what the judge remembers by default, so that a stream twenty times shorter exceeds it."""
MAX_GROWTH_BYTES = 2_500_000


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.short_form(2)
@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS)
def test_judging_costs_at_most_five_times_decoding(dialect: str) -> None:
    mapped = BUILT_IN.get(dialect) or parse_table(tomllib.loads(TABLE)["dialect"], "chat")
    values = [(f"s{n}", value) for n in range(400) for value in DIALECTS[dialect](f"r{n}", f"t{n}")]
    texts = [json.dumps(value) for _, value in values]
    messages = [Message(socket, 0, n, value, "u", f"t{socket[1:]}") for n, (socket, value) in enumerate(values, 1)]
    # Interleaved, and the shortest of ten, because other tests load the machine.
    times = [
        (seconds(lambda: [json.loads(text) for text in texts]), seconds(lambda: Judge(mapped).feed(messages)))
        for _ in range(10)
    ]
    decoding, judging = map(min, zip(*times, strict=True))
    assert judging <= JUDGING_PER_DECODING * decoding


def endless_run(number: int) -> Iterator[Value]:
    """A run that never ends: messages of eight deltas, and calls with long arguments."""
    yield {"type": "RUN_STARTED", "threadId": f"t{number}", "runId": f"r{number}"}
    arguments = json.dumps({"x": "y" * 4_000})
    for n in count():
        message, call = f"m{number}-{n}", f"c{number}-{n}"
        yield {"type": "TEXT_MESSAGE_START", "messageId": message}
        yield from ({"type": "TEXT_MESSAGE_CONTENT", "messageId": message, "delta": "word " * 40} for _ in range(8))
        yield {"type": "TEXT_MESSAGE_END", "messageId": message}
        yield {"type": "TOOL_CALL_START", "toolCallId": call}
        yield {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": arguments}
        yield {"type": "TOOL_CALL_END", "toolCallId": call}


def unended_texts(number: int) -> Iterator[Value]:
    """Messages that the protocol does not end, each of one delta."""
    yield from ({"t": "say", "msg": f"m{number}-{n}", "d": "word " * 40} for n in count())


def short_runs(number: int) -> Iterator[Value]:
    """One run after another, each with its own numbering."""
    for n in count():
        yield from DIALECTS["chat"](f"r{number}-{n}", f"t{number}")


STREAMS = {"long runs": endless_run, "texts without an end": unended_texts, "short runs": short_runs}


def interleaved(streams: Sequence[Iterator[Value]]) -> Iterator[Message]:
    """One frame of each stream in turn, at 50 sockets. Each value is created when it is read."""
    for index in count(1):
        number = index % len(streams)
        yield Message(f"s{number % 50}", 0, index, next(streams[number]))


@pytest.mark.short_form(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMS)
def test_memory_does_not_grow_with_the_length_of_the_stream(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, value in REMEMBERED.items():
        monkeypatch.setattr(rules, limit, value)
    messages = interleaved([STREAMS[name](number) for number in range(100)])
    judge = Judge(BUILT_IN["AG-UI"] if name == "long runs" else parse_table(tomllib.loads(TABLE)["dialect"], "chat"))
    judge.feed(islice(messages, 2_000))
    tracemalloc.start()
    judge.feed(islice(messages, 25_000))  # more than the judge remembers
    after_limit = tracemalloc.get_traced_memory()[0]
    judge.feed(islice(messages, 5_000))
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert judge.findings.counts.total() == 0
    assert after_limit < MAX_GROWTH_BYTES
    assert grown - after_limit < 150_000
