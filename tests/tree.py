"""The paths of the checkout, and the files in it that tools did not generate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = ROOT / "build" / "executed"

GENERATED_FOLDERS = {"build", "dist", "node_modules", "__pycache__"}


def written_files(suffix: str = "", under: str = ".") -> list[Path]:
    """List the files below `under`, without generated ones. Fails if there are none, so that no test is vacuous."""
    files = sorted(path for path in walk(ROOT / under) if path.name.endswith(suffix))
    assert files, f"no {suffix or 'file'} below {under}"
    return files


def walk(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_made_by_tools(name)]
        yield from (Path(where, name) for name in names if name != ".git")


def is_made_by_tools(folder: str) -> bool:
    hidden = folder.startswith(".") and folder not in {".ci", ".github"}
    return hidden or folder in GENERATED_FOLDERS or folder.endswith(".egg-info")


def name_of(path: Path) -> str:
    """Return a file's path relative to the repository, which pytest shows as the test's id."""
    return path.relative_to(ROOT).as_posix()
