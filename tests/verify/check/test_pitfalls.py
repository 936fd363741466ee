"""What looks like a fault and is none, and what must never raise."""

from __future__ import annotations

import copy
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import load_table
from bridgekit_verify.check.property_answers import Property, State
from bridgekit_verify.errors import UnusableRecording
from tests.verify.check import samples
from tests.verify.check.mutations import MUTATIONS
from tests.verify.check.samples import DIALECTS, TABLE, Line, ag_ui, recording, write
from tests.verify.check.test_check import broken, check, save, states


def test_end_marker_of_a_response_is_no_frame_after_the_end(tmp_path: Path) -> None:
    body = "".join(f"data: {json.dumps(value)}\n\n" for value in samples.vercel("r", "t"))
    path = tmp_path / "a.txt"
    path.write_text(body + "data: [DONE]\n\n", encoding="utf-8")
    assert states(check_recording(str(path)))[Property.END_LAST] is State.HOLDS


def test_result_of_a_call_of_an_earlier_run_is_not_broken(tmp_path: Path) -> None:
    run = list(ag_ui("r", "t"))
    result = {"type": "TOOL_CALL_RESULT", "messageId": "m", "toolCallId": "earlier", "content": "yes"}
    found = check_recording(save(tmp_path / "a.jsonl", run[0], result, *run[1:]))
    assert broken(found) == {}
    assert states(found)[Property.CALLS] is State.UNKNOWN


def test_error_that_names_no_run_leaves_it_open_which_of_two_ended(tmp_path: Path) -> None:
    starts = [{"type": "RUN_STARTED", "threadId": f"t{n}", "runId": f"r{n}"} for n in (1, 2)]
    found = check_recording(save(tmp_path / "a.jsonl", *starts, {"type": "RUN_ERROR", "message": "x"}))
    assert broken(found) == {}
    assert states(found)[Property.ENDED] is State.UNKNOWN


def test_open_calls_of_a_run_that_failed_are_not_broken(tmp_path: Path) -> None:
    run = list(ag_ui("r", "t"))[:6]
    assert broken(check_recording(save(tmp_path / "a.jsonl", *run, {"type": "RUN_ERROR", "message": "x"}))) == {}


def test_run_that_continues_at_the_next_socket_of_its_user_is_not_broken(tmp_path: Path) -> None:
    lines = [Line("s1", "ann", "t", value) for value in ag_ui("r", "t")]
    moved = [*lines[:3], *(line._replace(socket="s2") for line in lines[3:])]
    assert Property.ENDED not in broken(check_recording(str(write(tmp_path / "a.jsonl", moved))))


def test_run_that_ends_at_one_of_two_tabs_is_broken(tmp_path: Path) -> None:
    lines = [Line(socket, "ann", "t", value) for value in ag_ui("r", "t") for socket in ("s1", "s2")]
    assert broken(check_recording(str(write(tmp_path / "both.jsonl", lines)))) == {}
    del lines[-2]
    later = [Line("s1", "ann", "t", value) for value in ag_ui("r2", "t")]
    found = check_recording(str(write(tmp_path / "a.jsonl", [*lines, *later])))
    assert broken(found)[Property.ENDED] == ["run r"]


def test_numbering_that_the_server_restarts_is_no_duplicate(tmp_path: Path) -> None:
    second = [{**value, "epoch": "1" * 16} if value["type"] == "subscribed" else value
              for value in samples.bridgekit("r2", "t")]  # fmt: skip
    found = check_recording(save(tmp_path / "a.jsonl", *samples.bridgekit("r1", "t"), "---", *second))
    assert broken(found) == {}


def test_superseded_events_that_the_server_announces_are_not_lost(tmp_path: Path) -> None:
    run = list(samples.bridgekit("r", "t"))
    gap = {"type": "gap", "thread_id": "t", "epoch": "0" * 16, "from": 2, "to": 2, "reason": "coalesced"}
    assert broken(check_recording(save(tmp_path / "a.jsonl", *run[:2], gap, *run[3:]))) == {}
    expired = {**gap, "reason": "expired"}
    found = broken(check_recording(save(tmp_path / "b.jsonl", *run[:2], expired, *run[3:])))
    assert list(found) == [Property.LOST]


def test_chunks_of_ag_ui_need_no_start_and_end(tmp_path: Path) -> None:
    run = list(ag_ui("r", "t", snapshot=False))
    first = {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "role": "assistant", "delta": "a"}
    call = {"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "toolCallName": "x", "delta": '{"a":'}
    chunks = [first, {"type": "TEXT_MESSAGE_CHUNK", "delta": "b"}, call, {"type": "TOOL_CALL_CHUNK", "delta": "1}"}]
    function = {"name": "x", "arguments": '{"a":1}'}
    message = {"id": "m", "role": "assistant", "content": "ab", "toolCalls": [{"id": "c", "function": function}]}
    snapshot = {"type": "MESSAGES_SNAPSHOT", "messages": [message]}
    found = check_recording(save(tmp_path / "a.jsonl", run[0], *chunks, snapshot, run[-1]))
    assert broken(found) == {}
    assert {states(found)[each] for each in (Property.TEXT, Property.ARGUMENTS)} == {State.HOLDS}
    del chunks[1]
    found = check_recording(save(tmp_path / "b.jsonl", run[0], *chunks, snapshot, run[-1]))
    assert broken(found)[Property.TEXT] == ["message m"]


LINES = [line for line in TABLE.splitlines() if " = " in line and "name =" not in line]


@pytest.mark.parametrize("line", LINES)
def test_answers_without_a_line_of_the_table_only_become_unknown(line: str, tmp_path: Path) -> None:
    """For a sound recording and for every kind of damage: nothing begins to hold, and nothing sound is broken."""
    less = tmp_path / "less.toml"
    less.write_text(TABLE.replace(line, "", 1), encoding="utf-8")
    sound = recording("chat")
    field = line.partition(" ")[0]
    damaged = {name: mutate(sound, random.Random(1)) for name, (mutate, _) in MUTATIONS.items()}
    for name, lines in {"sound": sound, **damaged}.items():
        path = write(tmp_path / "a.jsonl", lines)
        before, after = states(check("chat", path)), check_recording(str(path), dialect=load_table(str(less)))
        found = states(after)
        assert not {each for each in found if found[each] is State.HOLDS and before[each] is not State.HOLDS}, name
        if name == "sound":
            assert State.BROKEN not in found.values()
            changed = [each for each in after.answers if each.state is not before[each.property]]
            assert all(field in each.reason for each in changed), changed


JUNK: list[Any] = [None, True, 0, -1, 10**30, 1.5, "", "x", "\x00", [], [[]], {}, {"type": []}, ["a"], "run-s1"]


def with_junk(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Replace one value, at any depth, by something else, or remove it."""
    damaged = copy.deepcopy(value)
    place: Any = damaged
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
            place = place[key]
            continue
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(JUNK)
        return damaged


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_value_of_a_frame_raises(dialect: str, tmp_path: Path) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        lines = [line._replace(value=with_junk(line.value, rng)) if rng.random() < 0.4 else line
                 for line in recording(dialect)]  # fmt: skip
        with suppress(UnusableRecording):
            check(dialect, write(tmp_path / "a.jsonl", lines))
