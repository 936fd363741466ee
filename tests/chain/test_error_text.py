"""The text of an error that users get: its causes, and nothing that looks like a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    "part", ["a", "1", "a1", "-", "a1-", "sk-", "password=", "token ", "-----BEGIN PRIVATE KEY", "://", "a://", "é"]
)
def test_text_of_a_long_message_is_bounded(part: str) -> None:
    """No pattern takes quadratic time."""
    assert len(user_error_text(ValueError(part * 1_000_000)).encode()) <= 16 * ERROR_BYTES
