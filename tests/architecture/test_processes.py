"""Only one module starts processes: there each wait has a timeout, and each process ends with its block."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.architecture.layers import outside_imports
from tests.tree import ROOT, name_of, written_files

STARTS_PROCESSES = {"subprocess", "multiprocessing", "open_process", "run_process", "create_subprocess_exec"}
ALLOWED = {
    "bridgekit_verify/harness/processes.py": "starts the processes of all experiments",
    "bridgekit/serve/": "starts its workers",
}


def process_starts(source: str) -> list[str]:
    """List each import and each use of what starts a process."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0], *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        else:
            continue
        found += [f"line {node.lineno}: {name}" for name in names if name in STARTS_PROCESSES]
    return found


@pytest.mark.slow
def test_only_the_harness_starts_processes() -> None:
    sources = {
        name_of(path): path.read_text(encoding="utf-8")
        for package in ("bridgekit", "bridgekit_verify", "benchmarks")
        for path in written_files(".py", package)
    }
    violations = [
        f"{name}: {start}"
        for name, source in sources.items()
        if not name.startswith(tuple(ALLOWED))
        for start in process_starts(source)
    ]
    assert violations == []
    assert process_starts((ROOT / "bridgekit_verify/harness/processes.py").read_text(encoding="utf-8"))


def test_planted_process_start_is_named() -> None:
    source = "import subprocess\nfrom anyio import open_process\nawait asyncio.create_subprocess_exec('ls')"
    assert process_starts(source) == [
        "line 1: subprocess",
        "line 2: open_process",
        "line 3: create_subprocess_exec",
    ]


def test_harness_runs_in_any_interpreter_that_has_the_core_of_bridgekit() -> None:
    """The benchmarks run the stacks of others with it, in an environment without the suite's packages."""
    needed = {
        package
        for path in written_files(".py", "bridgekit_verify/harness")
        for package in outside_imports(path.read_text(encoding="utf-8")) - sys.stdlib_module_names
    }
    assert needed == {"anyio", "bridgekit", "bridgekit_verify", "msgspec"}
