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
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\nhunter2-x\n-----END PGP PRIVATE KEY BLOCK-----",
    "AccountName=me;AccountKey=hunter2-x+a/b==;EndpointSuffix=core.windows.net",
    "Endpoint=sb://me/;SharedAccessKey=hunter2-x=",
    "https://me.blob.example.org/c?sp=r&sig=hunter2-x%3D",
    "https://me.example.org/k?X-Amz-Credential=me&X-Amz-Signature=hunter2-x",
    "aws_secret_access_key = hunter2-x/abc/def",
    "the key wJalrXUtnFEMI/K7MDENG/bPxhunter2EXAMPLEK is not valid",
    "Server=db;Uid=sa;Pwd=hunter2-x;",
    "postgresql://app:hunter2-x/with/slashes@db/app",
    "postgresql://app:p@hunter2-x@db/app",
    "mongodb+srv://app:hunter2-x@db.example.org/?a=1",
    "host=db password='hunter2-x with spaces' dbname=app",
    '{"password": "a\\"hunter2-x"}',
    "{'password': b'hunter2-x'}",
    "client_secret => hunter2-x",
    "bearer: hunter2-x",
    "[(b'authorization', b'Bearer hunter2-x')]",
    "Ocp-Apim-Subscription-Key: hunter2-x",
    "encryption_key=hunter2-x",
    "session_id=hunter2-x",
    "auth=('me', 'hunter2-x')",
    "connect --user me --password hunter2-x",
    "API key 'hunter2-x' is not valid",
    "password is hunter2-x",
    "github_pat_hunter2-x12345",
    "SG.hunter2-x.abcdefgh",
    "https://hooks.slack.com/services/T0/B0/hunter2-x",
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
        "max_tokens: 4096 is too large; completion_tokens=3",
        "tokenizer: gpt2 not found",
        "secretary: Bob",
        "the signature: (a, b)",
        "Basic authentication is required",
        "the password must have 8 characters",
        "primary key: id",
        "/srv/Releases/2024/src/module1/component2/service3/handler4.py",
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
    *(
        "Aa1",
        "Aa1/",
        "--",
        "--token",
        " --token",
        "session-",
        '"',
        'password "',
        "password='\\\\",
        "api key ",
        "bearer ",
    ),
    "auth=(",
]


@pytest.mark.parametrize("part", PARTS)
def test_no_pattern_takes_quadratic_time(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user may choose the message. If a pattern took quadratic time, this would take minutes."""
    monkeypatch.setattr(error_text, "ERROR_BYTES", 8 * ERROR_BYTES)
    assert user_error_text(ValueError(part * 1_000_000)).startswith("ValueError: ")
