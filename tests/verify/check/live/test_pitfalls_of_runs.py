"""Live runs that look damaged and are sound, or that only the ledger can judge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec
import pytest

from bridgekit_verify.check.dialect_tables import parse_table
from bridgekit_verify.check.dialects import BUILT_IN
from bridgekit_verify.check.frames import Message
from bridgekit_verify.check.live.model_ledger import ModelLedger
from bridgekit_verify.check.live.model_server import ModelServer
from bridgekit_verify.check.live.saved_run import LiveRun
from bridgekit_verify.check.live.verdict import LiveVerdict, Subject, check_run
from bridgekit_verify.check.property_answers import Property, State
from tests.verify.check.live.run_mutations import batched, frames_of
from tests.verify.check.live.sound_backends import DIALECTS, FLAT, TABLE, TOOLS, ask, interrupted, sound, sound_run
from tests.verify.check.live.test_run_mutations import broken

WITHOUT_POSITIONS = ("AG-UI", "Vercel UI stream", "bare")


def answer(verdict: LiveVerdict, which: Property) -> tuple[State, str]:
    found = next(each for each in verdict.answers if each.property is which)
    return found.state, "; ".join((found.reason, found.source, *(each.message for each in found.violations)))


def of_client(run: LiveRun, client: str = "s1") -> list[Message]:
    return [message for message in run.messages if message.client == client]


def edited(run: LiveRun, change: Callable[[list[Message]], Sequence[Message]], client: str = "s1") -> LiveRun:
    """Return the run with other messages of one client, which come first."""
    rest = [message for message in run.messages if message.client != client]
    return msgspec.structs.replace(run, messages=[*change(of_client(run, client)), *rest])


def reconnected(messages: Sequence[Message]) -> list[Message]:
    return [msgspec.structs.replace(message, connection=1) for message in messages]


def middle(messages: list[Message], needle: str = ".t.5]") -> int:
    """Return the index of the first message with a text."""
    return next(n for n, message in enumerate(messages) if needle in json.dumps(message.value))


# Cuts


@pytest.mark.parametrize("scenario", ["calls", "split"])
@pytest.mark.parametrize("dialect", ["bridgekit", "OpenAI Responses", "chat"])
@pytest.mark.parametrize("overlap", [0, 1, 2, 5])
def test_replay_after_a_resume_is_no_violation(dialect: str, scenario: str, overlap: int) -> None:
    """Also where the cut falls between the halves of a marker."""
    run = sound(dialect, scenario)
    run.ledger.add_cut(run.ledger.prompts[0].canary, "s1")
    cut = middle(of_client(run))
    verdict = check_run(edited(run, lambda own: [*own[:cut], *reconnected(own[cut - overlap :])]))
    assert broken(verdict) == set()
    assert answer(verdict, Property.RESUME)[0] is State.HOLDS
    assert answer(verdict, Property.LOST)[0] is State.HOLDS


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_was_sent_while_the_client_was_offline_is_lost_by_the_resume(dialect: str) -> None:
    run = sound(dialect)
    cut = middle(of_client(run))
    verdict = check_run(edited(run, lambda own: [*own[:cut], *reconnected(own[cut + 2 :])]))
    assert {Property.LOST, Property.RESUME} <= broken(verdict)
    assert "resume" in answer(verdict, Property.LOST)[1]
    assert broken(verdict) <= {Property.LOST, Property.RESUME, Property.TEXT, Property.SNAPSHOT}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_run_that_is_cut_without_a_resume_is_unknown(dialect: str) -> None:
    run = sound(dialect)
    cut = middle(of_client(run))
    kept = edited(run, lambda own: own[:cut])
    assert {Property.LOST, Property.ENDED} <= broken(check_run(kept))
    run.ledger.excuse(run.ledger.prompts[0].canary, "s1", "the connection was cut")
    verdict = check_run(kept)
    assert broken(verdict) == set()
    for which in (Property.LOST, Property.ENDED):
        state, text = answer(verdict, which)
        assert (state, "the connection was cut" in text) == (State.UNKNOWN, True) or which is Property.ENDED
    assert verdict.tallies[0].unknown > 0
    assert verdict.tallies[0].lost == 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_copies_after_a_reconnect_need_positions_to_be_judged(dialect: str) -> None:
    run = sound(dialect)
    cut = middle(of_client(run))

    def again(own: list[Message]) -> list[Message]:
        return [*own[:cut], *reconnected([*own[cut - 2 : cut], *own[cut:]])]

    verdict = check_run(edited(run, again))
    assert broken(verdict) == set()
    expected = State.UNKNOWN if dialect in WITHOUT_POSITIONS else State.HOLDS
    assert answer(verdict, Property.DUPLICATED)[0] is expected
    assert verdict.tallies[0].replayed > 0


def test_copy_under_another_position_is_a_duplicate() -> None:
    run = sound("chat")
    cut = middle(of_client(run))

    def again(own: list[Message]) -> list[Message]:
        later = [
            msgspec.structs.replace(each, value={**each.value, "n": each.value["n"] + 1}) for each in own[cut - 1 :]
        ]
        return [*own[:cut], *reconnected(later)]

    verdict = check_run(edited(run, again))
    assert Property.DUPLICATED in broken(verdict)
    assert broken(verdict) <= {Property.DUPLICATED, Property.TEXT, Property.SNAPSHOT}


# The model


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("scenario", ["dies", "dies_in_call"])
def test_call_and_text_of_a_model_that_died_may_be_incomplete(dialect: str, scenario: str) -> None:
    verdict = check_run(sound_run(dialect, *interrupted(scenario)))
    assert broken(verdict) == set()
    assert any("ended by the model in mid-answer" in note for note in verdict.notes)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_backend_that_does_not_end_the_run_of_a_dead_model_is_broken(dialect: str) -> None:
    run = sound_run(dialect, *interrupted("dies"))
    verdict = check_run(edited(run, lambda own: own[:-1]))
    assert broken(verdict) == {Property.ENDED}


def test_refused_attempt_and_its_retry_are_one_call() -> None:
    verdict = check_run(sound("chat", "retry"))
    state, text = answer(verdict, Property.MODEL)
    assert state is State.HOLDS
    assert "3 attempts failed" in text


def asked(act: Callable[[httpx.Client, ModelLedger], Any], scenario: str = "text") -> ModelLedger:
    """Let a backend call the model for one prompt of each of three clients, and return the ledger."""
    ledger = ModelLedger()
    with ModelServer(ledger) as model, httpx.Client(base_url=model.url) as client:
        for name, user, thread in (("s1", "ann", "t1"), ("s2", "ann", "t2"), ("s3", "ben", "t3")):
            ledger.add_prompt(user=user, thread=thread, clients=[name], scenario=scenario)
        act(client, ledger)
    return ledger


def post(client: httpx.Client, *contents: str, system: str = "", tools: bool = False) -> str:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": content} for content in contents]
    body = {"model": "m", "messages": messages, **({"tools": TOOLS} if tools else {})}
    return str(client.post("chat/completions", json=body).json()["choices"][0]["message"]["content"])


def whole_texts(ledger: ModelLedger, texts: dict[str, str]) -> LiveRun:
    """Return the run of a backend that sends each answer in one frame."""
    messages = []
    for prompt in ledger.prompts:
        client, run = prompt.clients[0], f"r-{prompt.clients[0]}"
        frames = [{"t": "go"}, {"t": "open", "msg": run}, {"t": "say", "msg": run, "d": texts[client]},
                  {"t": "said", "msg": run}, {"t": "done"}]  # fmt: skip
        for number, frame in enumerate(frames, 1):
            value = {**frame, "run": run, "room": prompt.thread, "n": number}
            messages.append(Message(client, 0, 0, value, prompt.user, prompt.thread))
    return LiveRun(ledger, messages, TABLE)


@pytest.mark.parametrize("role", ["prompt", "text", "prompt behind", "prompt inside", "text inside"])
def test_request_with_another_users_text_breaks_context_alone(role: str) -> None:
    texts: dict[str, str] = {}

    def act(client: httpx.Client, ledger: ModelLedger) -> None:
        first = ledger.prompts[0].text
        texts["s1"] = post(client, first)
        texts["s2"] = post(client, ledger.prompts[1].text)
        leaked, own = first if role.startswith("prompt") else texts["s1"], ledger.prompts[2].text
        contents = (f"{own}\n({leaked})",) if "inside" in role else (leaked, own)
        texts["s3"] = post(client, *(reversed(contents) if "behind" in role else contents))

    verdict = check_run(whole_texts(asked(act), texts))
    assert broken(verdict) == {Property.CONTEXT}
    assert "for user ben, thread t3 contained text of user ann, thread t1" in answer(verdict, Property.CONTEXT)[1]


def test_request_with_a_tool_result_continues_the_prompt_of_its_call() -> None:
    """Also if the agent shares its messages, so that another user's prompt follows the call."""

    def act(client: httpx.Client, ledger: ModelLedger) -> None:
        messages: list[Any] = [{"role": "user", "content": ledger.prompts[0].text}]
        body = {"model": "m", "messages": messages, "tools": TOOLS}
        called = client.post("chat/completions", json=body).json()["choices"][0]["message"]
        messages += [{"role": "user", "content": ledger.prompts[2].text}, called]
        messages += [{"role": "tool", "tool_call_id": each["id"], "content": "8"} for each in called["tool_calls"]]
        client.post("chat/completions", json=body)

    ledger = asked(act, "calls")
    assert [(each.canary, each.round) for each in ledger.calls] == [(ledger.prompts[0].canary, n) for n in (0, 1)]


