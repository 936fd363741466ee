"""Backends that cut the model's pieces again, as a typewriter effect does, so that no message holds a whole marker."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from bridgekit_verify.check.frames import Message
from bridgekit_verify.check.live.saved_run import LiveRun, dialect_of
from bridgekit_verify.check.live.verdict import check_run
from bridgekit_verify.check.property_answers import Property, State
from tests.verify.check.live.run_mutations import batched, replaced
from tests.verify.check.live.sound_backends import BARE, sound
from tests.verify.check.live.test_pitfalls_of_runs import answer, of_client, renumbered, socket_of_a_user
from tests.verify.check.live.test_run_mutations import broken

DIALECTS = ("AG-UI", "Vercel UI stream", "bare", "flat")
WITH_WHOLE = {**BARE, "whole": "full", "kinds": {**BARE["kinds"], "event": "all"}}


def cut(run: LiveRun, size: int) -> LiveRun:
    """Cut the deltas of texts into parts of this many characters."""
    dialect = dialect_of(run.dialect, "")
    assert dialect is not None
    messages: list[Message] = []
    for message in run.messages:
        text = next((each.text for each in dialect.read(message) if each.kind == "text" and each.text), None)
        parts = [text[n : n + size] for n in range(0, len(text), size)] if text else [None]
        values = [message.value if part is None else replaced(message.value, str(text), part) for part in parts]
        messages += [msgspec.structs.replace(message, value=value) for value in values]
    found = msgspec.structs.replace(run, messages=messages)
    return renumbered(found) if isinstance(run.dialect, dict) and "position" in run.dialect else found


def leaked(run: LiveRun) -> list[Message]:
    """Return the deltas of ann's texts, as ben's socket receives them."""
    dialect = dialect_of(run.dialect, "")
    assert dialect is not None
    own = [each for each in of_client(run) if any(frame.kind == "text" for frame in dialect.read(each))]
    return [msgspec.structs.replace(each, client="s3", user="ben", thread="t3") for each in own]


@pytest.mark.parametrize("size", [1, 2, 5, 11])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_cut_pieces_are_found_and_those_of_another_user_break_right_user(dialect: str, size: int) -> None:
    run = cut(sound(dialect, "text"), size)
    verdict = check_run(run)
    assert broken(verdict) == set()
    for which in (Property.LOST, Property.TEXT, Property.USER):
        assert answer(verdict, which)[0] is State.HOLDS, which
    both = msgspec.structs.replace(run, messages=[*run.messages, *leaked(run)])
    found = broken(check_run(renumbered(both) if dialect == "flat" else both))
    assert found - {Property.TEXT, Property.END_LAST} == {Property.USER}


@pytest.mark.parametrize("with_whole", [False, True])
@pytest.mark.parametrize("size", [1, 3])
def test_pieces_that_another_users_pieces_interrupt_are_not_attributed(size: int, with_whole: bool) -> None:
    """Also if a later frame repeats the whole text, so that the client receives every marker."""
    run = sound("bare", "text")
    run.dialect = WITH_WHOLE
    if with_whole:
        for client in ("s1", "s2", "s3"):
            own = of_client(run, client)
            text = "".join(each.value["d"] for each in own if each.value["t"] == "say")
            end = run.messages.index(own[-1])
            run.messages.insert(end, msgspec.structs.replace(own[0], value={"t": "all", "full": text}))  # type: ignore[attr-defined]
    run = cut(run, size)
    pairs = itertools.zip_longest(leaked(run), of_client(run, "s3"))
    mixed = [each for pair in pairs for each in pair if each is not None]
    others = [each for each in run.messages if each.client == "s2"] if not with_whole else []
    prompts = [each for each in run.ledger.prompts if each.clients != ("s1",) and (others or each.clients != ("s2",))]
    run.ledger = msgspec.structs.replace(run.ledger, prompts=prompts)
    verdict = check_run(msgspec.structs.replace(run, messages=[*others, *mixed]))
    for which in (Property.LOST, Property.USER, Property.TEXT):
        assert answer(verdict, which)[0] is not State.HOLDS, which


@pytest.mark.parametrize("dialect", ["bare", "flat"])
@pytest.mark.parametrize(("begin", "end"), [("<think>", "</think>\n"), ("", "\n[looks up]\n")])
@pytest.mark.parametrize("scenario", ["thinking", "calls"])
def test_words_of_the_backend_between_texts_of_the_model_damage_none(
    scenario: str, begin: str, end: str, dialect: str
) -> None:
    """As of a backend that shows the thinking or the tools within its text."""
    run = sound(dialect, scenario)
    first, last = ".r.1]" if scenario == "thinking" else ".p.1]", ".r.4]" if scenario == "thinking" else ".p.2]"
    for message in run.messages:
        text = message.value.get("d", "")
        message.value["t"] = "say" if message.value["t"] == "think" else message.value["t"]
        message.value["d"] = (begin if first in text else "") + text + (end if last in text else "")
        message.value.pop("full", None)
    assert broken(check_run(run)) == set()
    for message in run.messages:
        message.value["d"] = message.value["d"].replace(last, last + "x")
    assert broken(check_run(run)) == {Property.TEXT}


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_response_with_another_users_answer_has_its_own_end(size: int) -> None:
    """As of a cache without the user in its key. The end may be in the same message as the foreign answer."""
    run = batched(sound("Vercel UI stream", "text"), size)
    values = {name: [each.value for each in of_client(run, name)] for name in ("s1", "s3")}
    for message in run.messages:
        if message.client == "s3":
            message.value = values["s1"].pop(0)
    assert broken(check_run(run)) == {Property.USER, Property.LOST}


def test_words_after_a_text_that_no_text_of_the_model_follows_damage_it() -> None:
    run = sound("AG-UI", "thinking")
    for message in of_client(run):
        if ".r.4]" in message.value.get("delta", ""):
            message.value["delta"] += " more"
    assert Property.TEXT in broken(check_run(run))


def test_text_of_the_backend_with_brackets_and_dots_is_no_marker() -> None:
    """As a list of sources, which the model did not send."""
    run = sound("bare", "text")
    run.dialect = {**BARE, "message": "m"}
    own = of_client(run)[0]
    sources = msgspec.structs.replace(own, value={"t": "say", "m": "0", "d": "Sources: [1] a.example. [2] b.example."})
    verdict = check_run(msgspec.structs.replace(run, messages=[sources, *run.messages]))
    for which in (Property.LOST, Property.DUPLICATED, Property.ORDER, Property.USER):
        assert answer(verdict, which)[0] is State.HOLDS, which


@pytest.mark.parametrize("size", [1, 3])
def test_cut_pieces_that_name_another_thread_break_right_thread(size: int) -> None:
    run = cut(socket_of_a_user(sound("flat", "text")), size)
    assert broken(check_run(run)) == set()
    for message in run.messages:
        if message.value["t"] == "say" and message.value["room"] == "t1":
            message.value = {**message.value, "room": "t2"}
    assert broken(check_run(run)) == {Property.THREAD}


@pytest.mark.parametrize("more", [{}, {"whole": "d"}, {"whole": "all"}])
@pytest.mark.parametrize("is_whole", [False, True])
def test_text_of_an_end_is_the_last_piece_or_the_whole_text(is_whole: bool, more: dict[str, str]) -> None:
    run = sound("bare", "text")
    run.dialect = {"name": "x", "run": "@connection", "kind": "done", "text": "d",
                   "kinds": {"text": "*", "ended": "true"}, **more}  # fmt: skip
    messages = []
    for client in ("s1", "s2", "s3"):
        texts = [each.value["d"] for each in of_client(run, client) if each.value["t"] == "say"]
        last = "".join(texts) if is_whole else texts.pop()
        values = [*({"d": text, "done": False} for text in texts), {"d": last, "done": True}]
        messages += [msgspec.structs.replace(of_client(run, client)[0], value=value) for value in values]
    run.messages = messages
    verdict = check_run(run)
    assert broken(verdict) == set()
    assert answer(verdict, Property.LOST)[0] is State.HOLDS
    run.messages = [each for each in messages if ".t.3]" not in each.value["d"] or each.value["done"]]
    assert broken(check_run(run)) >= {Property.LOST}
