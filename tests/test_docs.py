"""The pages in docs/ are correct: examples run, links lead to files and headings, and tables are complete."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from bridgekit.chain.link_1_startup import RUNS_TIMEOUT_SECONDS
from bridgekit.chain.link_7_8_adapter import Emitter
from bridgekit.cursors_and_gaps import GapReason
from bridgekit.event_types import POLICIES
from bridgekit.events import EventType
from bridgekit.transport import authorization
from bridgekit.transport.connections import DRAIN_TIMEOUT_SECONDS
from bridgekit.transport.log import DEFAULT_RETENTION
from bridgekit.transport.outbox import OUTBOX_LIMITS, SLOW_AFTER_TICKS, TICK_SECONDS
from bridgekit.transport.tickets import TICKET_SECONDS
from bridgekit_verify.check.live.backend_file import parse_backend
from tests.performance.budgets import OWN_MODULES
from tests.tree import ROOT, name_of

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
USING = (DOCS / "using-the-bridge.md").read_text(encoding="utf-8")
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
AUDIT = (DOCS / "audit.md").read_text(encoding="utf-8")
SPEED = (DOCS / "speed.md").read_text(encoding="utf-8")

LINK = re.compile(r"\]\((?!http)([^)#]+)(?:#([^)]+))?\)")
"""A link to a file, and the heading in it if one is named."""


@pytest.mark.parametrize("source", re.findall(r"```python\n(.*?)```", USING, re.DOTALL))
def test_example_on_using_the_bridge_runs(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRIDGEKIT_TICKET_KEY", "k" * 32)
    exec(compile(source, "docs/using-the-bridge.md", "exec"), {})


def test_backend_file_of_the_short_guide_is_valid() -> None:
    guide = (DOCS / "check-your-backend.md").read_text(encoding="utf-8")
    [text] = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    assert parse_backend(tomllib.loads(text), "backend.toml").listen is not None


def test_docs_has_the_pages_that_readers_are_sent_to() -> None:
    pages = {page.stem for page in DOCS.glob("*.md")}
    assert pages == {
        *("architecture", "audit", "check", "check-your-backend", "guarantees", "recipes", "speed"),
        *("testing-your-agents", "using-the-bridge"),
    }


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    for path, fragment in LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / path
        assert target.is_file(), path
        assert not fragment or fragment in fragments(target), f"{path}#{fragment}"


def fragments(page: Path) -> set[str]:
    """Return the fragments that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_close_code_is_on_the_page() -> None:
    codes = {value for name, value in vars(authorization).items() if name.startswith("CLOSE_")}
    assert codes == {int(code) for code in re.findall(r"\b4[05]\d\d\b", USING)} - {4_499, 4_999}


def test_every_reason_of_a_gap_is_on_the_page() -> None:
    assert [reason for reason in GapReason if f"`{reason}`" not in USING] == []


def test_types_that_may_be_coalesced_are_on_the_page() -> None:
    assert f"`{EventType.AGENT_THINKING}` and `{EventType.PROGRESS_UPDATE}` make room" in " ".join(USING.split())


def test_every_emit_method_is_on_the_page_with_its_event_and_policy() -> None:
    rows = dict(re.findall(r"^\| `(emit\w*)\(.*\)` \| (.+? \| .+?) \|", USING, re.MULTILINE))
    methods = {name for name in vars(Emitter) if name.startswith("emit")}
    assert rows.keys() == methods
    stated = {row.split("`")[1]: row.split(" | ")[1] for name, row in rows.items() if name != "emit"}
    assert stated == {str(each): POLICIES[each].value.replace("_", " ") for each in EventType}


def test_bounds_on_the_page_are_the_defaults() -> None:
    words = " ".join(USING.split())
    mebibytes = DEFAULT_RETENTION.size_bytes // 1_048_576
    assert (
        f"{DEFAULT_RETENTION.events:,} events, {mebibytes} MiB and {DEFAULT_RETENTION.seconds:g} seconds by default"
        in words
    )
    assert f"{DEFAULT_RETENTION.threads:,} threads remembered" in words
    assert f"{OUTBOX_LIMITS.events:,} events and {OUTBOX_LIMITS.size_bytes // 1_048_576} MiB" in words
    assert f"if the client's socket accepts nothing for {SLOW_AFTER_TICKS * TICK_SECONDS:g} seconds" in words
    assert f"valid for {TICKET_SECONDS:g} seconds" in words
    assert f"`BridgeConfig(runs_seconds=…)`, {RUNS_TIMEOUT_SECONDS:g} by default" in words
    assert f"`drain_seconds`, {DRAIN_TIMEOUT_SECONDS:g} by default" in words


@pytest.mark.parametrize("page", [ARCHITECTURE, SPEED], ids=["architecture", "speed"])
def test_number_of_modules_of_an_event_is_the_budget_of_its_test(page: str) -> None:
    assert f"passes through {OWN_MODULES} modules" in page


def test_every_path_on_the_architecture_page_exists() -> None:
    paths = set(
        re.findall(r"`((?:bridgekit|bridgekit_verify|benchmarks|notebooks|tests|tools)/[\w/.]*)`", ARCHITECTURE)
    )
    assert paths
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_every_file_name_on_the_architecture_page_exists() -> None:
    names = set(re.findall(r"`(\w+\.py)`", ARCHITECTURE))
    folders = ("bridgekit", "bridgekit_verify", "benchmarks", "tests", "tools")
    existing = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert names
    assert names - existing == set()


def test_every_name_of_ours_on_the_audit_page_exists() -> None:
    names = set(re.findall(r"`(bridgekit(?:_verify)?\.[\w.]+)`", AUDIT))
    assert len(names) > 30
    assert sorted(name for name in names if not is_defined(name)) == []


def is_defined(name: str) -> bool:
    """Return whether a dotted name is a module, or something that a module defines."""
    module, *attributes = name.split(".")
    found: object = importlib.import_module(module)
    for attribute in attributes:
        module = f"{module}.{attribute}"
        if not hasattr(found, attribute):
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError:
                return False
        else:
            found = getattr(found, attribute)
    return True


@pytest.mark.parametrize(
    "name",
    [
        "get_agent_websocket_bridge",
        "_resolve_thread_id_from_run_id",
        "agent_execution_registry.py:412",
        "run_thread_mapping_service.py",
        "metadata=",
    ],
)
def test_audit_page_gives_the_reason_for_a_name_that_does_not_exist(name: str) -> None:
    [row] = [line for line in AUDIT.splitlines() if line.startswith("| ") and name in line.split("|")[1]]
    assert len(row.split("|")[3].split()) > 10