def test_text_of_another_thread_of_the_same_user_may_be_a_memory() -> None:
    texts: dict[str, str] = {}

    def act(client: httpx.Client, ledger: ModelLedger) -> None:
        for number, prompt in enumerate(ledger.prompts):
            earlier = [ledger.prompts[0].text] if number == 1 else []
            texts[prompt.clients[0]] = post(client, *earlier, prompt.text)

    verdict = check_run(whole_texts(asked(act), texts))
    assert broken(verdict) == set()
    assert answer(verdict, Property.CONTEXT)[0] is State.UNKNOWN


def test_second_call_for_one_answer_breaks_model_called_once() -> None:
    texts: dict[str, str] = {}

    def act(client: httpx.Client, ledger: ModelLedger) -> None:
        for prompt in ledger.prompts:
            texts[prompt.clients[0]] = post(client, prompt.text)
        texts["s1"] += post(client, ledger.prompts[0].text)

    assert broken(check_run(whole_texts(asked(act), texts))) == {Property.MODEL}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("quoted", [False, True])
def test_title_that_is_shown_to_nobody_is_not_lost(first: bool, quoted: bool) -> None:
    """Whether it is made before or after the answer, of the prompt alone or within other words."""
    texts: dict[str, str] = {}

    def title(client: httpx.Client, prompt: str) -> None:
        post(client, f"Title of: {prompt}" if quoted else prompt, system="Write a title.")

    def act(client: httpx.Client, ledger: ModelLedger) -> None:
        for prompt in ledger.prompts:
            if first:
                title(client, prompt.text)
            texts[prompt.clients[0]] = post(client, prompt.text, system="Answer.", tools=True)
            if not first:
                title(client, prompt.text)

    verdict = check_run(whole_texts(asked(act), texts))
    assert broken(verdict) == set()
    assert answer(verdict, Property.LOST)[0] is State.HOLDS
    assert any("title" in note.lower() for note in verdict.notes)


