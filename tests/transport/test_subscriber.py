"""One subscription, whatever carries its bytes."""

from __future__ import annotations

import msgspec
from bridgekit.transport.subscriber import BATCH_FRAMES, Subscriber

from bridgekit.events import EventType, Frame
from bridgekit.ids import RunId
from bridgekit.signals import Cursor, Gap, GapReason, Subscribed, decode_any
from bridgekit.transport.admission import Subscription
from bridgekit.transport.log import Replay
from bridgekit.transport.outbox import Outbox
from tests.samples import ALICE, RUN, THREAD, frame

EPOCH = "0" * 16


class Watched(Subscriber):
    """A subscriber with nobody behind it, and how often it was woken and cut."""

    woken = was_cut = 0

    def wake(self) -> None:
        self.woken += 1

    def cut(self) -> None:
        self.was_cut += 1


class Carrier:
    """What a subscriber says to whatever carries its bytes."""

    def __init__(self, outbox: Outbox | None = None) -> None:
        self.socket = Watched(Subscription(ALICE, THREAD), outbox=outbox)

    @property
    def woken(self) -> int:
        return self.socket.woken

    @property
    def cut(self) -> int:
        return self.socket.was_cut

    def begin(self, seq: int = 0, *frames: Frame, gap: Gap | None = None, expired: Gap | None = None) -> list[str]:
        return said(self.socket.begin(Replay(Cursor(EPOCH, seq), frames, gap, expired)))

    def put(self, *frames: Frame) -> list[bool]:
        return [self.socket.put(each) for each in frames]

    def take(self) -> list[str]:
        return said(self.socket.take())


def said(frames: list[bytes]) -> list[str]:
    """What a client reads, in short."""
    items = map(decode_any, frames)
    return [
        f"hello {item.seq}"
        if isinstance(item, Subscribed)
        else f"{item.first}-{item.last or ''} {item.reason}"
        if isinstance(item, Gap)
        else str(item.seq)
        for item in items
    ]


def thought(seq: int, run: RunId = RUN) -> Frame:
    return msgspec.structs.replace(frame(seq), type=EventType.AGENT_THINKING, run_id=run)


def gap(first: int, last: int | None, reason: GapReason) -> Gap:
    return Gap(thread_id=THREAD, epoch=EPOCH, first=first, last=last, reason=reason)


def test_confirmation_comes_first_then_the_gaps_then_the_replay_then_what_was_put_meanwhile() -> None:
    carrier = Carrier()
    assert carrier.put(frame(8), frame(9)) == [True, True]
    gaps = {"gap": gap(3, None, GapReason.RESTARTED), "expired": gap(1, 5, GapReason.EXPIRED)}
    assert carrier.begin(5, frame(6), frame(7), **gaps) == ["hello 5", "3- restarted", "1-5 expired", "6", "7"]
    assert carrier.take() == ["8", "9"]
    assert carrier.take() == []


def test_event_in_the_replay_and_in_what_was_put_is_sent_once() -> None:
    carrier = Carrier()
    carrier.put(frame(6), frame(7), frame(8))
    assert carrier.begin(5, frame(6), frame(7)) == ["hello 5", "6", "7"]
    assert carrier.take() == ["8"]


def test_event_of_the_replay_that_is_put_only_after_it_is_sent_once() -> None:
    """A store that workers share hands an event to its log first, and to the workers a moment later."""
    carrier = Carrier()
    assert carrier.begin(5, frame(6), frame(7)) == ["hello 5", "6", "7"]
    assert carrier.put(frame(6), frame(7), frame(8)) == [True] * 3
    assert carrier.take() == ["8"]


def test_socket_that_resumes_nothing_is_not_sent_what_is_past() -> None:
    carrier = Carrier()
    carrier.put(frame(5))
    assert carrier.begin(5) == ["hello 5"]
    assert carrier.put(frame(5), frame(6)) == [True, True]
    assert carrier.take() == ["6"]


def test_number_that_is_left_out_is_told_as_lost_before_the_next() -> None:
    carrier = Carrier()
    assert carrier.begin(0, frame(2)) == ["hello 0", "1-1 lost", "2"]
    carrier.put(frame(5), frame(6))
    assert carrier.take() == ["3-4 lost", "5", "6"]
    assert carrier.socket.gaps == {GapReason.LOST: 2}


