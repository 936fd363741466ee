"""The TOML file of a backend: how to start it, how to request a run, and how a client receives frames.

Reading the file is the module's only I/O.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec

from bridgekit_verify.check.dialect_tables import parse_table
from bridgekit_verify.check.dialects import BUILT_IN, StreamDialect, built_in
from bridgekit_verify.check.live.templates import Body, names_in
from bridgekit_verify.errors import UnusableBackend

__all__ = [
    "Backend",
    "HistoryRequest",
    "Listening",
    "Prepare",
    "Resuming",
    "RunTemplate",
    "Start",
    "load_backend",
    "parse_backend",
]


START_VALUES: Final = {"port", "model", "python"}
CLIENT_VALUES: Final = {"model", "user", "thread", "tab", "scenario"}
RUN_VALUES: Final = CLIENT_VALUES | {"run", "prompt", "canary", "n"}
RESUME_VALUES: Final = {"position", "last_event_id"}
HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of the tables in a backend's TOML file."""


class Start(Section, frozen=True):
    """How the backend starts, or where it already runs."""

    command: str | list[str] = ""
    url: str = ""
    """The address of a backend that already runs, or of the backend that the command starts (default: 127.0.0.1 and
    {port})."""
    folder: str = "."
    """The working directory of the command, relative to the TOML file."""
    env: dict[str, str] = {}
    ready: str = "/"
    """The path that answers when the backend is ready."""
    seconds: float | None = None
    """How long the backend may take until it answers (default: 30 s, or 5 s for a backend that already runs)."""
    model_port: int = 0
    """The port of the scripted model, for a backend that already runs. With 0, the system chooses the port."""


class Prepare(Section, frozen=True):
    """A request that the check sends before the runs, and whose answer provides values for placeholders."""

    request: str
    per: Literal["user", "thread"] = "thread"
    headers: dict[str, str] = {}
    body: Body | None = None
    values: dict[str, str] = {}
    """For each placeholder, the path of its value in the JSON answer, or `@cookie.NAME` or `@header.NAME`."""


class RunTemplate(Section, frozen=True):
    """The way to start a run: an HTTP request, or a message on the client's WebSocket."""

    request: str = ""
    send: Body | None = None
    headers: dict[str, str] = {}
    body: Body | None = None
    values: dict[str, str] = {}
    """As `Prepare.values`, but read only if the answer to the request does not contain the frames."""


class Listening(Section, frozen=True):
    """How a client receives the frames."""

    kind: Literal["response", "sse", "websocket"]
    url: str = ""
    """The path of the socket or stream. With kind `response`, the path is that of one run's stream, which the
    client requests after the start of the run."""
    headers: dict[str, str] = {}
    protocols: list[str] = []
    """WebSocket subprotocols that the client offers."""
    opening: list[Body] = []
    """Messages that the client sends first on a WebSocket."""
    confirmation: str = ""
    """A text in the message that confirms the subscription. The check starts runs after this message."""
    dialect: str = ""


class Resuming(Section, frozen=True):
    """How a client continues after its connection was cut. Missing keys take their values from `[listen]`."""

    url: str = ""
    request: str = ""
    """If each run is received as a response, the request that continues the run."""
    headers: dict[str, str] = {}
    body: Body | None = None
    opening: list[Body] | None = None


class HistoryRequest(Section, frozen=True):
    """The request for the backend's history of a thread."""

    request: str
    headers: dict[str, str] = {}
    body: Body | None = None


class Driving(Section, frozen=True):
    """A Python class that starts runs and receives frames, in place of `[run]` and `[listen]`."""

    cls: str = msgspec.field(name="class")


