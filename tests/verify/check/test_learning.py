"""`bridgekit learn`: the drafted table of a recording judges that recording."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from bridgekit.__main__ import main
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import load_table
from bridgekit_verify.check.property_answers import Property, State
from tests.verify.check.samples import DIALECTS, TABLE, WORDS, Value, recording, write
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


ENDS: dict[str, tuple[Callable[[str, bool], Value], str]] = {
    "chat completions": (lambda d, end: {"id": "c", "object": "x", "choices": [{"delta": {"content": d},
                                         "finish_reason": "stop" if end else None}]}, "choices.0.finish_reason"),
    "true or false": (lambda d, end: {"model": "m", "response": {"text": d}, "done": end}, "done"),
    "last text": (lambda d, end: {"candidates": [{"text": d, **({"finishReason": "MAX"} if end else {})}]},
                  "candidates.0.finishReason"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_draft_without_a_type_takes_the_mark_of_the_end_for_it(name: str, tmp_path: Path) -> None:
    make, kind = ENDS[name]
    values = [{"id": "", "choices": []}, *(make(word, word == WORDS[-1]) for word in WORDS)]
    rows = [{"socket": socket, "frame": value} for socket in ("s1", "s2") for value in values]
    table = learn(Path(save(tmp_path / "a.jsonl", *rows)))
    drafted = tomllib.loads(table.read_text(encoding="utf-8"))["dialect"]
    assert (drafted["kind"], drafted["kinds"]["text"]) == (kind, "*")
    assert drafted["run"] == ("id" if name == "chat completions" else "@connection")
    for lost, state in ((0, State.HOLDS), (1, State.BROKEN)):
        path = save(tmp_path / "b.jsonl", *rows[: len(rows) - lost])
        found = check_recording(path, dialect=load_table(str(table)))
        assert states(found)[Property.END_LAST] is (State.HOLDS if not lost else State.UNKNOWN)
        assert (Property.ENDED in broken(found)) == (state is State.BROKEN)


@pytest.mark.parametrize("end", ["[DONE]", None])
def test_draft_of_texts_judges_them(end: str | None, tmp_path: Path) -> None:
    texts = [*WORDS, *([end] if end else [])]
    rows = [{"socket": name, "frame": text} for name in ("s1", "s2") for text in (name, *texts)]
    path = Path(save(tmp_path / "a.jsonl", *rows if end else rows[:-1]))
    found = check_recording(str(path), dialect=load_table(str(learn(path))))
    assert broken(found) == {}
    assert (states(found)[Property.END_LAST] is State.HOLDS) == bool(end)


@pytest.mark.parametrize("end", ["ld", "[DONE]", " end", "<end_of_stream>"])
def test_text_of_one_connection_ends_it_only_if_it_looks_like_an_end(end: str, tmp_path: Path) -> None:
    path = Path(save(tmp_path / "a.jsonl", *({"socket": "s", "frame": text} for text in ("Hel", "lo wor", end))))
    kinds = tomllib.loads(learn(path).read_text(encoding="utf-8"))["dialect"]["kinds"]
    assert kinds == {"text": "*"} | ({"ended": end} if end[0] in "[<" else {})


def test_draft_of_texts_that_are_json_strings_judges_them(tmp_path: Path) -> None:
    rows = [{"socket": name, "frame": json.dumps(text)} for name in ("s1", "s2") for text in (name, *WORDS, "[END]")]
    path = Path(save(tmp_path / "a.jsonl", *rows))
    found = check_recording(str(path), dialect=load_table(str(learn(path))))
    assert (broken(found), states(found)[Property.END_LAST]) == ({}, State.HOLDS)


def test_type_that_repeats_the_text_at_the_end_ends_the_run(tmp_path: Path) -> None:
    values = [{"type": "go"}, *({"type": "token", "text": word} for word in WORDS), {"type": "done", "text": "all"}]
    rows = [{"socket": name, "frame": value} for name in ("s1", "s2") for value in values]
    table = tomllib.loads(learn(Path(save(tmp_path / "a.jsonl", *rows))).read_text(encoding="utf-8"))["dialect"]
    assert table["kinds"] == {"started": "go", "text": "token", "ended": "done"}


@pytest.mark.parametrize(("last", "ended"), [({"final": "All of it"}, None), ({"id": "z", "done": True}, "true")])
def test_whole_text_is_no_mark_of_the_end_and_the_id_of_a_chunk_is_no_run(
    last: Value, ended: str | None, tmp_path: Path
) -> None:
    values = [*({"id": str(n), "text": word} for n, word in enumerate(WORDS)), last]
    rows = [{"socket": name, "frame": value} for name in ("s1", "s2") for value in values]
    path = Path(save(tmp_path / "a.jsonl", *rows))
    table = tomllib.loads(learn(path).read_text(encoding="utf-8"))["dialect"]
    assert table.get("kinds", {}).get("ended") == ended
    assert table.get("run") == ("@connection" if ended else None)


@pytest.mark.parametrize("count", [1, 2])
def test_draft_of_batches_is_that_of_their_messages(count: int, tmp_path: Path) -> None:
    """Also if some type seems to contradict the others, as a type that is sent twice for each call."""
    values = [each for each in DIALECTS["chat"]("r", "t") for _ in range(count if each["t"] == "call" else 1)]
    values = [{**value, "n": n} for n, value in enumerate(values, 1)]
    batches = [json.dumps(values[n : n + 4]) for n in range(0, len(values), 4)]
    tables = [learn(Path(save(tmp_path / f"{len(rows)}.jsonl", *rows))).read_text() for rows in (values, batches)]
    assert tables[0] == tables[1]


def test_draft_takes_the_text_that_names_a_connection_for_its_run(tmp_path: Path) -> None:
    """So that the end of another run does not end the run of its connection."""
    values = [{"type": "go"}, *({"type": "token", "text": word} for word in WORDS), {"type": "done"}]
    rows = [
        {"socket": name, "frame": {"source": "x", "subject": f"s-{name}", **value}}
        for name in ("s1", "s2") for value in values
    ]  # fmt: skip
    table = learn(Path(save(tmp_path / "a.jsonl", *rows)))
    assert tomllib.loads(table.read_text(encoding="utf-8"))["dialect"]["run"] == "subject"
    rows[len(values) - 1]["frame"] = rows[-1]["frame"]
    found = check_recording(save(tmp_path / "b.jsonl", *rows), dialect=load_table(str(table)))
    assert Property.ENDED in broken(found)


def test_type_whose_frames_hold_the_text_starts_and_ends_no_run(tmp_path: Path) -> None:
    values = [{"object": "chunk", "datacontenttype": "json", "delta": word} for word in WORDS]
    path = Path(save(tmp_path / "a.jsonl", {"object": "filter", "datacontenttype": "json"}, *values))
    table = tomllib.loads(learn(path).read_text(encoding="utf-8"))["dialect"]
    assert (table["text"], table["kinds"]) == ("delta", {"started": "filter", "text": "chunk"})


def test_draft_takes_no_id_and_no_time_for_a_text_or_a_type(tmp_path: Path) -> None:
    values = [{"contextId": "t", "created_at": f"2026-0{n % 2}", "answer": "x", "event": "e"} for n in range(6)]
    table = tomllib.loads(learn(Path(save(tmp_path / "a.jsonl", *values, {"event": "end"}))).read_text())["dialect"]
    assert (table["kind"], table["text"]) == ("event", "answer")
