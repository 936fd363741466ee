"""Which stacks can be measured: their packages are found in the environment that runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.peers import Peer

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 5.2\n"


@pytest.mark.parametrize(("name", "folder"), [("Django", "Django"), ("channels_redis", "channels_redis")])
def test_package_is_found_under_any_spelling_of_its_name(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "lib" / "python3.11" / "site-packages" / f"{folder}-5.2.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(METADATA.format(name=name), encoding="utf-8")
    monkeypatch.setattr(peers, "PEERS_ENVIRONMENT", tmp_path)
    requirement = name.lower().replace("_", "-")
    stack = Peer(name="a stack", file="raw_tcp", description="", packages=(requirement, "absent"))
    assert stack.versions == {requirement: "5.2", "absent": ""}
    assert stack.missing == "absent"
