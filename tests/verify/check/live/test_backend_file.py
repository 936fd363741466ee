"""The TOML file of a backend: each mistake gives one line that names it."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest

from bridgekit_verify.check.live.backend_file import load_backend, parse_backend
from bridgekit_verify.check.live.scenarios import LOADS, default_scenarios
from bridgekit_verify.check.live.templates import fill_body, fill_text, fill_url
from bridgekit_verify.errors import UnusableBackend, UnusableRecording
from tests.tree import ROOT
from tests.verify.check.live.tiny_files import DIALECT, FILES, RESPONSE


@pytest.mark.parametrize("kind", FILES)
def test_sound_file_is_read(kind: str) -> None:
    backend = parse_backend(tomllib.loads(FILES[kind]), "b.toml")
    assert backend.kind == kind
    dialect = backend.stream_dialect()
    assert dialect is not None
    assert dialect.position_per == "thread"


MISTAKES = [
    ("websocket", "ready =", "redy =", "[start] has the unknown line 'redy'; known: command, url, folder, env, ready"),
    ("websocket", 'ready = "/health"', "ready = 3", "[start] ready: expected a text in quotes, not a number"),
    ("websocket", 'ready = "/health"', 'ready = "health"', "[start] ready must be a path that begins with /"),
    ("websocket", 'ready = "/health"', "seconds = 0", "[start] seconds must be above 0, not 0"),
    ("websocket", 'ready = "/health"', "seconds = 'x'", "[start] seconds: expected a number, not a text in quotes"),
    ("websocket", "{port}", "8000", "[start] needs {port} in its command or env"),
    ("websocket", "command =", 'url = "localhost:8000"\nx =', "[start] has the unknown line 'x'"),
    ("websocket", "command =", 'url = "localhost:8000"\ncommand =', "[start] url must be like http://127.0.0.1:8000"),
    ("websocket", "command =", 'url = "http://127.0.0.1:1"\nmodel_port = -1\ncommand =', "[start] model_port"),
    ("websocket", '"{model}/v1"', "1", "[start] env.OPENAI_BASE_URL: expected a text in quotes, not a number"),
    ("websocket", '"{model}/v1"', '"{modell}/v1"', "[start] has the unknown placeholder {modell}; known: model, port"),
    ("websocket", "[listen]", "[lisen]", "the file has the unknown line 'lisen'; known: run, listen, start"),
    ("websocket", 'kind = "websocket"', "", "[listen] needs the line 'kind'"),
    ("websocket", 'kind = "websocket"', 'kind = "ws"', "[listen] kind must be one of 'response', 'sse', 'websocket'"),
    ("websocket", 'url = "/ws?user', 'url = "ws?user', "[listen] url must be a path that begins with /"),
    ("websocket", "[listen]", '[listen]\ndialect = "AG-UI"', "has a [dialect] table and [listen] dialect"),
    ("websocket", 'text = "delta"', "text = 3", "[dialect] text must be a path in quotes, not 3"),
    ("websocket", "send =", "sned =", "[run] has the unknown line 'sned'; known: request, send, headers, body, values"),
    ("websocket", "send =", "send = 3\nbody =", "[run] send: expected a text in quotes or a table or a list"),
    ("websocket", "{prompt}", "{promt}", "[run] has the unknown placeholder {promt}; known: canary, model, n, prompt"),
    ("websocket", "{prompt}", "hello", "[run] needs the placeholder {prompt} in its body, request or message"),
    ("websocket", "{position}", "{pos}", "[resume] has the unknown placeholder {pos}"),
    ("websocket", "[resume]", "[[users]]\nuser = 1\n[resume]", "[[users]] number 1 user: expected a text in quotes"),
    ("websocket", "[resume]", "[[users]]\na = 'x'\n[[users]]\n[resume]", "[[users]] number 2 has the values []"),
    ("websocket", "[resume]", "[driver]\nclass = 'a:B'\n[resume]", "has a [driver], which replaces [run] and [listen]"),
    ("sse", '"POST /post"', '"/post"', "[run] request must be a method and a path, as in 'POST /chat', not '/post'"),
    ("sse", "request =", 'send = "{prompt}"\nrequest =', "[run] needs either the line 'request'"),
    ("sse", 'request = "POST /post"', 'send = "{prompt}"', "[run] send needs [listen] kind = 'websocket', not 'sse'"),
    ("sse", "[listen]", "[listen]\nprotocols = ['a']", "[listen] protocols and opening need kind = 'websocket'"),
    ("sse", "[history]", "[history]\nbody = 1", "[history] body: expected a text in quotes or a table or a list"),
    ("sse", "[resume]", "[[prepare]]\nper = 'thread'\n[resume]", "[[prepare]] number 1 needs the line 'request'"),
    (
        "sse", "[resume]", "[[prepare]]\nrequest = 'GET /x'\nper = 'all'\n[resume]",
        "[[prepare]] number 1 per must be one of 'user', 'thread', 'all' is not",
    ),
    (
        "sse", "[resume]",
        "[[prepare]]\nrequest = 'GET /x'\n[[prepare]]\nrequest = 'GET /y'\nper = 'user'\n[resume]",
        "[[prepare]] requests per = 'user' must stand before those per = 'thread'",
    ),
    ("sse", "[resume]", "[resume]\nurl = 'again'\n", "[resume] url must be a path that begins with /, not 'again'"),
    ("sse", "[history]", "[history]\nheaders = { A = 'b', N = 1 }", "[history] headers.N: expected a text in quotes"),
    ("sse", "[start]", "[[users]]\nuser = 'a'\n[[users]]\nuser = 'a'\n[start]", "[[users]] number 2 is 'a' again"),
    ("sse", "[history]", "[history]\nheaders = { 'A b' = 'c' }", "the header 'A b' = 'c' has a character that HTTP"),
    ("sse", "[history]", '[history]\nheaders = { A = "b\\n" }', "the header 'A' = 'b\\n' has a character that HTTP"),
    ("sse", "env = {", "env = { 'A=B' = 'c',", "[start] env 'A=B' = 'c' is no variable"),
    ("sse", "env = {", 'env = { A = "\\u0000",', "[start] env 'A' = '\\x00' is no variable"),
    ("sse", 'text = "delta"', 'text = ""', "[dialect] text must be a path in quotes, not ''"),
    ("sse", 'text = "delta"', 'text = "a..b"', "[dialect] text must be a path in quotes, not 'a..b'"),
    ("sse", "[start]", "[[users]]\nuser = 'a'\ntoken = 5\n[start]", "[[users]] number 1 token: expected a text in"),
    (
        "sse", "[start]", "[run]\nrequest = 'POST /x'\nrequest = 'POST /y'\n[start]",
        "is not TOML: Cannot overwrite a value (at line 4, column 20): request = 'POST /y'",
    ),
    ("response", "[listen]", "[resume]\n[listen]", "[resume] needs the line 'request' with kind = 'response'"),
    ("response", "[listen]", "values = { a = 'b' }\n[listen]", "[run] values needs [listen] url with kind ="),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "old", "new", "message"), MISTAKES)
def test_mistake_is_named_in_one_line(tmp_path: Path, kind: str, old: str, new: str, message: str) -> None:
    assert old in FILES[kind]
    path = tmp_path / "b.toml"
    path.write_text(FILES[kind].replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UnusableRecording) as refused:
        load_backend(path)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert "\n" not in str(refused.value)


def test_running_backend_needs_a_way_to_the_model(tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    for line, text in (("", "url"), ("model_port = 9100", ""), ("", '{"base": "{model}",')):
        run = RESPONSE.replace("body = {", 'body = { base = "{model}",') if text.startswith("{") else RESPONSE
        path.write_text(f'[start]\nurl = "http://127.0.0.1:1"\n{line}\n{run}{DIALECT}', encoding="utf-8")
        if text == "url":
            with pytest.raises(UnusableBackend, match="url needs the line 'model_port'"):
                load_backend(path)
        else:
            assert load_backend(path).start.url


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe"])
def test_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.toml").write_bytes(content)
    with pytest.raises(UnusableBackend, match="is not TOML"):
        load_backend(tmp_path / "b.toml")


VALUES = {"a": 'x "y" \\ z', "b": "m&n/o"}


def test_values_are_quoted_in_urls_and_in_json_and_nowhere_else() -> None:
    assert fill_text("{a} {c}", VALUES) == 'x "y" \\ z {c}'
    assert fill_url("/t/{b}?u={a}", VALUES) == "/t/m%26n%2Fo?u=x%20%22y%22%20%5C%20z"
    assert fill_body({"at": date(2026, 11, 30)}, VALUES) == ('{"at": "2026-11-30"}', True)
    assert fill_body({"t": ["{a}", 1]}, VALUES) == ('{"t": ["x \\"y\\" \\\\ z", 1]}', True)
    assert fill_body('{"t": "{a}", "n": {n}}', {**VALUES, "n": "3"}) == ('{"t": "x \\"y\\" \\\\ z", "n": 3}', True)
    assert fill_body("say {a}", VALUES) == ('say x "y" \\ z', False)


PAGE = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
DOCUMENTED = re.findall(r"```toml\n(\[start\].*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", DOCUMENTED)
def test_documented_file_is_valid(text: str) -> None:
    assert len(DOCUMENTED) == 2
    assert parse_backend(tomllib.loads(text), "b.toml").listen is not None


def test_page_names_every_scenario_and_the_default_ones() -> None:
    rows = PAGE.partition("| scenario |")[2].partition("The command runs these scenarios by default")[0]
    socket = parse_backend(tomllib.loads(FILES["websocket"]))
    assert set(re.findall(r"`(\w+)`", rows)) - {"sse", "websocket"} == set(default_scenarios(socket))
    assert {name for name in LOADS if f"`{name}`" not in PAGE} == set()
