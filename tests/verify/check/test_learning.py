"""`bridgekit learn`: the drafted table of a recording judges that recording."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bridgekit.__main__ import main
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import load_table
from bridgekit_verify.check.property_answers import Property, State
from tests.verify.check.samples import DIALECTS, TABLE, recording, write
from tests.verify.check.test_check import broken, save, states


def learn(path: Path) -> Path:
    table = path.with_suffix(".toml")
    assert main(["learn", str(path), "--out", str(table)]) == 0
    return table


def test_draft_locates_every_field_of_the_sample(tmp_path: Path) -> None:
    table = tomllib.loads(learn(write(tmp_path / "a.jsonl", recording("chat"))).read_text())["dialect"]
    expected = tomllib.loads(TABLE)["dialect"]
    fields = ("kind", "run", "thread", "message", "call", "text", "position")
    assert {name: table.get(name) for name in fields} == {name: expected[name] for name in fields}
    assert table["kinds"]["started"] == "go"
    assert table["kinds"]["ended"] == "done"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_draft_never_breaks_the_recording_that_it_came_from(dialect: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", recording(dialect))
    assert broken(check_recording(str(path), dialect=load_table(str(learn(path))))) == {}


def test_check_with_a_draft_finds_a_lost_frame(tmp_path: Path) -> None:
    lines = recording("chat")
    table = learn(write(tmp_path / "a.jsonl", lines))
    verdict = check_recording(
        str(write(tmp_path / "b.jsonl", [*lines[:20], *lines[21:]])), dialect=load_table(str(table))
    )
    assert states(verdict)[Property.LOST] is State.BROKEN


def test_draft_with_unusual_names_is_toml(tmp_path: Path) -> None:
    names = {"go": '\N{SPEECH BALLOON}"go"', "say": "say\\\t\n", "done": "\x00"}
    values = [{**value, "t": names.get(str(value["t"]), value["t"])} for value in DIALECTS["chat"]("r", "t")]
    table = learn(Path(save(tmp_path / "a.jsonl", *values)))
    assert tomllib.loads(table.read_text(encoding="utf-8"))["dialect"]["kinds"]["started"] == names["go"]


def test_recording_without_json_is_unusable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learn", save(tmp_path / "a.jsonl", '"hello"')]) == 2
    assert "has no frame that is JSON" in capsys.readouterr().err


def test_draft_takes_no_id_and_no_time_for_a_text_or_a_type(tmp_path: Path) -> None:
    values = [{"contextId": "t", "created_at": f"2026-0{n % 2}", "answer": "x", "event": "e"} for n in range(6)]
    table = tomllib.loads(learn(Path(save(tmp_path / "a.jsonl", *values, {"event": "end"}))).read_text())["dialect"]
    assert (table["kind"], table["text"]) == ("event", "answer")
