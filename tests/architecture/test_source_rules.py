"""Rules that lint and types cannot check, each with an example of a violation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.source_rules import (
    EMOJI,
    MACHINE_PATHS,
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    MAX_TEST_FILE_LINES,
    duplicate_classes,
    lines_with,
    long_functions,
    violations,
)
from tests.tree import ROOT, name_of, written_files

# The module reproduces the defects of the audited code, so the rules do not apply to it.
AS_COMMITTED = ROOT / "bridgekit_verify" / "as_committed.py"

# A failed write to one socket must not affect other sockets: the task of that socket raises the error.
# An error that an agent's run raises is a result of the experiment: it is recorded.
# An error in the text of an error must not replace that error.
# An observer must not end the run that it observes.
# The code of a payload's value may raise anything, and becomes the reason why the value is refused.
# A widget's callback cannot wait: the explorer owns one task, and shows its error.
BROAD_EXCEPT = "a broad except that does not raise again"
EXEMPT = {
    "bridgekit/chain/error_text.py": [BROAD_EXCEPT],
    "bridgekit/chain/link_9_bridge.py": [BROAD_EXCEPT],
    "bridgekit/errors.py": [BROAD_EXCEPT],
    "bridgekit/payload_encoding.py": [BROAD_EXCEPT],
    "bridgekit/transport/started_coroutine.py": [BROAD_EXCEPT],
    "bridgekit/transport/writer.py": [BROAD_EXCEPT] * 3,
    "bridgekit_verify/faults/trials/worker_process.py": [BROAD_EXCEPT],
    "bridgekit_verify/report/notebook_explorer.py": ["a task outside a task group"],
}

PACKAGES = [
    path
    for package in ("bridgekit", "bridgekit_verify")
    for path in written_files(".py", package)
    if path != AS_COMMITTED
]
CODE = written_files(".py")
TREE = [path for path in written_files() if path.suffix != ".png"]

EMOJI_SAMPLE = "sent \N{ROCKET}"
MACHINE_PATH_SAMPLES = ["--index-" + "url x", "https://mirror.example/" + "pypi/simple", "see /ho" + "me/someone/x"]


@pytest.mark.slow
def test_packages_violate_no_rule_except_where_the_table_allows_it() -> None:
    found = {name_of(path): violations(path.read_text(encoding="utf-8")) for path in PACKAGES}
    rules = {name: [violation.partition(": ")[2] for violation in found[name]] for name in found if found[name]}
    assert rules == EXEMPT, found


@pytest.mark.slow
def test_files_and_functions_are_short() -> None:
    long = {name_of(path): lines for path in CODE if (lines := long_parts(path))}
    assert long == {}, "split a file by its concepts, and a function by its steps"


def long_parts(path: Path) -> list[str]:
    source = path.read_text(encoding="utf-8")
    limit = MAX_TEST_FILE_LINES if path.is_relative_to(ROOT / "tests") else MAX_FILE_LINES
    lines = len(source.splitlines())
    return [*([f"{lines} lines"] if lines > limit else []), *long_functions(source)]


@pytest.mark.slow
def test_no_class_name_is_defined_twice() -> None:
    folders = ("bridgekit", "bridgekit_verify", "benchmarks")
    paths = [path for folder in folders for path in written_files(".py", folder)]
    assert duplicate_classes({name_of(path): path.read_text(encoding="utf-8") for path in paths}) == {}


def test_class_that_is_defined_twice_is_found() -> None:
    sources = {"a": "class One: ...\nclass Two: ...", "b": "def f():\n    class One: ..."}
    assert duplicate_classes(sources) == {"One": ["a", "b"]}


def test_no_emoji_in_the_tree() -> None:
    assert found_in_tree(EMOJI) == {}


def test_no_path_of_one_machine_in_the_tree() -> None:
    assert found_in_tree(MACHINE_PATHS) == {}


def found_in_tree(pattern: re.Pattern[str]) -> dict[str, list[str]]:
    read = {name_of(path): path.read_text(encoding="utf-8", errors="replace") for path in TREE}
    return {name: lines for name, text in read.items() if (lines := lines_with(pattern, text))}


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("try: ...\nexcept: ...", "line 2: a broad except that does not raise again"),
        ("try: ...\nexcept Exception: ...", "line 2: a broad except that does not raise again"),
        (
            "try: ...\nexcept (OSError, BaseException): ...",
            "line 2: a broad except that does not raise again",
        ),
        ("hasattr(bridge, 'send')", "line 1: hasattr: check the type, or let the attribute error be raised"),
        ("loop.create_task(f())", "line 1: a task outside a task group"),
        ("from asyncio import create_task\ncreate_task(f())", "line 2: a task outside a task group"),
    ],
)
def test_violation_is_found(source: str, rule: str) -> None:
    assert violations(source) == [rule]


def test_broad_except_that_raises_again_is_allowed() -> None:
    assert violations("try: ...\nexcept Exception as error:\n    raise ValueError from error") == []


def test_long_function_is_found() -> None:
    body = "    pass\n" * MAX_FUNCTION_LINES
    assert long_functions(f"def brief(): ...\nasync def long():\n{body}") == ["long: 61 lines"]


def test_emoji_is_found() -> None:
    assert lines_with(EMOJI, f"a → b – c\n{EMOJI_SAMPLE}") == [f"line 2: {EMOJI_SAMPLE}"]


@pytest.mark.parametrize("sample", MACHINE_PATH_SAMPLES)
def test_path_of_one_machine_is_found(sample: str) -> None:
    assert lines_with(MACHINE_PATHS, f"https://example.org/homes\n{sample}") == [f"line 2: {sample}"]
