"""The bounded queue between the hub, which never waits, and one socket, which may."""

from __future__ import annotations

import anyio
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.events import Frame
from bridgekit.transport.outbox import OUTBOX_BYTES, OUTBOX_EVENTS, Outbox
from tests.samples import frame

ONE = frame()
SIZE = len(ONE.data)


async def test_burst_comes_out_whole_in_order_and_with_one_wake_up() -> None:
    outbox, batches = Outbox(), list[list[int]]()

    async def write() -> None:
        while frames := await outbox.take():
            batches.append([waiting.event.seq for waiting in frames])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        for seq in (1, 2, 3):
            assert outbox.put(frame(seq))
        await anyio.wait_all_tasks_blocked()
        assert outbox.put(frame(4))
        await anyio.wait_all_tasks_blocked()
        outbox.close()
    assert batches == [[1, 2, 3], [4]]


async def test_frames_that_wait_when_the_outbox_is_closed_can_still_be_taken() -> None:
    outbox = Outbox()
    outbox.put(ONE)
    outbox.close()
    assert outbox.closed
    assert not outbox.put(ONE)
    assert await outbox.take() == [ONE]
    assert await outbox.take() == []


async def test_take_that_was_cancelled_loses_nothing() -> None:
    outbox = Outbox()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.take)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    outbox.put(ONE)
    with anyio.fail_after(5):
        assert await outbox.take() == [ONE]


def test_outbox_holds_so_many_frames_and_no_more() -> None:
    outbox = Outbox()
    assert all(outbox.put(ONE) for _ in range(OUTBOX_EVENTS))
    assert not outbox.put(ONE)
    assert len(outbox) == OUTBOX_EVENTS == 1_024
    assert not outbox.closed
    assert len(outbox.take_nowait()) == OUTBOX_EVENTS
    assert outbox.put(ONE)


def test_outbox_holds_so_many_bytes_and_no_more() -> None:
    outbox = Outbox(size_bytes=2 * SIZE)
    assert [outbox.put(ONE) for _ in range(3)] == [True, True, False]
    outbox.take_nowait()
    assert [outbox.put(ONE) for _ in range(3)] == [True, True, False]
    assert OUTBOX_BYTES == 4 * 1_048_576


def test_frame_larger_than_the_bound_goes_into_an_empty_outbox_only() -> None:
    outbox = Outbox(size_bytes=SIZE - 1)
    assert outbox.put(ONE)
    assert not outbox.put(ONE)


@given(st.lists(st.sampled_from(["put", "take"]) | st.integers(1, 60), max_size=40))
def test_outbox_is_a_queue_within_its_bounds(steps: list[str | int]) -> None:
    """Beside a plain list; a number is a frame with a payload of that many characters."""
    outbox, model = Outbox(events=4, size_bytes=5 * SIZE), list[Frame]()
    for step in steps:
        if step == "take":
            assert outbox.take_nowait() == model
            model.clear()
            continue
        new = frame(payload={"a": "x" * step}) if isinstance(step, int) else ONE
        waiting = sum(len(held.data) for held in model)
        fits = not model or (len(model) < 4 and waiting + len(new.data) <= 5 * SIZE)
        assert outbox.put(new) is fits
        if fits:
            model.append(new)
        assert len(outbox) == len(model)
