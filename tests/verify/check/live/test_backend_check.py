"""Live checks of a small backend that runs as a process: what arrives is compared with what the model sent."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from starlette.applications import Starlette

from bridgekit_verify.check.baseline import Baseline
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.frames import Message
from bridgekit_verify.check.learning import draft_table
from bridgekit_verify.check.live.backend_check import BackendCheck, check_app, check_backend, drive_backend
from bridgekit_verify.check.live.backend_file import Backend, Start, load_backend
from bridgekit_verify.check.live.load_session import LoadSession
from bridgekit_verify.check.live.model_ledger import ModelLedger
from bridgekit_verify.check.live.saved_run import LiveRun
from bridgekit_verify.check.live.scenarios import Load
from bridgekit_verify.check.live.starting import running_backend
from bridgekit_verify.check.live.verdict import check_run
from bridgekit_verify.check.output import format_json
from bridgekit_verify.check.property_answers import Property, State
from bridgekit_verify.check.recording_files import open_recording
from bridgekit_verify.errors import InvalidParameter, UnusableBackend
from bridgekit_verify.studies.other_backends import verdict_of_frames
from tests.verify.check.live.tiny_backends import create_app
from tests.verify.check.live.tiny_files import DIALECT, FILES, KINDS, START, tiny_backend, write_backend

pytestmark = pytest.mark.slow
SMALL = Load(users=2, threads=1, runs=1, quiet_seconds=0.3, settle_seconds=0.1)
TWO_RUNS = msgspec.structs.replace(SMALL, runs=2)
SOCKETS = [kind for kind in KINDS if kind != "response"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def check(backend: Backend, load: Load = SMALL, **options: Any) -> BackendCheck:
    """Check an application in this process. Whatever concerns the process itself uses `check_backend`."""
    return await check_backend(backend, load, app=create_app, **options)


def states(result: BackendCheck) -> dict[Property, State]:
    return {each.property: each.state for each in result.verdict.answers}


def broken(result: BackendCheck) -> set[Property]:
    return {which for which, state in states(result).items() if state is State.BROKEN}


@pytest.mark.parametrize("kind", KINDS)
async def test_sound_backend_has_no_broken_property_in_any_scenario(tmp_path: Path, kind: str) -> None:
    result = await check(tiny_backend(tmp_path, kind), SMALL)
    assert broken(result) == set(), result.text
    assert result.passed
    expected = {Property.DUPLICATED, Property.ORDER, Property.USER, Property.ENDED, Property.MODEL}
    assert {which for which, state in states(result).items() if state is State.HOLDS} >= expected, result.text


@pytest.mark.parametrize("kind", KINDS)
async def test_dropped_deltas_are_lost(tmp_path: Path, kind: str) -> None:
    result = await check(tiny_backend(tmp_path, kind, "drop"), SMALL, scenarios=("text",))
    assert Property.LOST in broken(result)
    assert not broken(result) & {Property.USER, Property.THREAD, Property.ENDED, Property.DUPLICATED, Property.ORDER}
    assert not result.passed


@pytest.mark.parametrize("kind", SOCKETS)
async def test_frames_that_reach_all_threads_reach_the_wrong_user(tmp_path: Path, kind: str) -> None:
    result = await check(
        tiny_backend(tmp_path, kind, "leak"), Load(users=2, threads=2, runs=1, settle_seconds=0.1), scenarios=("text",)
    )
    assert {Property.USER, Property.THREAD} <= broken(result)


@pytest.mark.parametrize("kind", KINDS)
async def test_run_without_an_end_is_found_and_does_not_stop_the_load(tmp_path: Path, kind: str) -> None:
    result = await check(tiny_backend(tmp_path, kind, "no_end"), TWO_RUNS, scenarios=("text",))
    assert Property.ENDED in broken(result)
    assert len(result.run.ledger.prompts) == 4


@pytest.mark.parametrize("kind", SOCKETS)
async def test_events_that_are_lost_while_a_client_is_offline_break_the_resume(tmp_path: Path, kind: str) -> None:
    result = await check(tiny_backend(tmp_path, kind, "offline"), SMALL, scenarios=("cut",))
    assert {Property.LOST, Property.RESUME} <= broken(result)
    assert sum(each.lost for each in result.verdict.tallies) >= 2 * 3, "each client was offline for three pieces"


@pytest.mark.parametrize("kind", SOCKETS)
async def test_piece_that_was_written_to_the_cut_connection_is_lost_on_the_wire(tmp_path: Path, kind: str) -> None:
    """The cut ends one connection inside a frame, and the backend sends again nothing that it has written."""
    result = await check(tiny_backend(tmp_path, kind, "sent"), SMALL, scenarios=("cut",))
    assert set(result.run.ledger.wires) == {f"cut user{n} thread1 tab1" for n in (1, 2)}
    losses = next(each for each in result.verdict.answers if each.property is Property.LOST).violations
    assert any(": wire to client (" in each.message for each in losses), result.text
    assert {Property.LOST, Property.RESUME} <= broken(result)


@pytest.mark.parametrize("kind", SOCKETS)
async def test_what_a_cut_connection_misses_is_unknown_if_no_resume_is_stated(tmp_path: Path, kind: str) -> None:
    backend = tiny_backend(tmp_path, kind, "offline", without="resume")
    result = await check(backend, TWO_RUNS, scenarios=("cut",))
    assert broken(result) == set(), result.text
    assert states(result)[Property.LOST] is State.UNKNOWN
    assert states(result)[Property.RESUME] is State.UNKNOWN


async def test_run_that_was_cut_stays_excused_if_its_request_fails_later(tmp_path: Path) -> None:
    result = await check(tiny_backend(tmp_path, "sse", "conflict", without="resume"), SMALL, scenarios=("cut",))
    reasons = {each.reason.partition(":")[0] for each in result.run.ledger.excuses}
    assert reasons == {"the check cut the connection, and the file has no [resume]", "POST /post answered 409"}
    assert result.problems == ()
    assert broken(result) == set(), result.text


PLAIN = {"kind": "@text", "text": "@text", "kinds": {"started": "[GO]", "text": "*", "ended": "[DONE]"}}


@pytest.mark.short_form(2)
@pytest.mark.parametrize("plain", ["text", "string"])
@pytest.mark.parametrize("kind", ["response", "sse"])
async def test_plain_text_is_unusable_without_a_table_and_judged_with_one(
    tmp_path: Path, kind: str, plain: str
) -> None:
    backend = msgspec.structs.replace(tiny_backend(tmp_path, kind).with_env(PLAIN=plain), dialect=None, resume=None)
    with pytest.raises(UnusableBackend, match="no known dialect"):
        await check(backend, SMALL, scenarios=("text",))
    assert backend.listen is not None
    wrong = msgspec.structs.replace(backend, listen=msgspec.structs.replace(backend.listen, dialect="AG-UI"))
    unclear = await check(wrong, SMALL, scenarios=("text",))
    assert broken(unclear) == set(), unclear.text
    assert states(unclear)[Property.TEXT] is State.UNKNOWN
    described = msgspec.structs.replace(backend, dialect=PLAIN)
    sound = await check(described, TWO_RUNS, scenarios=("text",))
    assert broken(sound) == set(), sound.text
    assert states(sound)[Property.LOST] is State.HOLDS
    damaged = await check(described.with_env(DEFECT="drop"), TWO_RUNS, scenarios=("text",))
    assert Property.LOST in broken(damaged)


async def test_ids_of_server_sent_events_are_positions(tmp_path: Path) -> None:
    backend = tiny_backend(tmp_path, "sse")
    assert backend.dialect is not None
    by_id = msgspec.structs.replace(
        backend, dialect={**backend.dialect, "position": {"path": "@id", "per": "client", "first": 1}}
    )
    result = await check(by_id, TWO_RUNS, scenarios=("cut",))
    assert {each.connection for each in result.run.messages} == {0, 1}
    assert broken(result) == set(), result.text
    result.save(tmp_path / "run.jsonl")
    assert check_recording(str(tmp_path / "run.jsonl")).answers == result.verdict.answers
    kept = [each for each in result.run.messages if each.event_id != "3"]
    alone = verdict_of_frames(msgspec.structs.replace(result.run, messages=kept))
    lost = next(each for each in alone.answers if each.property is Property.LOST)
    assert {each.subject.partition(" of ")[0] for each in lost.violations} == {"position 3"}


@pytest.mark.parametrize("kind", SOCKETS)
async def test_cut_ends_connections_between_and_inside_frames_and_clients_resume(tmp_path: Path, kind: str) -> None:
    result = await check(
        tiny_backend(tmp_path, kind), Load(users=1, threads=2, runs=1, settle_seconds=0.1), scenarios=("cut",)
    )
    connections = {(each.client, each.connection) for each in result.run.messages}
    assert connections == {(f"cut user1 thread{n} tab1", connection) for n in (1, 2) for connection in (0, 1)}
    assert broken(result) == set(), result.text


@pytest.mark.parametrize("kind", ["response", "websocket"])  # an event stream is read as a response is
async def test_slow_reader_receives_large_frames_in_time(tmp_path: Path, kind: str) -> None:
    backend = tiny_backend(tmp_path, kind).with_env(PADDING="20000")
    result = await check(backend, Load(users=1, threads=1, runs=1, settle_seconds=0.1), scenarios=("slow_reader",))
    assert result.passed, result.text
    times = [each.read_at for each in result.run.messages if each.read_at is not None]
    assert max(times) - min(times) > 1.0, "it was not slow"


@pytest.mark.parametrize("kind", SOCKETS)
async def test_both_tabs_receive_every_run(tmp_path: Path, kind: str) -> None:
    result = await check(
        tiny_backend(tmp_path, kind), Load(users=1, threads=1, runs=2, settle_seconds=0.1), scenarios=("tabs",)
    )
    received = {(each.client, each.value["run"]) for each in result.run.messages if each.value.get("type") == "done"}
    assert len(received) == 4
    assert result.passed, result.text


@pytest.mark.parametrize("kind", KINDS)
async def test_runs_of_one_thread_at_once_are_all_judged(tmp_path: Path, kind: str) -> None:
    load = Load(users=1, threads=1, runs=3, at_once=3, settle_seconds=0.1)
    result = await check(tiny_backend(tmp_path, kind), load, scenarios=("slow",))
    assert result.passed, result.text
    runs = [each.value["run"] for each in result.run.messages]
    assert runs != sorted(runs, key=runs.index), "the three runs were not active at once"


async def test_saved_run_is_judged_again_with_the_same_bytes(tmp_path: Path) -> None:
    result = await check(tiny_backend(tmp_path, "websocket", "drop"), SMALL, scenarios=("text", "cut"))
    result.save(tmp_path / "run.jsonl")
    again = [check_recording(str(tmp_path / "run.jsonl")) for _ in range(2)]
    outputs = {format_json([each], Baseline(""), []) for each in again}
    assert len(outputs) == 1
    assert again[0].answers == result.verdict.answers


async def test_same_seed_gives_the_same_prompts_and_clients(tmp_path: Path) -> None:
    backend = tiny_backend(tmp_path, "response")
    first, second, other = [
        {(each.canary, each.user, each.clients) for each in result.run.ledger.prompts}
        for result in [await check(backend, SMALL, scenarios=("text", "burst"), seed=seed) for seed in (1, 1, 2)]
    ]
    assert first == second
    assert not {canary for canary, *_ in first} & {canary for canary, *_ in other}


def test_run_whose_request_was_cut_need_not_reach_the_model() -> None:
    ledger = ModelLedger()
    prompt = ledger.add_prompt(user="ann", thread="t", clients=["c"])
    answers = {}
    for reason in ("", "the connection was cut"):
        if reason:
            ledger.excuse(prompt.canary, "c", reason)
        verdict = check_run(LiveRun(ledger, [Message("c", 0, 1, {"type": "go"}, "ann", "t")], {"kind": "type"}))
        answers[reason] = {each.property: each.state for each in verdict.answers}[Property.MODEL]
    assert list(answers.values()) == [State.BROKEN, State.UNKNOWN]


# Limits


async def test_load_ends_after_max_seconds_and_what_was_open_is_unknown(tmp_path: Path) -> None:
    began = time.monotonic()
    load = Load(users=1, threads=1, runs=100)
    result = await check(tiny_backend(tmp_path, "websocket"), load, scenarios=("slow",), max_seconds=1.0)
    assert time.monotonic() - began < 30
    assert not result.verdict.complete
    assert broken(result) == set(), result.text


async def test_load_ends_after_max_frames(tmp_path: Path) -> None:
    result = await check(tiny_backend(tmp_path, "sse"), SMALL, scenarios=("text",), max_frames=7)
    assert len(result.run.messages) == 7
    assert not result.verdict.complete
    assert broken(result) == set(), result.text


@pytest.mark.parametrize("name", ["users", "threads", "runs", "at_once", "tabs"])
def test_load_below_one_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"{name} must be at least 1, not 0"):
        Load(**{name: 0})


def test_load_with_too_many_clients_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="users x threads x tabs must be at most 2,000, not 20000"):
        Load(users=100, threads=100, tabs=2)


async def test_unknown_scenario_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="scenario must be one of text, "):
        await check(tiny_backend(tmp_path, "sse"), SMALL, scenarios=("text", "nope"))


# Starting


async def test_process_ends_with_the_check(tmp_path: Path) -> None:
    backend = tiny_backend(tmp_path, "response").with_env(PID_FILE=str(tmp_path / "pid"))
    assert (
        await check_backend(backend, Load(users=1, threads=1, runs=1, settle_seconds=0.1), scenarios=("text",))
    ).passed
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_program_beside_this_interpreter_is_found_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    command = "uvicorn --factory tiny_backends:create_app --port {port} --log-level warning"
    backend = tiny_backend(tmp_path, "response").with_command(command)
    assert (await check_backend(backend, SMALL, scenarios=("text",))).passed


async def test_backend_reaches_the_model_in_spite_of_a_proxy_for_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TRUST_ENV", "1")
    assert (await check_backend(tiny_backend(tmp_path, "response"), SMALL, scenarios=("text",))).passed


async def test_checks_leave_no_file_and_no_thread_open(tmp_path: Path) -> None:
    seen = list[tuple[int, int]]()
    for _ in range(4):
        assert (await check_backend(tiny_backend(tmp_path, "websocket"), SMALL, scenarios=("cut",))).passed
        gc.collect()
        seen.append((len(os.listdir("/proc/self/fd")), threading.active_count()))  # noqa: PTH208
    assert seen[1][0] == seen[3][0]
    assert seen[3][1] <= seen[1][1] + 1, "anyio may keep one more idle thread"


async def test_process_that_writes_much_does_not_block(tmp_path: Path) -> None:
    backend = tiny_backend(tmp_path, "response").with_env(NOISE="1")
    assert (await check_backend(backend, SMALL, scenarios=("text",))).passed


async def test_process_that_ends_under_load_is_reported_with_what_it_wrote(tmp_path: Path) -> None:
    result = await check_backend(tiny_backend(tmp_path, "response", "exit"), SMALL, scenarios=("text",))
    assert not result.passed
    assert any("the backend ended with exit code 7; it wrote: out of memory" in each for each in result.problems)


UNUSABLE = [
    (
        "{python} -m uvicorn",
        "{python} -m no_such_module",
        "the backend ended with exit code 1; it wrote: .*no_such_module",
    ),
    ("{python} -m", "/no/such/program -m", r"\[start\] command '/no/such/program' cannot be started"),
    ('folder = "', 'folder = "/no/such', r"\[start\] folder /no/such.* does not exist"),
    ("POST /chat", "POST /chatt", r"POST /chatt answered 404: .*; correct \[run\]"),
    ("POST /chat", "GET /chat", r"GET /chat answered 405: .*; correct \[run\]"),
    ('command = "', "command = \"'", r"\[start\] command is no command: No closing quotation: '"),
]


@pytest.mark.parametrize(("old", "new", "message"), UNUSABLE)
async def test_backend_that_cannot_be_used_gives_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_backend(tmp_path, "response")
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UnusableBackend, match=message) as refused:
        await check_backend(load_backend(path), SMALL, scenarios=("text",))
    assert "\n" not in str(refused.value)


async def test_backend_that_does_not_answer_gives_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        backend = tiny_backend(tmp_path, "response")
        start = Start(url=url, ready="/health", seconds=0.3)
        with pytest.raises(UnusableBackend, match=f"{url}/health was not ready within 0.3 s: ReadTimeout|no answer"):
            await check_backend(msgspec.structs.replace(backend, start=start), SMALL)
    start = Start(url=url, ready="/health", seconds=0.3)
    with pytest.raises(
        UnusableBackend, match=f"{url}/health was not ready within 0.3 s: All connection attempts failed"
    ):
        await check_backend(msgspec.structs.replace(backend, start=start), SMALL)


async def test_backend_that_runs_already_finds_the_model_at_a_stated_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        model_port = free.getsockname()[1]
    backend = tiny_backend(tmp_path, "websocket").with_env(OPENAI_BASE_URL=f"http://127.0.0.1:{model_port}/v1")
    async with running_backend(backend, "") as running:
        start = Start(url=running.url, ready="/health", model_port=model_port)
        result = await check_backend(msgspec.structs.replace(backend, start=start), SMALL, scenarios=("text", "cut"))
    assert result.passed, result.text


# What a file can state


async def test_users_have_tokens_and_prepared_threads_have_the_backends_ids(tmp_path: Path) -> None:
    text = (
        FILES["sse"]
        .replace('"user": "{user}", ', "")
        .replace("[listen]", 'headers = { Authorization = "Bearer {token}" }\n[listen]')
        .replace(
            "[run]",
            """[[users]]
