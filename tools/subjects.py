"""Check published frameworks and bridgekit itself, and write the result as a page: `make subjects`."""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import msgspec

from bridgekit import __version__
from bridgekit_verify.check.live.backend_check import BackendCheck, check_backend
from bridgekit_verify.check.live.backend_file import Backend, load_backend
from bridgekit_verify.check.live.saved_run import LiveRun, numbered
from bridgekit_verify.check.live.scenarios import Load
from bridgekit_verify.check.property_answers import PropertyAnswer, State
from bridgekit_verify.faults.redis_servers import redis_url

EXAMPLES: Final = Path("examples")
ENVIRONMENTS: Final = Path(".subjects")
LOAD: Final = Load(users=2, threads=2, runs=2)
SEED: Final = 7
SHOWN_VIOLATIONS: Final = 2
SHOWN_CHARACTERS: Final = 200
FORMS: Final = ("text", "thinking", "calls", "beside", "whole", "interleaved", "retry", "dies", "cut")
"""The scenarios. In the last three, the model or a connection fails. The others vary how the model streams."""

PAGE: Final = """\
# Published frameworks, and bridgekit, checked from outside

Written by `make subjects`. Each subject is a small application on a published package, in `examples/subjects`. It ran
in a separate environment, with the version below, and with the scripted model of `bridgekit check` in place of a
language model. {load}. *Clean* means that no property is broken.
*Unknown* means that the property cannot be observed from outside.

{date} UTC, bridgekit {version}, Python {python}.

A finding states what was seen with this version, in this application. It may be a limit that the project documents, or
one that it has repaired since. We thank the authors: only open packages can be checked in this way.

| subject | version | {columns} |
|---|---|{rule}|
{rows}

The scenarios: {scenarios}.

{findings}
"""
EXPLAINED: Final = {
    "text": "a plain answer",
    "thinking": "with reasoning",
    "calls": "two tool calls, whose arguments follow in pieces",
    "beside": "the first piece of the arguments is sent with the name of the tool",
    "whole": "all arguments are sent with the name",
    "interleaved": "the pieces of two calls alternate, which few models do",
    "retry": "the model first answers 503",
    "dies": "the model's connection ends in mid-answer",
    "cut": "the user's connection is cut for a moment",
}


@dataclass(frozen=True)
class Subject:
    """One application to check."""

    name: str
    backend: Backend
    package: str
    """The distribution package whose version is shown."""
    environment: Path
    scenarios: tuple[str, ...] = FORMS
    notes: dict[str, str] = field(default_factory=dict)
    """Notes by scenario: where a finding was already reported, or what explains the finding."""


AG_UI: Final = "https://github.com/ag-ui-protocol/ag-ui/issues"
ATOMIC: Final = f"Reported to the project as [#2463]({AG_UI}/2463) and [#2653]({AG_UI}/2653)."
PARALLEL: Final = f"Reported to the project as [#871]({AG_UI}/871) and [#1016]({AG_UI}/1016)."
SHARED: Final = (
    f"Reported to the project as [#1277]({AG_UI}/1277). The package's own endpoint does not share the object this way."
)
AT_MOST_ONCE: Final = (
    "Socket.IO documents that a message arrives at most once, and leaves the rest to the application:"
    " https://socket.io/docs/v4/delivery-guarantees."
)


def subjects() -> list[Subject]:
    """Return the applications that use published packages, and install their requirements."""
    known = {"beside": ATOMIC, "whole": ATOMIC, "interleaved": PARALLEL}
    langgraph = subject("ag-ui-langgraph", "ag_ui_langgraph", known)
    shared = msgspec.structs.replace(
        langgraph.backend, run=msgspec.structs.replace(langgraph.backend.run, request="POST /shared")
    )
    return [
        langgraph,
        Subject(
            "ag-ui-langgraph, one agent object for all requests", shared, "ag-ui-langgraph", langgraph.environment,
            ("text", "calls"), {"text": SHARED, "calls": SHARED},
        ),
        subject("pydantic-ai-slim", "pydantic_ai", {}),
        subject("openai-agents", "openai_agents", {}),
        subject("python-socketio", "python_socketio", {"cut": AT_MOST_ONCE}, ("text", "dies", "cut")),
    ]  # fmt: skip


def subject(package: str, folder: str, notes: dict[str, str], scenarios: tuple[str, ...] = FORMS) -> Subject:
    where = EXAMPLES / "subjects" / folder
    environment = installed(folder, where / "requirements.txt")
    backend = load_backend(where / "backend.toml")
    command = str(backend.start.command).replace("{python}", f"{environment.resolve()}/bin/python")
    return Subject(package, backend.with_command(command), package, environment, scenarios, notes)


