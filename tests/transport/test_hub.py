"""Link 10: the sockets of a thread, and the numbering of its events."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bridgekit.chain.self_check import ProbeConnection
from bridgekit.errors import FrameTooLarge, PayloadError
from bridgekit.events import Frame, Outcome, decode
from bridgekit.ids import ThreadId
from bridgekit.transport import Hub
from tests.factories import ALICE, OTHER, THREAD, emitted


class Full(ProbeConnection):
    """A socket that accepts no frame."""

    def put(self, frame: Frame) -> bool:
        return False


def inbox(hub: Hub, thread_id: ThreadId = THREAD, *, kind: type[ProbeConnection] = ProbeConnection) -> ProbeConnection:
    made = kind(thread_id, ALICE)
    hub.attach(made)
    return made


async def test_event_reaches_every_socket_of_its_thread_and_no_other() -> None:
    hub = Hub()
    first, second, other = inbox(hub), inbox(hub), inbox(hub, OTHER)
    receipt = await hub.publish(emitted(), THREAD)
    assert (receipt.outcome, receipt.sockets, receipt.thread_id, receipt.seq) == (Outcome.SENT, 2, THREAD, 1)
    assert [len(each.frames) for each in (first, second, other)] == [1, 1, 0]


async def test_event_goes_to_the_thread_it_is_published_to() -> None:
    hub = Hub()
    own, other = inbox(hub), inbox(hub, OTHER)
    await hub.publish(emitted(thread_id=THREAD), OTHER)
    assert own.frames == []
    assert decode(other.frames[0].data).thread_id == OTHER


async def test_event_is_encoded_once_however_many_sockets_read_it() -> None:
    hub = Hub()
    sockets = [inbox(hub) for _ in range(5)]
    await hub.publish(emitted(), THREAD)
    assert len({id(each.frames[0].data) for each in sockets}) == 1


async def test_frame_carries_the_event_unchanged() -> None:
    hub = Hub()
    socket, event = inbox(hub), emitted(payload={"reasoning": "hm"})
    await hub.publish(event, THREAD)
    read = decode(socket.frames[0].data)
    assert read == socket.frames[0].event
    assert (read.type, read.run_id, read.agent_name, read.event_id, read.timestamp, read.payload) == (
        event.type, event.run_id, event.agent_name, event.event_id, event.timestamp, event.payload
    )  # fmt: skip


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=30))
async def test_seq_counts_from_1_without_gaps_in_each_thread_for_itself(threads: list[str]) -> None:
    hub, read = Hub(), defaultdict[str, list[int]](list)
    sockets = {name: inbox(hub, ThreadId(name)) for name in "abc"}
    for name in threads:
        await hub.publish(emitted(), ThreadId(name))
    for name, socket in sockets.items():
        read[name] = [each.event.seq for each in socket.frames]
        assert read[name] == list(range(1, threads.count(name) + 1))


async def test_event_without_subscribers_is_numbered_and_not_reported_as_sent() -> None:
    hub = Hub()
    receipt = await hub.publish(emitted(), THREAD)
    assert not receipt
    assert (receipt.outcome, receipt.link, receipt.seq) == (Outcome.NO_SUBSCRIBER, 10, 1)
    assert receipt.reason
    assert inbox(hub).frames == []
    assert (await hub.publish(emitted(), THREAD)).seq == 2


async def test_full_socket_does_not_affect_others_and_is_not_counted() -> None:
    hub = Hub()
    before, full, after = inbox(hub), inbox(hub, kind=Full), inbox(hub)
    assert [(await hub.publish(emitted(), THREAD)).sockets for _ in range(3)] == [2, 2, 2]
    assert [len(each.frames) for each in (before, full, after)] == [3, 0, 3]


async def test_event_that_no_socket_accepts_is_not_reported_as_sent() -> None:
    hub = Hub()
    inbox(hub, kind=Full)
    receipt = await hub.publish(emitted(), THREAD)
    assert (receipt.outcome, receipt.sockets) == (Outcome.NO_SUBSCRIBER, 0)


async def test_unencodable_event_takes_no_number_and_is_not_delivered() -> None:
    hub = Hub(frame_bytes=500)
    socket = inbox(hub)
    await hub.publish(emitted(), THREAD)
    with pytest.raises(PayloadError):
        await hub.publish(emitted(payload={"a": float("nan")}), THREAD)
    with pytest.raises(FrameTooLarge):
        await hub.publish(emitted(payload={"a": "x" * 500}), THREAD)
    await hub.publish(emitted(), THREAD)
    assert [each.event.seq for each in socket.frames] == [1, 2]


async def test_detached_socket_gets_no_events_and_can_be_detached_twice() -> None:
    hub = Hub()
    gone, stays = inbox(hub), inbox(hub)
    await hub.publish(emitted(), THREAD)
    hub.detach(gone)
    hub.detach(gone)
    await hub.publish(emitted(), THREAD)
    assert [len(each.frames) for each in (gone, stays)] == [1, 2]
    assert hub.connections(THREAD) == (stays,)


async def test_hub_holds_nothing_of_a_thread_when_its_last_socket_has_left() -> None:
    """An entry that remained would be a leak: threads are never reused."""
    hub = Hub()
    sockets = [inbox(hub, ThreadId(f"thread_{number}")) for number in range(20)]
    sockets += [inbox(hub, ThreadId("thread_0"))]
    for socket in sockets:
        hub.detach(socket)
    assert hub._connections == {}


async def test_event_reaches_other_sockets_when_one_leaves_during_delivery() -> None:
    hub = Hub()

    class Leaving(ProbeConnection):
        def put(self, frame: Frame) -> bool:
            hub.detach(self)
            return super().put(frame)

    leaving, stays = inbox(hub, kind=Leaving), inbox(hub)
    assert (await hub.publish(emitted(), THREAD)).sockets == 2
    assert [len(each.frames) for each in (leaving, stays)] == [1, 1]
    assert len(hub) == 1


async def test_payload_that_is_not_an_object_is_refused_and_takes_no_number() -> None:
    hub = Hub()
    with pytest.raises(PayloadError, match="must be a JSON object, not list"):
        await hub.publish(replace(emitted(), payload=[1]), THREAD)
    assert (await hub.publish(emitted(), THREAD)).seq == 1


async def test_timestamp_without_a_zone_is_refused_and_takes_no_number() -> None:
    hub = Hub()
    with pytest.raises(PayloadError, match="no time zone"):
        await hub.publish(replace(emitted(), timestamp=datetime(2026, 11, 22)), THREAD)  # noqa: DTZ001 - naive on purpose
    assert (await hub.publish(emitted(), THREAD)).seq == 1
