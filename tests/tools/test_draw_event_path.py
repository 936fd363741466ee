"""The picture of an event's path names only modules and methods that exist."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.tree import ROOT
from tools.draw_event_path import FIGURE, STEPS, Step, draw


def test_picture_has_the_ten_steps_of_an_event() -> None:
    names = [step.name for step in STEPS]
    assert names == ["agent", "adapter", "bridge", "resolver", "hub", "log", "outbox", "writer", "socket", "client"]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_module_of_a_step_defines_what_the_picture_names(step: Step) -> None:
    tree = ast.parse((ROOT / step.module).read_text(encoding="utf-8"))
    assert set(step.calls) <= set(defined_names(tree))


def defined_names(tree: ast.Module) -> Iterator[str]:
    """Yield the functions and classes of a module, and the methods of its classes as `Class.method`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))


def test_picture_can_be_drawn_and_is_committed() -> None:
    texts = [text.get_text() for text in draw().axes[0].texts]
    assert [step.name for step in STEPS if step.name not in texts] == []
    assert FIGURE.stat().st_size > 10_000
