"""From which sites' pages a socket may be opened.

A browser sends a user's cookies along from any page. It also says which site the page is from, and a page cannot
forge that. What is not a browser says nothing, and is let through: it has no cookies of somebody else's to send.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from bridgekit.errors import InvalidId, SubscriptionRefused
from bridgekit.transport.authorization import CLOSE_WRONG_ORIGIN, Handshake

__all__ = ["Origin", "check_origin", "origin", "origins"]

PORTS = {"http": 80, "https": 443}
"""Which port is meant where none is said."""


class Origin(NamedTuple):
    """A site, as far as a browser tells one from another (RFC 6454, section 4)."""

    scheme: str
    host: str
    port: int | None


def origin(text: str) -> Origin:
    """Read an origin such as "https://example.org" or "http://localhost:3000"; InvalidId for anything more or less."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidId("origin", f"{text!r} is none: {error}") from error
    if not parts.scheme or not parts.hostname or text.lower() != f"{parts.scheme}://{parts.netloc}".lower():
        raise InvalidId("origin", f"{text!r} must be a scheme and a host, perhaps with a port, and nothing else")
    if "@" in parts.netloc:
        raise InvalidId("origin", f"{text!r} names a user")
    return Origin(parts.scheme, parts.hostname, PORTS.get(parts.scheme) if port is None else port)


ANY = Origin("*", "*", None)
"""Every site: right where what lets a user in is nothing that a browser sends by itself, and a ticket is not."""


def origins(texts: Iterable[str]) -> frozenset[Origin]:
    """Read a list of origins, or "*"; raises as `origin` does, so that a misspelt one is found at startup."""
    return frozenset(ANY if text == "*" else origin(text) for text in texts)


def check_origin(asked: Handshake, allowed: frozenset[Origin]) -> None:
    """SubscriptionRefused for a page of another site: unless its origin is this server's own, or in the list."""
    if asked.origin is None or ANY in allowed:
        return
    try:
        page = origin(asked.origin)
        if page in allowed or _same_site(page, asked):
            return
    except InvalidId:
        pass  # "null", as of a page in a sandbox, or nothing that a browser would send
    raise SubscriptionRefused(CLOSE_WRONG_ORIGIN, "this page's origin is not allowed here")


def _same_site(page: Origin, asked: Handshake) -> bool:
    # A socket without TLS may be one whose TLS a proxy took off, so that its page may have come with it; but no page
    # that came without may open one with.
    if page.scheme != "https" and (page.scheme != "http" or asked.secure):
        return False
    return asked.host is not None and page == origin(f"{page.scheme}://{asked.host}")
