"""Reads the environment of the measurements: versions and commit, but no paths or host names."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bridgekit
from bridgekit_verify.harness.processes import ProcessFailed, command_output
from bridgekit_verify.report.report_data import Environment

# Packages that can affect the numbers or the figures.
PACKAGES = (
    "anyio",
    "ipykernel",
    "jupyterlab",
    "matplotlib",
    "msgspec",
    "nbclient",
    "nbconvert",
    "pandas",
    "starlette",
    "uvicorn",
    "websockets",
)


def read_environment(checkout: Path) -> Environment:
    """Return the versions of this interpreter's packages, and the commit of the checkout that contains this folder."""
    installed = {name: _version(name) for name in PACKAGES}
    changes = _git(checkout, "status", "--porcelain")
    return Environment(
        bridgekit=bridgekit.__version__,
        python=platform.python_version(),
        packages={name: found for name, found in installed.items() if found is not None},
        commit=_git(checkout, "rev-parse", "HEAD") or None,
        changed=None if changes is None else bool(changes),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *command: str) -> str | None:
    """Return the output of a git command, or None if git is not installed or the folder is not a checkout."""
    try:
        return command_output("git", "-C", str(folder), *command).strip()
    except (OSError, ProcessFailed):
        return None
