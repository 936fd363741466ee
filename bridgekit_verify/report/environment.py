"""What the numbers were made with: versions and commit, never a path or a machine's name."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bridgekit
from bridgekit_verify.harness.processes import ProcessFailed, command_output
from bridgekit_verify.report.structure import Environment

# What the numbers or their pictures could depend on.
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
    """Versions of this interpreter's packages, and the commit of the checkout that holds this folder."""
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
    """The output of a git command; None where git is not installed or the folder is no checkout."""
    try:
        return command_output("git", "-C", str(folder), *command).strip()
    except (OSError, ProcessFailed):
        return None
