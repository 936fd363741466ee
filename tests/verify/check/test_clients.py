"""What clients share: threads, sockets, ids and streams, and where a recording of them begins."""

from __future__ import annotations

import json
import os
import sys
import threading
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from bridgekit.__main__ import main
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import parse_table
from bridgekit_verify.check.dialects import built_in
from bridgekit_verify.check.property_answers import Property, State
from tests.verify.check.protocol_samples import PROTOCOLS, TEXT, ag_ui_assistant, ag_ui_run, streamed
from tests.verify.check.samples import DIALECTS, WORDS, Line, Value, ag_ui, write
from tests.verify.check.test_check import broken, check, save, states


def interleaved(*runs: Sequence[Line]) -> list[Line]:
    return [line for row in zip(*runs, strict=True) for line in row]


def lines(socket: str, user: str, thread: str, values: Sequence[Value]) -> list[Line]:
    return [Line(socket, user, thread, value) for value in values]


@pytest.mark.parametrize("start", range(0, 20, 3))
@pytest.mark.parametrize("user", ["ann", "ben"])
def test_client_that_joins_a_thread_during_a_run_is_not_broken(user: str, start: int, tmp_path: Path) -> None:
    values = list(ag_ui("r", "t"))
    first, second = lines("s1", "ann", "t", values), lines("s2", user, "t", values)
    path = write(tmp_path / "a.jsonl", [*first[:start], *interleaved(first[start:], second[start:])])
    assert broken(check_recording(str(path))) == {}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_recording_that_begins_in_the_middle_is_not_broken(name: str, tmp_path: Path) -> None:
    run, table = PROTOCOLS[name]
    values = list(run("r"))
    whole = save(tmp_path / "whole.jsonl", *values)
    dialect = parse_table(tomllib.loads(table)["dialect"], "t") if table else built_in(check_recording(whole).dialect)
    for start in range(2 if table else 1, len(values)):  # the first two start one run each
        path = save(tmp_path / "a.jsonl", *values[start:])
        assert broken(check_recording(path, dialect=dialect)) == {}, start


def test_socket_of_several_threads_is_judged_by_what_each_line_states(tmp_path: Path) -> None:
    first, second = (lines("s1", "ann", f"t{n}", list(ag_ui(f"r{n}", f"t{n}"))) for n in (1, 2))
    assert broken(check_recording(str(write(tmp_path / "a.jsonl", interleaved(first, second))))) == {}
    moved = [line._replace(thread="t1") if line.value["type"] == "RUN_FINISHED" else line for line in second]
    found = check_recording(str(write(tmp_path / "b.jsonl", interleaved(first, moved))))
    assert list(broken(found)) == [Property.THREAD]


@pytest.mark.parametrize("name", ["OpenAI Responses", "chat", "bridgekit"])
def test_runs_at_once_at_one_socket_are_not_broken(name: str, tmp_path: Path) -> None:
    """Most events of OpenAI do not name their response."""
    runs = [lines("s", "ann", "t", list(DIALECTS[name](f"r{n}", f"t{n}"))) for n in range(3)]
    path = write(tmp_path / "a.jsonl", [line._replace(thread="") for line in interleaved(*runs)])
    assert broken(check(name, path)) == {}


def test_lines_need_not_repeat_what_they_state(tmp_path: Path) -> None:
    """Any line of a socket may state its user and thread. A frame of another thread is then foreign."""
    values = [*ag_ui("r", "t"), {"type": "RUN_STARTED", "threadId": "other", "runId": "q"}]
    rows: list[Value] = [{"socket": "s", "frame": value} for value in values]
    rows[3] |= {"user": "ann", "thread": "t"}
    assert Property.THREAD in broken(check_recording(save(tmp_path / "a.jsonl", *rows)))


def test_ids_that_each_user_has_are_not_foreign(tmp_path: Path) -> None:
    """Backends number the runs of each thread. Of one thread, the recording has only the end."""
    runs = [lines(f"s{n}", user, f"t{n}", list(ag_ui("1", f"t{n}"))) for n, user in enumerate(("ann", "ben"))]
    assert broken(check_recording(str(write(tmp_path / "a.jsonl", interleaved(*runs))))) == {}
    assert broken(check_recording(str(write(tmp_path / "b.jsonl", [*runs[0], runs[1][-1]])))) == {}


def test_snapshot_during_a_message_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    """It repeats the deltas until then, or fewer. Only a later one shows that the others are complete."""
    message = streamed("TEXT_MESSAGE", "messageId", "m", WORDS)
    for content in ("".join(WORDS[:2]), WORDS[0]):
        snapshot = {"type": "MESSAGES_SNAPSHOT", "messages": [ag_ui_assistant("m", content)]}
        early = [*message[:3], snapshot, *message[3:]]
        run = [value for value in ag_ui_run("r", early) if value.get("messages") != []]
        assert states(check_recording(save(tmp_path / "a.jsonl", *run)))[Property.TEXT] is State.UNKNOWN
        both = ag_ui_run("r", early, ag_ui_assistant("m", TEXT))
        assert states(check_recording(save(tmp_path / "b.jsonl", *both)))[Property.TEXT] is State.HOLDS


def test_message_in_two_parts_is_not_broken(tmp_path: Path) -> None:
    parts = [value for words in (WORDS[:2], WORDS[2:]) for value in streamed("TEXT_MESSAGE", "messageId", "m", words)]
    found = check_recording(save(tmp_path / "a.jsonl", *ag_ui_run("r", parts, ag_ui_assistant("m", TEXT))))
    assert broken(found) == {}
    assert states(found)[Property.TEXT] is State.UNKNOWN


def test_frame_may_have_other_notes_beside_it(tmp_path: Path) -> None:
    notes = {"socket": "s", "ts": "", "note": {}, "read_at": 10**400}
    rows = [{**notes, "frame": value} for value in ag_ui("r", "t")]
    verdict = check_recording(save(tmp_path / "a.jsonl", *rows))
    assert (verdict.dialect, verdict.runs, broken(verdict)) == ("AG-UI", 1, {})


def test_pipe_that_is_never_opened_for_writing_ends_at_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert main(["check", str(path), "--max-seconds", "0.2"]) == 2
    assert "is empty" in capsys.readouterr().err


def test_pipe_is_read_until_its_writer_ends(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = "".join(json.dumps(value) + "\n" for value in ag_ui("r", "t"))
    writer = threading.Thread(target=path.write_text, args=(text,))
    writer.start()
    assert states(check_recording(str(path)))[Property.ENDED] is State.HOLDS
    writer.join()


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_closed_standard_stream_is_no_traceback(
    stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "a.jsonl", *ag_ui("r", "t"))
    monkeypatch.setattr(f"sys.{stream}", None)
    assert main(["check", "-" if stream == "stdin" else path]) == (2 if stream == "stdin" else 0)
    if stream != "stdin":
        getattr(sys, stream).close()
    assert capsys.readouterr().err.count("\n") == (stream == "stdin")
