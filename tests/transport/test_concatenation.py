"""Streamed text under pressure: deltas of a message are joined, never dropped, and no joined event is a gap."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.cursors_and_gaps import Cursor, Gap, Subscribed, decode_any
from bridgekit.errors import MalformedFrame
from bridgekit.events import FRAME_BYTES, EventType, Frame, Policy, RoutedEvent, decode, define_event_type, encode
from bridgekit.ids import RunId
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.client import EventClient, connect
from bridgekit.transport.coalescing import CONCATENATED_BYTES
from bridgekit.transport.cursor_tracker import CursorTracker
from bridgekit.transport.log import Replay
from bridgekit.transport.outbox import OutboxLimits
from bridgekit.transport.resuming_client import subscribe
from tests.factories import ALICE, THREAD, emitted
from tests.transport.edges import anyio_backend, serving  # noqa: F401  # a fixture
from tests.transport.outboxes import EPOCH, Box
from tests.transport.raw_client import BUFFER_BYTES

TEXT, TOOL, THOUGHT = EventType.TEXT_DELTA, EventType.TOOL_EXECUTING, EventType.AGENT_THINKING
TIMEOUT_SECONDS = 60.0


def framed(seq: int, delta: str = "", *, type: EventType = TEXT, message: str = "m", run: str = "run_1") -> Frame:  # noqa: A002  # the name in the wire format
    event = emitted(type, run_id=RunId(run), payload={"message_id": message, "delta": delta or f"{seq} "})
    event.seq = seq
    return Frame(seq, event.type, event.run_id, encode(event))


def started(**limits: int) -> Box:
    box = Box(**limits)
    box.start(Replay(Cursor(EPOCH, 0)))
    return box


def sent(box: Box) -> list[str]:
    """Take everything, and return each event as its numbers and text, and each gap as its numbers and reason."""
    return [_brief(decode_any(data)) for data in box.next_frames(1_000_000)]


def _brief(item: RoutedEvent | Gap | Subscribed) -> str:
    if isinstance(item, RoutedEvent):
        return f"{item.first_seq or item.seq}-{item.seq} {item.payload['delta']}".strip()
    assert isinstance(item, Gap)
    return f"{item.first}-{item.last} {item.reason}"


def test_deltas_are_joined_only_when_the_outbox_is_full() -> None:
    box = started(events=4)
    assert all(box.put_all(*map(framed, range(1, 5))))
    assert sent(box) == ["1-1 1", "2-2 2", "3-3 3", "4-4 4"]
    assert all(box.put_all(*map(framed, range(5, 10))))
    assert len(box) == 1
    assert sent(box) == ["5-9 5 6 7 8 9"]
    assert box.put(framed(10))
    assert sent(box) == ["10-10 10"]
    assert (box.counters.coalesced, box.counters.gaps, box.code) == (0, {}, None)
    assert box.counters.concatenated == 4


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (framed(3, type=TOOL), ["1-2 1 2", "3-3 3", "4-5 4 5"]),
        (framed(3, message="other"), ["1-2 1 2", "3-3 3", "4-5 4 5"]),
        (framed(3, run="run_2"), ["1-2 1 2", "3-3 3", "4-5 4 5"]),
        (None, ["1-2 1 2", "3-3 lost", "4-5 4 5"]),
    ],
    ids=["another type", "another message", "another run", "a missing number"],
)
def test_only_neighbours_of_one_message_are_joined(between: Frame | None, expected: list[str]) -> None:
    """A joined event stands for every number from its first to its last one."""
    box = started(events=4)
    frames = [framed(1), framed(2), *([between] if between else []), framed(4), framed(5)]
    box._limits = OutboxLimits(events=len(frames) - 1)
    assert all(box.put_all(*frames))
    assert sent(box) == expected


@pytest.mark.parametrize(
    ("event_type", "expected", "code"),
    [
        (define_event_type("test_kept", Policy.MUST_DELIVER), [], 4008),
        (EventType("test_of_another_process"), [], 4008),
        (
            define_event_type("test_latest", Policy.COALESCE),
            ["1-2 coalesced", "3-3 3", "4-4 4", "5-5 5", "6-6 6"],
            None,
        ),
        (define_event_type("test_joined", Policy.CONCATENATE), ["1-6 1 2 3 4 5 6"], None),
    ],
    ids=str,
)
def test_full_outbox_follows_the_policy_of_the_applications_type(
    event_type: EventType, expected: list[str], code: int | None
) -> None:
    box = started(events=4)
    box.put_all(*[framed(seq, type=event_type) for seq in range(1, 7)])
    assert box.code == code
    assert code or sent(box) == expected


def test_thought_between_deltas_is_coalesced_and_its_gap_is_sent_at_its_position() -> None:
    box = started(events=4)
    frames = [framed(1), framed(2, type=THOUGHT), framed(3), framed(4), framed(5, type=THOUGHT), framed(6), framed(7)]
    assert all(box.put_all(*frames, framed(8, type=THOUGHT)))
    assert sent(box) == ["1-1 1", "2-2 coalesced", "3-4 3 4", "5-5 coalesced", "6-7 6 7", "8-8 8"]
    assert box.counters.coalesced == 2


@pytest.mark.parametrize(
    "payload",
    [
        {"delta": "a"},
        {"message_id": "m"},
        {"message_id": 1, "delta": "a"},
        {"message_id": "m", "delta": "a", "x": 1},
    ],
)
def test_delta_with_another_payload_is_delivered_by_itself(payload: dict[str, object]) -> None:
    box, frames = started(events=2), list[Frame]()
    for seq in (1, 2):
        event = emitted(TEXT, payload=payload)
        event.seq = seq
        frames.append(Frame(seq, TEXT, event.run_id, encode(event)))
    assert box.put_all(*frames) == [True, True]
    assert not box.put(framed(3))
    assert box.code == 4008


def test_waiting_frames_are_not_joined_before_the_replay_is_known() -> None:
    """A part of them may be in the replay."""
    box = Box(events=3)
    assert all(box.put_all(framed(6), framed(7), framed(8)))
    assert not box.put(framed(9))
    box = Box(events=3)
    assert all(box.put_all(framed(6), framed(7), framed(8)))
    box.start(Replay(Cursor(EPOCH, 5), (framed(6), framed(7))))
    assert all(box.put_all(framed(9), framed(10), framed(11)))
    assert sent(box) == ["8-11 8 9 10 11"]


def test_joined_frame_is_never_too_large_for_a_client() -> None:
    """Control characters are the longest in JSON, and astral ones the longest in UTF-8."""
    box, deltas = started(events=50), [character * 1_000 for character in ("\x01", "\U0001f600")] * 100
    assert all(box.put_all(*(framed(seq, delta) for seq, delta in enumerate(deltas, 1))))
    frames = box.next_frames(1_000_000)
    assert max(map(len, frames)) < FRAME_BYTES
    assert len(frames) < len(deltas) / 8
    assert "".join(str(decode(frame).payload["delta"]) for frame in frames) == "".join(deltas)
    assert box._waiting_bytes == 0


def test_outbox_of_joined_text_is_bounded_in_bytes() -> None:
    box, seq = started(events=64, size_bytes=4 * CONCATENATED_BYTES), 0
    while box.put(framed(seq := seq + 1, "x" * 100)):
        assert seq < 100_000
    assert box.code == 4008
    assert seq * 100 >= 3 * CONCATENATED_BYTES


steps = st.lists(
    st.tuples(st.just("put"), st.sampled_from([TEXT, TEXT, TEXT, TOOL, THOUGHT]), st.sampled_from("ab"))
    | st.tuples(st.just("lose"), st.just(TOOL), st.just("a"))
    | st.tuples(st.just("take"), st.integers(1, 3), st.just("a")),
    max_size=80,
)


@settings(deadline=None)
@given(steps)
def test_every_number_is_sent_once_in_order_as_text_or_as_a_gap(script: list[tuple[str, EventType | int, str]]) -> None:
    box, tracker, put = started(events=5), CursorTracker(Cursor(EPOCH, 0)), dict[int, Frame]()
    tracker.start(Cursor(EPOCH, 0))
    items = list[RoutedEvent | Gap]()
    seq = 0
    for act, what, message in [*script, ("take", 1_000, "a")]:
        if act == "take":
            assert isinstance(what, int)
            for data in box.next_frames(what):
                item = decode_any(data)
                assert not isinstance(item, Subscribed)
                items += [new for new, _ in tracker.accept(item)]
            continue
        seq += 1
        if act == "put":
            assert isinstance(what, EventType)
            frame = framed(seq, type=what, message=message)
            if not box.put(frame):
                break
            put[seq] = frame
    check(items, put)


def check(items: Sequence[RoutedEvent | Gap], put: dict[int, Frame]) -> None:
    covered = 0
    for item in items:
        first, last = (item.first, item.last or 0) if isinstance(item, Gap) else (item.first_seq or item.seq, item.seq)
        assert first == covered + 1
        covered = last
        events = [put[seq].event for seq in range(first, last + 1) if seq in put]
        if isinstance(item, Gap):
            assert all(event.type is THOUGHT for event in events) if item.reason == "coalesced" else not events
        else:
            assert item.payload["delta"] == "".join(str(event.payload["delta"]) for event in events)
            assert {event.payload["message_id"] for event in events} == {item.payload["message_id"]}


def test_client_rejects_joined_events_of_which_it_has_a_part() -> None:
    tracker = CursorTracker(Cursor(EPOCH, 3))
    tracker.start(Cursor(EPOCH, 0))
    event = decode(framed(5).data)
    ((whole, _),) = tracker.accept(decode(encode(event).replace(b'"seq":5', b'"seq":5,"first_seq":4')))
    assert isinstance(whole, RoutedEvent)
    assert whole.first_seq == 4
    with pytest.raises(MalformedFrame, match="the events 5 to 7 were joined"):
        tracker.accept(decode(framed(7).data.replace(b'"seq":7', b'"seq":7,"first_seq":5')))


@pytest.mark.parametrize("first", [0, 6])
def test_joined_event_is_refused_when_its_first_number_is_invalid(first: int) -> None:
    with pytest.raises(MalformedFrame, match=f"first_seq must be from 1 to 5, not {first}"):
        decode(framed(5).data.replace(b'"seq":5', b'"seq":5,"first_seq":%d' % first))


# Over real sockets.

TOKENS = 10_000
"""With LONG_WORD in each, more than a small outbox and the system's buffers take without joining."""
LONG_WORD = "x" * 120
SMALL_OUTBOX = OutboxLimits(events=1_024)
RETAINED = 1_500
"""More than a small outbox takes, and a log retains it whole."""