@pytest.mark.parametrize("reader", ["own", "another user"])
def test_title_in_a_frame_of_an_unknown_kind_is_no_answer(reader: str) -> None:
    texts: dict[str, str] = {}
    titles: dict[str, str] = {}

    def act(client: httpx.Client, ledger: ModelLedger) -> None:
        for prompt in ledger.prompts:
            titles[prompt.clients[0]] = post(client, prompt.text, system="Write a title.")
            texts[prompt.clients[0]] = post(client, prompt.text, system="Answer.", tools=True)

    run = whole_texts(asked(act), texts)
    run.messages = [
        each
        for message in run.messages
        for each in (message, msgspec.structs.replace(message, value={"t": "title", "title": titles[message.client]}))
        if each is message or message.value["t"] == "go"
    ]
    if reader != "own":
        shown = next(each for each in run.messages if each.client == "s1" and each.value["t"] == "title")
        shown.client, shown.user, shown.thread = "s3", "ben", "t3"
    assert broken(check_run(run)) == (set() if reader == "own" else {Property.USER})


def test_answer_that_is_asked_for_twice_and_shown_once_is_not_lost() -> None:
    texts: dict[str, str] = {}

    def act(client: httpx.Client, ledger: ModelLedger) -> None:
        for prompt in ledger.prompts:
            post(client, prompt.text)
            texts[prompt.clients[0]] = post(client, prompt.text)

    assert broken(check_run(whole_texts(asked(act), texts))) == {Property.MODEL}


