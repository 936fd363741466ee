"""Publish, read, pause, disconnect and reconnect in any order: a client has every published event or a gap. Both
backends.

The model is a list of what was published. The client's view equals that list without the events in reported gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason, Subscribed, decode_any
from bridgekit.events import POLICIES, AgentEvent, EventType, Policy
from bridgekit.ids import RunId
from bridgekit.transport.cursor_tracker import CursorTracker, Item
from bridgekit.transport.log import Retention
from bridgekit.transport.outbox import OutboxLimits
from tests.factories import ALICE, OTHER, THREAD, emitted
from tests.transport.fake_browser import Browser, Site

KEPT = 8
WAITING = 3
TYPES = [EventType.AGENT_THINKING, EventType.PROGRESS_UPDATE, EventType.TOOL_EXECUTING, EventType.TEXT_DELTA]
TURNS = 12
"""Event-loop iterations without a change after which the state is final: each step needs one or two."""


@dataclass
class Visitor:
    """A client with one socket after another, and what was published to its thread."""

    site: Site
    tasks: TaskGroup
    browser: Browser | None = None
    tracker: CursorTracker = field(default_factory=partial(CursorTracker, None))
    view: list[Item] = field(default_factory=list)
    published: list[AgentEvent] = field(default_factory=list)
    start: Cursor | None = None

    async def act(self, step: str, *arguments: Any) -> None:
        match step:
            case "publish":
                await self.publish(*arguments)
            case "read" if self.browser is not None:
                self.browser.resume_reading(*arguments)
            case "connect":
                await self.connect()
            case "disconnect":
                await self.disconnect()
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing changes any more."""
        still, seen = 0, -1
        while still < TURNS:
            await checkpoint()
            now = len(self.browser.messages) if self.browser else 0
            still, seen = (still + 1 if now == seen else 0), now

    async def publish(self, count: int, type: EventType, run: str) -> None:  # noqa: A002  # the name in the wire format
        for _ in range(count):
            event = emitted(type, run_id=RunId(run), payload={"message_id": "m", "delta": f"{len(self.published)} "})
            assert (await self.site.hub.publish(event, THREAD)).kept
            self.published.append(event)
        await self.site.publish(1, OTHER)

    async def connect(self) -> None:
        """Connect a new socket, which reads until it is paused."""
        await self.disconnect()
        at = self.tracker.cursor
        query = {} if at is None else {"epoch": at.epoch, "seq": str(at.seq)}
        self.browser = self.site.browser(ALICE, THREAD, **query)
        self.tasks.start_soon(self.browser.run)

    async def disconnect(self) -> None:
        """Disconnect: unread frames are lost with the socket."""
        if self.browser is None:
            return
        self.browser.leave()
        await self.settle()
        for message in self.browser.messages:
            if "text" in message:
                self._take(decode_any(message["text"]))
        self.browser = None

    def _take(self, item: Item | Subscribed) -> None:
        if isinstance(item, Subscribed):
            self.tracker.start(item.cursor)
            self.start = self.start or item.cursor
        else:
            assert item.thread_id == THREAD
            self.view += [new for new, _ in self.tracker.accept(item)]


steps = (
    st.tuples(st.just("publish"), st.integers(1, 6), st.sampled_from(TYPES), st.sampled_from(["run_1", "run_2"]))
    | st.tuples(st.just("read"), st.integers(0, 4))
    | st.tuples(st.sampled_from(["connect", "disconnect"]))
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=25))
async def test_received_events_are_the_published_ones_except_for_reported_gaps(script: list[tuple[Any, ...]]) -> None:
    site = Site(Retention(events=KEPT))
    site.edge.scheduler.limits = OutboxLimits(events=WAITING)
    await site.open_threads()
    async with site.edge, anyio.create_task_group() as tasks:
        visitor = Visitor(site, tasks)
        for step in [("connect",), *script, ("connect",), ("disconnect",)]:
            await visitor.act(*step)
    check(visitor)


def check(visitor: Visitor) -> None:
    assert visitor.start is not None
    covered = list[int]()
    for item in visitor.view:
        covered += numbers_of(item)
        if isinstance(item, Gap):
            check_gap(item, visitor.published)
        else:
            events = [visitor.published[seq - 1] for seq in numbers_of(item)]
            assert item.event_id == events[-1].event_id
            assert {(item.type, item.run_id)} == {(event.type, event.run_id) for event in events}
            assert len(events) == 1 or item.type is EventType.TEXT_DELTA
            assert item.payload["delta"] == "".join(str(event.payload["delta"]) for event in events)
    assert covered == list(range(visitor.start.seq + 1, len(visitor.published) + 1))
    assert visitor.tracker.duplicates == 0


def check_gap(gap: Gap, published: list[AgentEvent]) -> None:
    # The client would have reported an unreported gap as lost.
    assert gap.reason in (GapReason.COALESCED, GapReason.EXPIRED)
    if gap.reason is GapReason.EXPIRED:
        assert len(numbers_of(gap)) > KEPT
        return
    for seq in numbers_of(gap):
        event = published[seq - 1]
        assert POLICIES[event.type] is Policy.COALESCE
        assert any((later.type, later.run_id) == (event.type, event.run_id) for later in published[seq:])


def numbers_of(item: Item) -> Sequence[int]:
    if isinstance(item, Gap):
        return range(item.first, (item.last or 0) + 1)
    return range(item.first_seq or item.seq, item.seq + 1)
