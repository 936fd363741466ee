"""The text of an error that users get: its causes, and nothing that may be a secret."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit import errors
from bridgekit.chain.error_text import ERROR_BYTES, bounded_error_text, user_error_text
from bridgekit.errors import AgentExited, BridgekitError

SECRETS = [
    "connect to postgres://app:hunter@db.example.org/app failed",
    "jdbc:postgresql://db/app?user=app&password=hunter",
    "jdbc:sqlserver://db;user=app;password=hunter;encrypt=true",
    "app:hunter@db does not answer",
    "mysql -phunter failed",
    "mysql -u app -p hunter failed",
    "curl -u app:hunter failed",
    "connect --user me --password hunter",
    "password=hunter",
    "password: hunter",
    "password is hunter",
    "wrong password hunter",
    "Passphrase hunter",
    "PASSWORT hunter",
    '{"password": "hunter", "user": "me"}',
    "pin=1234-hunter",
    "PIN hunter",
    "otp=123456-hunter",
    "the OTP hunter is not valid",
    "code 123456hunter has expired",
    "Authorization: Bearer hunter",
    "authorization Basic hunter",
    "[(b'authorization', b'Bearer hunter')]",
    "X-Api-Key: hunter",
    "Incorrect API key provided: sk-proj-hunter",
    "AKIAHUNTERHUNTERHUNT is unknown",
    "ghp_hunter12345",
    "wJalrXUtnFEMI/K7MDENG/bPxhunterEXAMPLEKEY",
    "eyJhbGciOiJIUzI.hunter.abc",
    "-----BEGIN RSA PRIVATE KEY-----\nhunter\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter",
    "https://hooks.slack.com/services/T/B/hunter",
    "https://me.example.org/k?X-Amz-Signature=hunter",
    "AccountKey=hunter;EndpointSuffix=core.windows.net",
    "Cookie: session=hunter; theme=dark",
    "no user hunter@example.org",
    "'hunter'",
    "/srv/hunter/app.py does not exist",
    "10.0.0.17:5432 (hunter) refused",
    "HuNteR",
    "hunterhunterhunterhunter",
]
"""Messages with the secret "hunter"."""


@pytest.mark.parametrize("message", SECRETS)
def test_secret_is_not_in_the_text(message: str) -> None:
    for error in (
        ValueError(message),
        OSError(1, message),
        ValueError(f"before {message} after"),
        SystemExit(message),
        AgentExited("agent", SystemExit(message)),
        BridgekitError(message),
    ):
        text = user_error_text(error)
        assert "hunter" not in text.lower()
        assert text.startswith(type(error).__name__)
        assert user_error_text(BaseExceptionGroup(message, [error])) == text


@pytest.mark.parametrize(
    "message",
    [
        "the quota of the model is used up",
        "Der Dienst antwortet nicht",
        "no document was found, or it is empty!",
        "The model isn't ready (try again).",
        "I can’t do that",
        "HTTP is down",
        "模型 不可用",
        "no",
    ],
)
def test_message_of_ordinary_words_is_shown(message: str) -> None:
    assert user_error_text(ValueError(message)) == f"ValueError: {message}"


HIDDEN = "ValueError (the server's log has the message)"


def test_message_of_a_class_for_users_is_shown() -> None:
    class QuotaExceeded(ValueError):
        for_users = True

    assert user_error_text(QuotaExceeded("50 of 50 pages")) == "QuotaExceeded: 50 of 50 pages"
    assert user_error_text(ValueError("50 of 50 pages")) == HIDDEN


def test_errors_of_bridgekit_for_users_are_those_of_their_runs() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BridgekitError)]
    assert {each.__name__ for each in classes if each.for_users} == {
        *("AgentExited", "FrameTooLarge", "PayloadError", "UnknownAgent", "UnknownEventType", "UnknownName"),
        *("WorkerLost", "WrongEventLoop"),
    }


@pytest.mark.slow
@given(st.text() | st.text("sk-_=:'\"\\ \x00abc123é\ud800", max_size=200))
def test_text_is_bounded_and_encodable_whatever_the_message(message: str) -> None:
    assert len(bounded_error_text(user_error_text, ValueError(message)).encode()) <= ERROR_BYTES


@given(st.text())
def test_shown_message_has_only_letters_and_punctuation(message: str) -> None:
    if user_error_text(ValueError(message)) != HIDDEN:
        assert all(each.isalpha() or each.isspace() or each in "().,;!?'’" for each in message)


class Endless(ExceptionGroup[Exception]):
    """Contains itself, as its property says."""

    @property
    def exceptions(self) -> Any:
        return (self,)


def test_text_of_a_group_names_what_it_has_and_not_what_it_says() -> None:
    assert user_error_text(Endless("group", [ValueError("in it")])) == "ValueError: in it"


@pytest.mark.parametrize("part", ["a", "a ", "(", "a'", "a.", "password", "é", " ", "A"])
def test_only_the_start_of_a_message_is_read(part: str) -> None:
    """A user may choose the message, and reading megabytes of it would stop the event loop."""
    message = part * 1_000_000
    assert user_error_text(ValueError(message)) == user_error_text(ValueError(message[:4_096]))