@pytest.mark.parametrize("excused", [False, True])
def test_prompt_for_which_the_model_was_not_called_is_broken(excused: bool) -> None:
    """Unless the connection was cut: a backend may cancel the run of a user who is gone."""
    texts = {"s1": "nothing"}

    def act(client: httpx.Client, ledger: ModelLedger) -> None:
        for prompt in ledger.prompts[1:]:
            texts[prompt.clients[0]] = post(client, prompt.text)
        if excused:
            ledger.excuse(ledger.prompts[0].canary, "s1", "the connection was cut")

    assert broken(check_run(whole_texts(asked(act), texts))) == (set() if excused else {Property.MODEL})


# Backends that cannot be judged


@pytest.mark.parametrize("frames", [True, False])
def test_backend_that_does_not_do_its_part_holds_nothing(frames: bool) -> None:
    def all_of(client: httpx.Client, ledger: ModelLedger) -> None:
        for prompt in ledger.prompts:
            post(client, prompt.text)

    for act, text, expected in (
        (lambda *_: None, "Hello!", Subject.NEVER_CALLED),
        (all_of, "Hello!", Subject.RETURNED_NOTHING),
        (lambda *_: None, "You said {prompt}", Subject.ECHOED),
        (all_of, "You said {prompt}", Subject.ECHOED),
    ):
        ledger = asked(act)
        run = whole_texts(ledger, {each.clients[0]: text.format(prompt=each.text) for each in ledger.prompts})
        if not frames:
            if expected is Subject.ECHOED:
                continue
            run.messages = []
        verdict = check_run(run)
        assert verdict.subject is expected
        assert State.HOLDS not in {each.state for each in verdict.answers}


# Other runs' frames


def renumbered(run: LiveRun) -> LiveRun:
    """Number the frames of each client anew."""
    counts = Counter[str]()
    messages = []
    for message in run.messages:
        counts[message.client] += 1
        value = {**message.value, "n": counts[message.client]}
        messages.append(msgspec.structs.replace(message, value=value))
    return msgspec.structs.replace(run, messages=messages)


@pytest.mark.parametrize("per", ["client", "thread", "connection"])
@pytest.mark.parametrize("scenario", ["text", "thinking", "calls"])
def test_frames_that_also_go_to_another_thread_break_right_thread_alone(scenario: str, per: str) -> None:
    run = sound("flat", scenario)
    run.dialect = {**FLAT, "position": {**FLAT["position"], "per": per}}
    messages = []
    for message in run.messages:
        messages.append(message)
        if message.client == "s1":
            messages.append(msgspec.structs.replace(message, client="s2", user="ann", thread="t2"))
    verdict = check_run(renumbered(msgspec.structs.replace(run, messages=messages)))
    assert broken(verdict) == {Property.THREAD}
    assert sum(tally.misrouted for tally in verdict.tallies) > 0


def test_batch_that_also_goes_to_another_thread_breaks_right_thread_alone() -> None:
    run = sound("flat", "text")
    copies = [msgspec.structs.replace(each, client="s2", user="ann", thread="t2") for each in of_client(run)]
    both = renumbered(msgspec.structs.replace(run, messages=[*copies, *run.messages]))
    assert broken(check_run(batched(both, len(copies)))) == {Property.THREAD}


