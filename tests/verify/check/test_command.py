"""`bridgekit check`: dialect tables, JSON and JUnit output, baselines, and limits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bridgekit.__main__ import main
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import load_table
from bridgekit_verify.check.property_answers import Property, State
from tests.tree import ROOT
from tests.verify.check.samples import RECORDINGS, ag_ui
from tests.verify.check.test_check import broken, save, states

ATOMIC = str(RECORDINGS / "lg_atomic.jsonl")
GOOD = str(RECORDINGS / "good.jsonl")
PAGE = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
CHAT, SOCKET_IO, TEXT, CHUNKS, LANGGRAPH = re.findall(r"```toml\n(\[dialect\].*?)```", PAGE, re.DOTALL)


def test_json_lists_every_violation_with_its_frames(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", ATOMIC, "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["recordings"]
    answers = {each["property"]: each for each in found["answers"]}
    assert list(answers) == list(Property)
    assert answers["arguments intact"]["state"] == "broken"
    assert [each["subject"] for each in answers["arguments intact"]["violations"]] == ["call c-a-7f2d", "call c-b-43ef"]
    assert [frame["index"] for frame in answers["arguments intact"]["violations"][0]["frames"]] == [7, 65]
    assert "no position" in answers["nothing lost"]["reason"]


def test_judging_again_gives_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = set()
    for _ in range(2):
        main(["check", ATOMIC, GOOD, "--json"])
        outputs.add(capsys.readouterr().out)
    assert len(outputs) == 1


def test_junit_has_a_failure_for_each_broken_property_and_skips_unknown_ones(tmp_path: Path) -> None:
    assert main(["check", ATOMIC, GOOD, "--junit", str(tmp_path / "x.xml")]) == 1
    suites = ElementTree.parse(tmp_path / "x.xml").getroot().findall("testsuite")
    assert [(each.get("failures"), each.get("tests")) for each in suites] == [("2", "14"), ("0", "14")]
    failed = [case.get("name") for case in suites[0] if case.find("failure") is not None]
    assert failed == ["arguments intact", "snapshot agrees"]
    assert all(case.find("skipped") is not None for case in suites[0] if case.get("name") == "nothing lost")


def test_control_characters_in_ids_leave_valid_xml_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.jsonl", {"type": "RUN_STARTED", "threadId": "t", "runId": "\x1b[2J\x00\ud800"})
    assert main(["check", path, "--junit", str(tmp_path / "x.xml")]) == 1
    assert "\x1b" not in capsys.readouterr().out
    ElementTree.parse(tmp_path / "x.xml")
    assert main(["check", path, "--json"]) == 1
    json.loads(capsys.readouterr().out)


def test_baseline_accepts_what_it_lists_and_fails_for_a_stale_entry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.txt"
    assert main(["check", ATOMIC, "--write-baseline", str(baseline)]) == 1
    assert len(baseline.read_text().splitlines()) == 5
    assert main(["check", ATOMIC, "--baseline", str(baseline)]) == 0
    capsys.readouterr()
    assert main(["check", GOOD, "--baseline", str(baseline)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 4
    lines = baseline.read_text().splitlines(keepends=True)
    baseline.write_text("".join(lines[:-1]))
    assert main(["check", ATOMIC, "--baseline", str(baseline)]) == 1


def test_unusable_file_does_not_hide_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", str(tmp_path / "none"), ATOMIC]) == 2
    assert "c-a-7f2d" in capsys.readouterr().out


def test_max_frames_makes_the_end_of_open_runs_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", GOOD, "--max-frames", "5"]) == 0
    assert "--max-frames 5 stopped the reading before the end of run r1" in capsys.readouterr().out


def test_max_seconds_ends_the_reading_of_a_stream_that_stays_open() -> None:
    command = [sys.executable, "-m", "bridgekit", "check", "-", "--max-seconds", "0.5"]
    reading, writing = os.pipe()
    try:
        os.write(writing, b'{"type":"RUN_STARTED","threadId":"t","runId":"r"}\n{"type":"RUN_FIN')
        done = subprocess.run(command, stdin=reading, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--max-seconds 0.5 stopped the reading before the end of run r" in done.stdout


def test_table_of_socket_io_on_the_page_reads_its_messages(tmp_path: Path) -> None:
    table = tmp_path / "socket_io.toml"
    table.write_text(SOCKET_IO, encoding="utf-8")
    path = save(tmp_path / "a.txt", '42["say", {"run": "r1", "delta": "Hi"}]', "2", '42["other", {}]')
    verdict = check_recording(path, dialect=load_table(str(table)))
    assert (verdict.messages, verdict.runs) == (3, 1)
    assert broken(verdict) == {}


def test_table_of_langgraph_on_the_page_reads_its_events(tmp_path: Path) -> None:
    table, path = tmp_path / "langgraph.toml", tmp_path / "a.txt"
    table.write_text(LANGGRAPH, encoding="utf-8")
    chunk = '[{"id": "m", "content": "Hi"}, {}]'
    start = f'event: metadata\ndata: {{"run_id": "1"}}\n\nevent: messages\ndata: {chunk}\n\n'
    path.write_text(f"{start}event: end\n\n", encoding="utf-8")
    assert states(check_recording(str(path), dialect=load_table(str(table))))[Property.ENDED] is State.HOLDS
    path.write_text(start, encoding="utf-8")
    assert broken(check_recording(str(path), dialect=load_table(str(table)))) == {
        Property.ENDED: ["run 1 connection 0"]
    }


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", "has no table [dialect]"),
        ("[dialect", "is not TOML"),
        ("[dialect]\nkin = 't'", "unknown line 'kin'"),
        ("[dialect]\nkind = 1", "kind must be a path"),
        ("[dialect]\nposition = { path = 'n', per = 'socket' }", "position must be a path"),
        ("[dialect]\n[dialect.kinds]\nend = 'x'", "unknown kind 'end'"),
        ("[dialect]\n[dialect.kinds]\nended = 'x'\ntext = 'x'", "'x' as ended and as text"),
        ("[dialect]\nkinds = 3", "kinds must be a table"),
        ("[dialect]\n[dialect.kinds]\ntext = { a = 1 }", "kinds text must be a list of types"),
    ],
)
def test_unusable_table_is_named_in_one_line(
    table: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.toml"
    path.write_text(table, encoding="utf-8")
    assert main(["check", GOOD, "--dialect", str(path)]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1


def test_dialect_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", GOOD, "--dialect", "ag-ui"]) == 0
    assert main(["check", GOOD, "--dialect", "mqtt"]) == 2
    assert "known: bridgekit, AG-UI" in capsys.readouterr().err


@pytest.mark.parametrize("line", [line for line in CHAT.splitlines() if " = " in line and not line.startswith("[")])
def test_table_without_a_line_never_breaks_a_sound_recording(line: str, tmp_path: Path) -> None:
    values = [{"type": "go"}, {"type": "say", "msg": "m", "delta": "a"}, {"type": "done"}]
    path = save(tmp_path / "a.jsonl", *({**v, "run": "r", "room": "t", "n": n} for n, v in enumerate(values, 1)))
    (tmp_path / "t.toml").write_text(CHAT.replace(line, ""), encoding="utf-8")
    assert broken(check_recording(path, dialect=load_table(str(tmp_path / "t.toml")))) == {}


def test_statements_may_stand_beside_the_fields_of_a_frame(tmp_path: Path) -> None:
    values = [{**value, "socket": 1, "user": "ann", "read_at": 1.5} for value in ag_ui("r", "t")]
    verdict = check_recording(save(tmp_path / "a.jsonl", *values))
    assert broken(verdict) == {}
    assert verdict.runs == 1
