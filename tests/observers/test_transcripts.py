"""Transcripts of three sockets that differ in one place: the difference is located and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bridgekit.events import EventType, RoutedEvent, encode
from bridgekit.ids import RunId
from bridgekit_verify.measure.checker import check
from tests.factories import NOON
from tests.observers.transcripts import Transcript, differences, history_from, verdict_and_rows
from tests.verify.measure.histories import EVENTS_PER_THREAD, SOCKETS, clean, key
from tests.verify.measure.histories import differences as changes

DRAINED = 4_000
Tampering = Callable[[Transcript], object]


def complete_transcript() -> Transcript:
    """Return what a client reads in the run of `histories.clean`: a confirmation and five events on each socket."""
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


def receive_nothing(theirs: Transcript) -> None:
    del theirs.frames[0][1:]


DIFFERENCES: list[tuple[Tampering, list[str], dict[str, int]]] = [
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
        receive_nothing,
        [f"socket 0, frame {number}" for number in range(1, 6)],
        {"delivered": -5, "lost_silent": 5, "frames": -5, "false_success": 5},
    ),
]
EACH_DIFFERENCE = pytest.mark.parametrize(
    ("tamper", "locations", "counts"), DIFFERENCES, ids=lambda value: value.__name__ if callable(value) else ""
)


def test_equal_transcripts_have_no_differences() -> None:
    assert differences(complete_transcript(), complete_transcript()) == []
    assert verdict_and_rows(history_from(complete_transcript(), clean())) == verdict_and_rows(clean())


@EACH_DIFFERENCE
def test_difference_in_either_transcript_is_located(
    tamper: Tampering, locations: list[str], counts: dict[str, int]
) -> None:
    theirs = complete_transcript()
    tamper(theirs)
    assert [found.partition(":")[0] for found in differences(complete_transcript(), theirs)] == locations
    assert [found.partition(":")[0] for found in differences(theirs, complete_transcript())] == locations


@EACH_DIFFERENCE
def test_difference_changes_the_verdict_unless_the_event_is_the_same(
    tamper: Tampering, locations: list[str], counts: dict[str, int]
) -> None:
    """A changed byte that leaves the event's identity intact changes no count, so frames are compared as well."""
    theirs = complete_transcript()
    tamper(theirs)
    seen = history_from(theirs, clean())
    found: dict[str, Any] = changes(check(clean()), check(seen))
    assert {name: count for name, count in found.items() if isinstance(count, int)} == counts
    assert (verdict_and_rows(seen) == verdict_and_rows(clean())) is (tamper is alter)


def test_close_code_of_one_socket_is_compared() -> None:
    theirs = complete_transcript()
    theirs.closed[1] = 1_006
    assert differences(complete_transcript(), theirs) == ["socket 1: ours closed with 4000, theirs with 1006"]
    del theirs.closed[1]
    assert differences(complete_transcript(), theirs) == ["socket 1: ours closed with 4000, theirs with None"]


def test_binary_frame_is_not_the_same_as_its_text() -> None:
    theirs = complete_transcript()
    theirs.frames[0][1] = str(theirs.frames[0][1]).encode()
    assert len(differences(complete_transcript(), theirs)) == 1


def test_invalid_line_raises() -> None:
    for line in (b'{"text":"no socket"}', b'{"socket":0,"said":"hello"}', b"no JSON"):
        with pytest.raises(msgspec.DecodeError):
            Transcript().add_line(line)


def test_transcript_is_read_from_lines() -> None:
    transcript = Transcript()
    for line in ('{"socket":1,"text":"Zürich"}', '{"socket":1,"text":""}', '{"socket":1,"closed":4000}'):
        transcript.add_line(line.encode())
    assert transcript == Transcript({1: ["Zürich", ""]}, {1: DRAINED})
