"""The trials of mutants: which one is detected, also where the tests were collected before the change."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tree import ROOT
from tools.function_code import changed_functions

MODULE = """
LIMIT = 3

def over(number):
    return number > LIMIT

def counted(number):
    steps = 0
    while number:
        number -= 1
        steps += 1
    return steps

COMPUTED = [over(3)]

def computed():
    return COMPUTED[0]

def unused():
    return 7
"""
TESTS = """
from example import computed, counted, over

def test_over():
    assert over(4)

def test_not_over():
    assert not over(3)

def test_counted():
    assert counted(2) == 2

def test_computed():
    assert computed() is False
"""
FREEZING = """
import gc

def pytest_collection_finish(session):
    gc.freeze()
"""
"""What tests/conftest.py does: `gc.get_objects` no longer returns the functions that the tests imported."""
RUN = """
import sys
from pathlib import Path
from tools import trials
from tools.mutants import mutants

trials.ROOT, trials.TEST_LIMIT_SECONDS = Path(sys.argv[1]), 1.0
target = trials.Target("example.py", ("test_example.py",))
found = list(mutants(target.file.read_text()))
print(len(found), *trials.surviving(target, found, jobs=2), sep="\\n")
"""


def run(folder: Path, module: str, tests: str) -> subprocess.CompletedProcess[str]:
    (folder / "example.py").write_text(module)
    (folder / "test_example.py").write_text(tests)
    return subprocess.run(
        [sys.executable, "-c", RUN, str(folder)], capture_output=True, text=True, cwd=ROOT, timeout=300
    )


@pytest.mark.slow
def test_mutants_survive_only_where_no_test_executes_them(tmp_path: Path) -> None:
    done = run(tmp_path, MODULE, TESTS)
    assert done.returncode == 0, done.stderr
    total, *survivors = done.stdout.splitlines()
    assert int(total) > 10
    assert [line.partition("function=")[2].partition(",")[0] for line in survivors] == ["'unused'"] * 2
    assert (tmp_path / "example.py").read_text() == MODULE


@pytest.mark.acceptance
def test_tests_are_collected_again_only_for_mutants_that_need_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(FREEZING)
    done = run(tmp_path, MODULE, TESTS + f"\nopen({str(tmp_path / 'collected')!r}, 'a').write('again ')\n")
    assert done.returncode == 0, done.stderr
    total, *survivors = done.stdout.splitlines()
    again = (tmp_path / "collected").read_text().split()
    assert len(survivors) < len(again) < int(total) / 2


@pytest.mark.slow
def test_tests_that_fail_without_a_mutant_are_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, MODULE, TESTS + "\ndef test_wrong():\n    assert over(1)\n")
    assert "TestsFail: example.py: its tests fail without a mutant; fix them first" in done.stderr


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("def f():\n    return 1", "def f():\n    return 2", ["f"]),
        ("def f():\n    return 1", "\n\ndef f():\n\n    return 1", []),
        ("def f():\n    return lambda: 1", "def f():\n    return lambda: 2", ["f"]),
        (
            "class C:\n    def f(self):\n        return 1\n    def g(self): ...",
            "class C:\n    def f(self):\n        return 2\n    def g(self): ...",
            ["f"],
        ),
        ("x = 1\ndef f(): ...", "x = 2\ndef f(): ...", None),
        ("def f(a=1): ...", "def f(a=2): ...", None),
        ("class C:\n    x = 1", "class C:\n    x = 2", None),
        ("x = lambda: 1", "x = lambda: 2", ["<lambda>"]),
        ("def f():\n    return 1", "def f():\n    return 1.0", ["f"]),
        ("def f():\n    return 1", "def f():\n    return True", ["f"]),
    ],
)
def test_changed_functions_are_those_whose_code_differs(before: str, after: str, names: list[str] | None) -> None:
    found = changed_functions(before, ast.unparse(ast.parse(after)), "example.py")
    assert (None if found is None else [one.co_name for one, _ in found]) == names
