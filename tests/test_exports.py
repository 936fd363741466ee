"""The package's public names: each can be imported, equals its module's, and is visible to type checkers."""

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
def test_public_name_is_the_object_that_type_checkers_see(name: str) -> None:
    assert getattr(bridgekit, name) is getattr(import_module(IMPORTED[name] or ""), name)


def test_names_for_type_checkers_equal_the_public_names() -> None:
    assert set(IMPORTED) == set(bridgekit.__all__)
    assert set(bridgekit.__all__) <= set(dir(bridgekit))


def test_error_names_the_new_module_when_a_name_has_moved() -> None:
    with pytest.raises(AttributeError, match=r"from bridgekit_verify\.variants import VARIANTS"):
        bridgekit.VARIANTS  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("package", ["bridgekit", "bridgekit_verify"])
def test_package_prints_nothing_when_it_logs_a_warning(package: str) -> None:
    """The application decides what happens to a library's log messages."""
    code = f"import logging, {package}; logging.getLogger('{package}.any').warning('seen')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_attribute_error_is_raised_when_the_name_is_unknown() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        bridgekit.nope  # type: ignore[attr-defined]  # noqa: B018
