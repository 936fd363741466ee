"""What `make` does before a command: it creates `.venv` once, and does not if an environment is given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tree import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose `.venv` is newer than all files that make compares it with."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").touch()
    return tmp_path


def planned(checkout: Path, *words: str) -> str:
    return made(checkout, "--dry-run", *words)


def made(checkout: Path, *words: str, conda: str | None = None) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CONDA", "MAKE", "MFLAGS"))
    }
    environment |= {} if conda is None else {"CONDA_PREFIX": conda}
    done = subprocess.run(["make", *words], cwd=checkout, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("target", ["check", "unit", "test", "report", "lab"])
def test_environment_is_not_created_again_when_it_is_up_to_date(target: str, checkout: Path) -> None:
    plan = planned(checkout, target)
    assert ".venv/bin/" in plan
    assert "venv --clear" not in plan
    assert "pip install" not in plan


def test_environment_is_created_when_it_does_not_exist(checkout: Path) -> None:
    (checkout / ".venv" / ".ready").unlink()
    assert "-m venv --clear .venv" in planned(checkout, "check")


def test_environment_is_created_again_when_a_requirement_has_changed(checkout: Path) -> None:
    os.utime(checkout / ".venv" / ".ready", (0, 0))
    assert "-m venv --clear .venv" in planned(checkout, "check")


def test_nothing_is_installed_when_an_environment_is_given(checkout: Path) -> None:
    (checkout / ".venv" / ".ready").unlink()
    plan = planned(checkout, "test", "ENVDIR=/opt/conda/envs/bridgekit")
    assert "/opt/conda/envs/bridgekit/bin/pytest" in plan
    assert "venv --clear" not in plan
    assert "pip install" not in plan


def test_make_shows_a_command_for_conda_when_conda_is_active(checkout: Path) -> None:
    prefix = "/opt/conda/envs/bridgekit"
    assert f'make ENVDIR="{prefix}" test' in made(checkout, conda=prefix)
    assert "ENVDIR" not in made(checkout)
