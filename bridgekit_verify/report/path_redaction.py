"""Removes absolute paths from the outputs of notebooks. The report is shared, and a path can name a user or a machine.

A file's path is shortened to the part below `site-packages` or a folder of this process, or else to the file's name.
The paths of URLs, such as "/ws", stay, because they have no suffix and do not start with a folder of `_ROOTS`.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from bridgekit_verify.report.failures import strip_colours

__all__ = ["without_paths"]

_ROOTS: Final = (
    "Applications", "Library", "System", "Users", "Volumes", "app", "bin", "boot", "builds", "code", "content",
    "data", "dev/shm", "etc", "github", "home", "io", "lib", "lib64", "media", "mnt", "nix", "opt", "private", "repo",
    "root", "run", "sbin", "scratch", "snap", "srv", "src", "tmp", "usr", "var", "work", "workdir", "workspace",
    "workspaces",
)  # fmt: skip
"""Top-level folders of the computers on which notebooks are executed."""

_NAME: Final = r"[^\s/\\:*?\"'`<>|(){}\[\],;]+"
_BEFORE: Final = r"(?<![\w.~/\\%-])"
_POSIX: Final = re.compile(rf"{_BEFORE}(?:file://)?((?:/{_NAME})+/?)")
_WINDOWS: Final = re.compile(rf"{_BEFORE}([A-Za-z]:[\\/](?:{_NAME}[\\/])*(?:{_NAME})?|\\\\{_NAME}(?:\\{_NAME})+)")
_HOME: Final = re.compile(rf"{_BEFORE}~(?:{_NAME})?(?:/{_NAME})+")
_IN_PACKAGE: Final = re.compile(r"(?:^|[/\\])(?:site|dist)-packages[/\\](.+)$")
_SUFFIX: Final = re.compile(r"\.[A-Za-z][\w]{0,9}$")
_IMAGES: Final = ("image/png", "image/jpeg", "image/gif")


def without_paths(value: Any) -> Any:
    """Return JSON data with shortened absolute paths. Images, which are base64, stay unchanged."""
    match value:
        case str():
            return _shorten(value)
        case Mapping():
            return {
                without_paths(key): item if _is_image(key, item) else without_paths(item) for key, item in value.items()
            }
        case list() | tuple():
            return [without_paths(item) for item in value]
        case _:
            return value


def _is_image(key: object, item: object) -> bool:
    """Return whether an entry of an output is an image. The image's metadata has the same key, but is a mapping."""
    return key in _IMAGES and not isinstance(item, Mapping)


def _shorten(text: str) -> str:
    if "/" not in text and "\\" not in text:
        return text
    text = strip_colours(text)  # a colour code directly before a path would hide its start
    for folder in _own_folders():
        text = text.replace(f"{folder}{os.sep}", "").replace(folder, Path(folder).name)
    text = _WINDOWS.sub(lambda found: _last_part(found[1]), text)
    text = _HOME.sub(lambda found: _last_part(found[0]), text)
    return _POSIX.sub(lambda found: _short_posix(found[0], found[1]), text)


@cache
def _own_folders() -> list[str]:
    """Return the folders of this process that can occur in an output, the longest first."""
    # The folders of this checkout, the interpreter, its packages, the user, and temporary files.
    checkout = Path(__file__).resolve().parents[2]
    found = {checkout, Path(sys.prefix), Path(sys.base_prefix), Path.cwd(), Path(tempfile.gettempdir())}
    with suppress(RuntimeError):  # The user may have no home folder.
        found.add(Path.home())
    # A short path such as /usr can be part of other text. The patterns shorten the paths below such a folder.
    return sorted((str(folder) for folder in found if len(folder.parts) > 2), key=len, reverse=True)


def _short_posix(whole: str, path: str) -> str:
    is_file = _SUFFIX.search(path.rstrip("/")) is not None and path.count("/") > 1
    in_root = any(path.startswith(f"/{root}/") for root in _ROOTS)
    return _last_part(path) if is_file or in_root or whole != path else whole


def _last_part(path: str) -> str:
    """Return the part of a path below the installed packages, or else the last part of the path."""
    if found := _IN_PACKAGE.search(path):
        return found[1].replace("\\", "/")
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
