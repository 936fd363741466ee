"""Drives a backend as its TOML file states, over HTTP, streamed responses, server-sent events, and WebSockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx
from httpx_sse import EventSource
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bridgekit_verify.check.dialect_tables import EVENT, TEXT, locate, steps_of
from bridgekit_verify.check.frames import decode_json
from bridgekit_verify.check.live.backend_file import Backend, Prepare
from bridgekit_verify.check.live.clients import LiveClient, RequestedRun
from bridgekit_verify.check.live.templates import Body, Values, fill_body, fill_text, fill_url
from bridgekit_verify.errors import UnusableBackend

__all__ = ["CONNECTION_ERRORS", "Requests", "RunRefused", "TomlDriver", "http_client", "reason_of"]

CONNECT_TIMEOUT_SECONDS: Final = 10.0
CLOSE_TIMEOUT_SECONDS: Final = 1.0
ANSWER_TIMEOUT_SECONDS: Final = 30.0
ACCEPT: Final = "text/event-stream, application/x-ndjson, application/json;q=0.9, */*;q=0.8"
TEMPORARY: Final = {408, 409, 425, 429}
"""HTTP statuses after which a later attempt may succeed: timeout, conflict, too early, too many requests."""
EXCERPT_CHARACTERS: Final = 200


CONNECTION_ERRORS: Final = (httpx.HTTPError, WebSocketException, OSError)
"""Errors that a read or write raises when a connection ends."""


class RunRefused(Exception):
    """The request for a run failed.

    The error is `temporary` if the status of the answer means that a later attempt may succeed.
    """

    def __init__(self, problem: str, *, temporary: bool = False) -> None:
        super().__init__(problem)
        self.temporary = temporary


@asynccontextmanager
async def http_client() -> AsyncIterator[httpx.AsyncClient]:
    """Yield an HTTP client without a limit on connections. Reads have no timeout, because streams may be silent."""
    # Connections are not kept alive, because the backend may close a connection while the next request is sent.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    timeout = httpx.Timeout(CONNECT_TIMEOUT_SECONDS, read=None, write=ANSWER_TIMEOUT_SECONDS)
    # Cookies are not stored, because all users share this client. With `@cookie`, a backend's TOML file can use a
    # cookie in later requests.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    async with httpx.AsyncClient(limits=limits, timeout=timeout, cookies=no_cookies, trust_env=False) as client:
        yield client


class Requests:
    """Sends the requests whose answers contain no frames: preparation, history, and the start of runs."""

    def __init__(self, backend: Backend, http: httpx.AsyncClient) -> None:
        self._backend, self._http = backend, http

    async def prepare(self, step: Prepare, base_url: str, values: Values) -> dict[str, str]:
        """Send one request of `[[prepare]]` and return the values that its answer gives."""
        response = await self._ask("[[prepare]]", self.build(step.request, base_url, step.headers, step.body, values))
        return self._values(f"[[prepare]] {step.request}", step.values, response)

    async def history(self, base_url: str, values: Values) -> str:
        """Return the backend's answer to the request for a thread's history."""
        asked = self._backend.history
        assert asked is not None
        built = self.build(asked.request, base_url, asked.headers, asked.body, values)
        return (await self._ask("[history]", built)).text

    async def start_run(self, base_url: str, values: Values) -> dict[str, str]:
        """Send a request for a run whose answer contains no frames. Raises RunRefused or UnusableBackend."""
        run = self._backend.run
        response = await self._send("[run]", self.build(run.request, base_url, run.headers, run.body, values))
        return self._values(f"[run] {run.request}", run.values, response)

    def build(
        self, request: str, base_url: str, headers: Mapping[str, str], body: Body | None, values: Values
    ) -> httpx.Request:
        method, _, path = request.partition(" ")
        stated = {name.lower(): fill_text(value, values) for name, value in headers.items()}
        content, kind = None, stated.get("content-type", "")
        if isinstance(body, str) and "form-urlencoded" in kind:
            content = fill_url(body, values)
        elif body is not None:
            content, is_json = fill_body(body, values)
            kind = kind or ("application/json" if is_json else "text/plain; charset=utf-8")
        sent = httpx.Headers({"accept": ACCEPT, **({"content-type": kind} if kind else {}), **stated}, "utf-8")
        return self._http.build_request(method, base_url + fill_url(path, values), content=content, headers=sent)

    def check_status(self, table: str, response: httpx.Response) -> None:
        """Raise UnusableBackend if the status shows a wrong TOML file, and RunRefused for any other error status."""
        status, request = response.status_code, f"{response.request.method} {response.request.url.path}"
        if status < 300 or (status < 400 and table == "[[prepare]]"):  # a login may answer with a redirect
            return
        detail = response.headers["location"] if response.has_redirect_location else _excerpt(response.text)
        text = f"{request} answered {status}: {detail}"
        if status < 500 and status not in TEMPORARY:
            raise UnusableBackend(self._backend.path, f"{text}; correct {table}")
        raise RunRefused(text, temporary=status in TEMPORARY)

    async def _send(self, table: str, built: httpx.Request) -> httpx.Response:
        built.extensions["timeout"] = httpx.Timeout(ANSWER_TIMEOUT_SECONDS).as_dict()
        try:
            response = await self._http.send(built)
        except httpx.TransportError as error:
            raise RunRefused(f"{built.method} {built.url.path} failed: {reason_of(error)}") from error
        self.check_status(table, response)
        return response

    async def _ask(self, table: str, built: httpx.Request) -> httpx.Response:
        """Send a request without which the check cannot continue. Raises UnusableBackend if the request fails."""
        try:
            return await self._send(table, built)
        except RunRefused as error:
            raise UnusableBackend(self._backend.path, f"{table} {error}") from error

    def _values(self, request: str, wanted: Mapping[str, str], response: httpx.Response) -> dict[str, str]:
        """Return the values at these paths in the JSON answer, the cookies and the headers."""
        found: dict[str, str] = {}
        for name, path in wanted.items():
            source, _, key = path.partition(".")
            if source == "@cookie":
                value: Any = response.cookies.get(key)
            elif source == "@header":
                value = response.headers.get(key)
            else:
                value = locate(_decoded(response), steps_of(path))
            if not isinstance(value, str | int):
                text = f"{request}: the answer has no {path!r} for {{{name}}}: {_excerpt(response.text)}"
                raise UnusableBackend(self._backend.path, text)
            found[name] = str(value)
        return found


def _decoded(response: httpx.Response) -> Any:
    try:
        return decode_json(response.content)
    except ValueError:
        return None


class TomlDriver:
    """The driver that a TOML file describes."""

    def __init__(self, backend: Backend, http: httpx.AsyncClient, direct_url: str) -> None:
        assert backend.listen is not None
        self._backend, self._http, self._direct_url = backend, http, direct_url
        self._listen, self._resume = backend.listen, backend.resume
        self._requests = Requests(backend, http)
        self._sockets: dict[str, ClientConnection] = {}

    async def start(self, client: LiveClient, run: RequestedRun) -> None:
        asked, values = self._backend.run, {**client.values, **run.values}
        if asked.send is not None:
            await self._send(client, asked.send, values)
        elif self._listen.kind == "response" and self._listen.url:
            client.values |= await self._requests.start_run(self._direct_url, values)
            await self.listen(client)
        elif self._listen.kind == "response":
            built = self._requests.build(asked.request, client.base_url, asked.headers, asked.body, values)
            await self._stream(client, "[run]", asked.request, built)
        else:
            # The request bypasses the client's proxy, because the check cuts only the connection that receives frames.
            await self._requests.start_run(self._direct_url, values)

    async def listen(self, client: LiveClient) -> None:
        values = {**client.values, "position": client.position, "last_event_id": client.last_event_id}
        if self._listen.kind == "websocket":
            await self._read_socket(client, values)
            return
        resume = self._resume if client.connection else None
        headers = {**self._listen.headers, **(resume.headers if resume else {})}
        url = (resume.url if resume else "") or self._listen.url
        request = (resume.request if resume else "") or f"GET {url}"
        if client.last_event_id:
            headers.setdefault("Last-Event-ID", client.last_event_id)  # a browser's EventSource also sends this header
        built = self._requests.build(request, client.base_url, headers, resume.body if resume else None, values)
        await self._stream(client, "[resume]" if resume else "[listen]", request, built)

    def _opened(self, client: LiveClient) -> None:
        if not self._listen.confirmation:
            client.opened()

    async def _stream(self, client: LiveClient, table: str, request: str, built: httpx.Request) -> None:
        try:
            response = await self._http.send(built, stream=True)
            try:
                if response.status_code >= 300:
                    await response.aread()
                self._requests.check_status(table, response)
                self._opened(client)
                dialect = self._backend.dialect or {}
                as_text, without_data = TEXT in dialect.values(), dialect.get("kind") == EVENT
                await _read_body(client, response, as_text=as_text, without_data=without_data)
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            client.closed_because = f"{request}: {reason_of(error)}"

    async def _read_socket(self, client: LiveClient, values: Values) -> None:
        resume = self._resume if client.connection else None
        path = (resume.url if resume else "") or self._listen.url
        opening = self._listen.opening if resume is None or resume.opening is None else resume.opening
        url = f"ws{client.base_url.removeprefix('http')}{fill_url(path, values)}"
        headers = {name: fill_text(value, values) for name, value in self._listen.headers.items()}
        try:
            async with connect(
                url,
                additional_headers=headers,
                subprotocols=[fill_text(each, values) for each in self._listen.protocols] or None,  # type: ignore[misc]
                compression=None,
                max_size=None,
                proxy=None,
                open_timeout=CONNECT_TIMEOUT_SECONDS,
                close_timeout=CLOSE_TIMEOUT_SECONDS,
            ) as socket:
                self._sockets[client.id] = socket
                for each in opening:
                    await socket.send(fill_body(each, values)[0])
                self._opened(client)
                async for message in socket:
                    client.received(message)
                client.closed_because = f"the backend closed the WebSocket with code {socket.close_code}"
        except InvalidStatus as error:
            raise UnusableBackend(
                self._backend.path,
                f"the WebSocket {path} answered {error.response.status_code} for user {client.user}; correct [listen]",
            ) from error
        except (WebSocketException, OSError) as error:
            client.closed_because = f"{path}: {reason_of(error)}"

    async def _send(self, client: LiveClient, message: Body, values: Values) -> None:
        socket = self._sockets.get(client.id)
        if socket is None:
            raise RunRefused(f"client {client.id} is not connected")
        try:
            await socket.send(fill_body(message, values)[0])
        except ConnectionClosed as error:
            raise RunRefused(f"the message of [run] could not be sent: {reason_of(error)}") from error


async def _read_body(client: LiveClient, response: httpx.Response, *, as_text: bool, without_data: bool) -> None:
    """Pass each server-sent event, JSON answer or line to the client.

    With `as_text`, pass the body's parts as they arrive instead of lines. With `without_data`, also pass events that
    have a name and no data, which a browser drops.
    """
    mime_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if mime_type == "text/event-stream":
        last_id = ""
        async for each in EventSource(response).aiter_sse():
            own_id, last_id = each.id if each.id != last_id else "", each.id  # an event without an id has the last id
            name = None if each.event == "message" else each.event
            if each.data or (name and without_data):
                client.received(each.data, event=name, event_id=own_id)
    elif mime_type == "application/json":
        client.received((await response.aread()).decode("utf-8", "replace"))
    else:
        async for part in response.aiter_text() if as_text else response.aiter_lines():
            if text := part if as_text else part.removeprefix("data:").strip(" \x1e"):
                client.received(text)


def reason_of(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT_CHARACTERS else f"{text[: EXCERPT_CHARACTERS - 1]}…"
