"""The table in docs/guarantees.md: each row names tests, and these tests exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.tree import ROOT

TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "| shown by |" not in line]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_row_names_existing_tests(row: str) -> None:
    shown_by = TEST.findall(row.split("|")[-2])
    assert shown_by
    assert [f"{path}::{name}" for path, name in shown_by if name not in functions_of(path)] == []


def test_every_sqlite_setting_has_a_row() -> None:
    for setting in ("off", "normal", "full"):
        assert sum(f'`synchronous="{setting}"`' in row for row in ROWS) == 1


def test_every_redis_persistence_has_a_row() -> None:
    for setting in ("no persistence", "`appendfsync everysec`", "`appendfsync always`"):
        assert sum(f"| Redis or Valkey, {setting} |" in row for row in ROWS) == 1
