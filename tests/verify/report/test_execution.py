"""Executes a folder of small notebooks in real kernels; most of them fail, each in a different way."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from bridgekit_verify.report import execution
from bridgekit_verify.report.building import BuiltReport, build_from_executed, build_report
from bridgekit_verify.report.execution import execute_folder
from bridgekit_verify.report.kernel_settings import YOUNG_OBJECTS
from bridgekit_verify.report.parameters import ParameterError
from tests.verify.report.notebooks import code, notebook, write

pytestmark = pytest.mark.slow

GROUP = "import anyio\nasync def fail():\n    assert 1 == 2, 'one is not two'\n"
IN_A_GROUP = GROUP + "async with anyio.create_task_group() as tasks:\n    tasks.start_soon(fail)"
HANDLING_ONE = (
    GROUP + "try:\n    async with anyio.create_task_group() as tasks:\n        tasks.start_soon(fail)\n"
    "except* AssertionError:\n    raise ValueError('second')"
)
FAILING = {
    "11_error": ("raise ValueError('no')", "11_error: code cell 2: ValueError: no"),
    "12_group": (IN_A_GROUP, "12_group: code cell 2: AssertionError: one is not two"),
    "13_handling": (HANDLING_ONE, "13_handling: code cell 2: ValueError: second"),
    "14_silent": ("import os; os._exit(3)", "14_silent: code cell 2: DeadKernelError: the kernel died"),
    "15_asks": (
        "input('who? ')",
        "15_asks: code cell 2: StdinNotImplementedError: raw_input was called, but this frontend does not support input"
        " requests.",
    ),
}
COMPARES = "16_compares: code cell 3: AssertionError: SEED + 1 == 60: 9 == 60"
GOOD = """\
import gc, sys
from hashlib import sha256
import pandas as pd
from matplotlib.figure import Figure
from bridgekit_verify.report import Finding, checked, record, show_figure, show_table, source_of
source_of(Finding)
interpreter = sha256(sys.executable.encode()).hexdigest()
row = {"seed": SEED, "interpreter": interpreter, "young objects": gc.get_threshold()[0]}
show_table(pd.DataFrame([row]), "Seeds", name="seeds")
show_figure(Figure(figsize=(1, 1)), alt="nothing", caption="Nothing", name="before_after")
record(Finding(id="link-3", title="Link 3 · AgentRegistry", link=3, claim="c", reported="working",
               verdict="does not hold", answer=f"seed {SEED}", before=(0, 60), after=(60, 60)))"""


def small(name: str, body: str) -> dict[str, Any]:
    parameters = code("SEED = 7  # any", tags=("parameters",), count=None)
    return notebook(parameters, code(body, count=None), code(f"print('checked: {name}')", count=None))


@dataclass
class ExecutionResult:
    built: BuiltReport
    executed: Path
    lines: list[str]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ExecutionResult:
    folder = tmp_path_factory.mktemp("report")
    write(folder / "notebooks", "10_good", small("10_good", GOOD))
    for name, (body, _) in FAILING.items():
        write(folder / "notebooks", name, small(name, body))
    compares = small("16_compares", "from bridgekit_verify.report import checked")
    compares["cells"].insert(2, code("assert SEED + 1 == 60", count=None))
    write(folder / "notebooks", "16_compares", compares)
    lines: list[str] = []
    built = build_report(
        folder / "notebooks",
        folder / "out",
        parameters={"SEED": 8},
        executed=folder / "executed",
        log=lines.append,
    )
    return ExecutionResult(built, folder / "executed", lines)


def test_each_failure_is_one_line_with_notebook_cell_and_the_exceptions_last_line(ran: ExecutionResult) -> None:
    assert ran.built.failures == (*(line for _, line in FAILING.values()), COMPARES)


def test_a_failed_assertion_shows_the_values_compared_in_the_report(ran: ExecutionResult) -> None:
    assert COMPARES in ran.built.page.read_text(encoding="utf-8")
    assert COMPARES in json.loads(ran.built.json.read_text(encoding="utf-8"))["failures"]


def test_a_failed_assertion_shows_the_values_compared_in_console_and_junit_xml(
    ran: ExecutionResult, tmp_path: Path
) -> None:
    copy = tmp_path / "16_compares.ipynb"
    copy.write_bytes((ran.executed.parent / "notebooks" / copy.name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        "--overwrite",
        "-p",
        "no:cacheprovider",
        "--junitxml=junit.xml",
    ]
    done = subprocess.run([*command, copy.name], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "SEED + 1 == 60: 8 == 60" in done.stdout
    assert "SEED + 1 == 60: 8 == 60" in (tmp_path / "junit.xml").read_text()


def test_a_report_with_failures_is_not_complete_and_its_page_says_so(ran: ExecutionResult) -> None:
    assert not ran.built.complete
    assert "<title>Incomplete: " in ran.built.page.read_text(encoding="utf-8")
    assert json.loads(ran.built.json.read_text(encoding="utf-8"))["complete"] is False


def test_progress_is_one_line_for_each_notebook(ran: ExecutionResult) -> None:
    assert sorted((line.split()[0], line.split()[-1]) for line in ran.lines) == [
        ("10_good", "ok"),
        *((name, "failed") for name in (*FAILING, "16_compares")),
    ]


def test_what_a_notebook_shows_in_a_kernel_reaches_the_results(ran: ExecutionResult) -> None:
    results = json.loads(ran.built.json.read_text(encoding="utf-8"))
    assert [finding["answer"] for finding in results["findings"]] == ["seed 8"]
    assert results["notebooks"][0]["figures"] == [{"name": "before_after", "caption": "Nothing", "alt": "nothing"}]
    page = ran.built.page.read_text(encoding="utf-8")
    assert 'alt="nothing"' in page
    assert "bridgekit_verify/report/findings.py, lines" in page


def test_a_parameter_is_overridden_in_the_copy_only(ran: ExecutionResult) -> None:
    results = json.loads(ran.built.json.read_text(encoding="utf-8"))
    assert results["environment"]["seeds"] == [8]
    assert "10_good,seeds,8," in ran.built.csv.read_text(encoding="utf-8")
    original = (ran.executed.parent / "notebooks" / "10_good.ipynb").read_text(encoding="utf-8")
    assert "SEED = 7  # any" in original


def test_the_kernel_is_the_interpreter_that_runs_this(ran: ExecutionResult) -> None:
    assert sha256(sys.executable.encode()).hexdigest() in ran.built.csv.read_text(encoding="utf-8")


def test_a_kernel_collects_garbage_less_often_than_other_processes(ran: ExecutionResult) -> None:
    assert str(YOUNG_OBJECTS) in ran.built.csv.read_text(encoding="utf-8")


def test_report_can_be_rebuilt_from_executed_copies(ran: ExecutionResult, tmp_path: Path) -> None:
    again = build_from_executed(ran.executed, tmp_path)
    assert again.headline == ran.built.headline
    assert not again.complete


def test_a_kernel_is_not_given_the_name_of_a_live_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a report made from JupyterLab would contain the explorer's controls in place of its table."""
    monkeypatch.setenv("JPY_SESSION_NAME", "mine.ipynb")
    monkeypatch.setenv("KEPT", "yes")
    environment = execution.kernel_environment()
    assert ("JPY_SESSION_NAME" in environment, environment["KEPT"]) == (False, "yes")


def test_an_unknown_parameter_stops_before_any_kernel_starts(tmp_path: Path) -> None:
    write(tmp_path / "notebooks", "10_good", small("10_good", "pass"))
    with pytest.raises(ParameterError, match="no notebook has the parameter sed; known parameters are: SEED"):
        execute_folder(tmp_path / "notebooks", tmp_path / "copies", parameters={"sed": 8})
    assert not (tmp_path / "copies").exists()


def test_a_cell_that_times_out_is_reported_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "notebooks", "15_hanging", small("15_hanging", "import time; time.sleep(600)"))
    failures = execute_folder(tmp_path / "notebooks", tmp_path / "copies", cell_seconds=5, log=lambda line: None)
    assert failures == ("15_hanging: code cell 2: CellTimeoutError: no end within 5 s",)


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="contains no notebook"):
        execute_folder(tmp_path, tmp_path / "copies")
