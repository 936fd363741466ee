"""Where a key for tickets comes from, and who else might have read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bridgekit.errors import ServeError
from bridgekit.serve.keys import KEY_VARIABLE, check_private, keys_from

OLD = "an old key, still believed for a while"
NEW = "a new key, which signs from now on ...."


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "key"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_each_line_of_the_file_is_a_key_and_the_first_signs(tmp_path: Path) -> None:
    file = written(tmp_path, f"{NEW}\n\n{OLD}  \r\n")
    assert keys_from(file, {}) == (NEW.encode(), OLD.encode())


def test_key_comes_from_the_environment_where_there_is_no_file(tmp_path: Path) -> None:
    assert keys_from(None, {KEY_VARIABLE: OLD}) == (OLD.encode(),)
    assert keys_from(written(tmp_path, NEW), {KEY_VARIABLE: OLD}) == (NEW.encode(),)


def test_there_may_be_none() -> None:
    assert keys_from(None, {}) == ()


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o601, 0o660, 0o666])
def test_file_that_others_may_read_or_change_is_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="other users may get at the key; say: chmod 600"):
        keys_from(written(tmp_path, NEW, mode), {})


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_file_of_our_own_is_read(mode: int, tmp_path: Path) -> None:
    assert keys_from(written(tmp_path, NEW, mode), {}) == (NEW.encode(),)


def status(*, owner: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))


def test_whose_the_file_is_decides_who_may_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    file = Path("key")
    for fine in (status(owner=1_000, mode=0o600), status(owner=0, mode=0o600), status(owner=0, mode=0o440)):
        check_private(file, fine)
    for open_to_others in (status(owner=1_000, mode=0o640), status(owner=0, mode=0o444), status(owner=0, mode=0o660)):
        with pytest.raises(ServeError, match="other users may get at the key"):
            check_private(file, open_to_others)
    with pytest.raises(ServeError, match="belongs to another user"):
        check_private(file, status(owner=1_001, mode=0o600))


def test_file_behind_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    file = written(tmp_path, NEW)
    link.symlink_to(file)
    assert keys_from(link, {}) == (NEW.encode(),)
    file.chmod(0o644)
    with pytest.raises(ServeError):
        keys_from(link, {})


@pytest.mark.parametrize(("text", "says"), [("", "holds no key"), ("\n \n", "holds no key"), ("short", "not 5")])
def test_key_that_is_none_is_refused_by_the_name_of_its_source(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=says) as refusal:
        keys_from(written(tmp_path, text), {})
    assert refusal.value.what == str(tmp_path / "key")
    with pytest.raises(ServeError, match=says) as refusal:
        keys_from(None, {KEY_VARIABLE: text})
    assert refusal.value.what == KEY_VARIABLE


def test_second_key_that_is_too_short_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="not 9"):
        keys_from(written(tmp_path, f"{NEW}\ntoo short"), {})


def test_no_key_is_ever_told(tmp_path: Path) -> None:
    with pytest.raises(ServeError) as refusal:
        keys_from(written(tmp_path, "my secret"), {})
    assert "my secret" not in str(refusal.value)


def test_file_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        keys_from(tmp_path / "nowhere", {})