def test_what_was_coalesced_is_told_as_such_and_beside_it_what_was_lost() -> None:
    carrier = Carrier(Outbox(events=3))
    carrier.begin()
    assert carrier.put(thought(2), thought(3), thought(4), thought(5), frame(8)) == [True] * 5
    assert carrier.take() == ["1-1 lost", "2-3 coalesced", "4", "5", "6-7 lost", "8"]
    assert carrier.socket.gaps == {GapReason.LOST: 2, GapReason.COALESCED: 1}


def test_what_made_room_while_it_joined_and_is_in_the_replay_is_not_told_as_missing() -> None:
    carrier = Carrier(Outbox(events=2))
    carrier.put(thought(1), thought(2), thought(3), thought(4))
    assert carrier.begin(0, *map(frame, (1, 2, 3))) == ["hello 0", "1", "2", "3"]
    assert carrier.take() == ["4"]


def test_what_made_room_while_it_joined_and_is_only_partly_in_the_replay_is_told_for_the_rest() -> None:
    carrier = Carrier(Outbox(events=2))
    carrier.put(*map(thought, range(1, 7)))
    assert carrier.begin(0, frame(1), frame(2)) == ["hello 0", "1", "2"]
    assert carrier.take() == ["3-4 coalesced", "5", "6"]


def test_what_made_room_long_ago_and_was_in_the_replay_is_not_told_in_a_later_gap_either() -> None:
    carrier = Carrier(Outbox(events=2))
    carrier.put(thought(1), thought(2), thought(3), thought(4))
    assert carrier.begin(0, *map(frame, (1, 2, 3, 4))) == ["hello 0", "1", "2", "3", "4"]
    carrier.put(frame(7))
    assert carrier.take() == ["5-6 lost", "7"]


def test_bound_holds_while_it_joins() -> None:
    carrier = Carrier(Outbox(events=2))
    assert carrier.put(frame(1), frame(2), frame(3)) == [True, True, False]
    assert (carrier.cut, carrier.socket.code) == (1, 4008)


def test_bound_of_bytes_holds_while_it_joins() -> None:
    carrier = Carrier(Outbox(size_bytes=2 * len(frame(1).data)))
    assert carrier.put(frame(1), frame(2), frame(3)) == [True, True, False]
    assert (carrier.cut, carrier.socket.code) == (1, 4008)


def test_socket_that_is_full_of_what_must_be_delivered_is_cut_off_once_and_takes_no_more() -> None:
    carrier = Carrier(Outbox(events=1))
    carrier.begin()
    assert carrier.put(frame(1), frame(2), frame(3)) == [True, False, False]
    assert (carrier.cut, carrier.woken, carrier.socket.code) == (1, 1, 4008)
    assert carrier.socket.unwritten == 1


def test_drained_socket_takes_no_more_and_gives_what_it_has() -> None:
    carrier = Carrier()
    carrier.begin()
    carrier.put(frame(1))
    carrier.socket.drain()
    carrier.socket.restart()
    assert carrier.put(frame(2)) == [False]
    assert (carrier.take(), carrier.woken, carrier.cut) == (["1"], 2, 0)
    assert carrier.socket.code == 4000


def test_drained_socket_that_is_cut_off_keeps_its_code() -> None:
    carrier = Carrier()
    carrier.socket.drain()
    carrier.socket.cut_off()
    assert (carrier.socket.code, carrier.cut) == (4000, 1)


def test_restarted_socket_takes_nothing_of_the_new_numbering() -> None:
    carrier = Carrier()
    carrier.begin(9)
    carrier.put(frame(10))
    carrier.socket.restart()
    assert carrier.put(frame(1)) == [False]
    assert carrier.take() == ["10"]
    assert carrier.socket.code == 4001


def test_edge_takes_so_many_frames_at_a_time_and_what_it_has_in_hand_counts_as_unwritten() -> None:
    carrier = Carrier()
    carrier.begin()
    carrier.put(*map(frame, range(1, BATCH_FRAMES + 11)))
    assert len(carrier.take()) == BATCH_FRAMES
    assert (carrier.socket.in_hand, carrier.socket.unwritten) == (BATCH_FRAMES, BATCH_FRAMES + 10)
    carrier.socket.in_hand = 0
    assert carrier.take() == [str(seq) for seq in range(BATCH_FRAMES + 1, BATCH_FRAMES + 11)]
