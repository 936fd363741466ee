"""What can go wrong when the report is written: each gives one clear line, and nothing is left half-written."""

from __future__ import annotations

import errno
import gc
import os
import re
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest

from bridgekit.__main__ import main
from bridgekit_verify.commands.report import stopped_by_signals
from bridgekit_verify.report import building
from bridgekit_verify.report.building import ReportNotWritten, build_from_executed
from bridgekit_verify.report.findings import FINDING_MIME, TABLE_MIME
from bridgekit_verify.report.notebook_files import NotebookNotWritten, read_notebook, write_notebook
from tests.tree import ROOT
from tests.verify.report.notebooks import code, executed, finding, notebook, recorded, shown, write

FILES = ["index.html", "results.csv", "results.json"]
COMMAND = [sys.executable, "-m", "bridgekit", "report"]
LIMIT_SECONDS = 60


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Return a folder with one executed notebook."""
    name, content = executed("01_a", recorded(finding()))
    write(tmp_path / "executed", name, content)
    return tmp_path / "executed"


class Ran(NamedTuple):
    """What a user sees of a command that has ended."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command in this process: a new one would import for seconds."""

    def run(*arguments: object) -> Ran:
        code = main(["report", *map(str, arguments)])
        return Ran(code, *capsys.readouterr())

    return run


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_report_leaves_its_three_files_and_nothing_else(good: Path, tmp_path: Path) -> None:
    build_from_executed(good, tmp_path / "deep" / "out")
    assert everything_in(tmp_path / "deep" / "out") == FILES