def socket_of_a_user(run: LiveRun) -> LiveRun:
    """Let ann receive both of her threads on one socket."""
    prompts = [
        msgspec.structs.replace(each, clients=("ann",)) if each.user == "ann" else each for each in run.ledger.prompts
    ]
    messages = [
        msgspec.structs.replace(each, client="ann", thread=None) if each.user == "ann" else each
        for each in run.messages
    ]
    return renumbered(
        msgspec.structs.replace(run, ledger=msgspec.structs.replace(run.ledger, prompts=prompts), messages=messages)
    )


@pytest.mark.parametrize("scenario", ["text", "calls"])
def test_later_socket_of_a_user_may_receive_all_threads_again(scenario: str) -> None:
    run = socket_of_a_user(sound("flat", scenario))
    again = [msgspec.structs.replace(each, client="ann later") for each in of_client(run, "ann")]
    assert broken(check_run(msgspec.structs.replace(run, messages=[*run.messages, *again]))) == set()


def test_position_that_a_resume_of_all_threads_skips_is_lost() -> None:
    """Also if no prompt of the run entitles this socket to the skipped frame."""
    run = socket_of_a_user(sound("flat", "text"))
    later = [msgspec.structs.replace(each, client="ann later") for each in of_client(run, "ann")]
    later = [*later[:5], *reconnected(later[6:])]
    found = broken(check_run(msgspec.structs.replace(run, messages=[*run.messages, *later])))
    assert (
        {Property.LOST, Property.RESUME} <= found <= {Property.LOST, Property.RESUME, Property.SNAPSHOT, Property.TEXT}
    )


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("kind", ["none", "say", "called"])
def test_frame_that_names_another_thread_on_a_socket_of_all_threads_breaks_right_thread(kind: str, size: int) -> None:
    run = socket_of_a_user(sound("flat"))
    for changed in [each for each in run.messages if (each.value["t"], each.value["room"]) == (kind, "t1")][:1]:
        changed.value["room"] = "t2"
    assert broken(check_run(batched(run, size))) == (set() if kind == "none" else {Property.THREAD})


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("received", [0, 1, 4])
def test_tab_that_did_not_ask_on_its_socket_receives_all_or_nothing(dialect: str, received: int) -> None:
    run = sound(dialect, "text")
    prompt = run.ledger.prompts[0]
    run.ledger.prompts[0] = msgspec.structs.replace(prompt, clients=("s1", "s1b"), asked_on="s1")
    start = middle(of_client(run), ".t.1]")
    other = [msgspec.structs.replace(each, client="s1b") for each in of_client(run)[: start + received]]
    verdict = check_run(msgspec.structs.replace(run, messages=[*run.messages, *(other if received else [])]))
    assert (Property.LOST in broken(verdict)) == (received > 0)
    assert received or broken(verdict) == set()


def test_foreign_pieces_between_own_ones_do_not_damage_the_own_text() -> None:
    run = sound("flat", "thinking")
    messages = []
    for message in run.messages:
        if message.value["t"] == "think" and message.client == "s3":
            message = msgspec.structs.replace(message, client="s1", user="ann", thread="t1")
        messages.append(message)
    verdict = check_run(renumbered(msgspec.structs.replace(run, messages=messages)))
    assert {Property.USER, Property.LOST} <= broken(verdict) <= {Property.USER, Property.LOST, Property.THREAD}


PLAIN: dict[str, Any] = {
    "run": "@connection", "kind": "@text", "text": "@text",
    "kinds": {"text": "*", "ended": "[DONE]", "error": "[ERROR]*"},
}  # fmt: skip


