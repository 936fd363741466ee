"""The README is correct: its commands exist, its example runs, and its numbers are the measured ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import bridgekit
from benchmarks.measured_values import SeriesKey
from benchmarks.results import read
from benchmarks.targets import ASGI, CPU, NATIVE, RATE, STARLETTE
from benchmarks.workload import BURST, YIELDING
from bridgekit import connect, serving
from bridgekit.__main__ import main
from bridgekit_verify.probes.probes import probe_all
from bridgekit_verify.studies.links_and_fixes import FixStudy, study_fixes
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, FIX_1
from tests.tree import ROOT

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^\$ (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
SENTENCES = " ".join(README.split())
WHOLE_RUNS, P50, P99 = "bridgekit ASGI, whole runs", "latency p50, µs", "latency p99, µs"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # uvicorn supports no other backend


def notebook_parameters(stem: str) -> dict[str, int]:
    cells = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    return {name: int(value) for name, value in re.findall(r"^(\w+) = (\d+)\b", source, re.MULTILINE)}


async def test_headline_numbers_equal_those_of_the_notebook() -> None:
    at = notebook_parameters("10_before_and_after")
    study = await study_fixes(
        threads=at["THREADS"], runs=at["RUNS"], at_once=at["AT_ONCE"], seed=at["SEED"], variants=[AS_REPORTED, FIX_1]
    )
    documented, stress = ([study.cells[name, "fix 1"].verdict for name in names] for names in study.groups.values())
    assert f"With link 9 broken, {counts(study, 'as reported')} events arrive" in SENTENCES
    assert f"the audit's own example of a thread id, {counts(study, 'fix 1')} arrive" in SENTENCES
    every, none = (sum(v.delivered == of(v) for v in documented) for of in (lambda v: v.expected, lambda v: 0))
    assert (
        f"Fix 1 delivers every event for {every} of the {len(documented)} documented kinds of thread id,"
        f" and no event for the other {none}."
    ) in SENTENCES
    assert every + none == len(documented)
    assert not any(v.misrouted for v in documented)
    every = sum(v.delivered == v.expected for v in stress)
    assert f"Of {len(stress)} stress kinds, Fix 1 delivers every event of {every}," in SENTENCES
    [leaking] = [v for v in stress if v.misrouted]
    assert f"and of one kind, {leaking.misrouted} of {leaking.expected} events reach **another user**." in SENTENCES


async def test_headline_states_the_number_of_links_that_do_not_hold() -> None:
    wrong = [
        probe for probe in await probe_all(AS_COMMITTED) if probe.link.reported == "working" and probe.answer != "holds"
    ]
    *first, last = (probe.link.number for probe in wrong)
    numbers = f"{', '.join(map(str, first))} and {last}"
    assert f"calls working, {len(wrong)} fail when they are run as committed: links {numbers}." in SENTENCES


def counts(study: FixStudy, variant: str) -> str:
    verdict = study.example(variant).verdict
    return f"{verdict.delivered} of {verdict.expected}"


@pytest.mark.parametrize(
    ("row", "stack"),
    [
        ("native edge: uvicorn passes sockets to `websockets`", NATIVE),
        ("ASGI edge: any ASGI server", ASGI),
        ("ASGI edge, whole runs", WHOLE_RUNS),
    ],
)
def test_speed_table_has_the_ratios_of_the_last_benchmark(row: str, stack: str) -> None:
    series = read(ROOT / "benchmarks" / "results.json").series
    measured = [(CPU, BURST), (CPU, YIELDING), (P50, RATE), (P99, RATE)]
    ratios = [series.ratio(SeriesKey(of, stack, kind), SeriesKey(of, STARLETTE, kind)) for of, kind in measured]
    assert f"| {row} | {' | '.join('–' if ratio is None else f'{ratio:.2f}' for ratio in ratios)} |" in README


def test_long_run_is_the_one_of_the_stated_version_and_duration() -> None:
    soak = (ROOT / "docs" / "results" / "soak.md").read_text(encoding="utf-8")
    [(version, duration)] = re.findall(r"bridgekit (\S+), Python .*: (\d+ rounds in .+)\.$", soak, re.MULTILINE)
    assert f"[the long run](docs/results/soak.md) of bridgekit {version}, {duration}." in SENTENCES


def test_last_long_run_lost_nothing_without_a_signal() -> None:
    soak = (ROOT / "docs" / "results" / "soak.md").read_text(encoding="utf-8")
    assert "each client received every event, or a `gap` frame that names the missing events" in SENTENCES
    [lost] = re.findall(r": ([\d,]+) of [\d,]+ \(", soak)
    assert lost == "0"


def test_first_ten_lines_have_the_picture_and_the_two_commands() -> None:
    head = README.splitlines()[:10]
    assert any(line.startswith("![") for line in head)
    assert [line.split()[2] for line in head if line.startswith("$ make ")] == ["report", "test"]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_documented_make_command_is_a_target(command: str) -> None:
    targets = re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert command.split()[-1] in targets


def test_documented_wheel_has_the_name_that_make_builds() -> None:
    names = set(re.findall(r"dist/(\S+?\.whl)", README))
    assert names == {f"bridgekit_verify-{bridgekit.__version__}-py3-none-any.whl"}


@pytest.mark.parametrize(
    ("words", "code"),
    [(["demo"], 0), (["demo", "--variant", "as reported"], 1), (["audit", "--variant", "as committed"], 1)],
)
def test_documented_bridgekit_command_has_the_stated_exit_code(words: list[str], code: int) -> None:
    shown = " ".join(f'"{word}"' if " " in word else word for word in words)
    assert f".venv/bin/bridgekit {shown}" in COMMANDS
    assert main(words) == code


def test_documented_suite_command_succeeds() -> None:
    command = next(command for command in COMMANDS if "mission_critical" in command)
    path = command.split()[1]
    done = subprocess.run([sys.executable, path, "--variant", "fix 1"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_linked_file_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_demo_prints_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    [shown] = re.findall(r"bridgekit demo    #.*\n((?:.*\n)+?)```", README)
    assert main(["demo"]) == 0
    assert without_times_and_ids(capsys.readouterr().out) == without_times_and_ids(shown)


def without_times_and_ids(printed: str) -> list[str]:
    return re.sub(r"[\d:.]{15}|[0-9a-f]{32}", "…", printed).strip().splitlines()


async def test_example_of_subscribe_prints_the_events_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for source in PYTHON:
        exec(compile(source, str(Path("README.md")), "exec"), names)
    async with serving(names["app"]) as url, httpx.AsyncClient(base_url=url.replace("ws", "http", 1)) as http:
        printed: list[Any] = []
        completed = anyio.Event()

        def record(event: Any) -> None:
            printed.append(event.type)
            if event.type == "agent_completed":
                completed.set()

        names["print"] = record
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(names["follow"], url, http)
            with anyio.fail_after(20):
                while not len(names["app"].state.bridgekit.bridge.hub):  # noqa: ASYNC110  # the hub has no event for it
                    await anyio.sleep(0.01)
                owned = {"user_id": "alice", "thread_id": "thread_123"}
                await http.post("/ask/researcher", params=owned | {"request": "bridges"})
                await completed.wait()
            tasks.cancel_scope.cancel()
    assert len(printed) == 5
    [shown] = re.findall(r"```json\n(.*)\n```", README)
    assert json.loads(shown)["type"] == printed[1]


async def test_terminal_command_shows_the_events_of_a_run() -> None:
    names: dict[str, Any] = {}
    exec(compile(PYTHON[0], str(Path("README.md")), "exec"), names)
    commands = [command for command in COMMANDS if "TICKET" in command]
    assert len(commands) == 2
    async with serving(names["app"]) as url, httpx.AsyncClient(base_url=url.replace("ws", "http", 1)) as http:
        script = "\n".join(commands).replace("127.0.0.1:8000", url.removeprefix("ws://"))
        script = script.replace("python -m", f"{sys.executable} -m")
        async with await anyio.open_process(["bash", "-c", script]) as terminal:
            assert terminal.stdin is not None
            assert terminal.stdout is not None
            printed = b""
            with anyio.fail_after(20):
                while b"subscribed" not in printed:
                    printed += await terminal.stdout.receive()
                owned = {"user_id": "alice", "thread_id": "thread_123"}
                await http.post("/ask/researcher", params=owned | {"request": "bridges"})
                while b"agent_completed" not in printed:
                    printed += await terminal.stdout.receive()
                await terminal.stdin.aclose()  # ends `cat`, and with it the client
                await terminal.wait()
    assert [str(kind, "ascii") for kind in re.findall(rb'"type":"(\w+)"', printed)] == [
        "subscribed", "agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed",
    ]  # fmt: skip


async def test_example_serves_an_agent_in_fastapi() -> None:
    names: dict[str, Any] = {}
    exec(compile(PYTHON[0], str(Path("README.md")), "exec"), names)
    async with serving(names["app"]) as url, httpx.AsyncClient(base_url=url.replace("ws", "http", 1)) as browser:
        owned = {"user_id": "alice", "thread_id": "thread_123"}
        opened = await browser.post("/threads", params=owned)
        assert opened.status_code == 200
        async with connect(url, thread_id="thread_123", ticket=opened.json()) as client:
            answer = await browser.post("/ask/researcher", params=owned | {"request": "bridges"})
            assert answer.json() == {"answer": "all about bridges"}
            assert [(await client.receive()).type for _ in range(5)] == [
                "agent_started",
                "agent_thinking",
                "tool_executing",
                "tool_completed",
                "agent_completed",
            ]
        for user_id, agent, status in (
            ("bob", "researcher", 403),
            ("", "researcher", 422),
            ("alice", "nobody", 404),
            ("alice", " ", 422),
        ):
            asked = {"user_id": user_id, "thread_id": "thread_123", "request": "x"}
            refused = await browser.post(f"/ask/{agent}", params=asked)
            assert (refused.status_code, bool(refused.json()["detail"])) == (status, True)
        assert (await browser.post("/threads", params=owned | {"user_id": "bob"})).status_code == 403
        assert (await browser.post("/threads", params=owned | {"thread_id": ""})).status_code == 422
        await names["app"].state.bridgekit.supervisor.close(seconds=0)
        refused = await browser.post("/ask/researcher", params=owned | {"request": "x"})
        assert refused.status_code == 503
