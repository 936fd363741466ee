"""The origins whose pages may open a socket.

A browser sends a user's cookies with requests from any page. The browser also sends the page's origin, which a page
cannot forge. A client that sends no origin is allowed: it is no browser, so it cannot send another user's cookies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from bridgekit.errors import InvalidId, SubscriptionRefused
from bridgekit.transport.authorization import CLOSE_WRONG_ORIGIN, Handshake

__all__ = ["Origin", "check_origin", "origin", "origins"]

PORTS = {"http": 80, "https": 443}
"""Default ports by scheme."""
HOST: Final = re.compile(r"[\w.:-]+", re.ASCII)
"""A host as in the origins that browsers send: in ASCII, as a name or an address."""


class Origin(NamedTuple):
    """A web origin (RFC 6454, section 4)."""

    scheme: str
    host: str
    port: int | None


def origin(text: str) -> Origin:
    """Parse an origin such as "https://example.org" or "http://localhost:3000".

    Raises InvalidId for any other text.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidId("origin", f"{text!r} is not an origin: {error}") from error
    if not parts.scheme or not parts.hostname or text.lower() != f"{parts.scheme}://{parts.netloc}".lower():
        raise InvalidId("origin", f"{text!r} must be a scheme and a host, optionally with a port, and nothing else")
    if "@" in parts.netloc:
        raise InvalidId("origin", f"{text!r} must not contain a user name")
    return Origin(parts.scheme, parts.hostname, PORTS.get(parts.scheme) if port is None else port)


ANY = Origin("*", "*", None)
"""Allows every origin. Use ANY only with credentials that a browser does not send by itself, such as tickets."""


def origins(texts: Iterable[str]) -> frozenset[Origin]:
    """Parse origins. The text "*" allows the pages of every origin.

    Raises InvalidId as `origin` does, and for an origin that no page has.
    """
    if isinstance(texts, str):
        raise InvalidId("origins", f"must be a sequence of origins, such as ({texts!r},)")
    return frozenset(ANY if text == "*" else _origin_of_pages(text) for text in texts)


def _origin_of_pages(text: str) -> Origin:
    allowed = origin(text)
    if not HOST.fullmatch(allowed.host) or allowed.scheme in ("ws", "wss"):
        problem = "is no page's origin: give each origin as browsers send it, such as https://app.example.org"
        raise InvalidId("origin", f"{text!r} {problem}, without a wildcard and in ASCII")
    return allowed


def check_origin(handshake: Handshake, allowed: frozenset[Origin]) -> None:
    """Raise SubscriptionRefused if the page's origin is neither this server's own nor in `allowed`."""
    if handshake.origin is None or ANY in allowed:
        return
    try:
        page = origin(handshake.origin)
        if page in allowed or _same_site(page, handshake):
            return
    except InvalidId:
        pass  # The origin is "null", as from a sandboxed page, or a value that no browser sends.
    raise SubscriptionRefused(CLOSE_WRONG_ORIGIN, "this page's origin is not allowed here")


def _same_site(page: Origin, handshake: Handshake) -> bool:
    # Behind a proxy that terminates TLS, the page's origin is https although the socket has no TLS. If the socket has
    # TLS, an http page is of another origin.
    if page.scheme != "https" and (page.scheme != "http" or handshake.secure):
        return False
    return handshake.host is not None and page == origin(f"{page.scheme}://{handshake.host}")
