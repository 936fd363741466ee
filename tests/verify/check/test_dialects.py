"""The less usual parts of each protocol: sound recordings are clean, and a shortened delta is never intact."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridgekit.__main__ import main
from bridgekit_verify.check import dialects
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import load_table, parse_table
from bridgekit_verify.check.dialects import BUILT_IN
from bridgekit_verify.check.property_answers import Property, State
from bridgekit_verify.check.verdict import RecordingVerdict
from tests.verify.check import samples
from tests.verify.check.protocol_samples import PROTOCOLS, with_shorter_delta
from tests.verify.check.samples import DIALECTS, Line, Value, write
from tests.verify.check.test_check import broken, har, save, states


def judge(path: str | Path, table: str = "") -> RecordingVerdict:
    dialect = parse_table(tomllib.loads(table)["dialect"], "table") if table else None
    return check_recording(str(path), dialect=dialect)


def sse(values: list[Value], end: str = "\n") -> str:
    return "".join(f"data: {json.dumps(value)}{end}{end}" for value in values)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_sound_runs_are_clean(name: str, tmp_path: Path) -> None:
    run, table = PROTOCOLS[name]
    runs = [[Line(s, u, "t", value) for value in run(f"run-{s}")] for s, u in (("s1", "ann"), ("s2", "ben"))]
    lines = [line for row in itertools.zip_longest(*runs) for line in row if line is not None]
    verdict = judge(write(tmp_path / "a.jsonl", lines), table)
    assert broken(verdict) == {}
    assert states(verdict)[Property.ENDED] is not State.BROKEN


@pytest.mark.parametrize("name", PROTOCOLS)
def test_shortened_delta_is_never_intact(name: str, tmp_path: Path) -> None:
    """Deltas of texts, thinking, refusals, arguments and code."""
    run, table = PROTOCOLS[name]
    values = list(run("r"))
    shortened = [(value, each) for index, value in enumerate(values) if (each := with_shorter_delta(values, index))]
    assert len(shortened) >= 5
    for value, each in shortened:
        is_call = any(word in str(value.get("type")) for word in ("TOOL", "_call", "tool"))
        found = states(judge(save(tmp_path / "a.jsonl", *each), table))
        assert found[Property.ARGUMENTS if is_call else Property.TEXT] is not State.HOLDS, each


WITH_RESULTS = f"{samples.TABLE}tool_result = 'result'\n"


def with_results(dialect: str) -> list[Line]:
    """A sound recording in a dialect that has the results of calls."""
    if dialect != "chat":
        return samples.recording(dialect)
    lines = []
    for line in samples.recording("chat"):
        ended = line.value["t"] == "called"
        lines += [line, line._replace(value={**line.value, "t": "result"})] if ended else [line]
    counts = Counter[str]()
    for index, line in enumerate(lines):
        counts[line.socket] += 1
        lines[index] = line._replace(value={**line.value, "n": counts[line.socket]})
    return lines


@pytest.mark.parametrize("removed", ["none", "one", "all"])
@pytest.mark.parametrize(
    ("dialect", "type_"),
    [("AG-UI", "TOOL_CALL_RESULT"), ("Vercel UI stream", "tool-output-available"), ("chat", "result")],
)
def test_call_without_a_result_is_unknown_and_names_it(dialect: str, type_: str, removed: str, tmp_path: Path) -> None:
    lines = with_results(dialect)
    results = [line for line in lines if line.value.get("type", line.value.get("t")) == type_]
    assert len(results) == 6
    missing = {"none": [], "one": results[:1], "all": results}[removed]
    path = write(tmp_path / "a.jsonl", [line for line in lines if line not in missing])
    verdict = judge(path, WITH_RESULTS if dialect == "chat" else "")
    answer = next(each for each in verdict.answers if each.property is Property.CALLS)
    assert answer.state is (State.UNKNOWN if missing else State.HOLDS)
    assert ("kinds.tool_result" in answer.reason) == bool(missing)


@pytest.mark.parametrize("type_", ["tool-output-available", "tool-output-error", "tool-output-denied"])
def test_error_and_denial_are_results(type_: str, tmp_path: Path) -> None:
    values = [
        {**v, "type": type_} if v["type"] == "tool-output-available" else v
        for v in DIALECTS["Vercel UI stream"]("r", "t")
    ]
    assert states(judge(save(tmp_path / "a.jsonl", *values)))[Property.CALLS] is State.HOLDS


def test_ids_of_server_sent_events_may_be_positions(tmp_path: Path) -> None:
    table = "[dialect]\nkind = 't'\nrun = 'r'\ntext = 'd'\nposition = { path = '@id', first = 1 }\n"
    table += "[dialect.kinds]\nstarted = 'go'\ntext = 'say'\nended = 'done'\n"
    kinds = ("go", "say", "say", "done")
    events = [f"id: {n}\ndata: {json.dumps({'t': kind, 'r': 1, 'd': 'a'})}\n\n" for n, kind in enumerate(kinds, 1)]
    path = tmp_path / "a.txt"
    for kept, lost, state in (
        ([0, 1, 2, 3], {}, State.HOLDS),
        ([0, 1, 3], {Property.LOST: ["position 3"]}, State.BROKEN),
    ):
        path.write_text("".join(events[index] for index in kept), encoding="utf-8")
        verdict = judge(path, table)
        found = {which: [each.partition(" of ")[0] for each in subjects] for which, subjects in broken(verdict).items()}
        assert found == lost
        assert states(verdict)[Property.LOST] is state
    har_events = [
        {"data": event.partition("data: ")[2].strip(), "eventId": str(n), "time": 1.0}
        for n, event in enumerate(events, 1)
    ]
    (tmp_path / "a.har").write_text(
        json.dumps(har([{"request": {}, "_eventSourceMessages": har_events}])), encoding="utf-8"
    )
    assert states(judge(tmp_path / "a.har", table))[Property.LOST] is State.HOLDS


def test_text_that_begins_as_json_is_read_with_a_table_for_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("data: {not JSON\n\ndata: [DONE]\n\n", encoding="utf-8")
    table = "[dialect]\nkind = '@text'\nrun = '@connection'\ntext = '@text'\n"
    table += "[dialect.kinds]\ntext = '*'\nended = '[DONE]'\n"
    assert states(judge(path, table))[Property.ENDED] is not State.BROKEN


@pytest.mark.parametrize("name", PROTOCOLS)
def test_draft_never_breaks_the_recording_that_it_came_from(name: str, tmp_path: Path) -> None:
    path = Path(save(tmp_path / "a.jsonl", *PROTOCOLS[name][0]("r")))
    assert main(["learn", str(path), "--out", str(tmp_path / "t.toml")]) == 0
    assert broken(check_recording(str(path), dialect=load_table(str(tmp_path / "t.toml")))) == {}


def test_thinking_and_calls_are_compared_with_their_complete_values(tmp_path: Path) -> None:
    for name in ("AG-UI chunks", "OpenAI calls", "OpenAI parts"):
        found = states(judge(save(tmp_path / "a.jsonl", *PROTOCOLS[name][0]("r"))))
        assert State.HOLDS in (found[Property.TEXT], found[Property.ARGUMENTS]), name
        assert found[Property.SNAPSHOT] is State.HOLDS, name


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("in_har", [False, True])
def test_server_sent_events_end_their_lines_in_three_ways(end: str, in_har: bool, tmp_path: Path) -> None:
    body = f"\ufeff: hello{end}{end}id{end}{sse(list(PROTOCOLS['AG-UI reasoning'][0]('r')), end)}data: [DONE]{end}{end}"
    content = {"mimeType": "text/event-stream", "text": body}
    path = tmp_path / "a.txt"
    text = json.dumps(har([{"response": {"content": content}}])) if in_har else body
    path.write_text(text, encoding="utf-8", newline="")
    verdict = judge(path)
    assert (verdict.container, verdict.runs) == ("HAR" if in_har else "SSE", 1)
    assert states(verdict)[Property.ENDED] is State.HOLDS
    assert broken(verdict) == {}


REPLAYED = {"AG-UI": samples.ag_ui, "Vercel UI stream": samples.vercel}


@pytest.mark.parametrize("dialect", REPLAYED)
def test_what_a_reconnect_repeats_is_not_broken_where_no_position_shows_it(dialect: str, tmp_path: Path) -> None:
    """From any cut, the backend sends everything again, or what follows any earlier frame."""
    values = list(REPLAYED[dialect]("r", "t"))
    for cut in range(2, len(values), 2):
        for start in {0, cut // 2, cut - 1, cut}:
            path = tmp_path / "a.txt"
            path.write_text(f"{sse(values[:cut])}---\n{sse(values[start:])}", encoding="utf-8")
            assert broken(judge(path)) == {}, (cut, start)


def test_run_that_does_not_end_after_a_reconnect_is_broken(tmp_path: Path) -> None:
    values = list(samples.ag_ui("r", "t"))
    path = tmp_path / "a.txt"
    path.write_text(f"{sse(values[:9])}---\n{sse(values[9:-1])}", encoding="utf-8")
    assert broken(judge(path)) == {Property.ENDED: ["run r"]}


@pytest.mark.parametrize("last", [{"type": "RUN_ERROR", "message": "x"}, None])
def test_calls_that_a_run_left_open_are_not_paired(last: Value | None, tmp_path: Path) -> None:
    values = [*list(samples.ag_ui("r", "t"))[:6], *([last] if last else [])]
    assert states(judge(save(tmp_path / "a.jsonl", *values)))[Property.CALLS] is State.UNKNOWN


def test_error_that_may_not_be_the_last_frame_leaves_the_end_unknown(tmp_path: Path) -> None:
    values = list(PROTOCOLS["Vercel error"][0]("r"))
    assert states(judge(save(tmp_path / "a.jsonl", *values)))[Property.ENDED] is State.HOLDS
    assert states(judge(save(tmp_path / "b.jsonl", *values[:-1])))[Property.ENDED] is State.UNKNOWN


def test_frames_without_a_position_leave_duplicates_unknown(tmp_path: Path) -> None:
    table = samples.TABLE
    values = [{k: v for k, v in value.items() if k != "n" or value["t"] != "say"} for value in samples.table("r", "t")]
    found = states(judge(save(tmp_path / "a.jsonl", *values), table))
    assert {found[each] for each in (Property.LOST, Property.DUPLICATED, Property.ORDER)} <= {
        State.UNKNOWN, State.BROKEN,
    }  # fmt: skip


def test_first_positions_that_arrive_exchanged_are_out_of_order(tmp_path: Path) -> None:
    values = [value for value in samples.table("r", "t") if value["t"] == "arg"]
    values[0], values[1] = values[1], values[0]
    found = broken(judge(save(tmp_path / "a.jsonl", *values), samples.TABLE))
    assert found[Property.ORDER] == [f"position {values[1]['n']}"]
    assert Property.DUPLICATED not in found


def test_name_of_a_dialect_is_no_path(tmp_path: Path) -> None:
    """A field of the same name in a message of the subscription does not begin a new numbering."""
    table = '[dialect]\nname = "epoch"\nkind = "t"\nposition = "n"\n[dialect.kinds]\nsubscribed = "hi"\ntext = "say"'
    values = [{"t": "hi", "n": 0, "epoch": "a"}, {"t": "say", "n": 1}, {"t": "hi", "n": 0, "epoch": "b"}]
    found = broken(judge(save(tmp_path / "a.jsonl", *values, {"t": "say", "n": 1}), table))
    assert list(found) == [Property.DUPLICATED]


@pytest.mark.parametrize("first", ['0{"sid":"x"}', '40{"sid":"y"}', "2", "bAQID", '451-["b",{"num":0}]'])
def test_text_that_no_prefix_begins_is_another_frame(first: str, tmp_path: Path) -> None:
    table = '[dialect]\nprefix = "42"\nkind = "0"\nrun = "1.run"\n[dialect.kinds]\nstarted = "go"\nended = "end"'
    path = save(tmp_path / "a.txt", first, '42["go",{"run":"r"}]', first, '42["end",{"run":"r"}]')
    assert states(judge(path, table))[Property.ENDED] is State.HOLDS


PHOENIX: list[list[Any]] = [
    ["1", "1", "room:t", "phx_reply", {"status": "ok"}],
    *(["1", None, "room:t", kind, {"run": "r", "d": "x"}] for kind in ("go", *["say"] * 6, "done")),
]
SOCKET_IO = ['0{"sid":"x"}', "2", *("42" + json.dumps(each[3:]) for each in PHOENIX[1:]), "2"]


@pytest.mark.parametrize("rows", [[json.dumps(each) for each in PHOENIX], SOCKET_IO], ids=["lists", "prefix"])
def test_frames_that_are_lists_are_judged_and_drafted(rows: list[str], tmp_path: Path) -> None:
    kind, run = ("3", "4.run") if rows[0].startswith("[") else ("0", "1.run")
    table = f'[dialect]\nkind = "{kind}"\nrun = "{run}"\n[dialect.kinds]\nstarted = "go"\nended = "done"'
    prefix = "" if kind == "3" else '\nprefix = "42"'
    path = save(tmp_path / "a.txt", *rows)
    assert states(judge(path, table.replace("]", f"]{prefix}", 1)))[Property.ENDED] is State.HOLDS
    assert main(["learn", path, "--out", str(tmp_path / "t.toml")]) == 0
    drafted = (tmp_path / "t.toml").read_text()
    assert f'kind = "{kind}"' in drafted
    assert f'run = "{run}"' in drafted
    assert ('prefix = "42"' in drafted) == (kind == "0")
    assert broken(check_recording(path, dialect=load_table(str(tmp_path / "t.toml")))) == {}


def test_lines_of_a_table_may_stand_at_any_depth(tmp_path: Path) -> None:
    """The complete arguments are found although the path of the call is longer."""
    table = samples.TABLE.replace('call = "call"\ntext', 'call = "at.call"\ntext').replace('whole = "full"\n', "")
    values = [{**value, "at": {"call": value.get("call")}} for value in samples.table("r", "t")]
    snapshots = [{**value, "t": "was", "n": len(values) + n} for n, value in enumerate(values) if "full" in value]
    ends = [{name: each for name, each in value.items() if name != "full"} for value in values]
    path = save(tmp_path / "a.jsonl", *ends[:-1], *snapshots, ends[-1])
    found = states(judge(path, table + 'snapshot = "was"\n'))
    assert found[Property.ARGUMENTS] is State.HOLDS


ROWS = {
    "AG-UI": dialects.AG_UI,
    "OpenAI Responses": dialects.OPENAI,
    "Vercel UI stream": dialects.VERCEL,
    "bridgekit": dialects.BRIDGEKIT,
}
RUNS = {name: run for name, (run, table) in PROTOCOLS.items() if not table and name != "Vercel error"}
RUNS |= {name: lambda run, name=name: DIALECTS[name](run, "t") for name in ROWS}  # type: ignore[misc]


@pytest.mark.parametrize("name", RUNS)
def test_built_in_dialect_without_a_row_only_makes_answers_unknown(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a sound run, and for one without one of its frames."""
    values = list(RUNS[name]("r"))
    dialect = BUILT_IN[judge(save(tmp_path / "whole.jsonl", *values)).dialect]
    rows = ROWS[dialect.name]
    recordings = [values, *([*values[:n], *values[n + 1 :]] for n in range(1, len(values), 3))]
    paths = [save(tmp_path / f"{n}.jsonl", *each) for n, each in enumerate(recordings)]
    before = [states(check_recording(path, dialect=dialect)) for path in paths]
    for type_ in {value["type"] for value in values} & rows.keys():
        with monkeypatch.context() as patch:
            patch.delitem(rows, type_)
            less = replace(dialect, kinds=frozenset(rows.values()))
            for path, whole in zip(paths, before, strict=True):
                found = states(check_recording(path, dialect=less))
                begins = {each for each in found if found[each] is State.HOLDS and whole[each] is not State.HOLDS}
                assert not begins, (type_, path)
                assert path != paths[0] or State.BROKEN not in found.values(), type_
