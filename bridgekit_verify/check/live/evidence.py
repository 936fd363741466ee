"""Combines the ledger with the observed clients, to find what each client must receive and what arrived."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from bridgekit_verify.check.dialects import StreamDialect
from bridgekit_verify.check.live.markers import Marker, markers_in
from bridgekit_verify.check.live.model_ledger import CallOutcome, ModelCall, ModelLedger, UserPrompt
from bridgekit_verify.check.live.observed_clients import ObservedClient, Occurrence
from bridgekit_verify.check.property_answers import Evidence, Property, RecordedViolation

__all__ = ["LEDGER", "ExpectedText", "LedgerFindings", "LiveEvidence", "channel_name"]

LEDGER: Final = "the model's ledger"
CHANNELS: Final = {"r": "thinking", "p": "text before calls", "t": "final text", "a": "arguments"}


def channel_name(channel: str) -> str:
    return f"arguments {channel[1:]}" if channel.startswith("a") else CHANNELS[channel]


class LedgerFindings:
    """Collects violations, reasons for *unknown* and sources of *holds*, by property."""

    def __init__(self) -> None:
        self.violations: dict[Property, list[RecordedViolation]] = defaultdict(list)
        self.reasons: dict[Property, dict[str, None]] = defaultdict(dict)
        self.holds: dict[Property, str] = {}

    def broken(
        self, which: Property, rule: str, prompt: UserPrompt | None, message: str, frames: Iterable[Evidence] = ()
    ) -> None:
        """Record a violation. The violation's key contains no canary, so that the key does not depend on the seed."""
        key = f"{which}: {rule}" + (f": scenario {prompt.scenario}" if prompt else "")
        subject = f"prompt {prompt.canary}" if prompt else rule
        self.violations[which].append(RecordedViolation(key, subject, message, LEDGER, tuple(frames)))

    def unknown(self, which: Property, reason: str) -> None:
        self.reasons[which][reason] = None


class ExpectedText(NamedTuple):
    """The text that one client must receive on one channel of one call of the model."""

    client: ObservedClient
    prompt: UserPrompt
    call: ModelCall
    channel: str
    markers: tuple[Marker, ...]
    excuse: str | None
    """The reason why a part of the text may be missing."""

    def __str__(self) -> str:
        return f"the {channel_name(self.channel)} of {self.prompt.canary} (call {self.call.number})"


def _with_askers(ledger: ModelLedger, clients: Mapping[str, ObservedClient]) -> ModelLedger:
    """Expect each answer only on the socket that sent the prompt, unless any answer also reached another socket."""
    if any(
        name != each.asked_on and each.asked_on and name in clients and each.canary in clients[name].canaries
        for each in ledger.prompts
        for name in each.clients
    ):
        return ledger
    prompts = [msgspec.structs.replace(each, clients=(each.asked_on,)) if each.asked_on else each
               for each in ledger.prompts]  # fmt: skip
    return msgspec.structs.replace(ledger, prompts=prompts)


