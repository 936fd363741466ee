"""The scripted model as an HTTP server: an OpenAI-compatible endpoint that records its answers in the ledger."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from bridgekit_verify.check.live.markers import prompt_text
from bridgekit_verify.check.live.model_answers import AnswerHead, Step, whole_answer, write_answer
from bridgekit_verify.check.live.model_ledger import CallOutcome, ModelCall, ModelLedger, NeutralCall, RejectedCall
from bridgekit_verify.check.live.model_requests import (
    BadModelRequest,
    ModelRequest,
    RequestEntry,
    read_chat,
    read_responses,
)
from bridgekit_verify.check.live.model_scripts import SCENARIOS, SentPiece, Turn, plan_turn
from bridgekit_verify.check.live.thread_server import ThreadServer

__all__ = ["ModelServer"]

NEUTRAL_TEXT: Final = "OK."
"""The answer to requests that are not the agent's, such as a request for a title."""
KEEP_ALIVE_SECONDS: Final = 3_600
"""The keepalive timeout is longer than any run: the server must not close an idle connection during a run."""
EXCERPT_CHARACTERS: Final = 400
_LOG: Final = logging.getLogger(__name__)
_LOG.propagate = False
_LOG.addHandler(logging.NullHandler())


def _application(model: _Model) -> Starlette:
    routes = []
    for prefix in ("/v1", ""):
        routes += [
            Route(f"{prefix}/chat/completions", model.endpoint(read_chat), methods=["POST"]),
            Route(f"{prefix}/responses", model.endpoint(read_responses), methods=["POST"]),
            Route(f"{prefix}/models", _models),
            Route(f"{prefix}/models/{{name:path}}", _one_model),
        ]
    routes.append(Route("/{path:path}", model.unknown_path, methods=METHODS))
    return Starlette(routes=routes, exception_handlers={Exception: model.failed})


METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class ModelServer(ThreadServer):
    """Serves the scripted model during `with ModelServer(ledger)`, and records its answers in `ledger`."""

    def __init__(self, ledger: ModelLedger, port: int = 0) -> None:
        self._model = _Model(ledger)
        super().__init__(
            _application(self._model), "scripted model", port,
            http=_QuietProtocol, ws="none", lifespan="off", timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )  # fmt: skip

    def use(self, ledger: ModelLedger) -> None:
        """Record later requests in another ledger."""
        self._model.ledger = ledger

    @property
    def url(self) -> str:
        """The value for OPENAI_BASE_URL, which is `address` followed by `/v1`."""
        return f"{self.address}/v1"