user = "ann"
token = "secret-ann"
[[users]]
user = "bob"
token = "secret-bob"
[[prepare]]
request = "POST /threads"
body = { title = "{user}-{thread}" }
values = { thread = "thread.id" }
[run]""",
        )
    )
    (tmp_path / "b.toml").write_text(text)
    result = await check(
        load_backend(tmp_path / "b.toml"), Load(users=2, threads=2, runs=1, settle_seconds=0.1), scenarios=("text",)
    )
    assert result.passed, result.text
    assert {each.user for each in result.run.messages} == {"ann", "bob"}
    assert {each.thread[:6] for each in result.run.messages if each.thread} == {"t-ann-", "t-bob-"}
    assert len(result.run.ledger.histories) == 4
    with pytest.raises(UnusableBackend, match=r"\[\[users\]\] names only 2 of the load's 3 users"):
        await check(load_backend(tmp_path / "b.toml"), Load(users=3))


async def test_answer_without_a_prepared_value_gives_one_line(tmp_path: Path) -> None:
    table = "[[prepare]]\nrequest = 'POST /threads'\nbody = { title = 'x' }\nvalues = { thread = 'id' }\n[run]"
    (tmp_path / "b.toml").write_text(FILES["sse"].replace("[run]", table))
    with pytest.raises(UnusableBackend, match=r"\[\[prepare\]\] POST /threads: the answer has no 'id' for {thread}: "):
        await check(load_backend(tmp_path / "b.toml"), SMALL)


DRIVER = """
import httpx

