"""Renders Markdown, code and HTML outputs as HTML that contains no scripts and loads no resources."""

from __future__ import annotations

from collections.abc import Collection
from html import escape
from typing import Any

import mistune
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup

from bridgekit_verify.report.failures import strip_colours
from bridgekit_verify.report.notebook_files import highlight
from bridgekit_verify.report.report_data import UNDESCRIBED

# A notebook's first-level heading becomes a third-level heading of the page.
_HEADING_SHIFT = 2
_NEVER = (
    "script",
    "style",
    "link",
    "meta",
    "base",
    "iframe",
    "object",
    "embed",
    "form",
    "template",
    "svg",
    "math",
)
_FOLDING = {
    "<details>": '<details class="code">',
    "<summary>": "<summary>",
    "</summary>": "</summary>",
    "</details>": "</details>",
}
"""The HTML tags that markdown may contain, and how they are rendered."""
_ATTRIBUTES = {"alt", "class", "colspan", "rowspan", "scope", "style", "title", "src", "href"}


class _Offline(mistune.HTMLRenderer):
    """Renders links for offline use: as a link within the page, or as text with the external address."""

    def __init__(self, pages: Collection[str], name: str) -> None:
        super().__init__(escape=True)
        self._pages = pages
        self._name = name

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """Render a link to a notebook of the page, or the text with its address."""
        page = url.rpartition("/")[2].partition("#")[0].removesuffix(".ipynb")
        if page in self._pages:
            return f'<a href="#open-{escape(page)}">{text}</a>'
        if url.startswith("#") and self._name:
            return f'<a href="#{escape(self._name)}{escape(url.replace("#", "-", 1))}">{text}</a>'
        if url.startswith("#") or text == url:
            return f"<span>{text}</span>"
        return f'{text} <span class="address">({escape(url)})</span>'

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Render the alternative text, because an external image cannot be loaded offline."""
        return f"<em>{escape(text)}</em>"

    def heading(self, text: str, level: int, **attributes: Any) -> str:
        """Render a heading two levels lower, below the page's own headings."""
        level = min(6, level + _HEADING_SHIFT)
        # The anchor is the notebook's name, followed by JupyterLab's anchor of the heading.
        anchor = f' id="{escape(self._name)}-{text.replace(" ", "-")}"' if self._name and text.isascii() else ""
        return f"<h{level}{anchor}>{text}</h{level}>\n"

    def block_html(self, html: str) -> str:
        """Render the folded answer of an exercise. All other HTML is shown as text."""
        text = escape(html.strip())
        for tag, kept in _FOLDING.items():
            text = text.replace(escape(tag), kept)
        return f"{text}\n"

    def block_code(self, code: str, info: str | None = None) -> str:
        """Render fenced code, highlighted if its language is given."""
        return str(code_html(code.rstrip("\n"), info.split()[0] if info else "text"))


def markdown_html(text: str, pages: Collection[str] = (), name: str = "") -> Markup:
    """Render a notebook's markdown.

    `pages` are the names of notebooks that have an anchor in the page. The anchors of headings start with `name`, the
    notebook's own name. Without `name`, headings have no anchors.
    """
    render = mistune.create_markdown(renderer=_Offline(pages, name), plugins=["table", "strikethrough"])
    return Markup(render(text))


def code_html(code: str, language: str = "python") -> Markup:
    """Render source code with syntax classes for the style sheet."""
    return Markup(highlight(code, language))


def output_html(text: str) -> Markup:
    """Return an output's HTML without scripts, forms, event handlers and external resources."""
    soup = BeautifulSoup(text, "html.parser")
    for element in soup.find_all(_NEVER):
        element.decompose()
    for element in soup.find_all(True):
        assert isinstance(element, Tag)  # find_all(True) yields tags only
        element.attrs = {name: v for name, v in element.attrs.items() if _is_harmless(name, str(v))}
    for image in soup.find_all("img"):
        if "src" not in image.attrs:
            image.decompose()  # its source was external
        elif not image.get("alt"):
            image["alt"] = UNDESCRIBED
    return Markup(str(soup))


def printed_text(text: str) -> str:
    """Return what a cell printed, without terminal colour codes."""
    return strip_colours(text).rstrip("\n")


def _is_harmless(name: str, value: str) -> bool:
    match name:
        case "src":
            return value.startswith("data:image/")
        case "href":
            return value.startswith("#")
        case "style":
            return "url(" not in value.lower() and "@import" not in value.lower()
        case _:
            return name in _ATTRIBUTES
