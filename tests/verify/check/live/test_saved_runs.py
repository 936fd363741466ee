"""Saved live runs: judging one again gives the same bytes, and damaged ones are refused in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest

from bridgekit_verify.check.baseline import Baseline
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.frames import Message
from bridgekit_verify.check.live.model_ledger import ModelLedger
from bridgekit_verify.check.live.saved_run import LiveRun, dialect_of, write_run
from bridgekit_verify.check.live.verdict import LiveVerdict, check_run
from bridgekit_verify.check.output import format_json, format_text
from bridgekit_verify.check.property_answers import Property, State
from bridgekit_verify.check.recording_files import Limits, open_recording
from bridgekit_verify.errors import UnusableRecording
from tests.verify.check.live.run_mutations import Mutate, drop, duplicate
from tests.verify.check.live.sound_backends import DIALECTS, sound
from tests.verify.check.live.test_pitfalls_of_runs import reconnected


@pytest.mark.parametrize("mutate", [None, drop, duplicate])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_saved_run_is_judged_with_the_same_bytes(dialect: str, mutate: Mutate | None, tmp_path: Path) -> None:
    run, path = sound(dialect, "everything"), str(tmp_path / "run.jsonl")
    named = dialect_of(run.dialect, "")
    if mutate is not None and named is not None:
        run.messages = mutate(list(run.messages), named, random.Random(1)) or []
    run.messages = [*run.messages[:20], *reconnected(run.messages[20:])]
    write_run(path, run)
    verdicts = [check_run(run, path=path), check_recording(path), check_recording(path)]
    texts = {format_json([each], Baseline(""), []) for each in verdicts}
    assert len(texts) == 1
    assert len({format_text(each, Baseline("")) for each in verdicts}) == 1


def test_frames_of_any_kind_are_read_as_they_were_received(tmp_path: Path) -> None:
    values = [{"a": "\ud83d"}, ["x", 1], "plain text", '42["say"]', "{no json", None, 7, {"frame": {"b": 1}}]
    messages = [
        Message("s1", number % 3, 0, value, "ann", None if number % 2 else "t1", number / 2 or None, "say")
        for number, value in enumerate(values)
    ]
    ledger = ModelLedger()
    ledger.add_prompt(user="ann", thread="t1", clients=["s1"])
    path = str(tmp_path / "run.jsonl")
    write_run(path, LiveRun(ledger, messages, {"kind": "@event", "kinds": {"text": "say"}}))
    with open_recording(path) as recording:
        read = list(recording.messages)
    assert read == [msgspec.structs.replace(each, index=index) for index, each in enumerate(messages, 2)]


def test_run_with_a_ledger_of_many_megabytes_is_read(tmp_path: Path) -> None:
    """The ledger is one line, longer than what is read at once."""
    run, path = sound("chat"), str(tmp_path / "run.jsonl")
    run.ledger.add_history(user="ann", thread="t1", text="half of a pair: \ud83d" + "x" * 3_000_000)
    write_run(path, run)
    assert not check_recording(path).broken


def test_limit_makes_what_is_missing_unknown(tmp_path: Path) -> None:
    run, path = sound("chat"), str(tmp_path / "run.jsonl")
    write_run(path, run)
    verdict = check_recording(path, limits=Limits(frames=30))
    assert isinstance(verdict, LiveVerdict)
    assert not verdict.broken
    lost = next(each for each in verdict.answers if each.property is Property.LOST)
    assert (lost.state, "--max-frames 30" in lost.reason) == (State.UNKNOWN, True)
    assert sum(tally.lost for tally in verdict.tallies) == 0


@pytest.mark.parametrize("damage", ["cut", "type", "dialect"])
def test_damaged_run_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    run, path = sound("chat"), tmp_path / "run.jsonl"
    if damage == "dialect":
        run.dialect = "nonsense"
    write_run(path, run)
    header, _, rest = path.read_text(encoding="utf-8").partition("\n")
    if damage == "cut":
        header = header[:-40]
    elif damage == "type":
        value = json.loads(header)
        value["ledger"]["prompts"][0]["clients"] = 7
        header = json.dumps(value)
    path.write_text(f"{header}\n{rest}", encoding="utf-8")
    with pytest.raises(UnusableRecording, match=r"line 1 is not the ledger|unknown dialect 'nonsense'"):
        check_recording(str(path))