class Chat:
    async def listen(self, client):
        client.opened()
        async with httpx.AsyncClient(timeout=None, trust_env=False) as http:
            url = f"{client.base_url}/events?user={client.user}&thread={client.thread}"
            async with http.stream("GET", url, headers={"Last-Event-ID": client.position or "0"}) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        client.received(line[6:])

    async def start(self, client, run):
        body = {"user": client.user, "thread": client.thread, "run": run.id, "text": run.prompt}
        async with httpx.AsyncClient(trust_env=False) as http:
            await http.post(f"{client.base_url}/post", json=body)
"""


DRIVER_ERRORS = {
    6: ("client.opened()", "client.opens()"),
    15: ("run.prompt", "run.text"),
    5: ("    async def listen", "    __init__ = lambda self: 1 / 0\n    async def listen"),
    17: ("json=body", "json=client"),  # an error in a library that the driver calls
}


@pytest.mark.parametrize("line", DRIVER_ERRORS)
async def test_error_of_a_driver_names_its_line(tmp_path: Path, line: int) -> None:
    module = f"driver_with_error_in_line_{line}"
    (tmp_path / f"{module}.py").write_text(DRIVER.replace(*DRIVER_ERRORS[line]))
    (tmp_path / "b.toml").write_text(f"{START}[driver]\nclass = '{module}:Chat'\n{DIALECT}")
    with pytest.raises(UnusableBackend, match=rf"\[driver\] class .* raised .*Error.*: {module}.py, line {line}$"):
        await check(load_backend(tmp_path / "b.toml"), SMALL, scenarios=("text",))


async def test_header_may_have_any_text(tmp_path: Path) -> None:
    path = write_backend(tmp_path, "response")
    path.write_text("\ufeff" + path.read_text().replace("[listen]", "headers = { X-Name = 'Zoë Ω' }\n[listen]", 1))
    assert (await check(load_backend(path), SMALL, scenarios=("text",))).passed


async def test_unknown_dialect_gives_one_line_and_a_way_to_a_table(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(FILES["response"].replace(DIALECT, ""))
    driven = await drive_backend(load_backend(tmp_path / "b.toml"), SMALL, scenarios=("text",), app=create_app)
    with pytest.raises(UnusableBackend, match=r"is in no known dialect .*save the run with --out FILE"):
        driven.judge()
    driven.save(tmp_path / "run.jsonl")
    with open_recording(str(tmp_path / "run.jsonl")) as recording:
        table = draft_table("run.jsonl", recording.messages)
    (tmp_path / "b.toml").write_text(FILES["response"].replace(DIALECT, table))
    assert (await check(load_backend(tmp_path / "b.toml"), SMALL, scenarios=("text",))).passed


@pytest.mark.parametrize("login", ["values = { sid = '@cookie.sid' }", "values = { sid = '@header.x-session' }"])
async def test_users_who_log_in_have_sessions_of_their_own(tmp_path: Path, login: str) -> None:
    prepare = f"""[[prepare]]