def installed(name: str, requirements: Path) -> Path:
    """Return the environment of a subject. Create the environment if it is missing or the pinned versions have
    changed."""
    environment = ENVIRONMENTS / name
    stamp = environment / "requirements.txt"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != requirements.read_text(encoding="utf-8"):
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
        python = str(environment / "bin" / "python")
        command = [uv, "pip", "install", "--quiet", "--python", python, "-r", str(requirements)]
        subprocess.run(command, check=True)
        shutil.copyfile(requirements, stamp)
    return environment


async def bridgekit_subjects(folder: Path) -> AsyncIterator[Subject]:
    """Yield bridgekit on both edges with each store."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_url())
        backend = load_backend(EXAMPLES / "websocket" / "on_bridgekit.toml")
        for edge in ("native", "asgi"):
            for store in ("memory:", f"sqlite:///{folder / edge}.sqlite", redis):
                name = f"bridgekit, {edge} edge, {store.partition(':')[0]} store"
                served = backend.with_command(
                    f"{{python}} -m bridgekit serve on_bridgekit:app --port {{port}} --edge {edge}"
                )
                yield Subject(name, served.with_env(STORE=store), "bridgekit", Path(sys.prefix))


def version(subject: Subject) -> str:
    if subject.package == "bridgekit":
        return __version__
    code = f"from importlib.metadata import version; print(version({subject.package!r}))"
    done = subprocess.run(
        [subject.environment / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


async def check_all(chosen: Sequence[str]) -> dict[str, tuple[Subject, dict[str, BackendCheck]]]:
    """Check each subject in each of its scenarios."""
    found: dict[str, tuple[Subject, dict[str, BackendCheck]]] = {}

    async def check(subject: Subject) -> None:
        if chosen and not any(name in subject.name for name in chosen):
            return
        print(subject.name, flush=True)
        results = {
            scenario: await check_backend(subject.backend, LOAD, scenarios=(scenario,), seed=SEED)
            for scenario in subject.scenarios
        }
        found[subject.name] = (subject, results)

    for each in subjects():
        await check(each)
    with tempfile.TemporaryDirectory() as folder:
        async for each in bridgekit_subjects(Path(folder)):
            await check(each)
    return found


def page(found: dict[str, tuple[Subject, dict[str, BackendCheck]]]) -> str:
    """Return the result as Markdown."""
    rows = [
        f"| {name} | {version(subject)} | " + " | ".join(cell(results.get(each)) for each in FORMS) + " |"
        for name, (subject, results) in found.items()
    ]
    return PAGE.format(
        load=f"{LOAD.users} users with {LOAD.threads} threads each asked {LOAD.runs} questions in each thread",
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        version=__version__,
        python=platform.python_version(),
        columns=" | ".join(FORMS),
        rule="|".join("---" for _ in FORMS),
        rows="\n".join(rows),
        scenarios="; ".join(f"*{name}*, {what}" for name, what in EXPLAINED.items()),
        findings="\n".join(section for subject, results in found.values() for section in sections(subject, results)),
    )


def cell(result: BackendCheck | None) -> str:
    if result is None:
        return "–"
    broken = [answer.property.value for answer in result.verdict.answers if answer.state is State.BROKEN]
    return f"**{', '.join(broken)}**" if broken else "clean"


def sections(subject: Subject, results: dict[str, BackendCheck]) -> list[str]:
    """Return one section for each scenario with a broken property."""
    return [
        f"## {subject.name}: {scenario}\n\n{subject.notes.get(scenario, 'We found no report of it.')}\n\n"
        + "\n".join(line for answer in result.verdict.answers for line in violations(answer, result.run))
        + "\n"
        for scenario, result in results.items()
        if result.verdict.broken
    ]


def violations(answer: PropertyAnswer, run: LiveRun) -> list[str]:
    if answer.state is not State.BROKEN:
        return []
    lines = [f"- *{answer.property.value}*, {answer.count} violation{'' if answer.count == 1 else 's'}:"]
    for each in answer.violations[:SHOWN_VIOLATIONS]:
        lines.append(f"  - {each.message} ({each.source})")
        lines += [
            f"    `{frame.client}, frame {frame.index}: {text_of(run, frame.index)}`" for frame in each.frames[:2]
        ]
    return lines


def text_of(run: LiveRun, index: int) -> str:
    """Return the start of a frame's text, without its `rawEvent`."""
    value = next(message.value for message in numbered(run.messages) if message.index == index)
    if isinstance(value, dict):
        value = {name: each for name, each in value.items() if name != "rawEvent"}
    text = msgspec.json.encode(value).decode() if not isinstance(value, str) else value
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="check only subjects whose name contains one of these, and print the page"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/subjects.md"), help="Markdown file to write")
    options = parser.parse_args()
    text = page(anyio.run(check_all, options.names))
    if options.names:
        print(text)
        return 0
    options.out.write_text(text, encoding="utf-8")
    print(f"{options.out} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