@pytest.mark.parametrize("scenario", ["text", "dies"])
@pytest.mark.parametrize(
    ("removed", "properties"),
    [("", set()), (".t.2]", {Property.LOST, Property.TEXT}), ("[DONE]", {Property.ENDED})],
)
def test_text_that_is_no_json_is_judged(scenario: str, removed: str, properties: set[Property]) -> None:
    """As of backends that send each piece as it is, and one text at the end."""
    run = sound("bare", "text") if scenario == "text" else sound_run("bare", *interrupted("dies"))
    end = "[DONE]" if scenario == "text" else "[ERROR] the model's connection ended"
    messages = [
        msgspec.structs.replace(each, value=each.value.get("d", end))
        for each in run.messages
        if each.value["t"] in ("say", "done")
    ]
    kept = [each for each in messages if not removed or each.client != "s1" or removed not in each.value]
    found = broken(check_run(LiveRun(run.ledger, kept, PLAIN)))
    assert found == (properties if scenario == "text" else set())


def test_every_other_message_is_a_text_only_if_it_has_one() -> None:
    paths = {"kind": "end", "run": "id", "text": "delta"}
    read = parse_table({**paths, "kinds": {"text": "*", "ended": "stop"}}, "table").frames
    values = ({"delta": "a"}, {"end": "stop"}, {"error": "busy"}, "[DONE]")
    kinds = [frame.kind for value in values for frame in read(Message("c", 0, 1, value))]
    assert kinds == ["text", "ended", "other", "other"]


# Dialects with a line less


@pytest.mark.parametrize("scenario", ["thinking", "calls", "cut"])
def test_removed_line_of_a_dialect_makes_answers_unknown_and_is_named(scenario: str) -> None:
    run = sound("chat", "calls" if scenario == "cut" else scenario)
    if scenario == "cut":
        cut = middle(of_client(run))
        run.ledger.add_cut(run.ledger.prompts[0].canary, "s1")
        run = edited(run, lambda own: [*own[:cut], *reconnected(own[cut - 2 :])])
    complete = {each.property: each.state for each in check_run(run).answers}
    kinds: dict[str, str] = TABLE["kinds"]
    lines = [(name, "") for name in TABLE if name not in ("name", "kinds")]
    for name, kind in [*lines, *(("kinds", kind) for kind in kinds)]:
        table = {key: value for key, value in TABLE.items() if key != name}
        if kind:
            table["kinds"] = {key: value for key, value in kinds.items() if key != kind}
        verdict = check_run(msgspec.structs.replace(run, dialect=table))
        assert broken(verdict) == set(), (name, kind)
        for each in verdict.answers:
            if each.state is not complete[each.property]:
                assert each.state is State.UNKNOWN, (name, kind, each)
                assert (kind or name) in each.reason, (name, kind, each)


# What is shown


def test_frame_without_a_canary_is_attributed_to_nobody() -> None:
    run = sound("AG-UI")
    status = Message("s3", 0, 0, {"type": "CUSTOM", "name": "status", "value": "busy"}, "ben", "t3")
    changed = edited(run, lambda own: [own[0], status, *own[1:]], "s3")
    before, after = check_run(run), check_run(changed)
    assert broken(after) == set()
    assert after.tallies == before.tallies or sorted(map(str, after.tallies)) == sorted(map(str, before.tallies))


def test_thinking_that_nobody_is_shown_is_unknown() -> None:
    run = sound("AG-UI", "thinking")
    messages = [each for each in run.messages if not str(each.value["type"]).startswith("REASONING")]
    verdict = check_run(msgspec.structs.replace(run, messages=messages))
    assert broken(verdict) == set()
    assert answer(verdict, Property.LOST) == (State.UNKNOWN, "the thinking is shown to no client; ")


def test_all_arguments_that_are_lost_in_a_dialect_that_carries_them_are_broken() -> None:
    """As where arguments arrive whole, beside the name, and a backend forwards only later pieces."""
    run = sound("AG-UI", "whole")
    messages = [each for each in run.messages if each.value["type"] not in ("TOOL_CALL_ARGS", "MESSAGES_SNAPSHOT")]
    verdict = check_run(msgspec.structs.replace(run, messages=messages))
    assert broken(verdict) == {Property.LOST, Property.ARGUMENTS}
    ids = [call.id for each in run.ledger.calls for call in each.calls]
    assert all(each in answer(verdict, Property.ARGUMENTS)[1] for each in ids)


