"""The TOML files of the tiny backend, one for each way to listen."""

from __future__ import annotations

from pathlib import Path

from bridgekit_verify.check.live.backend_file import Backend, load_backend

FOLDER = Path(__file__).parent

START = f"""
[start]
command = "{{python}} -m uvicorn --factory tiny_backends:create_app --port {{port}} --log-level warning"
folder = "{FOLDER}"
ready = "/health"
env = {{ OPENAI_BASE_URL = "{{model}}/v1" }}
"""

DIALECT = """
[dialect]
kind = "type"
run = "run"
thread = "thread"
text = "delta"
position = { path = "n", per = "thread", first = 1 }
[dialect.kinds]
started = "go"
text = "say"
ended = "done"
error = "failed"
"""

RESPONSE = """
[run]
request = "POST /chat"
body = { thread = "{thread}", run = "{run}", text = "{prompt}" }
[listen]
kind = "response"
"""

SSE = """
[run]
request = "POST /post"
body = '{"user": "{user}", "thread": "{thread}", "run": "{run}", "text": "{prompt}"}'
[listen]
kind = "sse"
url = "/events?user={user}&thread={thread}"
[resume]
[history]
request = "GET /threads/{thread}"
"""

WEBSOCKET = """
[run]
send = '{"run": "{run}", "text": "{prompt}"}'
[listen]
kind = "websocket"
url = "/ws?user={user}&thread={thread}"
[resume]
url = "/ws?user={user}&thread={thread}&after={position}"
"""

KINDS = {"response": RESPONSE, "sse": SSE, "websocket": WEBSOCKET}
FILES = {kind: START + text + DIALECT for kind, text in KINDS.items()}


def write_backend(folder: Path, kind: str, *, without: str = "") -> Path:
    """Write the file of a kind of backend. `without` removes the table of this name."""
    text = FILES[kind]
    if without:
        before, _, after = text.partition(f"[{without}]\n")
        text = before + after[after.index("\n[") + 1 :]
    path = folder / "backend.toml"
    path.write_text(text, encoding="utf-8")
    return path


def tiny_backend(folder: Path, kind: str, defect: str = "", *, without: str = "") -> Backend:
    return load_backend(write_backend(folder, kind, without=without)).with_env(DEFECT=defect)
