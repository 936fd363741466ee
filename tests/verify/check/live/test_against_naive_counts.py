"""The tallies of generated histories, compared with a second checker that counts frame by frame."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from bridgekit_verify.check.frames import Message
from bridgekit_verify.check.live.model_ledger import CallOutcome, ModelCall, ModelLedger
from bridgekit_verify.check.live.model_scripts import SentPiece
from bridgekit_verify.check.live.saved_run import LiveRun
from bridgekit_verify.check.live.verdict import check_run
from bridgekit_verify.check.property_answers import Property, State

TABLE = {
    "kind": "t",
    "run": "run",
    "message": "msg",
    "text": "d",
    "kinds": {"started": "go", "text": "say", "ended": "done"},
}
CLIENTS = {"a1": ("ann", "t1"), "a1b": ("ann", "t1"), "a2": ("ann", "t2"), "b3": ("ben", "t3")}
PROMPTS = (("K00000001", ("a1", "a1b")), ("K00000002", ("a2",)), ("K00000003", ("b3",)))
SENT = 4


class Change(NamedTuple):
    """One step of a backend with mistakes: a frame that is dropped, repeated, moved, swapped or damaged."""

    act: str
    place: int
    target: str


changes = st.lists(
    st.builds(
        Change,
        st.sampled_from(["drop", "repeat", "move", "swap", "cut", "forge"]),
        st.integers(0, 1_000),
        st.sampled_from(sorted(CLIENTS)),
    ),
    max_size=6,
)


def ledger() -> ModelLedger:
    made = ModelLedger()
    for canary, clients in PROMPTS:
        user, thread = CLIENTS[clients[0]]
        made.add_prompt(user=user, thread=thread, clients=clients, canary=canary)
        call = ModelCall(canary, 1, 0, "chat", True, True, "", (canary,), outcome=CallOutcome.COMPLETE)
        call.pieces = [SentPiece("t", f"{' ' if n else ''}[{canary}.1.t.{n + 1}] word") for n in range(SENT)]
        made.calls.append(call)
    return made


def history(made: ModelLedger, steps: list[Change]) -> list[Message]:
    found = [
        (client, piece.text)
        for prompt, call in zip(made.prompts, made.calls, strict=True)
        for piece in call.pieces
        for client in prompt.clients
    ]
    for step in steps:
        if not found:
            break
        index = step.place % len(found)
        client, text = found[index]
        if step.act == "drop":
            del found[index]
        elif step.act == "repeat":
            found.insert(index, (client, text))
        elif step.act == "move":
            found[index] = (step.target, text)
        elif step.act == "swap":
            other = (index + 1) % len(found)
            found[index], found[other] = found[other], found[index]
        elif step.act == "cut":
            found[index] = (client, text[: len(text) // 2])
        else:
            found.insert(index, (client, text.replace(".1.t.", ".7.t.")))
    frames = [
        Message(client, 0, 0, {"t": "say", "run": f"r-{client}", "msg": f"m{n}", "d": text}, *CLIENTS[client])
        for n, (client, text) in enumerate(found)
    ]
    ends = [Message(name, 0, 0, {"t": "done", "run": f"r-{name}"}, *owner) for name, owner in CLIENTS.items()]
    return [*frames, *ends]


def naive(made: ModelLedger, messages: list[Message]) -> dict[str, dict[str, int]]:
    """Count by regular expression, one frame at a time: each frame has a message id of its own."""
    owners = dict(PROMPTS)
    known = {found for call in made.calls for piece in call.pieces for found in re.findall(r"\[K[^\]]*\]", piece.text)}
    counts = {}
    for name in CLIENTS:
        texts = [str(each.value.get("d", "")) for each in messages if each.client == name]
        markers = [found for text in texts for found in re.findall(r"\[K[^\]]*\]", text)]
        due = [marker for marker in known if name in owners[marker[1:10]]]
        own = Counter(marker for marker in markers if marker in due)
        misrouted = sum(marker in known and marker not in due for marker in markers)
        broken_ones = sum(bool(re.search(r"K\d{8}", text)) and not re.findall(r"\[K[^\]]*\]", text) for text in texts)
        counts[name] = {
            "sent": len(due),
            "delivered": len(own),
            "lost": len(due) - len(own),
            "unknown": 0,
            "received": len(markers) + broken_ones,
            "duplicated": sum(own.values()) - len(own),
            "replayed": 0,
            "misrouted": misrouted,
            "unattributed": sum(marker not in known for marker in markers) + broken_ones,
        }
    return counts


@given(changes)
def test_tallies_equal_those_of_a_naive_checker(steps: list[Change]) -> None:
    made = ledger()
    messages = history(made, steps)
    verdict = check_run(LiveRun(made, messages, TABLE))
    expected = naive(made, messages)
    for tally in verdict.tallies:
        found = {name: getattr(tally, name) for name in expected[tally.client]}
        assert found == expected[tally.client], tally.client
        assert tally.sent == tally.delivered + tally.lost + tally.unknown
        parts = (tally.delivered, tally.duplicated, tally.replayed, tally.misrouted, tally.unattributed)
        assert tally.received == sum(parts)
    if any(each.value.get("d") for each in messages):
        states = {each.property: each.state for each in verdict.answers}
        lost = sum(each["lost"] for each in expected.values())
        duplicated = sum(each["duplicated"] for each in expected.values())
        assert (states[Property.LOST] is State.BROKEN) == bool(lost)
        assert (states[Property.DUPLICATED] is State.BROKEN) == bool(duplicated)
