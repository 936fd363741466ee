"""Which origins' pages may open a socket."""

from __future__ import annotations

import pytest

from bridgekit.errors import InvalidId, SubscriptionRefused
from bridgekit.transport.authorization import Handshake
from bridgekit.transport.origins import Origin, check_origin, origin, origins
from tests.factories import ALICE, THREAD
from tests.transport.fake_browser import Site

ALLOWED = origins(["https://app.example.org", "http://localhost:3000", "capacitor://localhost"])


def is_allowed(page: str | None, host: str | None = "example.org", *, secure: bool = False) -> bool:
    try:
        check_origin(Handshake(query={}, origin=page, host=host, secure=secure), ALLOWED)
    except SubscriptionRefused as refusal:
        return refusal.code != 4504
    return True


@pytest.mark.parametrize(
    ("page", "host", "secure"),
    [
        (None, "example.org", False),
        (None, None, True),
        ("https://example.org", "example.org", True),
        ("https://example.org", "example.org", False),
        ("http://example.org", "example.org", False),
        ("https://example.org", "example.org:443", True),
        ("https://example.org:443", "example.org", True),
        ("http://example.org", "example.org:80", False),
        ("http://example.org:8000", "example.org:8000", False),
        ("https://EXAMPLE.org", "Example.ORG", True),
        ("http://[::1]:8000", "[::1]:8000", False),
        ("https://app.example.org", "example.org", True),
        ("https://app.example.org:443", None, True),
        ("http://localhost:3000", "example.org", False),
        ("capacitor://localhost", "example.org", True),
    ],
)
def test_page_of_the_same_or_a_listed_origin_is_allowed(page: str | None, host: str | None, secure: bool) -> None:
    assert is_allowed(page, host, secure=secure)


@pytest.mark.parametrize(
    ("page", "host", "secure"),
    [
        ("https://evil.example", "example.org", True),
        ("https://example.org.evil.example", "example.org", True),
        ("https://evil-example.org", "example.org", True),
        ("https://example.org", None, True),
        ("https://example.org", "", True),
        ("http://example.org", "example.org", True),
        ("http://app.example.org", "example.org", False),
        ("https://app.example.org:8443", "example.org", True),
        ("http://localhost:3001", "example.org", False),
        ("http://example.org:8000", "example.org:8001", False),
        ("http://example.org:8000", "example.org", False),
        ("ftp://example.org", "example.org", False),
        ("capacitor://example.org", "example.org", False),
        ("null", "null", False),
        ("", "", False),
        ("https://", "example.org", True),
        ("example.org", "example.org", True),
        ("https://example.org/", "example.org", True),
        ("https://user@example.org", "example.org", True),
        ("https://example.org:99999", "example.org:99999", True),
        ("https://[::1", "[::1", True),
        ("https://example.org", "example.org/evil", True),
        ("https://example.org", "user@example.org", True),
    ],
)
def test_page_of_another_or_an_invalid_origin_is_refused(page: str, host: str | None, secure: bool) -> None:
    assert not is_allowed(page, host, secure=secure)


def test_origin_is_scheme_host_and_port() -> None:
    assert origin("HTTPS://Example.org") == Origin("https", "example.org", 443)
    assert origin("http://localhost:3000") == Origin("http", "localhost", 3000)


@pytest.mark.parametrize(
    "text",
    [
        *("*.example.org", "example.org", "https://example.org/", "https://a.org/b", "https://a.org?b", ""),
        # Otherwise, the page would be refused without a reason.
        *("https://*.example.org", "https://exämple.org", "https://a.org, https://b.org", "wss://app.example.org"),
    ],
)
def test_misspelt_origin_is_refused_when_the_list_is_parsed(text: str) -> None:
    with pytest.raises(InvalidId, match="origin: "):
        origins(["https://example.org", text])


def test_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(InvalidId, match=r"origins: must be a sequence of origins, such as \('https://a.org',\)"):
        origins("https://a.org")


@pytest.mark.parametrize(("page", "code"), [("https://evil.example", 4504), ("https://[::1", 4504)])
async def test_socket_of_a_foreign_page_is_refused_before_authorization(site: Site, page: str, code: int) -> None:
    browser = site.browser(ALICE, THREAD, origin=page, seq="no cursor either")
    await browser.run()
    assert browser.close == (code, "this page's origin is not allowed here")
    assert len(browser.messages) == 2


@pytest.mark.parametrize(
    ("page", "scheme"), [("http://bridgekit.test", "ws"), ("https://bridgekit.test", "ws"), (None, "wss")]
)
async def test_socket_of_a_same_origin_page_or_of_no_page_is_served(site: Site, page: str | None, scheme: str) -> None:
    browser = site.browser(origin=page, scheme=scheme)
    async with site.open(browser):
        await site.publish()
    assert browser.seqs == [1]


async def test_page_without_tls_cannot_open_a_tls_socket(site: Site) -> None:
    browser = site.browser(origin="http://bridgekit.test", scheme="wss")
    await browser.run()
    assert browser.close is not None
    assert browser.close[0] == 4504


@pytest.mark.parametrize("page", ["https://evil.example", "http://localhost:8888", "null"])
def test_star_allows_every_page(page: str) -> None:
    check_origin(Handshake(query={}, origin=page, host="bridgekit.test"), origins(["*"]))
    with pytest.raises(SubscriptionRefused):
        check_origin(Handshake(query={}, origin=page, host="bridgekit.test"), origins([]))