def text_with(tokens: int, word: str = "token") -> str:
    return "".join(f"{word} {number} " for number in range(tokens))


class Streaming(BaseAgent):
    """Streams one message of as many tokens as requested."""

    async def execute(self, context: RunContext) -> object:
        tokens, word = context.request.split()
        for number in range(int(tokens)):
            await self.emit_text(f"{word} {number} ", message_id="answer")
        return None


@asynccontextmanager
async def streaming(outbox: OutboxLimits) -> AsyncIterator[tuple[Application, str]]:
    app = create_app(BridgeConfig(agents={"streaming": Streaming}, authorizer=OwnerAuthorizer, outbox=outbox))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, send_buffer_bytes=BUFFER_BYTES) as url:
            await app.state.bridgekit.open_thread(THREAD, ALICE)
            yield app.state.bridgekit, url


async def run(application: Application, tokens: int, word: str = "token") -> None:
    request = f"{tokens} {word}"
    await application.supervisor.run(agent_name="streaming", thread_id=THREAD, user_id=ALICE, request=request)


async def read_run(client: EventClient) -> list[RoutedEvent]:
    read = [await client.receive()]
    while read[-1].type is not EventType.AGENT_COMPLETED:
        read.append(await client.receive())
    return read


def text_of(events: Sequence[RoutedEvent]) -> str:
    return "".join(str(event.payload["delta"]) for event in events if event.type is TEXT)


