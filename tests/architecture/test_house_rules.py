"""Checks the rules that neither the linter nor the type checker can enforce, and that each rule detects a violation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.house_rules import (
    EMOJI,
    MACHINE_SPECIFIC,
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    MAX_TEST_FILE_LINES,
    lines_with,
    long_functions,
    violations_in,
)
from tests.tree import ROOT, name_of, written_files

# The audited defects as committed: the only module that may violate a rule.
AS_COMMITTED = ROOT / "bridgekit_verify" / "as_committed.py"

# An experiment records the errors of agent runs, so the worker does not re-raise them. The writer re-raises the error
# of a socket in that socket's own task, so that it does not affect other sockets.
BROAD_EXCEPT = "a broad except that does not re-raise"
EXEMPT = {
    ROOT / "bridgekit" / "transport" / "writer.py": [BROAD_EXCEPT] * 3,
    ROOT / "bridgekit_verify" / "faults" / "trials" / "worker.py": [BROAD_EXCEPT],
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
MACHINE_SAMPLES = ["--index-" + "url x", "https://mirror.example/" + "pypi/simple", "see /ho" + "me/someone/x"]


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_module_has_no_violation(path: Path) -> None:
    broken = [violation.partition(": ")[2] for violation in violations_in(path.read_text(encoding="utf-8"))]
    assert broken == EXEMPT.get(path, [])


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_file_and_its_functions_are_within_the_length_limits(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    limit = MAX_TEST_FILE_LINES if path.is_relative_to(ROOT / "tests") else MAX_FILE_LINES
    assert len(source.splitlines()) <= limit, "the file is too long: split it by topic"
    assert long_functions(source) == []


def test_no_emoji_in_the_tree() -> None:
    assert found_in_tree(EMOJI) == {}


def test_no_machine_specific_path_or_address_in_the_tree() -> None:
    assert found_in_tree(MACHINE_SPECIFIC) == {}


def found_in_tree(pattern: re.Pattern[str]) -> dict[str, list[str]]:
    read = {name_of(path): path.read_text(encoding="utf-8", errors="replace") for path in TREE}
    return {name: lines for name, text in read.items() if (lines := lines_with(pattern, text))}


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("try: ...\nexcept: ...", "line 2: a broad except that does not re-raise"),
        ("try: ...\nexcept Exception: ...", "line 2: a broad except that does not re-raise"),
        (
            "try: ...\nexcept (OSError, BaseException): ...",
            "line 2: a broad except that does not re-raise",
        ),
        ("hasattr(bridge, 'send')", "line 1: hasattr: check a type, or let the call fail"),
        ("loop.create_task(f())", "line 1: a task without an owner"),
        ("from asyncio import create_task\ncreate_task(f())", "line 2: a task without an owner"),
    ],
)
def test_violation_is_reported(source: str, rule: str) -> None:
    assert violations_in(source) == [rule]


def test_broad_except_that_raises_again_is_allowed() -> None:
    assert violations_in("try: ...\nexcept Exception as error:\n    raise ValueError from error") == []


def test_long_function_is_reported() -> None:
    body = "    pass\n" * MAX_FUNCTION_LINES
    assert long_functions(f"def brief(): ...\nasync def long():\n{body}") == ["long: 61 lines"]


def test_emoji_is_reported() -> None:
    assert lines_with(EMOJI, f"a → b – c\n{EMOJI_SAMPLE}") == [f"line 2: {EMOJI_SAMPLE}"]


@pytest.mark.parametrize("sample", MACHINE_SAMPLES)
def test_machine_specific_path_or_address_is_reported(sample: str) -> None:
    assert lines_with(MACHINE_SPECIFIC, f"https://example.org/homes\n{sample}") == [f"line 2: {sample}"]
