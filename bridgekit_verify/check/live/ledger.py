"""The model's side of a live run: which prompts were sent, what the model sent for them, and what backends repeated."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Literal

import msgspec

from bridgekit_verify.check.live.markers import markers_in, new_canary, prompt_text
from bridgekit_verify.check.live.scripts import SCENARIOS, SentCall, SentPiece
from bridgekit_verify.errors import InvalidParameter

__all__ = [
    "CallOutcome",
    "Excuse",
    "HistoryText",
    "InterruptedRun",
    "ModelCall",
    "ModelLedger",
    "NeutralCall",
    "RejectedCall",
    "UserPrompt",
    "WireText",
]


class UserPrompt(msgspec.Struct, frozen=True):
    """A message that the driver sent as a user, and who must receive the answer."""

    canary: str
    scenario: str
    user: str
    thread: str
    clients: tuple[str, ...]
    """The sockets, or the response, that are entitled to the run."""
    asked_on: str = ""
    """The socket that sent the prompt. Empty: a request did."""

    @property
    def text(self) -> str:
        return prompt_text(self.canary, self.scenario)


class Excuse(msgspec.Struct, frozen=True):
    """Why a client need not receive all of a run: what is missing there is unknown, not lost."""

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
    """One request for a prompt, and what was written as its answer."""

    canary: str
    number: int
    """Counts the requests of a prompt from 1. Markers hold it."""
    round: int
    """How many rounds of tool results the request held."""
    api: Literal["chat", "responses"]
    streamed: bool
    alone: bool
    """Whether a message of the request was the prompt and nothing else."""
    setting: str
    """Fingerprint of the instructions and the offered tools: titles and guards have another one than the agent."""
    held: tuple[str, ...]
    """Every canary in the request, in prompts and in markers."""
    pieces: list[SentPiece] = msgspec.field(default_factory=list)
    calls: list[SentCall] = msgspec.field(default_factory=list)
    outcome: CallOutcome = CallOutcome.OPEN
    arguments: dict[str, str] = msgspec.field(default_factory=dict)
    """By call id, the arguments that the backend repeated in this request."""
    results: dict[str, str] = msgspec.field(default_factory=dict)
    """By call id, the tool results in this request."""
    texts: list[str] = msgspec.field(default_factory=list)
    """The model's earlier texts, as this request repeats them."""

    def text(self, channel: str) -> str:
        """Return what was sent on a channel."""
        return "".join(piece.text for piece in self.pieces if piece.channel == channel)

    @property
    def channels(self) -> list[str]:
        return list(dict.fromkeys(piece.channel for piece in self.pieces))


class NeutralCall(msgspec.Struct, frozen=True):
    """A request that belongs to no prompt, such as for a title: it got a neutral answer."""

    api: str
    excerpt: str
    held: tuple[str, ...] = ()
    canary: str | None = None
    """The prompt that it quotes within other text, after that prompt was already sent alone."""


class RejectedCall(msgspec.Struct, frozen=True):
    """A request that the model's protocol does not allow."""

    path: str
    status: int
    problem: str


class InterruptedRun(msgspec.Struct, frozen=True):
    """A run during which the driver cut a client's connection, and resumed it."""

    canary: str
    client: str


class WireText(msgspec.Struct, frozen=True):
    """The markers that a proxy passed on to a client, as text."""

    client: str
    markers: tuple[str, ...]


class HistoryText(msgspec.Struct, frozen=True):
    """The backend's own history of a thread, as it answered a request for it."""

    user: str
    thread: str
    text: str


class ModelLedger(msgspec.Struct):
    """Everything that is known of the model's side. The server adds calls; the driver adds prompts."""

    prompts: list[UserPrompt] = msgspec.field(default_factory=list)
    calls: list[ModelCall] = msgspec.field(default_factory=list)
    excuses: list[Excuse] = msgspec.field(default_factory=list)
    neutral: list[NeutralCall] = msgspec.field(default_factory=list)
    rejected: list[RejectedCall] = msgspec.field(default_factory=list)
    histories: list[HistoryText] = msgspec.field(default_factory=list)
    cuts: list[InterruptedRun] = msgspec.field(default_factory=list)
    wires: list[WireText] = msgspec.field(default_factory=list)

    def add_prompt(
        self, *, user: str, thread: str, clients: Iterable[str], scenario: str = "text", canary: str = "",
        asked_on: str = "",
    ) -> UserPrompt:  # fmt: skip
        """Record a prompt before it is sent, and return it. `clients` must all receive the answer."""
        entitled = tuple(clients)
        if not entitled:
            raise InvalidParameter("clients", entitled, "the clients that must receive the answer, at least one")
        if scenario not in SCENARIOS:
            raise InvalidParameter("scenario", scenario, f"one of {', '.join(SCENARIOS)}")
        prompt = UserPrompt(canary or new_canary(), scenario, user, thread, entitled, asked_on)
        self.prompts.append(prompt)
        return prompt

    def excuse(self, canary: str, client: str, reason: str) -> None:
        """Record why a client may miss a part of a run, such as a cut that the backend offers no resume for."""
        self.excuses.append(Excuse(canary, client, reason))

    def add_history(self, *, user: str, thread: str, text: str) -> None:
        """Record the backend's own history of a thread, to locate losses."""
        self.histories.append(HistoryText(user, thread, text))

    def add_cut(self, canary: str, client: str) -> None:
        """Record that a client's connection was cut during a run, and resumed: nothing may be missing."""
        self.cuts.append(InterruptedRun(canary, client))

    def add_wire(self, client: str, text: str) -> None:
        """Record what a proxy passed on to a client, to tell a loss before the wire from one after it."""
        self.wires.append(WireText(client, tuple(sorted({str(marker) for marker in markers_in(text)}))))

    def calls_of(self, canary: str) -> list[ModelCall]:
        return [call for call in self.calls if call.canary == canary]