class Backend(Section, frozen=True):
    """A backend to check, as its file describes it."""

    run: RunTemplate = RunTemplate()
    listen: Listening | None = None
    start: Start = Start()
    users: list[dict[str, str]] = []
    prepare: list[Prepare] = []
    resume: Resuming | None = None
    history: HistoryRequest | None = None
    driver: Driving | None = None
    dialect: dict[str, Any] | None = None
    path: str = "backend"
    """The path of the file that was read."""

    @property
    def folder(self) -> Path:
        """The working directory of the command."""
        return Path(self.path).parent / self.start.folder

    @property
    def kind(self) -> str:
        """The way in which clients receive frames (`response`, `sse`, `websocket` or `class`)."""
        return self.listen.kind if self.listen is not None else "class"

    @property
    def per_user(self) -> bool:
        """True if a socket receives all threads of its user, because only the request for a run names the thread."""
        if self.listen is None or self.listen.kind == "response":
            return False
        names = {"thread"} | {name for step in self.prepare if step.per == "thread" for name in step.values}
        listen, run = self.listen, self.run
        named = names_in((listen.url, listen.headers, listen.opening, listen.protocols))
        return not names & named and bool(names & names_in((run.request, run.send, run.headers, run.body)))

    def with_env(self, **variables: str) -> Backend:
        """Return a copy with these additional variables in the backend's environment."""
        return self._with_start(env={**self.start.env, **variables})

    def with_command(self, command: str | list[str]) -> Backend:
        """Return a copy with another command that starts the backend."""
        return self._with_start(command=command)

    def _with_start(self, **changes: Any) -> Backend:
        return msgspec.structs.replace(self, start=msgspec.structs.replace(self.start, **changes))

    def stream_dialect(self) -> StreamDialect | None:
        """Return the dialect that the file states, or None if it must be detected from the frames."""
        if self.dialect is not None:
            return parse_table(self.dialect, self.path)
        return built_in(self.listen.dialect) if self.listen is not None else None