request = "POST /login"
per = "user"
headers = {{ content-type = "application/x-www-form-urlencoded" }}
body = "user={{user}}&next=/a b"
{login}
[run]
headers = {{ Cookie = "sid={{sid}}" }}
"""
    (tmp_path / "b.toml").write_text(FILES["sse"].replace("[run]", prepare).replace('"user": "{user}", ', ""))
    result = await check(load_backend(tmp_path / "b.toml"), SMALL, scenarios=("text",))
    assert result.passed, result.text
    assert len(result.run.ledger.calls) == 2


async def test_python_class_drives_what_a_file_cannot_express(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chat_driver.py").write_text(DRIVER)
    (tmp_path / "b.toml").write_text(START + "[driver]\nclass = 'chat_driver:Chat'\n" + DIALECT)
    backend = load_backend(tmp_path / "b.toml")
    assert (await check(backend, SMALL, scenarios=("text",))).passed
    with monkeypatch.context() as patch:
        patch.setattr(LoadSession, "run", lambda *_: 1 / 0)  # an error that is not the driver's
        with pytest.raises(ZeroDivisionError):
            await check(backend, SMALL)
    (tmp_path / "b.toml").write_text(START + "[driver]\nclass = 'chat_driver:Chatt'\n" + DIALECT)
    with pytest.raises(UnusableBackend, match=r"\[driver\] class 'chat_driver:Chatt' cannot be imported"):
        await check(load_backend(tmp_path / "b.toml"), SMALL)


# In process


@pytest.mark.parametrize("app", [create_app, f"{__package__}.tiny_backends:create_app"], ids=["function", "name"])
async def test_application_is_judged_in_this_process(tmp_path: Path, app: object) -> None:
    before = dict(os.environ)
    result = check_app(tiny_backend(tmp_path, "websocket"), app, load=SMALL, scenarios=("text",))
    assert result.passed, result.text
    assert dict(os.environ) == before


async def test_application_whose_lifespan_fails_gives_one_line(tmp_path: Path) -> None:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await anyio.Path("/no/such/database").read_bytes()
        yield

    with pytest.raises(UnusableBackend, match=r"\[start\] the application ended"):
        check_app(tiny_backend(tmp_path, "websocket"), Starlette(lifespan=lifespan))


async def test_imported_application_is_checked_twice_although_it_keeps_its_first_model(tmp_path: Path) -> None:
    first = list[str]()

    def make() -> Starlette:
        first.append(os.environ["OPENAI_BASE_URL"])
        os.environ["OPENAI_BASE_URL"] = first[0]
        return create_app()

    for _ in range(2):
        assert check_app(tiny_backend(tmp_path, "websocket"), make, load=SMALL, scenarios=("text",)).passed


def test_fixture_checks_an_application_and_starts_a_command(
    tmp_path: Path, bridgekit_check: Callable[..., BackendCheck]
) -> None:
    path = write_backend(tmp_path, "response")
    for app in (create_app, None):
        result = bridgekit_check(path, app=app, load=SMALL, scenarios=("text",))
        assert result.passed, result.text


async def test_stream_that_the_answer_names_is_the_response_of_its_run(tmp_path: Path) -> None:
    text = FILES["response"].replace("POST /chat", "POST /post").replace("body = {", 'body = { user = "{user}",')
    text = text.replace("[listen]", 'values = { job = "run.id" }\n[listen]')
    text = text.replace(
        'kind = "response"', 'kind = "response"\nurl = "/events?user={user}&thread={thread}&until={job}"'
    )
    (tmp_path / "b.toml").write_text(text)
    result = await check_backend(load_backend(tmp_path / "b.toml"), SMALL, scenarios=("text",))
    assert result.passed, result.text


@pytest.mark.parametrize(("defect", "properties"), [("", set()), ("drop", {Property.LOST}), ("leak", {Property.USER})])
async def test_socket_that_receives_all_threads_of_its_user_is_one_client(
    tmp_path: Path, defect: str, properties: set[Property]
) -> None:
    text = FILES["websocket"].replace("&thread={thread}", "").replace('{"run"', '{"thread": "{thread}", "run"')
    (tmp_path / "b.toml").write_text(text.partition("[resume]")[0] + DIALECT)
    backend = load_backend(tmp_path / "b.toml").with_env(DEFECT=defect)
    result = await check(backend, Load(users=2, threads=3, runs=2, settle_seconds=0.1), scenarios=("text",))
    assert {each.client for each in result.run.messages} == {"text user1 tab1", "text user2 tab1"}
    assert broken(result) & {Property.LOST, Property.USER, Property.THREAD, Property.DUPLICATED} == properties, (
        result.text
    )
    assert states(result)[Property.THREAD] is State.UNKNOWN
    assert len(result.run.ledger.prompts) == 12


async def test_response_that_was_cut_is_continued_by_a_request(tmp_path: Path) -> None:
    text = FILES["response"].replace("POST /chat", "POST /post").replace("body = {", 'body = { user = "{user}",')
    text = text.replace(
        'kind = "response"', 'kind = "response"\nurl = "/events?user={user}&thread={thread}&until={run}"'
    )
    resume = '[resume]\nrequest = "GET /events?user={user}&thread={thread}&until={run}"\n[dialect]'
    (tmp_path / "b.toml").write_text(text.replace("[dialect]", resume, 1))
    result = await check(
        load_backend(tmp_path / "b.toml"), Load(users=1, threads=2, runs=1, settle_seconds=0.1), scenarios=("cut",)
    )
    assert result.passed, result.text
    assert states(result)[Property.RESUME] is State.HOLDS
    assert {each.connection for each in result.run.messages} == {0, 1}


async def test_confirmation_that_never_arrives_gives_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgekit_verify.check.live.load_session.CONNECT_SECONDS", 0.2)
    text = FILES["websocket"].replace('kind = "websocket"', 'kind = "websocket"\nconfirmation = "welcome"')
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(UnusableBackend, match=r"did not receive a message with 'welcome' within 0\.2 s"):
        await check(load_backend(tmp_path / "b.toml"), scenarios=("text",))


async def test_address_with_a_path_is_kept_through_the_proxy(tmp_path: Path) -> None:
    backend = load_backend(write_backend(tmp_path, "websocket")).with_env(PREFIX="/api")
    backend = msgspec.structs.replace(
        backend, start=msgspec.structs.replace(backend.start, url="http://127.0.0.1:{port}/api")
    )
    result = await check_backend(backend, SMALL, scenarios=("text", "cut"))
    assert result.passed, result.text
