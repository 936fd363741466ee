"""The wheel works without a checkout, in an environment that has only the core's requirements."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bridgekit import __version__
from tests.tree import ROOT, written_files

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("bridgekit", "bridgekit_verify")
RUN_SECONDS = 60
ENTRY_POINT = """
import sys
from importlib.metadata import entry_points
[command] = entry_points(group="console_scripts", name="bridgekit")
sys.exit(command.load()())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        check=True, cwd=ROOT, capture_output=True, timeout=RUN_SECONDS,
    )  # fmt: skip
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a new environment with the wheel and the core's requirements, copied without a network."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    [site] = home.glob("lib/python*/site-packages")
    for requirement in core_requirements():
        copy(requirement, site)
    with ZipFile(wheel) as archive:
        archive.extractall(site)
    return home / "bin"


def core_requirements() -> list[Distribution]:
    """Return the distributions that an installation without extras contains."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(line) for line in PROJECT["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[name] = distribution(name)
        waiting += [Requirement(line) for line in found[name].requires or ()]
    return list(found.values())


def copy(requirement: Distribution, site: Path) -> None:
    for file in requirement.files or ():
        if ".." not in file.parts:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), site / file)


def run(bin_folder: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `bridgekit` with these arguments, through the entry point that the wheel declares."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(bin_folder / "python"), "-c", ENTRY_POINT, *words],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=RUN_SECONDS,
    )  # fmt: skip


def shipped() -> Iterator[str]:
    for package in PACKAGES:
        yield from (path.relative_to(ROOT).as_posix() for path in written_files("", package))


def test_wheel_contains_exactly_the_files_of_both_packages(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == set(shipped())
    assert wheel.name == f"bridgekit_verify-{__version__}-py3-none-any.whl"


def test_demo_runs_when_the_wheel_is_installed(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 of 5 events reached their user" in done.stdout


def test_audit_runs_when_the_wheel_is_installed(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "audit", "--variant", "as reported", "--threads", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "9 of 10 links hold" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["report", "--help"], ["serve", "--help"]])
def test_help_is_shown_when_the_wheel_is_installed(words: list[str], installed: Path, tmp_path: Path) -> None:
    done = run(installed, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("usage: bridgekit", f"bridgekit {__version__}"))


def test_command_prints_one_line_when_its_packages_are_missing(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "report", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("bridgekit: this command needs ")
    assert "which is not installed: pip install '.[notebooks]' in a checkout of bridgekit" in line


def test_command_prints_one_line_when_the_suite_is_missing(installed: Path, tmp_path: Path) -> None:
    """The suite is missing if an application ships only the package `bridgekit`."""
    [site] = installed.parent.glob("lib/python*/site-packages")
    (site / "bridgekit_verify").rename(tmp_path / "removed")
    try:
        done = run(installed, "demo", cwd=tmp_path)
        served = run(installed, "serve", "nowhere:app", cwd=tmp_path)
    finally:
        (tmp_path / "removed").rename(site / "bridgekit_verify")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bridgekit: this command needs bridgekit_verify, which is not installed")
    assert served.returncode == 2
    assert "bridgekit_verify" not in served.stderr