def test_other_files_of_the_folder_stay(good: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    build_from_executed(good, tmp_path / "out")
    assert everything_in(tmp_path / "out") == sorted([*FILES, "notes.txt"])


def a_file(folder: Path) -> Path:
    (folder / "taken").write_text("mine")
    return folder / "taken"


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "out"


def unwritable(folder: Path) -> Path:
    return Path("/proc/report") if os.geteuid() == 0 else _locked(folder)


def _locked(folder: Path) -> Path:
    (folder / "locked").mkdir(mode=0o500)
    return folder / "locked"


def with_folder_of_a_file(folder: Path) -> Path:
    (folder / "taken" / "results.json").mkdir(parents=True)
    return folder / "taken"


def too_long(folder: Path) -> Path:
    return folder / ("x" * 300)


def dangling(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "gone" / "away")
    return folder / "link"


@pytest.mark.parametrize("place", [a_file, below_a_file, unwritable, with_folder_of_a_file, too_long, dangling])
def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_executed(
    place: Callable[[Path], Path], good: Path, tmp_path: Path
) -> None:
    out = place(tmp_path)
    before = everything_in(tmp_path)
    with pytest.raises(ReportNotWritten, match=f"^cannot write the report to {re.escape(str(out))}: .*--out$"):
        building.build_report(tmp_path / "no notebooks here", out)
    with pytest.raises(ReportNotWritten):
        build_from_executed(good, out)
    assert everything_in(tmp_path) == before


@pytest.mark.slow
def test_the_command_says_in_one_line_that_out_is_a_file(good: Path, tmp_path: Path) -> None:
    """In a process of its own, as a user starts it."""
    ran = subprocess.run(
        [*COMMAND, "--from-executed", str(good), "--out", str(a_file(tmp_path))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"bridgekit: cannot write the report to {tmp_path / 'taken'}: it is a file and not a folder; name another"
        " folder with --out\n"
    )
    assert (tmp_path / "taken").read_text() == "mine"


@contextmanager
def no_space() -> Iterator[None]:
    """Limit the size of a file, which fails like a full disk: in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_older_report_complete(good: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    build_from_executed(good, out)
    older = {name: (out / name).read_bytes() for name in FILES}
    with no_space():
        ran = command("--from-executed", good, "--out", out)
    assert ran.returncode == 2
    assert ran.stderr == (
        f"bridgekit: cannot write the report to {out}: {os.strerror(errno.EFBIG)}; name another folder with --out\n"
    )
    assert {name: (out / name).read_bytes() for name in FILES} == older
    assert everything_in(out) == FILES


def test_a_full_disk_leaves_no_new_folder(good: Path, tmp_path: Path, command: Command) -> None:
    with no_space():
        ran = command("--from-executed", good, "--out", tmp_path / "new" / "out")
    assert ran.returncode == 2
    assert not (tmp_path / "new").exists()


def test_an_error_between_the_files_leaves_the_older_report(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    build_from_executed(good, out)
    (out / "results.csv").write_text("older")

    def interrupted(report: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "results_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_from_executed(good, out)
    assert (out / "results.csv").read_text() == "older"
    assert everything_in(out) == FILES


FINDING = {"id": "a", "title": "t", "claim": "c", "reported": "r", "answer": "a", "verdict": "holds"}
TABLE = {"name": "t", "caption": "c", "columns": ["a"], "records": []}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "verdict": ({FINDING_MIME: FINDING | {"verdict": "maybe"}}, "verdict"),
    "number for a text": ({FINDING_MIME: FINDING | {"title": 7}}, "title"),
    "missing field": ({FINDING_MIME: {"id": "a"}}, "title"),
    "no object": ({FINDING_MIME: "a text"}, "object"),
    "counts": ({FINDING_MIME: FINDING | {"before": [3, 2]}}, "before is 3 of 2"),
    "table": ({TABLE_MIME: TABLE | {"records": "none"}}, "records"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_output_of_a_wrong_type_is_named_in_one_line(name: str, tmp_path: Path, command: Command) -> None:
    data, named = WRONG[name]
    key, content = executed("01_a", shown({"text/plain": "x", **data}))
    write(tmp_path / "executed", key, content)
    ran = command("--from-executed", tmp_path / "executed", "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith("bridgekit: 01_a: cell 1 shows a finding or table that is not valid: ")
    assert named in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "{}", "[]", "not json", '{"nbformat": 9, "nbformat_minor": 0, "cells": []}'])
def test_a_file_that_is_no_notebook_is_named_in_one_line(content: str, tmp_path: Path, command: Command) -> None:
    (tmp_path / "executed").mkdir()
    (tmp_path / "executed" / "01_a.ipynb").write_text(content)
    ran = command("--from-executed", tmp_path / "executed", "--out", tmp_path / "out")
    assert ran.returncode == 2
    [line] = ran.stderr.splitlines()
    assert "01_a.ipynb is not a notebook" in line


def a_folder(path: Path) -> None:
    path.mkdir()


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def deep(path: Path) -> None:
    path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


@pytest.mark.parametrize(
    ("create", "text"), [(a_folder, "cannot be read"), (a_dangling_link, "cannot be read"), (deep, "is not a notebook")]
)
def test_a_notebook_that_cannot_be_read_is_named_in_one_line(
    create: Callable[[Path], None], text: str, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "executed").mkdir()
    create(tmp_path / "executed" / "01_a.ipynb")
    for option in ("--notebooks", "--from-executed"):
        ran = command(option, tmp_path / "executed", "--out", tmp_path / "out")
        assert (ran.returncode, ran.stdout) == (2, "")
        [line] = ran.stderr.splitlines()
        assert f"01_a.ipynb {text}" in line
    assert not (tmp_path / "out").exists()


def test_a_full_temporary_folder_is_named_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "notebooks", "01_a", notebook(code("x" * 30_000)))
    read = read_notebook(tmp_path / "notebooks" / "01_a.ipynb")
    with no_space(), pytest.raises(NotebookNotWritten, match=r"01_a.ipynb: .*TMPDIR"):
        write_notebook(read, tmp_path / "01_a.ipynb")


@pytest.mark.short_form(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGINT],
        [signal.SIGTERM],
        [signal.SIGHUP],
        [signal.SIGINT] * 9,
        [signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
    ],
    ids=lambda signals: " ".join(each.name for each in signals),
)
def test_a_signal_ends_the_kernels_and_leaves_nothing(signals: list[signal.Signals], tmp_path: Path) -> None:
    started = tmp_path / "started"
    body = f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    os.mkfifo(started)
    write(tmp_path / "notebooks", "01_a", notebook(code(body, count=None)))
    process = subprocess.Popen(
        [*COMMAND, "--notebooks", str(tmp_path / "notebooks"), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    kernel = int(started.read_text())  # returns as soon as the cell runs
    for each in signals:
        process.send_signal(each)
    _, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, errors) == (130, "bridgekit: stopped\n")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)


def test_a_coroutine_that_a_signal_leaves_without_an_await_causes_no_warning() -> None:
    with warnings.catch_warnings(record=True) as found:
        with pytest.raises(KeyboardInterrupt), stopped_by_signals():
            signal.raise_signal(signal.SIGINT)
        anyio.lowlevel.checkpoint()  # type: ignore[unused-coroutine]
        gc.collect()
    assert found == []


@pytest.mark.slow
def test_a_kernel_that_does_not_start_is_named_and_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "ipykernel_launcher.py").write_text("raise ImportError('no ipykernel')")
    write(tmp_path / "notebooks", "01_a", notebook(code("print(1)", count=None)))
    ran = subprocess.run(
        [*COMMAND, "--notebooks", str(tmp_path / "notebooks"), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))},
        cwd=ROOT,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (1, "")
    assert re.search(r"^failed: 01_a: .*RuntimeError: the kernel did not start: ", ran.stdout, re.MULTILINE), ran.stdout
    assert everything_in(tmp_path / "out") == FILES


@pytest.mark.acceptance
def test_two_reports_at_once_do_not_share_their_executed_copies(tmp_path: Path) -> None:
    # Each notebook waits until the other report's notebook runs as well, so that both reports overlap.
    body = (
        "import pathlib\npathlib.Path(HERE).write_text('x')\nassert pathlib.Path(THERE).read_text() == 'x'\n"
        "from bridgekit_verify.report import checked\nchecked('01_a')"
    )
    for name in ("one", "two"):
        os.mkfifo(tmp_path / name)
    processes = []
    for here, there in (("one", "two"), ("two", "one")):
        folder = tmp_path / f"notebooks of {here}"
        first, second = (f"HERE = {str(tmp_path / here)!r}", f"THERE = {str(tmp_path / there)!r}")
        # One opens its fifo for writing first, the other one for reading first, so that neither waits forever.
        lines = body.splitlines()
        ordered = lines if here == "one" else [lines[0], lines[2], lines[1], *lines[3:]]
        write(folder, "01_a", notebook(code("\n".join([first, second, *ordered]), count=None)))
        processes.append(
            subprocess.Popen(
                [*COMMAND, "--notebooks", str(folder), "--out", str(tmp_path / "out")],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
        assert (process.returncode, errors) == (0, "")
    assert everything_in(tmp_path / "out") == FILES
