"""The package's public names: each is found, is what its module has, and is known to type checkers too."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import bridgekit

SOURCE = ast.parse(Path(bridgekit.__file__).read_text(encoding="utf-8"))
IMPORTED = {
    alias.name: node.module
    for node in ast.walk(SOURCE)
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bridgekit.")
    for alias in node.names
}


@pytest.mark.parametrize("name", bridgekit.__all__)
def test_public_name_is_the_one_that_type_checkers_see(name: str) -> None:
    assert getattr(bridgekit, name) is getattr(import_module(IMPORTED[name] or ""), name)


def test_every_name_that_type_checkers_see_is_public_and_listed() -> None:
    assert set(IMPORTED) == set(bridgekit.__all__)
    assert set(bridgekit.__all__) <= set(dir(bridgekit))


def test_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        bridgekit.nope  # type: ignore[attr-defined]  # noqa: B018
