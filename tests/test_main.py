"""The command line: exit codes, text and JSON output, and one-line errors."""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from bridgekit import __main__
from bridgekit.__main__ import COMMANDS, main
from bridgekit.events import CRITICAL, decode
from bridgekit_verify.commands import demo
from bridgekit_verify.harness.processes import command_output


@pytest.mark.slow
def test_audit_exits_with_0_when_the_chain_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit"]) == 0
    assert "10 of 10 links hold" in capsys.readouterr().out


@pytest.mark.slow
def test_audit_names_only_link_9_when_the_chain_is_as_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--variant", "as reported", "--json", "--seed", "3", "--threads", "1"]) == 1
    probes = json.loads(capsys.readouterr().out)["probes"]
    assert [probe["link"] for probe in probes] == list(range(1, 11))
    assert [probe["link"] for probe in probes if probe["answer"] != "holds"] == [9]


def test_demo_prints_the_frames_that_the_client_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json", "--seed", "5"]) == 0
    events = [decode(line) for line in capsys.readouterr().out.splitlines()]
    assert [event.type for event in events] == list(CRITICAL)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]


def test_demo_takes_a_thread_id_of_the_readers_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json", "--thread-id", "support-42"]) == 0
    frames = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {frame["thread_id"] for frame in frames} == {"support-42"}


def test_demo_counts_lost_events_by_link_when_events_are_lost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--steps", "2", "--variant", "link 8 broken"]) == 1
    out = capsys.readouterr().out
    assert "2 of 8 events reached their user" in out
    assert "6 lost at link 8" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["audit", "--variant", "nope"], "no variant is called 'nope'; known: 'as reported'"),
        (["demo", "--family", "nope"], "no family of thread ids is called 'nope'"),
        (["demo", "--thread-id", " "], "thread_ids[0] = ' ': must not be empty. A thread id is a string of 1 to 1,024"),
        (["report", "--notebooks", "nowhere"], "nowhere contains no notebook"),
        (["report", "--from-executed", "nowhere"], "nowhere"),
        (["report", "--set", "SEED"], "SEED"),
        (["report", "--seed", "3", "--set", "SEED=4"], "the parameter SEED is set twice"),
        (["report", "--from-executed", ".", "--runs", "2", "--set", "SEED=4"], "--runs, --set have no effect on"),
        (["report", "--from-executed", ".", "--seed", "2"], "--seed has no effect on"),
    ],
)
def test_command_prints_one_line_and_exits_with_2_when_it_cannot_run(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bridgekit: ")
    assert expected in error
    assert len(error.splitlines()) == 1


def test_report_does_not_import_the_parsers_of_jsonschema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rfc3987_syntax", raising=False)
    assert main(["report", "--notebooks", str(tmp_path)]) == 2
    assert sys.modules["rfc3987_syntax"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "--seed", "-1"],
        ["audit", "--seed", "9" * 5_000],
        ["audit", "--threads", "101"],
        ["demo", "--steps", "0"],
        ["report", "--jobs", "x"],
        [],
    ],
    ids=lambda arguments: " ".join(arguments)[:20],
)
def test_usage_is_printed_when_an_argument_is_invalid(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: bridgekit" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["report", "--help"], ["audit", "--help"], ["demo", "--help"]])
def test_help_shows_the_usage_of_a_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    assert "usage: bridgekit" in capsys.readouterr().out


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP as by default. `nohup` lets its commands ignore SIGHUP."""
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("phase", ["import", "run", "event loop"])
def test_signal_stops_a_command_with_one_line(
    number: signal.Signals, phase: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = list[str]()

    async def in_event_loop() -> None:
        signal.raise_signal(number)
        with anyio.fail_after(30):
            await anyio.sleep_forever()

    def run(options: argparse.Namespace) -> int:
        if phase == "event loop":
            anyio.run(in_event_loop)
        signal.raise_signal(number)
        return 0

    def import_with_signal(name: str) -> ModuleType:
        if phase == "import":
            signal.raise_signal(number)
        imported.append(name)  # the signal does not end the import
        return demo

    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setattr(__main__, "import_module", import_with_signal)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert main(["demo"]) == 130
    assert capsys.readouterr() == ("", "bridgekit: stopped\n")
    assert imported == [COMMANDS["demo"].module]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


PRINTING = {
    "demo": ["demo"],
    "demo as JSON": ["demo", "--json"],
    "audit": ["audit", "--threads", "1"],
    "audit as JSON": ["audit", "--threads", "1", "--json"],
    "help": ["--help"],
    "help of a command": ["serve", "--help"],
    "version": ["--version"],
    "serve": ["serve", "tests.served_application:app", "--port", "0"],
}


@pytest.mark.short_form(4)
@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-u",)], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", PRINTING.values(), ids=PRINTING)
def test_reader_that_has_ended_causes_no_traceback(
    arguments: list[str], options: tuple[str, ...], tmp_path: Path
) -> None:
    errors, code = tmp_path / "errors", tmp_path / "code"
    script = f'( "$@" 2>{errors}; echo $? >{code} ) | true'
    command_output("sh", "-c", script, "sh", sys.executable, *options, "-m", "bridgekit", *arguments)
    assert errors.read_text() == ""
    # argparse ignores errors of unbuffered output.
    by_argparse = arguments[-1].startswith("--") and arguments[-1] != "--json"
    assert code.read_text().strip() in (("0", "141") if by_argparse else ("141",))


@pytest.mark.short_form(4)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("closed", "code"),
    [(">&-", 0), (">&- 2>&-", 0), ("<&-", 0), ("2>/dev/full", 0), (">/dev/full", 2), (">/dev/full 2>/dev/full", 2)],
)
@pytest.mark.parametrize("name", ["demo", "version"])
def test_closed_or_full_output_causes_no_traceback(name: str, closed: str, code: int, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    script = f'{{ "$@" {closed}; }} 2>{errors}; echo $?'
    printed = command_output("sh", "-c", script, "sh", sys.executable, "-m", "bridgekit", *PRINTING[name])
    # argparse ignores errors of unbuffered output.
    assert int(printed.split()[-1]) in ((0, code) if name == "version" else (code,))
    assert errors.read_text() in (
        "",
        "bridgekit: the disk of the output is full; make room, or write the output elsewhere\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", ">&- 2>&-"])
def test_exit_code_is_2_when_the_error_cannot_be_printed(closed: str) -> None:
    script = f'{{ "$@" {closed}; }}; echo $?'
    words = [sys.executable, "-m", "bridgekit", "serve", "nowhere:app"]
    assert command_output("sh", "-c", script, "sh", *words) == "2\n"


@pytest.mark.short_form(4)
@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("arguments", [["demo"], ["demo", "--json"], ["audit", "--threads", "1"]], ids=" ".join)
def test_command_prints_in_the_encoding_of_the_terminal(
    arguments: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    assert main(arguments) == 0
    assert printed.getvalue().decode(encoding)


@pytest.mark.slow
def test_json_stays_valid_in_an_encoding_that_lacks_its_characters() -> None:
    words = ("demo", "--json", "--thread-id", "Zürich-线程-𝄞")
    script = 'PYTHONUTF8=1 PYTHONIOENCODING=ascii exec "$@"'
    lines = command_output("sh", "-c", script, "sh", sys.executable, "-m", "bridgekit", *words).splitlines()
    assert {json.loads(line)["thread_id"] for line in lines} == {"Zürich-线程-𝄞"}
