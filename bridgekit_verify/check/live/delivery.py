"""Compares what the model sent with what arrived: loss, duplication, order, and texts. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from bridgekit_verify.check.live.evidence import ExpectedText, LedgerFindings, LiveEvidence, channel_name
from bridgekit_verify.check.live.markers import Marker
from bridgekit_verify.check.live.model_ledger import CallOutcome
from bridgekit_verify.check.live.observed_clients import ObservedClient, Occurrence
from bridgekit_verify.check.property_answers import Evidence, Property, excerpt
from bridgekit_verify.errors import LedgerImbalance

__all__ = ["ClientTally", "judge_delivery"]


class ClientTally(msgspec.Struct):
    """Counts of one client's markers.

    sent = delivered + lost + unknown. received = delivered + duplicated + replayed + misrouted + unattributed.
    """

    client: str
    sent: int = 0
    delivered: int = 0
    lost: int = 0
    unknown: int = 0
    received: int = 0
    duplicated: int = 0
    replayed: int = 0
    """Markers that arrived again after a reconnect, with the same position or without any position."""
    misrouted: int = 0
    unattributed: int = 0
    """Parts of markers, and markers that belong to no prompt of this live run."""


def judge_delivery(evidence: LiveEvidence, findings: LedgerFindings) -> list[ClientTally]:
    """Judge what each client received, and return one tally for each client.

    Raises LedgerImbalance if the counts of a tally contradict each other.
    """
    tallies = {name: ClientTally(name) for name in evidence.clients}
    expected = list(evidence.expected())
    for each in expected:
        _judge_expected(evidence, findings, each, tallies[each.client.id])
        _judge_text(evidence, findings, each)
    for client in evidence.clients.values():
        _count_received(evidence, findings, client, tallies[client.id])
        _judge_order(evidence, findings, client)
    _judge_resume(evidence, findings, expected)
    _conclude(evidence, findings, expected)
    for tally in tallies.values():
        _balance(tally)
    return list(tallies.values())


def _balance(tally: ClientTally) -> None:
    sent = tally.delivered + tally.lost + tally.unknown
    if sent != tally.sent:
        raise LedgerImbalance(f"sent to {tally.client} = delivered + lost + unknown", tally.sent, sent)
    parts = tally.delivered + tally.duplicated + tally.replayed + tally.misrouted + tally.unattributed
    if parts != tally.received:
        raise LedgerImbalance(f"received by {tally.client} = the sum of its parts", tally.received, parts)


# Loss


def _judge_expected(evidence: LiveEvidence, findings: LedgerFindings, text: ExpectedText, tally: ClientTally) -> None:
    missing = [marker for marker in text.markers if not evidence.delivered(text.client, marker)]
    tally.sent += len(text.markers)
    tally.delivered += len(text.markers) - len(missing)
    if not missing:
        return
    final = text.channel == "t"
    if text.excuse is not None or not (evidence.is_shown(text.channel) or final):
        tally.unknown += len(missing)
        if text.excuse is None and text.channel[0] != "a":
            findings.unknown(Property.LOST, f"the {channel_name(text.channel)} is shown to no client")
        elif text.excuse is not None and text.call.outcome is not CallOutcome.ENDED_EARLY:
            findings.unknown(Property.LOST, f"{len(missing)} pieces of {text} did not arrive, and {text.excuse}")
        return
    tally.lost += len(missing)
    span = _span(evidence, text, missing)
    message = f"client {text.client.id} did not receive {_numbers(missing)} of {len(text.markers)} of {text}: {span}"
    findings.broken(Property.LOST, f"{channel_name(text.channel)} lost", text.prompt, message, _near(text, missing))


def _numbers(markers: Sequence[Marker]) -> str:
    """Format the numbers as `piece 3` or `pieces 3, 4, 7`."""
    numbers = [str(marker.number) for marker in markers[:12]]
    more = f" and {len(markers) - 12} more" if len(markers) > 12 else ""
    return f"piece{'' if len(markers) == 1 else 's'} {', '.join(numbers)}{more}"


def _near(text: ExpectedText, missing: Sequence[Marker]) -> Iterator[Evidence]:
    """Yield the frame with the piece before the first missing piece, to show where the missing piece belongs."""
    before = [marker for marker in text.markers if marker < missing[0] and text.client.occurrences.get(marker)]
    if before:
        yield excerpt(text.client.occurrences[before[-1]][0].message)


def _span(evidence: LiveEvidence, text: ExpectedText, missing: Sequence[Marker]) -> str:
    """Return the two points between which the first missing piece was lost, as far as the evidence shows them."""
    marker = missing[0]
    written = evidence.ledger.wires.get(text.client.id, [])
    if str(marker) in written:
        return "wire to client (the backend wrote it to a connection that was cut, and no resume repeated it)"
    if _is_lost_by_cut(evidence, text, missing):
        return "resume (the connection was cut there)"
    if any(str(each) in written for each in text.markers):
        return "backend to wire (the backend wrote other pieces to the connection, but not this one)"
    others = [each for each in text.prompt.clients if each != text.client.id]
    if any(evidence.delivered(evidence.clients[name], marker) for name in others):
        return "backend to wire or later (another client of the run received it)"
    if text.client.occurrences.get(marker):
        return "backend to wire or later (another frame repeats it)"
    repeated = [each for call in evidence.ledger.calls for each in (*call.texts, *call.arguments.values())]
    repeated += [each.text for each in evidence.ledger.histories]
    if any(str(marker) in each for each in repeated):
        return "backend to wire or later (the backend has it in its history)"
    siblings = [str(each) for each in text.markers if each not in missing]
    if any(sibling in each for each in repeated for sibling in siblings):
        return "model to backend (the backend's history lacks it)"
    return "between model and client (no further evidence)"


def _is_lost_by_cut(evidence: LiveEvidence, text: ExpectedText, missing: Sequence[Marker]) -> bool:
    """Return whether a reconnect happened between the pieces before and after the first missing piece.

    If no earlier piece arrived, any cut during the run counts."""
    client = text.client
    if client.last_connection == 0:
        return False
    arrived = [
        (marker, evidence.delivered(client, marker)[0].message.connection)
        for marker in text.markers
        if marker not in missing
    ]
    before = max((connection for marker, connection in arrived if marker < missing[0]), default=None)
    after = min((connection for marker, connection in arrived if marker > missing[0]), default=client.last_connection)
    if before is None:
        return (text.prompt.canary, client.id) in evidence.cuts
    return before < after


# Duplication and order


def _count_received(
    evidence: LiveEvidence, findings: LedgerFindings, client: ObservedClient, tally: ClientTally
) -> None:
    tally.received += client.fragments
    tally.unattributed += client.fragments
    for marker, occurrences in client.occurrences.items():
        arrived = [each for each in occurrences if each.how == "delta"]
        arrived += [each for each in occurrences if each.how == "replay"]
        if not arrived and evidence.how.get(marker.channel[0], set()) & {"whole", "raw"}:
            arrived = evidence.delivered(client, marker)[:1]
        tally.received += len(arrived)
        if marker not in evidence.sent:
            tally.unattributed += len(arrived)
        elif not evidence.is_entitled(client, marker.canary):
            tally.misrouted += len(arrived)
        elif not evidence.delivered(client, marker):  # the client received only replays of the marker
            tally.replayed += len(arrived)
        else:
            _count_copies(evidence, findings, client, tally, marker, arrived)


def _count_copies(
    evidence: LiveEvidence, findings: LedgerFindings, client: ObservedClient, tally: ClientTally, marker: Marker,
    arrived: Sequence[Occurrence],
) -> None:  # fmt: skip
    first = next((each for each in arrived if each.how == "delta"), arrived[0])
    copies = [each for each in arrived if each is not first]
    prompt = evidence.prompts[marker.canary]
    for copy in copies:
        again = copy.message.connection != first.message.connection
        if copy.how == "replay" or (again and copy.position is None):
            tally.replayed += 1
            if copy.position is None:
                findings.unknown(
                    Property.DUPLICATED,
                    f"client {client.id} received pieces again after a reconnect, and no position tells them apart",
                )
            continue
        tally.duplicated += 1
        where = ", after a reconnect and under another position" if again else ""
        findings.broken(
            Property.DUPLICATED, f"{channel_name(marker.channel)} twice", prompt,
            f"client {client.id} received piece {marker.number} of the {channel_name(marker.channel)} of "
            f"{marker.canary} (call {marker.call}) again{where}",
            (excerpt(first.message), excerpt(copy.message)),
        )  # fmt: skip


RANKS: Final = {"p": 0, "t": 1}


def _judge_order(evidence: LiveEvidence, findings: LedgerFindings, client: ObservedClient) -> None:
    """Judge the order of texts and thinking over all model calls of a run, and of arguments within their tool call."""
    latest: dict[tuple[object, ...], tuple[int, int, int]] = {}
    seen = set[Marker]()
    for marker, message in client.arrivals:
        if marker in seen or marker not in evidence.sent or not evidence.is_entitled(client, marker.canary):
            continue
        seen.add(marker)
        channel = marker.channel
        lane = (marker.canary, marker.call, channel) if channel[0] == "a" else (marker.canary, channel == "r")
        now = (marker.call, RANKS.get(channel, 0), marker.number)
        before = latest.setdefault(lane, now)
        if now < before:
            findings.broken(
                Property.ORDER, f"{channel_name(channel)} reordered", evidence.prompts[marker.canary],
                f"client {client.id} received piece {marker.number} of the {channel_name(channel)} of {marker.canary} "
                f"(call {marker.call}) after piece {before[2]}", (excerpt(message),),
            )  # fmt: skip
        latest[lane] = max(now, before)


# Texts


def _judge_text(evidence: LiveEvidence, findings: LedgerFindings, text: ExpectedText) -> None:
    if text.channel[0] == "a" or not evidence.is_shown(text.channel):
        return
    ways, sent = evidence.how[text.channel[0]], text.call.text(text.channel).rstrip()
    if ways == {"raw"}:
        if text.channel == "r":
            return
        reason = evidence.dialect.describe_lack("kind", "text", "kinds.text")
        findings.unknown(Property.TEXT, reason or f"no frame of a known kind holds {text}")
        return
    key, client = (text.prompt.canary, text.call.number, text.channel), text.client
    found = [client.texts[key]] if key in client.texts else []
    received = [each.rstrip() for each in (found if "delta" in ways else client.whole_texts.get(key, ()))]
    # Words of the backend, such as `</think>`, may stand between this text and the model's next text.
    if not received or sent in received or (key in client.followed and received[0].startswith(sent)):
        return
    if text.excuse is not None:
        if text.call.outcome is not CallOutcome.ENDED_EARLY and not sent.startswith(received[0]):
            findings.unknown(Property.TEXT, f"{text} is not complete, and {text.excuse}")
        return
    if _is_received_twice(text):
        findings.unknown(Property.TEXT, f"{text} was received again after a reconnect, without positions")
        return
    findings.broken(
        Property.TEXT, f"{channel_name(text.channel)} differs", text.prompt,
        f"client {text.client.id} received another text than {text}: {_difference(sent, received[-1])}",
        _frames(evidence, text),
    )  # fmt: skip


def _is_received_twice(text: ExpectedText) -> bool:
    """Return whether pieces arrived again on a later connection, and no position shows that they are copies."""
    for marker in text.markers:
        copies = [each for each in text.client.occurrences.get(marker, ()) if each.how == "delta"]
        if any(each.position is None and each.message.connection != copies[0].message.connection for each in copies):
            return True
    return False


def _difference(sent: str, received: str) -> str:
    """Return excerpts of two texts around their first difference."""
    index = next((n for n, pair in enumerate(zip(sent, received, strict=False)) if pair[0] != pair[1]), None)
    start = max(0, (min(len(sent), len(received)) if index is None else index) - 20)
    return f"{received[start : start + 60]!r} instead of {sent[start : start + 60]!r}"


def _frames(evidence: LiveEvidence, text: ExpectedText) -> Iterator[Evidence]:
    arrived = [each for marker in text.markers for each in evidence.delivered(text.client, marker)]
    indexes = {each.message.index: each.message for each in arrived}
    yield from (excerpt(indexes[index]) for index in sorted(indexes)[-1:])


# Conclusions


def _judge_resume(evidence: LiveEvidence, findings: LedgerFindings, expected: Iterable[ExpectedText]) -> None:
    """Report an incomplete resume for each run that lost pieces when its connection was cut."""
    tried, losses = 0, defaultdict[tuple[str, str], list[ExpectedText]](list)
    for text in expected:
        client = text.client
        if client.last_connection == 0 or not evidence.is_shown(text.channel):
            continue
        if text.excuse is not None:
            findings.unknown(Property.RESUME, text.excuse)
            continue
        connections = {
            each.message.connection for marker in text.markers for each in evidence.delivered(client, marker)
        }
        missing = [marker for marker in text.markers if not evidence.delivered(client, marker)]
        key = (text.prompt.canary, client.id)
        tried += key in evidence.cuts or len(connections) > 1
        if missing and _is_lost_by_cut(evidence, text, missing):
            losses[key].append(text)
    for (canary, name), texts in losses.items():
        findings.broken(
            Property.RESUME, "lost by a cut", evidence.prompts[canary],
            f"client {name} resumed, but did not receive all of {texts[0]}", (),
        )  # fmt: skip
    if tried:
        findings.holds[Property.RESUME] = f"{tried} texts of interrupted runs arrived completely"


OF_PIECES: Final = (Property.LOST, Property.DUPLICATED, Property.ORDER, Property.TEXT, Property.USER, Property.THREAD,
                    Property.END_LAST)  # fmt: skip


def _holds_letters(text: str, canary: str) -> bool:
    """Return whether a text holds the letters of a canary in their order, also with others between them."""
    letters = iter(text.casefold())
    return all(letter in letters for letter in canary.casefold())


def _conclude(evidence: LiveEvidence, findings: LedgerFindings, expected: Sequence[ExpectedText]) -> None:
    for client in evidence.clients.values():
        is_garbled = any(_holds_letters(text, canary) for text in client.garbled for canary in evidence.prompts)
        for which in OF_PIECES if is_garbled else ():
            findings.unknown(which, f"a text of client {client.id} holds parts of markers, and no whole one")
    counts = Counter(
        kind
        for text in expected
        for kind in ("all", "delta" if "delta" in evidence.how.get(text.channel[0], ()) else "other")
        for _ in text.markers
        if evidence.is_shown(text.channel) and text.excuse is None
    )
    if not counts["all"]:
        return
    findings.holds[Property.LOST] = f"all {counts['all']} pieces arrived"
    if not counts["delta"]:
        for which in (Property.DUPLICATED, Property.ORDER):
            reason = evidence.dialect.describe_lack("kind", "text", "kinds.text|kinds.thinking|kinds.tool_args")
            findings.unknown(which, reason or "no piece of a text arrives as a delta")
        return
    findings.holds[Property.DUPLICATED] = f"each of {counts['delta']} pieces arrived once"
    findings.holds[Property.ORDER] = f"{counts['delta']} pieces arrived in the order of their numbers"
    if any(text.channel[0] != "a" for text in expected):
        findings.holds[Property.TEXT] = "every text equals what the model sent"