@pytest.mark.slow
async def test_client_that_reads_nothing_during_the_stream_gets_the_whole_text() -> None:
    async with streaming(SMALL_OUTBOX) as (application, url), connect(url, user_id=ALICE, thread_id=THREAD) as client:
        await run(application, TOKENS, LONG_WORD)
        read = await read_run(client)
        assert application.counters.coalesced == 0
    assert client.gaps == []
    assert text_of(read) == text_with(TOKENS, LONG_WORD)
    assert len(read) < TOKENS, "the test must reach the limits of the outbox"
    assert [event.first_seq or event.seq for event in read] == [1, *(event.seq + 1 for event in read[:-1])]


@pytest.mark.slow
async def test_client_that_reconnects_in_the_middle_of_a_stream_gets_the_whole_text() -> None:
    """It breaks its connection after every hundred events, and resumes."""
    read, cursor = list[RoutedEvent](), None
    async with streaming(SMALL_OUTBOX) as (application, url), anyio.create_task_group() as tasks:
        while not read or read[-1].type is not EventType.AGENT_COMPLETED:
            async with subscribe(url, thread_id=THREAD, user_id=ALICE, after=cursor) as client:
                if cursor is None:
                    tasks.start_soon(run, application, RETAINED)
                for _ in range(100):
                    item = await anext(client)
                    assert isinstance(item, RoutedEvent)
                    read.append(item)
                    if item.type is EventType.AGENT_COMPLETED:
                        break
                cursor = client.cursor
    assert text_of(read) == text_with(RETAINED)


@pytest.mark.slow
async def test_page_that_is_reloaded_in_the_middle_of_an_answer_gets_its_whole_text_again() -> None:
    """It keeps the position at which the run began."""
    half = 1_000
    async with streaming(SMALL_OUTBOX) as (application, url), anyio.create_task_group() as tasks:
        async with connect(url, user_id=ALICE, thread_id=THREAD) as first:
            tasks.start_soon(run, application, RETAINED)
            before = [await first.receive() for _ in range(half)]
        async with connect(url, user_id=ALICE, thread_id=THREAD, after=first.subscribed.cursor) as again:
            read = [await again.receive() for _ in range(half)]
            assert again.gaps == []
        tasks.cancel_scope.cancel()
    assert read == before
