"""`bridgekit check` on sound and on damaged recordings: answers, exit codes, and what each file format holds."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from bridgekit.__main__ import main
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import load_table
from bridgekit_verify.check.property_answers import Property, State
from bridgekit_verify.check.verdict import RecordingVerdict
from bridgekit_verify.errors import UnusableRecording
from tests.verify.check import samples
from tests.verify.check.samples import DIALECTS, RECORDINGS, TABLE, ag_ui, recording, write


def states(verdict: RecordingVerdict) -> dict[Property, State]:
    return {answer.property: answer.state for answer in verdict.answers}


def broken(verdict: RecordingVerdict) -> dict[str, list[str]]:
    """Return the subjects of the violations of each broken property."""
    return {each.property: [v.subject for v in each.violations] for each in verdict.answers if each.violations}


def save(path: Path, *values: dict[str, Any] | str) -> str:
    lines = (each if isinstance(each, str) else json.dumps(each) for each in values)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def check(dialect: str, path: Path) -> RecordingVerdict:
    if dialect != "chat":
        return check_recording(str(path))
    table = path.with_suffix(".toml")
    table.write_text(TABLE, encoding="utf-8")
    return check_recording(str(path), dialect=load_table(str(table)))


@pytest.mark.parametrize("name", ["good", "lg_streamed"])
def test_sound_recording_is_clean(name: str) -> None:
    assert broken(check_recording(str(RECORDINGS / f"{name}.jsonl"))) == {}


def test_calls_whose_arguments_are_lost_are_named() -> None:
    found = broken(check_recording(str(RECORDINGS / "lg_atomic.jsonl")))
    calls = ["call c-a-7f2d", "call c-b-43ef"]
    assert found == {Property.ARGUMENTS: calls, Property.SNAPSHOT: calls}


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("lost_delta", (Property.LOST, Property.TEXT)),
        ("lost_tool", (Property.LOST, Property.CALLS, Property.ARGUMENTS)),
        ("lost_end", (Property.ENDED,)),
        ("dup_delta", (Property.DUPLICATED, Property.TEXT)),
        ("foreign_end", (Property.ENDED,)),
    ],
)
def test_damaged_recording_is_never_said_to_hold(name: str, which: tuple[Property, ...]) -> None:
    found = states(check_recording(str(RECORDINGS / f"{name}.jsonl")))
    assert State.HOLDS not in {found[each] for each in which}
    assert (State.BROKEN in found.values()) == name.endswith("_end")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_sound_interleaved_runs_are_clean_in_each_dialect(dialect: str, tmp_path: Path) -> None:
    verdict = check(dialect, write(tmp_path / "sound.jsonl", recording(dialect)))
    assert verdict.dialect == dialect
    assert broken(verdict) == {}
    assert (verdict.clients, verdict.runs) == (3, 3)
    assert states(verdict)[Property.ENDED] is State.HOLDS


@pytest.mark.parametrize("dialect", ["bridgekit", "chat"])
def test_positions_and_ids_let_most_properties_hold(dialect: str, tmp_path: Path) -> None:
    found = states(check(dialect, write(tmp_path / "sound.jsonl", recording(dialect))))
    holding = {each for each, state in found.items() if state is State.HOLDS}
    assert holding >= {
        Property.LOST, Property.DUPLICATED, Property.ORDER, Property.USER, Property.THREAD, Property.CALLS,
        Property.ENDED, Property.END_LAST,
    }  # fmt: skip


def test_runs_of_one_socket_are_judged_apart(tmp_path: Path) -> None:
    runs = zip(ag_ui("r1", "t1"), ag_ui("r2", "t2"), strict=True)
    path = save(tmp_path / "two.jsonl", *(value for pair in runs for value in pair))
    verdict = check_recording(path)
    assert (verdict.clients, verdict.runs) == (1, 2)
    assert broken(verdict) == {}


def test_equal_deltas_are_duplicates_only_if_a_position_shows_it(tmp_path: Path) -> None:
    lines = recording("chat")
    said = next(index for index, line in enumerate(lines) if line.value.get("d") == "is ")
    assert broken(check("chat", write(tmp_path / "again.jsonl", [*lines[: said + 1], *lines[said:]]))) == {
        Property.DUPLICATED: ["position 16"],
        Property.TEXT: ["message m-run-s1"],
        Property.SNAPSHOT: ["message m-run-s1"],
    }


def test_half_surrogates_in_two_deltas_equal_the_whole_text(tmp_path: Path) -> None:
    pieces = {"The ": "\ud83c", "bridge ": "\udf09", "is ": "", "open.": ""}
    lines = [{**value, "delta": pieces[value["delta"]]} if value.get("delta") in pieces else value
             for value in ag_ui("r", "t")]  # fmt: skip
    text = {"id": "m-r", "role": "assistant", "content": "\N{BRIDGE AT NIGHT}\udf09"}
    lines[-2] = {"type": "MESSAGES_SNAPSHOT", "messages": [text]}
    verdict = check_recording(save(tmp_path / "halves.jsonl", *lines))
    assert broken(verdict) == {}
    assert states(verdict)[Property.TEXT] is State.HOLDS


def test_replay_after_a_reconnect_is_no_duplicate(tmp_path: Path) -> None:
    frames = list(samples.bridgekit("r", "t"))
    path = save(tmp_path / "resumed.jsonl", *frames[:7], "---", *frames[4:])
    verdict = check_recording(path)
    assert broken(verdict) == {}
    assert states(verdict)[Property.RESUME] is State.HOLDS


def test_frames_that_a_resume_omits_are_lost(tmp_path: Path) -> None:
    frames = list(samples.bridgekit("r", "t"))
    found = broken(check_recording(save(tmp_path / "resumed.jsonl", *frames[:5], "---", *frames[8:])))
    assert found[Property.LOST] == found[Property.RESUME] == ["positions 5 to 7 of client 1, thread t"]


def test_saved_run_of_bridgekit_is_clean(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["demo", "--json", "--steps", "3"]) == 0
    verdict = check_recording(save(tmp_path / "run.jsonl", capsys.readouterr().out.strip()))
    assert verdict.dialect == "bridgekit"
    assert broken(verdict) == {}
    assert states(verdict)[Property.LOST] is State.HOLDS


@pytest.mark.parametrize(("dialect", "crlf"), [(name, crlf) for name in DIALECTS for crlf in (False, True)])
def test_server_sent_events_are_read(dialect: str, crlf: bool, tmp_path: Path) -> None:
    end = "\r\n" if crlf else "\n"
    blocks = [f"event: message{end}data: {json.dumps(value)}{end}{end}" for value in DIALECTS[dialect]("r", "t")]
    path = tmp_path / "body.txt"
    path.write_text("".join([f": hello{end}{end}", *blocks, f"data: [DONE]{end}{end}"]), encoding="utf-8", newline="")
    verdict = check(dialect, path)
    assert (verdict.container, verdict.dialect) == ("SSE", dialect)
    assert broken(verdict) == {}


def har(entries: list[dict[str, Any]], creator: str = "WebInspector") -> dict[str, Any]:
    return {"log": {"version": "1.2", "creator": {"name": creator, "version": "1"}, "entries": entries}}


AG_UI = list(ag_ui("r", "t"))


def socket_entry(values: list[dict[str, Any]], start: float = 1.0, **members: Any) -> dict[str, Any]:
    messages = [
        {"type": "receive", "time": start + n, "opcode": 1, "data": json.dumps(v), **members}
        for n, v in enumerate(values)
    ]
    sent = {"type": "send", "time": start, "opcode": 1, "data": "{}"}
    return {"request": {"url": "ws://127.0.0.1/ws?after=1"}, "_webSocketMessages": [sent, *messages]}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name != "chat"])
def test_har_with_websocket_messages_is_read(dialect: str, indent: int | None, tmp_path: Path) -> None:
    path = tmp_path / "a.har"
    path.write_text(json.dumps(har([socket_entry(list(DIALECTS[dialect]("r", "t")))]), indent=indent), encoding="utf-8")
    verdict = check(dialect, path)
    assert (verdict.container, verdict.dialect) == ("HAR", dialect)
    assert broken(verdict) == {}


def test_har_with_a_later_socket_of_the_same_address_is_a_reconnect(tmp_path: Path) -> None:
    frames = list(samples.bridgekit("r", "t"))
    path = tmp_path / "a.har"
    path.write_text(json.dumps(har([socket_entry(frames[:6]), socket_entry(frames[6:], 100.0)])), encoding="utf-8")
    assert states(check_recording(str(path)))[Property.RESUME] is State.HOLDS


def test_har_with_a_streamed_body_is_read(tmp_path: Path) -> None:
    body = "".join(f"data: {json.dumps(value)}\n\n" for value in ag_ui("r", "t"))
    entry = {"request": {"url": "http://x"}, "response": {"content": {"mimeType": "text/event-stream", "text": body}}}
    path = tmp_path / "a.har"
    page = {"response": {"content": {"mimeType": None, "encoding": None, "text": None}}}
    path.write_text(json.dumps(har([{"request": {"url": "http://x/page"}}, page, entry])), encoding="utf-8")
    verdict = check_recording(str(path))
    assert broken(verdict) == {}
    assert verdict.frames > 20


def test_har_of_a_browser_is_read() -> None:
    """`tools/record_har.py` recorded it with Chromium: a run over a WebSocket, and one in a streamed response."""
    verdict = check_recording(str(RECORDINGS / "chromium.har"))
    assert (verdict.container, verdict.dialect, verdict.clients, verdict.runs) == ("HAR", "AG-UI", 2, 2)
    assert broken(verdict) == {}
    assert states(verdict)[Property.ARGUMENTS] is State.HOLDS


def test_har_of_a_browser_without_one_frame_is_broken(tmp_path: Path) -> None:
    text = (RECORDINGS / "chromium.har").read_text(encoding="utf-8")
    document = json.loads(text)
    messages = next(
        entry["_webSocketMessages"] for entry in document["log"]["entries"] if "_webSocketMessages" in entry
    )
    del messages[next(n for n, each in enumerate(messages) if "TEXT_MESSAGE_CONTENT" in each["data"])]
    path = tmp_path / "a.har"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert broken(check_recording(str(path)))[Property.TEXT] == ["message m-run-socket"]


def test_har_with_event_source_messages_and_binary_messages_is_read(tmp_path: Path) -> None:
    values = list(ag_ui("r", "t"))
    events = [{"time": 1.0, "eventName": "message", "eventId": "", "data": json.dumps(value)} for value in values]
    binary = socket_entry(list(ag_ui("r2", "t2")))
    for each in binary["_webSocketMessages"]:
        each.update(opcode=2, data=base64.b64encode(each["data"].encode()).decode())
    binary["_webSocketMessages"].append({"type": "receive", "time": 99.0, "opcode": 8, "data": ""})
    path = tmp_path / "a.har"
    path.write_text(json.dumps(har([{"_eventSourceMessages": events}, binary])), encoding="utf-8")
    verdict = check_recording(str(path))
    assert broken(verdict) == {}
    assert (verdict.clients, verdict.runs, verdict.messages) == (2, 2, 2 * len(values))


def streamed(values: list[dict[str, Any]], mime: str, separator: str = "", **members: Any) -> dict[str, Any]:
    text = "".join(f"{separator}{json.dumps(value)}\n" for value in values)
    return {"request": None, "response": {"content": {"mimeType": mime, "text": text, **members}}}


HAR_ENTRIES: dict[str, list[dict[str, Any]]] = {
    "times as text": [socket_entry(AG_UI, time="2026-11-30T12:00:00Z", opcode="1")],
    "other words for received": [socket_entry(AG_UI, type="Incoming")],
    "null types": [socket_entry(AG_UI, type=None, opcode=None, eventId=None)],
    "nulls": [{"request": None, "response": None}, {"response": {"content": None}}, socket_entry(AG_UI)],
    "a text that is none": [{"response": {"content": {"text": ["a"]}}}, socket_entry(AG_UI)],
    **{mime: [streamed(AG_UI, mime)] for mime in ("application/json", "text/plain; charset=utf-8", "")},
    "JSON sequence": [streamed(AG_UI, "application/json-seq", "\x1e")],
    "ids that are numbers": [{"_eventSourceMessages": [{"eventId": 1, "data": json.dumps(value)} for value in AG_UI]}],
    **{
        f"one line of {mime}": [streamed([{"type": "error"}], mime), socket_entry(AG_UI)]
        for mime in ("application/json", "application/octet-stream")
    },
}


@pytest.mark.parametrize("name", HAR_ENTRIES)
def test_har_of_another_program_is_read(name: str, tmp_path: Path) -> None:
    """Programs write times as numbers or text, and null for what they did not record."""
    path = tmp_path / "a.har"
    path.write_text(json.dumps({"log": {"creator": None, "entries": HAR_ENTRIES[name]}}), encoding="utf-8")
    verdict = check_recording(str(path))
    assert (verdict.messages, broken(verdict)) == (len(AG_UI), {})


@pytest.mark.parametrize("field", ["message:", "x-seq: 7", "data2"])
def test_field_that_clients_ignore_is_ignored(field: str, tmp_path: Path) -> None:
    """Some servers write a field of their own before the data."""
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{field}\ndata:{json.dumps(value)}\n\n" for value in AG_UI), encoding="utf-8")
    if ":" in field:
        assert (check_recording(str(path)).messages, broken(check_recording(str(path)))) == (len(AG_UI), {})
    else:
        with pytest.raises(UnusableRecording, match="line 1 is not a line of server-sent events: 'data2'"):
            check_recording(str(path))


@pytest.mark.parametrize("sent", ["sent", "SENT", "Out"])
def test_messages_that_the_client_sent_do_not_count(sent: str, tmp_path: Path) -> None:
    rows = [{"socket": "s", "direction": word, "frame": value} for value in AG_UI for word in ("received", sent)]
    assert check_recording(save(tmp_path / "a.jsonl", *rows)).messages == len(AG_UI)


def test_sockets_of_a_har_that_are_open_together_are_two_clients(tmp_path: Path) -> None:
    entries = [socket_entry(list(ag_ui("r", "t")), start) for start in (1.0, 2.0)]
    path = tmp_path / "a.har"
    path.write_text(json.dumps(har(entries)), encoding="utf-8")
    verdict = check_recording(str(path))
    assert (verdict.clients, broken(verdict)) == (2, {})


UNUSABLE = {
    "empty": (b"", "is empty"),
    "blank lines": (b"\n\n \n", "is empty"),
    "only a reconnect": (b"---\n", "no frame"),
    "text": (b"hello\n", "line 1 is not JSON"),
    "cut line": (b'{"type":"RUN_STARTED"}\n{"type":"RUN_', "line 2 is not JSON"),
    "number": (b"1\n", "line 1 is JSON, but a frame is an object"),
    "array": (b'[{"type":"RUN_STARTED"},\n{}]', "is a JSON array"),
    "NaN": (b'{"type":NaN}\n', "NaN"),
    "deep": (b'{"a":' * 200_000, "nested too deeply"),
    "binary": (b"\x00\x01\x02", "is not text in UTF-8"),
    "gzip": (b"\x1f\x8b\x08\x00", "decompress"),
    "UTF-16": ('{"type":"RUN_STARTED"}\n'.encode("utf-16"), "UTF-8"),
    "Latin-1": (b'{"type":"RUN_STARTED","x":"\xe4"}\n', "line 1"),
    "unknown dialect": (b'{"type":"x"}\n{"kind":"y"}\n', "in no known dialect"),
    "cut HAR": (b'{"log":{"entries":[{"request":', "not a complete HAR"),
    "HAR without frames": (b'{"log":{"entries":[]}}', "no WebSocket message"),
    "HAR of Firefox": (json.dumps(har([{"request": {"url": "ws://x"}}], "Firefox")).encode(), "Firefox"),
    "SSE without JSON": (b"data: hello\n\n", "no known dialect"),
    "SSE with cut JSON": (b'data: {"type":"RUN_ST\n\n', "not JSON"),
    "HTTP headers before SSE": (b"HTTP/1.1 200 OK\r\n\r\ndata: {}\n\n", "line 1 is not a line of server-sent events"),
    "SSE with other lines": (b"data: {}\n\nhello\n", "line 3 is not a line of server-sent events"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_file_gives_one_line_and_exit_code_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected = UNUSABLE[name]
    path = tmp_path / "recording"
    path.write_bytes(content)
    assert main(["check", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"bridgekit: {path}: ")
    assert expected in error
    assert len(error.splitlines()) == 1


def test_missing_file_and_folder_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path), str(tmp_path / "none")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "is a folder" in lines[0]
    assert "none" in lines[1]
