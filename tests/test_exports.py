"""The package's public names: each is found, is what its module has, and is known to type checkers too."""

from __future__ import annotations

import ast
import subprocess
import sys
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


def test_name_that_has_moved_is_refused_with_its_new_place() -> None:
    with pytest.raises(AttributeError, match=r"from bridgekit_verify\.variants import VARIANTS"):
        bridgekit.VARIANTS  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("package", ["bridgekit", "bridgekit_verify"])
def test_package_prints_nothing_on_its_own(package: str) -> None:
    """A library leaves it to its application what becomes of a warning."""
    code = f"import logging, {package}; logging.getLogger('{package}.any').warning('seen')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        bridgekit.nope  # type: ignore[attr-defined]  # noqa: B018
