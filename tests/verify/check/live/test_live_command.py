"""`bridgekit check --backend`: exit codes, messages, and what it has in common with recordings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import anyio
import pytest

from bridgekit.__main__ import main
from bridgekit_verify.harness.processes import start_process
from tests.tree import ROOT
from tests.verify.check.live.tiny_files import KINDS, write_backend
from tests.verify.check.samples import RECORDINGS

pytestmark = pytest.mark.slow
FEW = ("--users", "1", "--threads", "1", "--runs", "1", "--scenario", "text")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def defect(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The defect of the tiny backend, which inherits this process's environment."""
    name: str = getattr(request, "param", "")
    monkeypatch.setenv("DEFECT", name)
    return name


SUBJECTS = [
    ("no_model", 3, "the backend never called the model"),
    ("silent", 4, "the backend returned nothing of the model's answers"),
    ("echo", 5, "returned the prompt instead of an answer"),
]


@pytest.mark.short_form(5)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("defect", "code", "message"), SUBJECTS, indirect=["defect"])
def test_backend_that_cannot_be_judged_has_its_own_message_and_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, defect: str, code: int, message: str
) -> None:
    path = str(write_backend(tmp_path, kind))
    saved = str(tmp_path / "run.jsonl")
    assert main(["check", "--backend", path, *FEW, "--out", saved]) == code
    printed = capsys.readouterr().out
    assert " holds" not in printed
    assert message in printed
    assert main(["check", saved, "--json"]) == code, "the saved run"
    (found,) = json.loads(capsys.readouterr().out)["recordings"]
    assert "holds" not in {each["state"] for each in found["answers"]}


@pytest.mark.parametrize("defect", ["drop"], indirect=True)
def test_outputs_are_those_of_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str], defect: str) -> None:
    path = str(write_backend(tmp_path, "response"))
    base, xml = str(tmp_path / "base.txt"), str(tmp_path / "x.xml")
    assert main(["check", "--backend", path, *FEW, "--json", "--junit", xml, "--write-baseline", base]) == 1
    (found,) = json.loads(capsys.readouterr().out)["recordings"]
    assert {each["property"]: each["state"] for each in found["answers"]}["nothing lost"] == "broken"
    [suite] = ElementTree.parse(xml).getroot().findall("testsuite")
    assert suite.get("failures") != "0"
    assert main(["check", "--backend", path, *FEW, "--baseline", base]) == 0, "the seed makes violations repeatable"
    capsys.readouterr()
    with Path(base).open("a") as file:
        file.write("backend.toml: no such violation\n")
    assert main(["check", "--backend", path, *FEW, "--baseline", base]) == 1
    assert "remove it: backend.toml: no such violation" in capsys.readouterr().err


def test_sound_backend_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str], defect: str) -> None:
    assert main(["check", "--backend", str(write_backend(tmp_path, "websocket")), *FEW]) == 0
    assert "nothing lost       holds" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.jsonl", "--backend", "b.toml"],
        ["--backend", "b.toml", "--scenario", "nope"],
        ["--backend", "b.toml", "--dialect", "AG-UI"],
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_backend(tmp_path, "response").rename(tmp_path / "b.toml")
    with pytest.raises(SystemExit) as refused:
        sys.exit(main(["check", *arguments]))
    assert refused.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert (
        "recordings, or --backend" in last or "scenario must be one of" in last or "--dialect is for recordings" in last
    )


def test_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--backend", "/no/such.toml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("package", ["httpx", "httpx_sse"])
def test_missing_package_is_one_line_and_recordings_need_none(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; from bridgekit.__main__ import main; "
        f"print(main(['check', {str(RECORDINGS / 'good.jsonl')!r}]), main(['check', '--backend', 'b.toml']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "0 2"
    assert run.stderr.splitlines() == [
        "bridgekit: bridgekit check --backend needs a package that is not installed: pip install 'httpx-sse>=0.4,<1'"
    ]


async def test_interrupt_ends_the_backend_and_exits_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    monkeypatch.setenv("PID_FILE", str(pid_file))
    path = str(write_backend(tmp_path, "response"))
    command = [sys.executable, "-m", "bridgekit", "check", "--backend", path, "--scenario", "slow", "--runs", "100"]
    async with start_process(command) as process:
        with anyio.fail_after(30):
            while not pid_file.exists() or not pid_file.read_text():  # noqa: ASYNC110 - a file has no event
                await anyio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert await process.wait(within=30) == 130
        assert process.error_output == "bridgekit: stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