class _QuietProtocol(H11Protocol):
    """Logs to this module's logger, because an answer that ends early is a scenario and not a server error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.access_logger = _LOG


RETRY_SOON: Final = {"retry-after-ms": "20"}


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, headers)


MODEL: Final = {"id": "scripted", "object": "model", "created": 0, "owned_by": "bridgekit"}


async def _models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [MODEL]})


async def _one_model(request: Request) -> Response:
    return JSONResponse({**MODEL, "id": request.path_params["name"]})


class _Model:
    def __init__(self, ledger: ModelLedger) -> None:
        self.ledger = ledger
        self._responses: dict[str, tuple[str, str]] = {}
        """For each response id, the prompt's canary and scenario. A request that continues a response need not repeat
        its messages."""

    def endpoint(self, read: Callable[[object], ModelRequest]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            body = await request.body()
            try:
                asked = read(json.loads(body))
            except (BadModelRequest, ValueError, RecursionError) as error:
                problem = str(error) if isinstance(error, BadModelRequest) else "the body is not JSON"
                return self._reject(request, 400, problem)
            return self._answer(asked)

        return answer

    async def unknown_path(self, request: Request) -> Response:
        return self._reject(request, 404, f"{request.method} {request.url.path}: the scripted model has no such path")

    async def failed(self, request: Request, error: Exception) -> Response:
        """Record a request that this server could not answer because of its own error."""
        return self._reject(request, 500, f"the scripted model failed: {type(error).__name__}: {error}")

    def _reject(self, request: Request, status: int, problem: str) -> Response:
        self.ledger.rejected.append(RejectedCall(request.url.path, status, problem))
        return _error(status, problem)

    def _answer(self, asked: ModelRequest) -> Response:
        found = self._attribute(asked)
        if found is None or isinstance(found, str):
            self.ledger.neutral.append(NeutralCall(asked.api, asked.raw[:EXCERPT_CHARACTERS], asked.held(), found))
            head = AnswerHead(f"neutral-{len(self.ledger.neutral)}", asked.model, int(time.time()))
            return _respond(asked, Turn([SentPiece("t", NEUTRAL_TEXT)], []), head, None, 0.0)
        call, scenario = found
        script = SCENARIOS[scenario]
        self.ledger.calls.append(call)
        if call.number <= script.refusals:
            call.outcome = CallOutcome.REFUSED
            return _error(503, "the scripted model refuses this attempt, as its scenario says", RETRY_SOON)
        turn = plan_turn(script, call.canary, call.number, call.round, asked.tools, asked.parallel)
        call.calls = list(turn.calls)
        id_ = f"{'resp' if asked.api == 'responses' else 'chatcmpl'}_{call.canary}_{call.number}"
        self._responses[id_] = (call.canary, scenario)
        return _respond(asked, turn, AnswerHead(id_, asked.model, int(time.time())), call, script.pause_seconds)

    def _attribute(self, asked: ModelRequest) -> tuple[ModelCall, str] | str | None:
        """Return the new model call for the request's prompt, with the name of its scenario.

        If the request is not the agent's, return the canary of the prompt that it quotes, or None.
        """
        found = asked.prompts()
        if found:
            canary, scenario, index = self._chosen(asked, found)
            alone = asked.entries[index].text.strip() == prompt_text(canary, scenario)
        else:
            canary, scenario = self._responses.get(asked.previous or "", ("", ""))
            index, alone = 0, True
        if scenario not in SCENARIOS:
            return None
        before = self.ledger.calls_of(canary)
        if not alone and any(call.alone for call in before):
            return canary
        rounds = {call.id: made.round for made in before for call in made.calls}
        seen = [rounds[each.result_of] for each in asked.entries if each.result_of in rounds]
        round_ = max(seen) + 1 if seen else asked.rounds_after(index)
        number = len(before) + 1
        call = ModelCall(canary, number, round_, asked.api, asked.stream, alone, asked.setting(), asked.held())
        for entry in asked.entries:
            _note_echo(call, entry)
        return call, scenario

    def _chosen(self, asked: ModelRequest, found: list[tuple[str, str, int]]) -> tuple[str, str, int]:
        """Return the prompt that the model must answer. The request may also hold prompts of other users.

        The model must answer the prompt whose tool result is the last entry, or else the latest prompt without an
        answer, or else the latest prompt.
        """
        owners = {call.id: made.canary for made in self.ledger.calls for call in made.calls}
        continued = owners.get(asked.entries[-1].result_of or "")
        setting = asked.setting()
        answered = {
            each.canary
            for each in self.ledger.calls
            if each.setting == setting and each.outcome in (CallOutcome.COMPLETE, CallOutcome.OPEN)
        }
        last = max((n for n, each in enumerate(asked.entries) if each.role in ("assistant", "tool")), default=-1)
        new = [each for each in found if each[2] > last and each[0] not in answered]
        return next((each for each in found if each[0] == continued), (new or found)[0])


def _note_echo(call: ModelCall, entry: RequestEntry) -> None:
    call.arguments.update(entry.calls)
    if entry.result_of is not None:
        call.results[entry.result_of] = entry.text
    elif entry.role == "assistant" and entry.text:
        call.texts.append(entry.text)


def _respond(
    asked: ModelRequest, turn: Turn, head: AnswerHead, call: ModelCall | None, pause_seconds: float
) -> Response:
    if asked.stream:
        return _WrittenAnswer(list(write_answer(asked, turn, head)), turn.ends_after, call, pause_seconds)
    if turn.ends_after is not None:
        return _WrittenAnswer([(None, b'{"id": '), (turn.pieces[0], b"")], 0, call, 0.0, "application/json")
    if call is not None:
        call.pieces, call.outcome = list(turn.pieces), CallOutcome.COMPLETE
    return JSONResponse(whole_answer(asked, turn, head))


class _WrittenAnswer(Response):
    """Writes an answer step by step, and records each piece once it is written."""

    def __init__(
        self, steps: Sequence[Step], ends_after: int | None, call: ModelCall | None, pause_seconds: float,
        media_type: str = "text/event-stream",
    ) -> None:  # fmt: skip
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._steps, self._ends_after, self._pause_seconds = steps, ends_after, pause_seconds
        self._call = call or ModelCall("", 0, 0, "chat", True, False, "", ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(watch)
            await self._write(send)
            group.cancel_scope.cancel()
        if self._call.outcome is CallOutcome.OPEN:
            self._call.outcome = CallOutcome.CLOSED

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        written, total = 0, sum(piece is not None for piece, _ in self._steps)
        for piece, data in self._steps:
            if piece is not None:
                if written == self._ends_after:
                    self._call.outcome = CallOutcome.ENDED_EARLY
                    return  # The server closes the connection of an answer that has no end.
                await anyio.sleep(self._pause_seconds)
            await send({"type": "http.response.body", "body": data, "more_body": True})
            if piece is not None:
                self._call.pieces.append(piece)
                written += 1
                if written == total:  # The remaining steps only end the answer, so clients may stop reading here.
                    self._call.outcome = CallOutcome.COMPLETE
        await send({"type": "http.response.body", "body": b""})
