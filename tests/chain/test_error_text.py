"""The text of an error that users get: its causes, and nothing that looks like a secret."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.chain import error_text
from bridgekit.chain.error_text import ERROR_BYTES, bounded_error_text, user_error_text

SECRETS = [
    "connect to postgres://app:hunter2-x@db.example.org/app failed",
    "redis://:hunter2-x@127.0.0.1:6379",
    "password=hunter2-x",
    "DB_PASSWORD: 'hunter2-x'",
    '{"password": "hunter2-x", "user": "me"}',
    "{'client_secret': 'hunter2-x'}",
    "api_key = hunter2-x, retry",
    "X-Api-Key: hunter2-x",
    "access_token=hunter2-x&user=me",
    "https://host/path?token=hunter2-x&user=me",
    "Authorization: Basic hunter2-x",
    "headers={'authorization': 'Digest hunter2-x'}",
    "Cookie: session=hunter2-x; theme=dark",
    "bearer hunter2-x",
    "Incorrect API key provided: sk-proj-hunter2-x",
    "sk_live_hunter2-x",
    "ghp_hunter2-x12345",
    "AKIAhunter2-x12345",
    "key eyJhbGciOiJIUzI1NiJ9.hunter2-x.abc",
    "digest 0123456789abcdefhunter2-x0123456789",
    "-----BEGIN RSA PRIVATE KEY-----\nhunter2-x\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nhunter2-x",
]


@pytest.mark.parametrize("message", SECRETS)
def test_secret_is_not_in_the_text(message: str) -> None:
    for error in (
        ValueError(message),
        ExceptionGroup("group", [OSError(1, message)]),
        ValueError(f"before {message} after"),
    ):
        assert "hunter2" not in user_error_text(error)
        assert "***" in user_error_text(error)


@pytest.mark.parametrize(
    "message",
    [
        "the quota of the model is used up",
        "no thread 3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "expected a token, got '}' in line 7",
        "https://example.org/a?b=1 answered 503",
        "user@example.org does not exist",
        "a" * 100,
        "1" * 100,
        "Passwörter müssen 12 Zeichen haben",
        "12:30:05 is too late; the key was 'colour'",
    ],
)
def test_text_without_a_secret_is_unchanged(message: str) -> None:
    assert user_error_text(ValueError(message)) == f"ValueError: {message}"


@given(st.text() | st.text("sk-_=:'\"\\ \x00abc123é\ud800", max_size=200))
def test_text_is_bounded_and_encodable_whatever_the_message(message: str) -> None:
    assert len(bounded_error_text(user_error_text, ValueError(message)).encode()) <= ERROR_BYTES


class Endless(ExceptionGroup[Exception]):
    """Contains itself, as its property says."""

    @property
    def exceptions(self) -> Any:
        return (self,)


def test_text_of_a_group_names_what_it_has_and_not_what_it_says() -> None:
    assert user_error_text(Endless("group", [ValueError("in it")])) == "ValueError: in it"


PARTS = [
    *("a", "1", "a1", "-", "a1-", "+", "+1", "+a", "a+b=", "a.", "a-", "deadbeef-", "=", "é", "sk-", "://", "a://"),
    *("password=", "token", "token_", "token ", "basic ", "authorization ", "-----BEGIN PRIVATE KEY"),
]


@pytest.mark.parametrize("part", PARTS)
def test_no_pattern_takes_quadratic_time(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user may choose the message. If a pattern took quadratic time, this would take minutes."""
    monkeypatch.setattr(error_text, "ERROR_BYTES", 8 * ERROR_BYTES)
    assert user_error_text(ValueError(part * 1_000_000)).startswith("ValueError: ")
