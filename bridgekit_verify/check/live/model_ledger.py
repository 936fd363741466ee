"""Records a live run at the model: the prompts, the pieces that the model sent, and what the backend sent back."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Literal

import msgspec

from bridgekit_verify.check.live.markers import markers_in, new_canary, prompt_text
from bridgekit_verify.check.live.model_scripts import SCENARIOS, SentCall, SentPiece
from bridgekit_verify.errors import InvalidParameter

__all__ = [
    "CallOutcome",
    "Excuse",
    "HistoryText",
    "ModelCall",
    "ModelLedger",
    "NeutralCall",
    "RejectedCall",
    "UserPrompt",
]


class UserPrompt(msgspec.Struct, frozen=True):
    """A message that the driver sent as a user, with the clients that must receive the answer."""

    canary: str
    scenario: str
    user: str
    thread: str
    clients: tuple[str, ...]
    """The sockets or the response that must receive the run."""
    asked_on: str = ""
    """The socket that sent the prompt. Empty if the prompt was sent in an HTTP request."""

    @property
    def text(self) -> str:
        return prompt_text(self.canary, self.scenario)


class Excuse(msgspec.Struct, frozen=True):
    """The reason why a client may miss a part of a run.

    A missing piece with an excuse counts as unknown, not as lost.
    """

    canary: str
    client: str
    reason: str


class CallOutcome(enum.StrEnum):
    """How an answer of the model ended."""

    COMPLETE = "complete"
    REFUSED = "refused with 503"
    ENDED_EARLY = "ended by the model in mid-answer"
    CLOSED = "closed by the backend in mid-answer"
    OPEN = "open when the run was saved"


class ModelCall(msgspec.Struct):
    """One request that the backend sent to the model for a prompt, with the model's answer."""

    canary: str
    number: int
    """The number of this request among the requests for its prompt, from 1. Each marker contains it."""
    round: int
    """The number of rounds of tool results in the request."""
    api: Literal["chat", "responses"]
    streamed: bool
    alone: bool
    """True if a message of the request consisted of the prompt alone."""
    setting: str
    """Fingerprint of the instructions and the offered tools. A request for a title has another fingerprint."""
    held: tuple[str, ...]
    """Every canary in the request's prompts and markers."""
    pieces: list[SentPiece] = msgspec.field(default_factory=list)
    calls: list[SentCall] = msgspec.field(default_factory=list)
    outcome: CallOutcome = CallOutcome.OPEN
    arguments: dict[str, str] = msgspec.field(default_factory=dict)
    """For each call id, the arguments that the backend repeated in this request."""
    results: dict[str, str] = msgspec.field(default_factory=dict)
    """For each call id, the tool result in this request."""
    texts: list[str] = msgspec.field(default_factory=list)
    """The model's earlier texts, as this request repeats them."""

    def text(self, channel: str) -> str:
        """Return the text that was sent on a channel."""
        return "".join(piece.text for piece in self.pieces if piece.channel == channel)

    @property
    def channels(self) -> list[str]:
        return list(dict.fromkeys(piece.channel for piece in self.pieces))


class NeutralCall(msgspec.Struct, frozen=True):
    """A request that is not the agent's, such as a request for a title. The model sent a neutral answer."""

    api: str
    excerpt: str
    held: tuple[str, ...] = ()
    canary: str | None = None
    """The canary of the prompt that the request quotes, if an earlier request held the prompt alone."""


class RejectedCall(msgspec.Struct, frozen=True):
    """A request that the model's protocol does not allow, or that the model server failed to answer."""

    path: str
    status: int
    problem: str


class HistoryText(msgspec.Struct, frozen=True):
    """The backend's answer to a request for the history of a thread."""

    user: str
    thread: str
    text: str


class ModelLedger(msgspec.Struct):
    """The record of a live run at the model. The model server adds calls, and the driver adds prompts."""

    prompts: list[UserPrompt] = msgspec.field(default_factory=list)
    calls: list[ModelCall] = msgspec.field(default_factory=list)
    excuses: list[Excuse] = msgspec.field(default_factory=list)
    neutral: list[NeutralCall] = msgspec.field(default_factory=list)
    rejected: list[RejectedCall] = msgspec.field(default_factory=list)
    histories: list[HistoryText] = msgspec.field(default_factory=list)
    cuts: list[tuple[str, str]] = msgspec.field(default_factory=list)
    """Each pair is a run's canary and a client whose connection was cut during the run and then resumed."""
    wires: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """For each client, the markers that the backend wrote to the client's connections, as read by a proxy."""

    def add_prompt(
        self, *, user: str, thread: str, clients: Iterable[str], scenario: str = "text", canary: str = "",
        asked_on: str = "",
    ) -> UserPrompt:  # fmt: skip
        """Record a prompt before it is sent, and return the prompt. All of `clients` must receive the answer."""
        entitled = tuple(clients)
        if not entitled:
            raise InvalidParameter("clients", entitled, "the clients that must receive the answer, at least one")
        if scenario not in SCENARIOS:
            raise InvalidParameter("scenario", scenario, f"one of {', '.join(SCENARIOS)}")
        prompt = UserPrompt(canary or new_canary(), scenario, user, thread, entitled, asked_on)
        self.prompts.append(prompt)
        return prompt

    def excuse(self, canary: str, client: str, reason: str) -> None:
        """Record the reason why a client may miss a part of a run, such as a cut without a resume."""
        self.excuses.append(Excuse(canary, client, reason))

    def add_history(self, *, user: str, thread: str, text: str) -> None:
        """Record the backend's own history of a thread, to locate losses."""
        self.histories.append(HistoryText(user, thread, text))

    def add_cut(self, canary: str, client: str) -> None:
        """Record that a client's connection was cut during a run and resumed. The client must still get every piece."""
        self.cuts.append((canary, client))

    def add_wire(self, client: str, text: str) -> None:
        """Record the markers in what a backend wrote to a client's connections, to locate losses."""
        if found := sorted({str(marker) for marker in markers_in(text)}):
            self.wires[client] = found

    def calls_of(self, canary: str) -> list[ModelCall]:
        return [call for call in self.calls if call.canary == canary]
