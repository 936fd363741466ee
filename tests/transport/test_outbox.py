"""The bounded queue between the hub, which never waits, and one socket, which may be slow."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekit.events import COALESCIBLE, EventType, Frame
from bridgekit.ids import RunId
from bridgekit.transport.outbox import OUTBOX_BYTES, OUTBOX_EVENTS, Outbox
from tests.samples import frame


def thought(seq: int, run: str = "run_1") -> Frame:
    return Frame(seq, EventType.AGENT_THINKING, RunId(run), b"x" * 10)


def progress(seq: int, run: str = "run_1") -> Frame:
    return Frame(seq, EventType.PROGRESS_UPDATE, RunId(run), b"x" * 10)


def tool(seq: int) -> Frame:
    return Frame(seq, EventType.TOOL_EXECUTING, RunId("run_1"), b"x" * 10)


def seqs(outbox: Outbox) -> list[int]:
    return [taken.seq for taken in outbox.take()]


def test_what_was_put_comes_out_in_order_and_once() -> None:
    outbox = Outbox()
    assert all(outbox.put(frame(seq)) for seq in (1, 2, 3))
    assert [taken.seq for taken in outbox.take(2)] == [1, 2]
    assert outbox.put(frame(4))
    assert seqs(outbox) == [3, 4]
    assert outbox.take() == []


def test_outbox_holds_so_many_frames_and_no_more() -> None:
    outbox = Outbox()
    assert all(outbox.put(tool(seq)) for seq in range(1, OUTBOX_EVENTS + 1))
    assert not outbox.put(tool(OUTBOX_EVENTS + 1))
    assert len(outbox) == OUTBOX_EVENTS == 1_024
    assert len(outbox.take()) == OUTBOX_EVENTS
    assert outbox.put(tool(OUTBOX_EVENTS + 1))


def test_outbox_holds_so_many_bytes_and_no_more() -> None:
    outbox = Outbox(size_bytes=20)
    assert [outbox.put(tool(seq)) for seq in (1, 2, 3)] == [True, True, False]
    outbox.take(1)
    assert [outbox.put(tool(seq)) for seq in (3, 4)] == [True, False]
    assert OUTBOX_BYTES == 4 * 1_048_576


def test_frame_larger_than_the_bound_goes_into_an_empty_outbox_only() -> None:
    outbox = Outbox(size_bytes=9)
    assert outbox.put(tool(1))
    assert not outbox.put(tool(2))


def test_frame_that_comes_again_is_taken_once() -> None:
    outbox = Outbox(events=2)
    assert [outbox.put(tool(seq)) for seq in (1, 1, 2, 2, 1)] == [True] * 5
    assert seqs(outbox) == [1, 2]
    assert outbox.put(tool(2))
    assert seqs(outbox) == []


def test_nothing_is_coalesced_while_there_is_room() -> None:
    outbox = Outbox(events=4)
    assert all(outbox.put(thought(seq)) for seq in (1, 2, 3, 4))
    assert seqs(outbox) == [1, 2, 3, 4]
    assert outbox.coalesced == 0


def test_latest_of_a_run_and_type_stands_for_the_earlier_ones_when_it_is_full() -> None:
    outbox = Outbox(events=4)
    for each in (thought(1), thought(2, "run_2"), progress(3), tool(4), thought(5), progress(6), thought(7)):
        assert outbox.put(each)
    assert seqs(outbox) == [2, 4, 6, 7]
    assert outbox.coalesced == 3


def test_what_must_be_delivered_is_never_dropped() -> None:
    outbox = Outbox(events=2)
    assert outbox.put(tool(1))
    assert outbox.put(thought(2))
    assert outbox.put(thought(3))
    assert not outbox.put(tool(4))
    assert seqs(outbox) == [1, 3]


def test_latest_of_each_run_and_type_is_never_dropped() -> None:
    outbox = Outbox(events=2)
    assert [outbox.put(each) for each in (thought(1), thought(2, "run_2"), progress(3))] == [True, True, False]
    assert seqs(outbox) == [1, 2]


def test_bytes_make_room_too() -> None:
    outbox = Outbox(size_bytes=30)
    assert all(outbox.put(each) for each in (thought(1), thought(2), thought(3)))
    assert outbox.put(Frame(4, EventType.TOOL_EXECUTING, RunId("run_1"), b"x" * 20))
    assert seqs(outbox) == [3, 4]


def test_frame_that_was_taken_is_not_dropped_afterwards() -> None:
    outbox = Outbox(events=2)
    outbox.put(thought(1))
    assert seqs(outbox) == [1]
    assert all(outbox.put(each) for each in (thought(2), thought(3)))
    assert outbox.put(tool(4))
    assert seqs(outbox) == [3, 4]
    assert outbox.made_room_before(4) == [(2, 2)]


def test_frame_that_was_taken_before_the_rest_is_not_superseded_afterwards() -> None:
    outbox = Outbox(events=2)
    assert all(outbox.put(each) for each in (thought(1), tool(2)))
    assert [taken.seq for taken in outbox.take(1)] == [1]
    assert outbox.put(thought(3))
    assert not outbox.put(tool(4))
    assert seqs(outbox) == [2, 3]


def test_numbers_that_made_room_are_told_once_and_as_ranges() -> None:
    outbox = Outbox(events=2)
    for seq in range(1, 7):
        outbox.put(thought(seq))
    outbox.put(tool(7))
    assert outbox.made_room_before(6) == [(1, 5)]
    assert outbox.made_room_before(6) == []


def test_frames_that_were_sent_another_way_are_let_go_also_when_they_come_later() -> None:
    outbox = Outbox()
    for seq in (3, 4, 5):
        outbox.put(frame(seq))
    outbox.drop_up_to(6)
    assert [outbox.put(frame(seq)) for seq in (6, 7)] == [True, True]
    assert seqs(outbox) == [7]


def test_what_is_remembered_of_a_flood_does_not_grow() -> None:
    """One run that says nothing but thoughts, to a socket that reads nothing."""
    outbox = Outbox(events=8)
    for seq in range(1, 5_001):
        assert outbox.put(thought(seq))
    assert len(outbox) == 8
    assert outbox._crowd is not None
    assert len(outbox._crowd._latest) == 1
    assert len(outbox._crowd._superseded) <= 8
    assert outbox._made_room is not None
    assert len(outbox._made_room) == 1


def test_what_is_remembered_of_a_socket_that_lags_behind_for_ever_does_not_grow() -> None:
    """It reads as fast as is spoken, so that nothing has to make room; and never all."""
    outbox = Outbox(events=8)
    for seq in range(1, 5_001):
        assert outbox.put(thought(seq))
        if len(outbox) > 4 and seq >= 9:
            outbox.take(1)
    assert outbox.coalesced == 1
    assert outbox._crowd is not None
    assert len(outbox._crowd._superseded) <= 8


def test_nobody_asks_what_may_make_room_before_it_is_full_nor_after_all_was_taken() -> None:
    outbox, asked = Outbox(events=8), list[bool]()
    for seq in range(1, 10):
        assert outbox.put(thought(seq))
        asked.append(outbox._crowd is not None)
    assert seqs(outbox) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert outbox.put(thought(10))
    assert [*asked, outbox._crowd is not None] == [False] * 8 + [True, False]
    assert outbox.made_room_before(10) == [(1, 1)]


frames = st.tuples(st.sampled_from(list(EventType)), st.sampled_from(["a", "b"]), st.integers(1, 40))


@settings(deadline=None)
@given(st.lists(st.just("take") | st.integers(1, 3) | frames, max_size=60))
def test_outbox_is_a_queue_within_its_bounds(steps: list[str | int | tuple[EventType, str, int]]) -> None:
    """Beside a plain list. "take" takes all, a number so many, and a triple is put: type, run and size."""
    outbox, model, told = Outbox(events=4, size_bytes=80), list[Frame](), list[int]()
    for seq, step in enumerate(steps, 1):
        if not isinstance(step, tuple):
            count = len(model) if step == "take" else int(step)
            taken, model = model[:count], model[count:]
            assert outbox.take(None if step == "take" else count) == taken
            continue
        new = Frame(seq, step[0], RunId(step[1]), b"x" * step[2])
        fits = _put(model, new, told)
        assert outbox.put(new) is fits
        assert len(outbox) == len(model)
        assert outbox._crowd is None or len(outbox._crowd._superseded) <= 4
    gone = [seq for first, last in outbox.made_room_before(len(steps) + 1) for seq in range(first, last + 1)]
    assert gone == sorted(told)


def _put(model: list[Frame], new: Frame, told: list[int]) -> bool:
    """The rule, said plainly: while it does not fit, the oldest frame goes for which a later one stands."""
    queue = [*model, new]
    while model and (len(queue) > 4 or sum(len(each.data) for each in queue) > 80):
        superseded = [
            each
            for place, each in enumerate(queue[:-1])
            if each.type in COALESCIBLE
            and any((later.type, later.run_id) == (each.type, each.run_id) for later in queue[place + 1 :])
        ]
        if not superseded:
            return False
        # The one whose successor came first was superseded first.
        first = min(superseded, key=lambda each: _successor(queue, each))
        queue.remove(first)
        model.remove(first)
        told.append(first.seq)
    model.append(new)
    return True


def _successor(queue: list[Frame], frame: Frame) -> int:
    return next(
        later.seq
        for later in queue
        if later.seq > frame.seq and (later.type, later.run_id) == (frame.type, frame.run_id)
    )