def load_backend(path: str | Path) -> Backend:
    """Read a file.

    Raises UnusableBackend, or UnusableRecording for an invalid `[dialect]` table, with the first problem in the file.
    Raises OSError if the file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        number = re.search(r"at line (\d+)", str(error))
        line = data.splitlines()[int(number[1]) - 1].decode("utf-8", "replace").strip()[:80] if number else ""
        raise UnusableBackend(path, f"is not TOML: {error}{': ' if line else ''}{line}") from error
    return parse_backend(document, path)


def parse_backend(document: Mapping[str, Any], path: str | Path = "backend") -> Backend:
    """Return the backend that a decoded TOML document describes. Raises UnusableBackend or UnusableRecording."""
    if "path" in document:
        raise UnusableBackend(path, "has the unknown table [path]")
    try:
        backend = msgspec.convert({**document, "path": str(path)}, Backend)
    except msgspec.ValidationError as error:
        raise UnusableBackend(path, _format_validation(str(error), document)) from error
    for problem in _problems(backend):
        raise UnusableBackend(path, problem)
    backend.stream_dialect()
    return backend


WORDS: Final = {"str": "a text in quotes", "int": "a number", "float": "a number", "bool": "true or false",
                "array": "a list", "object": "a table", "null": ""}  # fmt: skip


def _format_validation(message: str, document: Mapping[str, Any]) -> str:
    """Turn "Expected `str`, got `int` - at `$.start.ready`" into "[start] ready: expected a text in quotes, not …"."""
    problem, _, where = message.partition(" - at ")
    path = re.fullmatch(r"`?\$?(?:\.(\w+))?(?:\[(\d+)\])?(.*?)`?", where)
    name, number, line = path.groups() if path else (None, None, "")
    table = "the file" if name is None else f"[{name}]" if number is None else f"[[{name}]] number {int(number) + 1}"
    section = _sections().get(name or "", Backend)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem):
        known = ", ".join(field for field in section.__struct_encode_fields__ if field != "path")
        return f"{table} has the unknown line {unknown[1]!r}; known: {known}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"{table} needs the line {missing[1]!r}"
    if line.endswith("[...]"):
        line = line.removesuffix("[...]")
        found = document[name or ""] if number is None else document[name or ""][int(number)]
        found = found[line[1:]] if line else found
        keys = (key for key, value in found.items() if not isinstance(value, str)) if isinstance(found, dict) else ()
        line += next((f".{key}" for key in keys), "")
    line = line.lstrip(".")
    if "enum" in problem:
        options = get_args(get_type_hints(section)[line])
        return f"{table} {line} must be one of {', '.join(map(repr, options))}, {problem.partition('value ')[2]} is not"
    words = re.sub(r"`([^`]*)`", lambda found: _plain(found[1]), problem.replace(", got ", ", not "))
    return f"{table}{' ' if line else ''}{line}: {words[:1].lower()}{words[1:]}"


def _plain(types: str) -> str:
    return " or ".join(filter(None, dict.fromkeys(WORDS.get(each, each) for each in types.split(" | "))))


def _sections() -> dict[str, type[msgspec.Struct]]:
    return {
        "run": RunTemplate, "listen": Listening, "start": Start, "prepare": Prepare, "resume": Resuming,
        "history": HistoryRequest, "driver": Driving,
    }  # fmt: skip


def _problems(backend: Backend) -> Iterator[str]:
    yield from _start_problems(backend.start)
    requests = (backend.run, backend.prepare)
    if (
        backend.start.url
        and not backend.start.command
        and not backend.start.model_port
        and not _asks_for_model(requests)
    ):
        yield "[start] url needs the line 'model_port', where the running backend finds the scripted model"
    if backend.driver is None:
        yield from _listen_problems(backend)
    elif backend.listen is not None or backend.run != RunTemplate():
        yield "has a [driver], which replaces [run] and [listen]: remove one or the other"
    elif not re.fullmatch(r"[\w.]+:\w+", backend.driver.cls):
        yield f"[driver] class must be 'module:Class', not {backend.driver.cls!r}"
    if backend.dialect is not None and backend.listen is not None and backend.listen.dialect:
        yield "has a [dialect] table and [listen] dialect: remove one of them"
    names = {name for user in backend.users for name in user}
    yield from _user_problems(backend.users, names)
    yield from _name_problems(backend)
    yield from _request_problems(backend)
    yield from _placeholder_problems(backend, names)


def _user_problems(users: list[dict[str, str]], names: set[str]) -> Iterator[str]:
    for number, user in enumerate(users, 1):
        if user.keys() != names:
            yield f"[[users]] number {number} has the values {sorted(user)}, but others have {sorted(names)}"
        if "user" in user and user["user"] in (each.get("user") for each in users[: number - 1]):
            yield f"[[users]] number {number} is {user['user']!r} again: each entry needs a user of its own"


def _name_problems(backend: Backend) -> Iterator[str]:
    for name, value in backend.start.env.items():
        if not name or "=" in name or "\0" in name + value:
            yield f"[start] env {name!r} = {value!r} is no variable: names have no '=', and values no NUL"
    sections = [*backend.prepare, backend.run, backend.listen, backend.resume, backend.history]
    for name, value in ((n, v) for each in sections if each is not None for n, v in each.headers.items()):
        if not HEADER_NAME.fullmatch(name) or not value.isprintable():
            yield f"the header {name!r} = {value!r} has a character that HTTP does not allow there"


def _asks_for_model(requests: object) -> bool:
    return "model" in names_in(msgspec.to_builtins(requests))


def _start_problems(start: Start) -> Iterator[str]:
    if not start.command and not start.url:
        return  # without a command or URL, the caller serves an application
    if start.url and (urlsplit(start.url).scheme not in ("http", "https") or not urlsplit(start.url).hostname):
        yield f"[start] url must be like http://127.0.0.1:8000, not {start.url!r}"
    if start.env and not start.command:
        yield "[start] env has no effect without a command: give the running backend the model's address yourself"
    if start.command and not start.url and "port" not in names_in((start.command, start.env)):
        yield "[start] needs {port} in its command or env, or the line 'url' with the address at which it listens"
    if not 0 <= start.model_port < 65_536:
        yield f"[start] model_port must be a port, not {start.model_port}"
    if start.seconds is not None and not 0 < start.seconds < float("inf"):
        yield f"[start] seconds must be above 0, not {start.seconds:g}"
    if not start.ready.startswith("/"):
        yield f"[start] ready must be a path that begins with /, not {start.ready!r}"


def _listen_problems(backend: Backend) -> Iterator[str]:
    listen, run = backend.listen, backend.run
    if listen is None:
        yield "needs a table [listen] with kind = 'response', 'sse' or 'websocket'"
        return
    if listen.dialect and built_in(listen.dialect) is None:
        yield f"[listen] dialect is {listen.dialect!r}; known: {', '.join(BUILT_IN)}; for others add a [dialect] table"
    if bool(run.request) == (run.send is not None):
        yield "[run] needs either the line 'request', as in 'POST /chat', or 'send', a message on the WebSocket"
    if run.send is not None and listen.kind != "websocket":
        yield f"[run] send needs [listen] kind = 'websocket', not {listen.kind!r}"
    yield from _response_problems(backend) if listen.kind == "response" else ()
    resumed = backend.resume.url if backend.resume else ""
    for table, url in (("[listen]", listen.url or "/" * (listen.kind == "response")), ("[resume]", resumed or "/")):
        if not url.startswith("/"):
            yield f"{table} url must be a path that begins with /, not {url!r}"
    if listen.kind != "websocket" and (listen.protocols or listen.opening):
        yield "[listen] protocols and opening need kind = 'websocket'"


def _response_problems(backend: Backend) -> Iterator[str]:
    if backend.run.values and backend.listen is not None and not backend.listen.url:
        yield "[run] values needs [listen] url with kind = 'response': the answer holds the frames"
    if backend.resume is not None and not (backend.resume.request or backend.resume.url):
        yield "[resume] needs the line 'request' with kind = 'response'"


def _request_problems(backend: Backend) -> Iterator[str]:
    named = [("[run]", backend.run.request)] + [("[[prepare]]", each.request) for each in backend.prepare]
    named += [("[history]", backend.history.request)] if backend.history else []
    named += [("[resume]", backend.resume.request)] if backend.resume else []
    for table, request in named:
        method, _, path = request.partition(" ")
        if (request or table in ("[[prepare]]", "[history]")) and (method not in METHODS or not path.startswith("/")):
            yield f"{table} request must be a method and a path, as in 'POST /chat', not {request!r}"


def _placeholder_problems(backend: Backend, names: set[str]) -> Iterator[str]:
    """Check that each placeholder has a value where it is used."""
    start, known = backend.start, CLIENT_VALUES | names
    yield from _unknown("[start]", (start.command, start.env, start.ready, start.url), START_VALUES)
    if [each.per for each in backend.prepare] != sorted((each.per for each in backend.prepare), reverse=True):
        yield "[[prepare]] requests per = 'user' must stand before those per = 'thread'"
    for each in backend.prepare:
        yield from _unknown("[[prepare]]", (each.request, each.headers, each.body), known)
        known |= each.values.keys()
    if backend.listen is not None:
        listen = backend.listen
        own = known | RUN_VALUES | backend.run.values.keys() if listen.kind == "response" else known
        yield from _unknown("[listen]", (listen.url, listen.headers, listen.opening, listen.protocols), own)
    run = backend.run
    running = known | RUN_VALUES
    yield from _unknown("[run]", (run.request, run.send, run.headers, run.body), running)
    if backend.listen is not None and not any(
        "prompt" in found for found in map(names_in, (run.request, run.send, run.body))
    ):
        yield "[run] needs the placeholder {prompt} in its body, request or message"
    if backend.history is not None:
        yield from _unknown(
            "[history]", (backend.history.request, backend.history.headers, backend.history.body), known
        )
    if (resume := backend.resume) is not None:
        allowed = (running | run.values.keys() if backend.kind == "response" else known) | RESUME_VALUES
        parts = (resume.url, resume.request, resume.headers, resume.body, resume.opening)
        yield from _unknown("[resume]", parts, allowed)


def _unknown(table: str, templates: object, known: set[str]) -> Iterator[str]:
    for name in sorted(names_in(templates) - known):
        yield f"{table} has the unknown placeholder {{{name}}}; known: {', '.join(sorted(known))}"