def test_arguments_that_the_backend_repeats_wrongly_were_lost_before_the_backend() -> None:
    run = sound("bridgekit")
    second = next(call for call in run.ledger.calls if call.arguments)
    first = next(iter(second.arguments))
    second.arguments[first] = second.arguments[first][:-2]
    verdict = check_run(run)
    assert broken(verdict) == {Property.ARGUMENTS}
    assert "model to backend" in answer(verdict, Property.ARGUMENTS)[1]


@pytest.mark.parametrize(
    ("evidence", "span"),
    [
        ("none", "between model and client"),
        ("other tab", "backend to wire or later"),
        ("history", "backend to wire or later"),
        ("history without it", "model to backend"),
        ("wire", "wire to client"),
        ("wire without it", "backend to wire"),
    ],
)
def test_loss_is_located_as_far_as_the_evidence_allows(evidence: str, span: str) -> None:
    run = sound("Vercel UI stream", "text")
    prompt = run.ledger.prompts[0]
    text = run.ledger.calls_of(prompt.canary)[0].text("t")
    if evidence == "other tab":
        run.ledger.prompts[0] = msgspec.structs.replace(prompt, clients=("s1", "s1b"))
        run.messages = [*run.messages, *(msgspec.structs.replace(each, client="s1b") for each in of_client(run))]
    elif evidence.startswith("history"):
        run.ledger.add_history(
            user="ann", thread="t1", text=text.replace(".t.5]", "") if "without" in evidence else text
        )
    elif evidence.startswith("wire"):
        run.ledger.add_wire("s1", text.replace(".t.5]", "") if "without" in evidence else text)
    cut = middle(of_client(run))
    verdict = check_run(edited(run, lambda own: [*own[:cut], *own[cut + 1 :]]))
    assert broken(verdict) == {Property.LOST, Property.TEXT}
    assert f": {span}" in answer(verdict, Property.LOST)[1]


def test_history_with_another_users_run_breaks_right_user() -> None:
    run = sound("chat")
    run.ledger.add_history(user="ben", thread="t3", text=run.ledger.calls[0].text("p"))
    assert broken(check_run(run)) == {Property.USER}


def test_agent_that_is_asked_twice_in_a_thread_is_sound() -> None:
    """The second request repeats the first prompt and its answer."""
    ledger = ModelLedger()
    runs = []
    with ModelServer(ledger) as model, httpx.Client(base_url=model.url) as client:
        history: list[dict[str, Any]] = []
        for name in ("r1", "r2"):
            prompt = ledger.add_prompt(user="ann", thread="t1", clients=[name], scenario="calls")
            events = list(ask(client, prompt.text, history=history))
            runs.append((prompt, events))
            text = "".join(each.text for each in events if each.kind == "text")
            history += [{"role": "user", "content": prompt.text}, {"role": "assistant", "content": text}]
    verdict = check_run(sound_run("AG-UI", ledger, runs))
    assert broken(verdict) == set()
    assert answer(verdict, Property.LOST)[0] is State.HOLDS


@pytest.mark.parametrize(("removed", "expected"), [(slice(1), State.BROKEN), (slice(None), State.UNKNOWN)])
@pytest.mark.parametrize("dialect", ["AG-UI", "Vercel UI stream"])
def test_result_that_the_model_got_and_a_client_did_not_is_lost_if_others_are_shown(
    dialect: str, removed: slice, expected: State
) -> None:
    run = sound(dialect)
    named = BUILT_IN[dialect]
    missing = [index for index, _ in frames_of(list(run.messages), named, "tool_result")][removed]
    kept = [each for index, each in enumerate(run.messages) if index not in missing]
    verdict = check_run(msgspec.structs.replace(run, messages=kept))
    assert answer(check_run(run), Property.CALLS)[0] is State.HOLDS
    assert answer(verdict, Property.CALLS)[0] is expected
    assert broken(verdict) <= {Property.CALLS}
    assert ("kinds.tool_result" in answer(verdict, Property.CALLS)[1]) == (expected is State.UNKNOWN)