class LiveEvidence:
    """Indexes the ledger and the observed clients for the rules."""

    def __init__(
        self, ledger: ModelLedger, clients: Mapping[str, ObservedClient], dialect: StreamDialect,
        limit: str | None = None,
    ) -> None:  # fmt: skip
        self.ledger = ledger = _with_askers(ledger, clients)
        self.dialect = dialect
        self.prompts = {prompt.canary: prompt for prompt in ledger.prompts}
        self.clients = dict(clients)
        for prompt in ledger.prompts:
            for name in prompt.clients:
                self.clients.setdefault(name, ObservedClient(name, prompt.user, prompt.thread))
        self.excuses = {(each.canary, each.client): each.reason for each in ledger.excuses}
        if limit is not None:
            pairs = ((prompt.canary, name) for prompt in ledger.prompts for name in prompt.clients)
            self.excuses.update(dict.fromkeys(pairs, f"{limit} stopped the reading"))
        self.cuts = set(ledger.cuts)
        self._shown = {
            (marker.canary, marker.call, each.how == "raw")
            for client in self.clients.values()
            for marker, occurrences in client.occurrences.items()
            if self.is_entitled(client, marker.canary)
            for each in occurrences
        }
        self.main = {canary: list(self._main_calls(canary)) for canary in self.prompts}
        self.sent = {
            marker: call
            for calls in self.main.values()
            for call in calls
            for channel in call.channels
            for marker in markers_in(call.text(channel))
        }
        self.how = self._ways_of_delivery()
        self.foreign = {index for client in self.clients.values() for index in self._foreign_messages(client)}
        """Messages whose canaries all belong to runs of other users or threads. A message without a canary has the
        canaries of the id that it names."""
        self.own_positions = {
            client.id: {
                position
                for index, stated in client.positions.items()
                if index not in self.foreign
                for first, last in stated
                for position in range(first, last + 1)
            }
            for client in self.clients.values()
        }
        self.early_ends = set[str]()
        """The clients that received frames of a run after the run's end."""
        self.dead = {call.canary for call in ledger.calls if call.outcome is CallOutcome.ENDED_EARLY}
        """The prompts for which the model ended an answer early."""

    def _main_calls(self, canary: str) -> Iterator[ModelCall]:
        """Yield the model calls that answer the user's prompt.

        Other model calls may also contain the prompt, for example a request for a title.

        A call was used if the backend sent a result of its tool calls, or if its answer arrived in a frame of a known
        kind. A used call is always yielded. In a round without a used call, the calls are yielded whose answers arrived
        in other frames, or else all calls. An unused call that only quotes the prompt is left out if another call has
        the prompt as a whole message.
        """
        calls = [call for call in self.ledger.calls_of(canary) if call.outcome is not CallOutcome.REFUSED]
        echoed = {id_ for call in calls for id_ in call.results}
        used = {call.number for call in calls if any(each.id in echoed for each in call.calls)}
        used |= {number for shown, number, is_raw in self._shown if shown == canary and not is_raw}
        ranks = {each.number: 2 * (each.number in used) or (canary, each.number, True) in self._shown for each in calls}
        for call in calls:
            rivals = [ranks[each.number] for each in calls if each.round == call.round]
            quoted = not call.alone and any(each.alone for each in calls)
            if ranks[call.number] == 2 or (not quoted and ranks[call.number] == max(rivals)):
                yield call

    def _ways_of_delivery(self) -> dict[str, set[str]]:
        """Return, for each kind of channel, the ways in which its markers arrive.

        An empty set means that no client receives this kind of channel.
        """
        found: dict[str, set[str]] = defaultdict(set)
        for client in self.clients.values():
            for marker, occurrences in client.occurrences.items():
                found[marker.channel[0]].update(each.how for each in occurrences)
        ways = {}
        for kind, hows in found.items():
            if "delta" in hows:
                ways[kind] = {"delta"}
            elif kind == "a":  # `raw` does not count, because a tool's result may repeat the arguments.
                ways[kind] = hows & {"whole"}
            else:
                ways[kind] = hows & {"whole", "raw"}
        return ways

    def is_shown(self, channel: str) -> bool:
        """Return whether any client received a piece of this kind of channel.

        Arguments also count as received if the backend shows calls and the dialect can state arguments.
        """
        return bool(self.how.get(channel[0])) or (channel[0] == "a" and self.shows_calls and self.carries_arguments)

    @property
    def shows_calls(self) -> bool:
        kinds = {"tool_begin", "tool_args", "tool_end", "tool"}
        return any(kinds & found for client in self.clients.values() for found in client.call_kinds.values())

    @property
    def carries_arguments(self) -> bool:
        """Return whether the dialect can state arguments."""
        streams = not self.dialect.lacks("kinds.tool_args") and not self.dialect.lacks("text")
        return streams or not self.dialect.lacks("args")

    def delivered(self, client: ObservedClient, marker: Marker) -> list[Occurrence]:
        """Return the arrivals that deliver a marker, without replays."""
        ways = self.how.get(marker.channel[0], set())
        return [each for each in client.occurrences.get(marker, ()) if each.how in ways]

    def expected(self) -> Iterator[ExpectedText]:
        """Yield the texts that each entitled client must receive."""
        for canary, calls in self.main.items():
            prompt = self.prompts[canary]
            for name in prompt.clients:
                for call in calls:
                    excuse = self.excuses.get((canary, name))
                    if excuse is None and call.outcome in (CallOutcome.ENDED_EARLY, CallOutcome.OPEN):
                        excuse = "the model's answer had no end"
                    for channel in call.channels:
                        markers = tuple(markers_in(call.text(channel)))
                        yield ExpectedText(self.clients[name], prompt, call, channel, markers, excuse)

    def _foreign_messages(self, client: ObservedClient) -> Iterator[int]:
        canaries = {index: client.ids[subject] for index, subject in client.subjects.items()}
        for index, held in {**canaries, **client.canaries_by_message}.items():
            if held and all(self._is_foreign(client, canary) for canary in held):
                yield index

    def _is_foreign(self, client: ObservedClient, canary: str) -> bool:
        prompt = self.prompts.get(canary)
        if prompt is None or client.id in prompt.clients:
            return False
        return client.user != prompt.user or client.thread not in (None, prompt.thread)

    def is_entitled(self, client: ObservedClient, canary: str) -> bool:
        return canary in self.prompts and client.id in self.prompts[canary].clients
