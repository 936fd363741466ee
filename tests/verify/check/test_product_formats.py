"""Formats of products: batches, acknowledgements, JSON in JSON, and frames that name less than a run needs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import load_table, without_prefix
from bridgekit_verify.check.property_answers import Property, State
from bridgekit_verify.check.verdict import RecordingVerdict
from tests.verify.check.samples import WORDS, Value
from tests.verify.check.test_check import broken, states

TEXT = "".join(WORDS)
TABLE = """
[dialect]
kind = "{at}t"
run = "{at}run"
message = "{at}msg"
text = "{at}d"
whole = "{at}full"
position = {{ path = "{at}n", per = "run", first = 1 }}
[dialect.kinds]
started = "go"
text_begin = "open"
text = "say"
text_end = "said"
ended = "done"
"""


def run(name: str, **changes: Any) -> list[Value]:
    says = [{"t": "say", "msg": "m", "d": word} for word in WORDS]
    values = [{"t": "go"}, {"t": "open", "msg": "m"}, *says, {"t": "said", "msg": "m", "full": TEXT}, {"t": "done"}]
    return [{**value, "run": name, "n": n, **changes} for n, value in enumerate(values, 1)]


def grouped(values: Sequence[Any]) -> Iterator[list[Any]]:
    yield from (list(values[n : n + 3]) for n in range(0, len(values), 3))


def judge(folder: Path, table: str, lines: Sequence[Any]) -> RecordingVerdict:
    """Judge lines that are text, or JSON values, as one client received them."""
    (folder / "t.toml").write_text(table, encoding="utf-8")
    rows = [line if isinstance(line, str) else json.dumps({"socket": "s", "frame": line}) for line in lines]
    (folder / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return check_recording(str(folder / "a.jsonl"), dialect=load_table(str(folder / "t.toml")))


def in_json(text: str) -> str:
    return json.dumps({"socket": "s", "frame": text})


WRAPPED: dict[str, Callable[[list[Value]], list[Any]]] = {
    "list": lambda values: list(grouped(values)),
    "bare list": lambda values: [json.dumps(each) for each in grouped(values)],
    "records": lambda values: [in_json("".join(f"{json.dumps(v)}\x1e" for v in each)) for each in grouped(values)],
    "bare records": lambda values: ["".join(f"{json.dumps(v)}\x1e" for v in each) for each in grouped(values)],
    "records in lines": lambda values: [in_json("".join(f"{json.dumps(v)}\x1e\n" for v in e)) for e in grouped(values)],
    "lines": lambda values: [in_json("\n".join(map(json.dumps, each))) for each in grouped(values)],
    "acknowledged": lambda values: [f"42/chat,{n or ''}{json.dumps(['x', v])}" for n, v in enumerate(values)],
    "JSON in JSON": lambda values: [{"channel": "c", "data": json.dumps(each)} for each in values],
    "numbers as text": lambda values: [{**each, "n": str(each["n"])} for each in values],
}
PATHS = {"acknowledged": "1.", "JSON in JSON": "data."}


@pytest.mark.parametrize("name", WRAPPED)
def test_frames_are_read_as_the_product_wraps_them(name: str, tmp_path: Path) -> None:
    table = TABLE.format(at=PATHS.get(name, ""))
    table = table.replace("[dialect]", '[dialect]\nprefix = "42/chat,"', 1) if name == "acknowledged" else table
    values = run("r1") + run("r2")
    found = judge(tmp_path, table, WRAPPED[name](values))
    assert broken(found) == {}
    holds = {Property.LOST, Property.DUPLICATED, Property.ORDER, Property.TEXT, Property.ENDED, Property.END_LAST}
    assert {each for each in holds if states(found)[each] is not State.HOLDS} == set()
    for lost in (3, 4):
        less = judge(tmp_path, table, WRAPPED[name](values[:lost] + values[lost + 1 :]))
        assert broken(less)[Property.TEXT] == ["message m"]
        assert Property.LOST in broken(less)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x7f"])
def test_unescaped_line_ends_of_unicode_end_no_text_of_a_batch(character: str, tmp_path: Path) -> None:
    texts = [json.dumps(each, ensure_ascii=False).replace("bridge", f"bridge{character}") for each in run("r1")]
    lines = [in_json("\n".join(each)) for each in grouped(texts)]
    found = judge(tmp_path, TABLE.format(at=""), lines)
    assert broken(found) == {}
    assert states(found)[Property.TEXT] is State.HOLDS


@pytest.mark.parametrize("text", ["12[draft", "3{a} and", "7", "2 [1]", "[1", "word"])
def test_digits_before_text_that_is_not_json_belong_to_the_text(text: str) -> None:
    assert without_prefix(f"say:{text}", "say:") == text


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_id_of_a_server_sent_event_numbers_its_whole_batch(size: int, tmp_path: Path) -> None:
    """Also if a reconnect repeats batches."""
    values = [*run("r1"), *run("r2")]
    batches = [values[n : n + size] for n in range(0, len(values), size)]
    events = [f"id: {n}\ndata: {json.dumps(each)}\n" for n, each in enumerate(batches, 1)]
    table = TABLE.format(at="").replace('{ path = "n", per = "run", first = 1 }', '{ path = "@id", first = 1 }')
    found = judge(tmp_path, table, [*events[:-1], "---\n", *events[-2:]])
    assert broken(found) == {}
    holds = {Property.LOST, Property.DUPLICATED, Property.ORDER, Property.TEXT, Property.ENDED, Property.RESUME}
    assert {each for each in holds if states(found)[each] is not State.HOLDS} == set()
    assert Property.LOST in broken(judge(tmp_path, table, [*events[:1], *events[2:]]))


@pytest.mark.parametrize("wrap", ["list", "bare list", "records", "lines"])
@pytest.mark.parametrize("first", [0, 1, 3], ids=["start", "beginning", "none"])
def test_order_within_a_batch_is_judged(first: int, wrap: str, tmp_path: Path) -> None:
    """The start of a run or the beginning of a message arrives after the next frame of the same batch, or is lost."""
    table = TABLE.format(at="").replace('position = { path = "n", per = "run", first = 1 }', "")
    values = run("r1")
    exchanged = [*values[:first], values[first + 1], values[first], *values[first + 2 :]]
    expected = {0: {Property.ORDER: ["run r1"]}, 1: {Property.ORDER: ["message m"]}, 3: {}}[first]
    assert broken(judge(tmp_path, table, WRAPPED[wrap](exchanged))) == expected
    lost = judge(tmp_path, table, WRAPPED[wrap]([*values, *run("r2")[7:]]))
    assert "run r2" in broken(lost)[Property.LOST]


@pytest.mark.parametrize("kind", ["t", "@event"])
def test_event_without_data_is_a_frame_only_if_its_name_is_the_kind(kind: str, tmp_path: Path) -> None:
    events = [f"event: {each['t']}\ndata: {json.dumps(each)}\n" for each in run("r1")]
    table = TABLE.format(at="").replace('kind = "t"', f'kind = "{kind}"')
    found = judge(tmp_path, table, [*events, "event: ping\n\n"])
    assert found.frames - len(events) == (kind == "@event")
    assert (states(found)[Property.END_LAST] is State.HOLDS) == (kind == "t")


def test_type_may_be_true_or_false(tmp_path: Path) -> None:
    table = '[dialect]\nkind = "done"\nrun = "@connection"\ntext = "c"\n[dialect.kinds]\ntext = "false"\nended = "true"'
    rows: list[Value] = [*({"c": word, "done": False} for word in WORDS), {"c": "", "done": True}]
    assert states(judge(tmp_path, table, rows))[Property.END_LAST] is State.HOLDS
    assert Property.END_LAST in broken(judge(tmp_path, table, [*rows, rows[0]]))


CHUNKS = """[dialect]
kind = "why"
run = "id"
message = "msg"
text = "d"
position = { path = "n", first = 0 }
[dialect.kinds]
started = "begin"
text = "*"
ended = ["stop", "length"]
error = "filter"
"""


@pytest.mark.parametrize("end", ["stop", "length", "filter"])
@pytest.mark.parametrize("first", ["begin", None])
def test_message_that_starts_or_ends_a_run_may_hold_a_text(first: str | None, end: str, tmp_path: Path) -> None:
    """As the last chunk of some models, which states the reason of the end beside the last piece."""
    rows: list[Value] = [{"id": "r", "msg": "m", "d": word, "n": n} for n, word in enumerate(WORDS)]
    rows[0]["why"], rows[-1]["why"] = first, end
    found = judge(tmp_path, CHUNKS, rows)
    assert (broken(found), found.frames) == ({}, len(rows) + (2 if first else 1))
    holds = {Property.DUPLICATED, Property.ORDER, Property.END_LAST, *([Property.ENDED] if first else [])}
    assert {each for each in holds if states(found)[each] is not State.HOLDS} == set()
    assert broken(judge(tmp_path, CHUNKS, ["---", *rows, "---", *rows[2:]])) == {}
    assert broken(judge(tmp_path, CHUNKS, rows[:-1])) == {Property.ENDED: ["run r"]}
    assert Property.DUPLICATED in broken(judge(tmp_path, CHUNKS, [*rows, rows[-1]]))


def test_call_whose_end_names_no_call_is_not_broken(tmp_path: Path) -> None:
    table = '[dialect]\nkind = "t"\nrun = "@connection"\ncall = "id"\ntext = "d"\n[dialect.kinds]\nstarted = "go"\n'
    table += 'tool_begin = "call"\ntool_args = "arg"\ntool_end = "called"\nended = "done"'
    rows: list[Value] = [{"t": "go"}, {"t": "call", "id": "c"}, {"t": "arg", "d": "{}"}, {"t": "called"}, {"t": "done"}]
    found = judge(tmp_path, table, rows)
    assert broken(found) == {}
    assert "name no message" in next(each.reason for each in found.answers if each.property is Property.CALLS)
    assert broken(judge(tmp_path, table, [rows[0], rows[1], rows[4]])) == {Property.CALLS: ["call c"]}


def test_start_that_names_no_run_starts_no_earlier_run_again(tmp_path: Path) -> None:
    values = run("r1") + run("r2")
    rows = [{"t": "go"} if each["t"] == "go" else each for each in values]
    table = TABLE.format(at="").replace('position = { path = "n", per = "run", first = 1 }', "")
    assert broken(judge(tmp_path, table, rows)) == {}
    assert Property.ENDED in broken(judge(tmp_path, table, rows[:-1]))


def test_end_of_a_text_after_the_end_of_its_run_is_neither_lost_nor_twice(tmp_path: Path) -> None:
    values = run("r1")
    found = broken(judge(tmp_path, TABLE.format(at=""), [*values[:-2], values[-1], values[-2]]))
    assert set(found) == {Property.ORDER, Property.END_LAST}


def test_frame_of_another_user_whose_type_is_unknown_is_not_attributed(tmp_path: Path) -> None:
    rows = [
        {"socket": socket, "user": user, "thread": user, "frame": value}
        for socket, user in (("s1", "ann"), ("s2", "ben"))
        for value in run(f"r{socket}", msg=f"m{socket}")
    ]
    lines = [json.dumps(each) for each in rows]
    table = TABLE.format(at="")
    assert states(judge(tmp_path, table, lines))[Property.USER] is State.HOLDS
    stray = json.dumps({"socket": "s1", "user": "ann", "thread": "ann", "frame": {"t": "seen", "msg": "ms2"}})
    found = states(judge(tmp_path, table, [*lines, stray]))
    assert {found[each] for each in (Property.USER, Property.DUPLICATED, Property.ORDER)} == {State.UNKNOWN}


@pytest.mark.parametrize("empty", ["", None, False, [], {}])
@pytest.mark.parametrize("field", ["run", "msg", "room", "who"])
def test_empty_id_is_no_id(field: str, empty: object, tmp_path: Path) -> None:
    """Some servers begin or end with a frame whose ids are empty, such as a greeting or the result of a filter."""
    more: Value = {"t": "step", "n": None, "run": "ann", "room": "ann", "who": "ann", "msg": "mann", field: empty}
    rows: list[Value] = [more, *rich("ann"), more]
    lines = [json.dumps({"socket": "s", "user": "ann", "thread": "ann", "frame": value}) for value in rows]
    found = judge(tmp_path, RICH.replace('"step", ', ""), lines)
    assert (found.runs, broken(found)) == (1, {})


@pytest.mark.parametrize("count", [1, 2])
def test_reply_that_names_a_run_before_its_start_is_no_late_start(count: int, tmp_path: Path) -> None:
    """The frame is of a kind that the dialect does not name, such as the acknowledgement of the request."""
    table = TABLE.format(at="").replace('position = { path = "n", per = "run", first = 1 }', "")
    rows = run("r1")
    assert broken(judge(tmp_path, table, [*[{"t": "result", "run": "r1"}] * count, *rows])) == {}
    late = judge(tmp_path, table, [*[{"t": "result", "run": "r1"}] * count, rows[2], *rows[:2], *rows[3:]])
    assert broken(late)[Property.ORDER] == ["run r1", "message m"]


@pytest.mark.parametrize("line", ['text = "say"', 'event = "step"'])
def test_frame_before_the_start_is_not_in_order_if_the_dialect_does_not_name_its_kind(
    line: str, tmp_path: Path
) -> None:
    """The frame may be a piece that overtook the start, or a reply."""
    table = TABLE.format(at="") + 'event = "step"\n'
    early: Value = {"t": "step"} if "step" in line else {"t": "say", "msg": "m", "d": "a"}
    rows: list[Value] = [early, {"t": "go"}, {"t": "say", "msg": "m", "d": "b"}, {"t": "done"}]
    rows = [{**value, "run": "r", "n": n} for n, value in enumerate(rows, 1)]
    assert Property.ORDER in broken(judge(tmp_path, table, rows))
    less = judge(tmp_path, table.replace(f"{line}\n", ""), rows)
    found = next(each for each in less.answers if each.property is Property.ORDER)
    assert (found.state, f"kinds.{line.partition(' ')[0]}" in found.reason) == (State.UNKNOWN, True)


def test_table_without_the_kind_makes_text_unknown_and_not_unusable(tmp_path: Path) -> None:
    found = judge(
        tmp_path, '[dialect]\nprefix = "42"\nrun = "1.run"', ['42["go",{"run":"r"}]', '42["end",{"run":"r"}]']
    )
    assert "no kind" in next(each.reason for each in found.answers if each.property is Property.ENDED)


RICH = """
[dialect]
kind = "t"
run = "run"
thread = "room"
user = "who"
message = "msg"
call = "call"
text = "d"
whole = "full"
args = "args"
position = { path = "n", per = "run", first = 1 }
[dialect.kinds]
subscribed = "hello"
started = "go"
event = ["step", "usage"]
thinking = "think"
text_begin = "open"
text = "say"
text_end = "said"
tool = "call"
tool_begin = "call+"
tool_args = "arg"
tool_end = "called"
tool_result = "result"
snapshot = "all"
error = "failed"
ended = "done"
"""


def rich(name: str) -> Iterator[Value]:
    common = {"run": name, "room": name, "who": name}
    values: list[Value] = [
        {"t": "go"}, {"t": "step", "msg": f"m{name}"},
        *({"t": "think", "msg": f"h{name}", "d": word} for word in WORDS),
        {"t": "all", "msg": f"h{name}", "full": TEXT}, {"t": "call+", "call": f"c{name}"},
        {"t": "arg", "call": f"c{name}", "d": '{"a":'}, {"t": "arg", "call": f"c{name}", "d": "1}"},
        {"t": "called", "call": f"c{name}", "args": {"a": 1}}, {"t": "result", "call": f"c{name}"},
        {"t": "call", "call": f"d{name}", "args": {"a": 2}}, {"t": "result", "call": f"d{name}"},
        {"t": "all", "call": f"d{name}", "args": {"a": 2}}, {"t": "open", "msg": f"m{name}"},
        *({"t": "say", "msg": f"m{name}", "d": word} for word in WORDS), {"t": "usage"},
        {"t": "said", "msg": f"m{name}"}, {"t": "all", "msg": f"m{name}", "full": TEXT},
        {"t": "failed" if name == "bad" else "done"},
    ]  # fmt: skip
    yield {"t": "hello", "room": name}
    yield from ({**value, **common, "n": n} for n, value in enumerate(values, 1))


@pytest.mark.short_form(8)
@pytest.mark.parametrize("line", [line for line in RICH.splitlines() if " = " in line])
def test_rich_table_without_a_line_only_makes_answers_unknown(line: str, tmp_path: Path) -> None:
    """On a sound recording, and on recordings without one frame, or with one frame twice, moved or exchanged."""
    rows = [(each, value) for each in ("a", "b", "bad") for value in rich(each)]
    recordings = [rows]
    for n in range(0, len(rows), 4):
        other = (("b", "a")[rows[n][0] == "b"], rows[n][1])
        recordings += [
            rows[:n] + rows[n + 1 :],
            rows[:n] + rows[n : n + 1] + rows[n:],
            [*rows[:n], *rows[n + 1 :], other],
        ]
        recordings += [[*rows[:n], *reversed(rows[n : n + 2]), *rows[n + 2 :]]]
    for number, each in enumerate(recordings):
        lines = [json.dumps({"socket": who, "user": who, "thread": who, "frame": value}) for who, value in each]
        whole, less = (judge(tmp_path, table, lines) for table in (RICH, RICH.replace(f"{line}\n", "", 1)))
        before, after = states(whole), states(less)
        begins = {one for one in after if after[one] is State.HOLDS and before[one] is not State.HOLDS}
        assert not begins, (number, begins)
        if number == 0:
            assert broken(whole) == broken(less) == {}
            changed = [one for one in less.answers if one.state is not before[one.property]]
            assert all(line.partition(" ")[0] in one.reason for one in changed), changed


LABELLED = RICH.replace('tool = "call"\n', "").replace('subscribed = "hello"\n', "")


@pytest.mark.parametrize("line", [line for line in LABELLED.splitlines() if " = " in line])
def test_table_whose_frames_all_name_a_message_and_a_call_names_the_removed_line(line: str, tmp_path: Path) -> None:
    """Also the frames that start and end a run."""
    rows = [{"msg": f"m{run}", "call": None, **value} for run in ("a", "b") for value in rich(run)]
    kept = [each for each in rows if each["t"] not in ("hello", "call") and each.get("call") != f"d{each['run']}"]
    counts = Counter[str]()
    for each in kept:
        counts[each["run"]] += 1
        each["n"] = counts[each["run"]]
    lines = [json.dumps({"socket": v["who"], "user": v["who"], "thread": v["room"], "frame": v}) for v in kept]
    whole, less = (judge(tmp_path, table, lines) for table in (LABELLED, LABELLED.replace(f"{line}\n", "", 1)))
    assert broken(whole) == broken(less) == {}
    changed = [each for each in less.answers if each.state is not states(whole)[each.property]]
    assert all(line.partition(" ")[0] in each.reason for each in changed), changed


@pytest.mark.parametrize("type_", ["text", "output_text", "refusal"])
def test_parts_of_a_response_are_compared_with_their_deltas(type_: str, tmp_path: Path) -> None:
    name = "refusal" if type_ == "refusal" else "text"
    at = {"item_id": "i", "content_index": 0}
    event = f"response.{'output_text' if name == 'text' else name}"
    rows: list[Value] = [
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.content_part.added", **at, "part": {"type": type_, name: ""}},
        *({"type": f"{event}.delta", **at, "delta": word} for word in WORDS),
        {"type": f"{event}.done", **at, name: TEXT},
        {"type": "response.content_part.done", **at, "part": {"type": type_, name: TEXT}},
        {"type": "response.completed", "response": {"id": "r"}},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert broken(check_recording(str(path))) == {}
    path.write_text(path.read_text(encoding="utf-8").replace(f'{TEXT}"}}', f'{TEXT[:-1]}"}}'), encoding="utf-8")
    assert Property.SNAPSHOT in broken(check_recording(str(path)))
