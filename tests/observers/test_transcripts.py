"""Planted differences: two accounts of three sockets that disagree in one place, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bridgekit.events import EventType, RoutedEvent, encode
from bridgekit.ids import RunId
from bridgekit_verify.measure.checker import check
from tests.factories import NOON
from tests.observers.transcripts import Transcript, differences, judged, seen_by
from tests.verify.measure.histories import EVENTS_PER_THREAD, SOCKETS, clean, key
from tests.verify.measure.histories import differences as changes

DRAINED = 4_000
Tampering = Callable[[Transcript], object]


def account() -> Transcript:
    """What a client reads in the run of `histories.clean`: on each socket the confirmation and five events."""
    transcript = Transcript()
    for socket in SOCKETS:
        transcript.add_frame(socket.number, '{"type":"subscribed"}')
        for seq in range(1, EVENTS_PER_THREAD + 1):
            event = RoutedEvent(
                type=EventType.AGENT_THINKING,
                thread_id=socket.thread_id,
                run_id=RunId("run"),
                agent_name="researcher",
                seq=seq,
                event_id=f"{socket.thread_id} {seq}",
                timestamp=NOON,
                payload={"reasoning": f"{key(socket, seq).request}: Zürich", "step_number": seq},
            )
            transcript.add_frame(socket.number, encode(event).decode())
        transcript.closed[socket.number] = DRAINED
    return transcript


def alter(theirs: Transcript) -> None:
    theirs.frames[0][2] = str(theirs.frames[0][2]).replace("Zürich", "Zurich")


def lose(theirs: Transcript) -> None:
    del theirs.frames[0][5]


def swap(theirs: Transcript) -> None:
    theirs.frames[0][2:4] = reversed(theirs.frames[0][2:4])


def double(theirs: Transcript) -> None:
    theirs.frames[0].append(theirs.frames[0][-1])


def send_to_bob(theirs: Transcript) -> None:
    theirs.frames[2].append(theirs.frames[0].pop())


def hear_nothing(theirs: Transcript) -> None:
    del theirs.frames[0][1:]


PLANTED: list[tuple[Tampering, list[str], dict[str, int]]] = [
    (alter, ["socket 0, frame 2"], {}),
    (lose, ["socket 0, frame 5"], {"delivered": -1, "lost_silent": 1, "frames": -1, "false_success": 1}),
    (swap, ["socket 0, frame 2", "socket 0, frame 3"], {"reordered": 1, "reordering_extent": 1}),
    (double, ["socket 0, frame 6"], {"extra_copies": 1, "frames": 1}),
    (
        send_to_bob,
        ["socket 0, frame 5", "socket 2, frame 6"],
        {"delivered": -1, "lost_silent": 1, "wrong_user": 1, "false_success": 1},
    ),
    (
        hear_nothing,
        [f"socket 0, frame {number}" for number in range(1, 6)],
        {"delivered": -5, "lost_silent": 5, "frames": -5, "false_success": 5},
    ),
]
PLACES_AND_COUNTS = pytest.mark.parametrize(
    ("tamper", "places", "counts"), PLANTED, ids=lambda value: value.__name__ if callable(value) else ""
)


def test_two_accounts_of_one_run_do_not_differ() -> None:
    assert differences(account(), account()) == []
    assert judged(seen_by(account(), clean())) == judged(clean())


@PLACES_AND_COUNTS
def test_planted_difference_is_named_whoever_made_it(
    tamper: Tampering, places: list[str], counts: dict[str, int]
) -> None:
    theirs = account()
    tamper(theirs)
    assert [found.partition(":")[0] for found in differences(account(), theirs)] == places
    assert [found.partition(":")[0] for found in differences(theirs, account())] == places


@PLACES_AND_COUNTS
def test_planted_difference_is_counted_unless_the_event_is_the_same(
    tamper: Tampering, places: list[str], counts: dict[str, int]
) -> None:
    """Another byte in an event that still is the same event changes no count: hence the frames, not only the counts."""
    theirs = account()
    tamper(theirs)
    seen = seen_by(theirs, clean())
    found: dict[str, Any] = changes(check(clean()), check(seen))
    assert {name: count for name, count in found.items() if isinstance(count, int)} == counts
    assert (judged(seen) == judged(clean())) is (tamper is alter)


def test_close_code_of_one_socket_is_compared() -> None:
    theirs = account()
    theirs.closed[1] = 1_006
    assert differences(account(), theirs) == ["socket 1: ours closed with 4000, theirs with 1006"]
    del theirs.closed[1]
    assert differences(account(), theirs) == ["socket 1: ours closed with 4000, theirs with None"]


def test_binary_frame_is_not_the_same_as_its_text() -> None:
    theirs = account()
    theirs.frames[0][1] = str(theirs.frames[0][1]).encode()
    assert len(differences(account(), theirs)) == 1


def test_line_that_is_not_of_the_protocol_is_refused() -> None:
    for line in (b'{"text":"no socket"}', b'{"socket":0,"said":"hello"}', b"no JSON"):
        with pytest.raises(msgspec.DecodeError):
            Transcript().add_line(line)


def test_transcript_is_made_of_lines() -> None:
    transcript = Transcript()
    for line in ('{"socket":1,"text":"Zürich"}', '{"socket":1,"text":""}', '{"socket":1,"closed":4000}'):
        transcript.add_line(line.encode())
    assert transcript == Transcript({1: ["Zürich", ""]}, {1: DRAINED})
