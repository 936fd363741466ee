"""Validation of ids, and the three run-id schemes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit import ids
from bridgekit.errors import BridgekitError, InvalidId
from bridgekit.ids import RunId, SignedRunIds, ThreadId, new_id
from bridgekit_verify.audited_routing import EmbeddedRunIds, OpaqueRunIds

CHECKS: dict[str, Callable[[object], str]] = {
    "thread_id": ids.thread_id,
    "user_id": ids.user_id,
    "run_id": ids.run_id,
    "agent_name": ids.agent_name,
}
EVERY_FIELD = pytest.mark.parametrize("field", CHECKS)
KEY = bytes(range(32))

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=256)
thread_ids = texts.filter(str.strip)


def digits(count: int) -> str:
    return "0123456789abcdef0123456789abcdef"[:count]


@EVERY_FIELD
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "must not be empty"),
        (" \u3000 ", "must not be empty"),
        (None, "must be a string, not NoneType"),
        (123, "must be a string, not int"),
        (b"thread_123", "must be a string, not bytes"),
        ("a\nb", r"must not contain the control character '\n'"),
        ("a\x00", r"must not contain the control character '\x00'"),
        ("\x85a", r"must not contain the control character '\x85'"),
        ("a\ud800b", r"must not contain the control character '\ud800'"),
    ],
)
def test_error_has_field_and_problem_when_an_id_is_invalid(field: str, value: object, problem: str) -> None:
    with pytest.raises(InvalidId) as refused:
        CHECKS[field](value)
    assert (refused.value.field, refused.value.problem) == (field, problem)
    assert str(refused.value) == f"{field}: {problem}"
    assert isinstance(refused.value, BridgekitError)


@EVERY_FIELD
def test_id_is_refused_when_it_exceeds_the_limit_by_one_byte(field: str) -> None:
    limit = ids.RUN_ID_BYTES if field == "run_id" else 1_024
    longest = "é" * (limit // 2)
    assert CHECKS[field](longest) == longest
    with pytest.raises(InvalidId, match=rf"^{field}: must be at most {limit:,} bytes, not {limit + 1:,}$"):
        CHECKS[field](longest + "x")


@given(thread_ids)
def test_id_is_unchanged_when_it_has_no_control_characters(value: str) -> None:
    assert ids.thread_id(value) == value


def test_opaque_run_id_does_not_depend_on_its_thread() -> None:
    assert OpaqueRunIds(digits).new(ThreadId("thread_123")) == "run_0123456789ab"
    assert OpaqueRunIds(digits).new(ThreadId("chat_1")) == "run_0123456789ab"


def test_embedded_run_id_has_the_form_of_the_audits_fix_1() -> None:
    assert EmbeddedRunIds(digits).new(ThreadId("thread_123")) == "run_thread_123_01234567"


@pytest.mark.parametrize(
    ("scheme", "form"),
    [
        (OpaqueRunIds(), r"run_[0-9a-f]{12}"),
        (EmbeddedRunIds(), r"run_thread_123_[0-9a-f]{8}"),
        (SignedRunIds(), r"run_[\w=-]+\.[0-9a-f]{24}\.[0-9a-f]{32}"),
    ],
    ids=["opaque", "embedded", "signed"],
)
def test_run_ids_are_unique_and_have_their_schemes_form(scheme: ids.RunIdScheme, form: str) -> None:
    made = {scheme.new(ThreadId("thread_123")) for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(form, run_id) for run_id in made)


@given(thread_ids)
def test_signed_run_id_returns_its_thread_when_the_key_is_the_same(thread_id: str) -> None:
    run_id = SignedRunIds(KEY).new(ThreadId(thread_id))
    assert SignedRunIds(KEY).verify(run_id) == thread_id


def test_signed_run_id_is_valid_when_its_thread_id_has_the_maximum_length() -> None:
    run_id = SignedRunIds(KEY).new(ThreadId("x" * ids.ID_BYTES))
    assert ids.run_id(run_id) == run_id


@given(thread_ids, st.data())
def test_signed_run_id_is_refused_when_one_character_was_changed(thread_id: str, data: st.DataObject) -> None:
    run_id = SignedRunIds(KEY).new(ThreadId(thread_id))
    position = data.draw(st.integers(0, len(run_id) - 1))
    other = data.draw(st.sampled_from("abc019_.-=é").filter(lambda character: character != run_id[position]))
    with pytest.raises(InvalidId, match="was not signed with this key"):
        SignedRunIds(KEY).verify(RunId(run_id[:position] + other + run_id[position + 1 :]))


@pytest.mark.parametrize("cut", [slice(4, None), slice(None, -1), slice(None, -33)])
def test_signed_run_id_is_refused_when_it_is_truncated(cut: slice) -> None:
    run_id = SignedRunIds(KEY).new(ThreadId("thread_123"))
    with pytest.raises(InvalidId, match="was not signed with this key"):
        SignedRunIds(KEY).verify(RunId(run_id[cut]))


@pytest.mark.parametrize("forged", ["run_", "run_..", "run_thread_123_0123abcd", "run_\ud800.x.y", ""])
def test_run_id_is_refused_when_it_is_forged(forged: str) -> None:
    with pytest.raises(InvalidId) as refused:
        SignedRunIds(KEY).verify(RunId(forged))
    assert refused.value.field == "run_id"


def test_run_id_is_refused_when_it_was_signed_with_another_key() -> None:
    run_id = SignedRunIds(KEY).new(ThreadId("thread_123"))
    with pytest.raises(InvalidId, match="was not signed with this key"):
        SignedRunIds(KEY[::-1]).verify(run_id)


def test_run_id_is_refused_when_it_was_signed_by_an_instance_with_its_own_key() -> None:
    with pytest.raises(InvalidId):
        SignedRunIds().verify(SignedRunIds().new(ThreadId("thread_123")))


@pytest.mark.parametrize("size", [0, 15, 65])
def test_key_is_refused_when_its_size_is_wrong(size: int) -> None:
    with pytest.raises(InvalidId, match=f"^key: must be 16 to 64 bytes, not {size}$"):
        SignedRunIds(bytes(size))


@pytest.mark.parametrize(
    ("value", "problem"), [(7, "not int"), ("x" * 65_537, "not 65,537"), ("\ud800", "UTF-8 can encode")]
)
def test_request_is_refused_when_it_is_invalid(value: object, problem: str) -> None:
    with pytest.raises(InvalidId, match=problem) as refused:
        ids.request(value)
    assert refused.value.field == "request"


def test_request_is_accepted_when_it_is_empty_or_has_line_breaks() -> None:
    assert ids.request("") == ""
    assert ids.request("one\ntwo\t") == "one\ntwo\t"


def test_ids_are_unique_when_a_process_forks() -> None:
    here = [new_id() for _ in range(1_000)]
    # Both processes write to one pipe at the same time, so each writes its line with one call.
    code = "import os\nfrom bridgekit.ids import new_id\nfirst = new_id()\n" + (
        "pid = os.fork()\nos.write(1, f'{new_id()}\\n'.encode())\nif pid: os.waitpid(pid, 0)\n"
    )
    forked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len({*here, *forked}) == 1_000 + 2
    assert {len(each) for each in (*here, *forked)} == {32}
    assert forked[0][:16] != forked[1][:16]
