"""The GitHub workflows that users copy: they are valid YAML, and the commands that they run exist."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.tree import ROOT


def steps_of(workflow: str) -> list[dict[str, Any]]:
    content: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text(encoding="utf-8"))
    return [step for job in content["jobs"].values() for step in job["steps"]]


STEPS = steps_of("ci.yml")
COMMANDS = [step["run"] for step in STEPS if "run" in step]
AT_NIGHT = [step["run"] for step in steps_of("acceptance.yml") if "run" in step]
TARGETS = set(re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def words(command: str) -> list[str]:
    return re.sub(r'"[^"]*"', "", command).split()


@pytest.mark.parametrize("command", [command for command in [*COMMANDS, *AT_NIGHT] if "make " in command])
def test_make_target_of_the_workflow_exists(command: str) -> None:
    goals = [word for word in words(command) if word not in {"sudo", "make"} and "=" not in word]
    assert goals
    assert set(goals) <= TARGETS


def test_workflow_runs_the_commands_of_ci_in_the_same_order() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    ours = re.findall(r"^make (\S+)$", script, re.MULTILINE)
    theirs = [word for command in COMMANDS if "make " in command for word in words(command) if word in TARGETS]
    assert ours == theirs == ["check", "test", "interop"]


def test_tests_that_make_test_leaves_out_run_every_night() -> None:
    assert [words(command) for command in AT_NIGHT] == [["make", "acceptance", "PYTEST_FLAGS="]]


def test_workflow_uploads_all_results_when_a_job_fails() -> None:
    [test] = [command for command in COMMANDS if "make test" in command]
    assert "--color=no" in test
    assert "--junit-xml=build/junit.xml" in test
    [upload] = [step for step in STEPS if step.get("uses", "").startswith("actions/upload-artifact@")]
    assert upload["with"]["path"].split() == ["build/junit.xml", "build/executed/", "report/"]
    assert upload["if"] == "${{ !cancelled() }}", "the results of a failed run must be uploaded, too"


def test_make_passes_pytest_flags_to_pytest() -> None:
    dry = subprocess.run(
        ["make", "--dry-run", "test", "PYTEST_FLAGS=--color=no"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--color=no" in dry.stdout
