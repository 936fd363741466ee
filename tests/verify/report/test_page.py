import re
from html.parser import HTMLParser

from bridgekit_verify.report.findings import SOURCE_MIME, Table
from bridgekit_verify.report.page import CONTENT_SECURITY_POLICY, index_html
from bridgekit_verify.report.report_data import Report
from tests.verify.report.example import claim
from tests.verify.report.notebooks import (
    PNG,
    code,
    drawn,
    executed,
    finding,
    markdown,
    notebook,
    printed,
    raised,
    recorded,
    report_of,
    shown,
    tabulated,
)

MATRIX = Table(
    name="matrix",
    caption="Fix by family",
    columns=("family", "Fix 1", "Fix 2", "Fix 3"),
    records=({"family": "chat_n", "Fix 1": "0 of 60", "Fix 2": "31 of 60", "Fix 3": "60 of 60"},),
)


class Elements(HTMLParser):
    """Collects every element of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def full_report() -> Report:
    words = markdown(
        '# One\n\n[two](02_two.ipynb#x), [code](https://example.org/x "t"), ![p](https://example.org/p.png)\n\n'
        "<script>alert(1)</script>\n\n```python\nx = 1\n```\n"
    )
    hostile = shown(
        {
            "text/html": '<div onclick="x()" style="background:url(https://e.org/x)"><script src="https://e.org/s.js">'
            '</script><style>@import "https://e.org/c.css";</style><a href="https://e.org">words</a>'
            '<img src="https://e.org/p.png"><iframe src="https://e.org"></iframe></div>'
        }
    )
    source = shown(
        {"text/plain": "", SOURCE_MIME: {"reference": "bridgekit/a.py, lines 1 to 2", "code": "class A: pass"}}
    )
    return report_of(
        executed("01_one", recorded(finding()), drawn("before_after"), hostile, source, cells=(words,)),
        executed(
            "02_two", recorded(finding("fix-1", link=None, title="Fix 1")), tabulated(MATRIX), printed("\x1b[1mhi")
        ),
    )


def test_page_has_no_external_resources() -> None:
    page = index_html(full_report())
    for tag, attributes in Elements(page).found:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            saved = tag == "a" and "download" in attributes and (value or "").startswith("data:")
            assert value is None or saved or value.startswith(("#", "data:image/")), (tag, name, value)
        assert "url(" not in (attributes.get("style") or "")
        assert not [name for name in attributes if name.startswith("on")]
    assert not {tag for tag, _ in Elements(page).found} & {"script", "link", "iframe", "base", "form", "object"}
    for sheet in re.findall(r"<style>.*?</style>", page, re.DOTALL):
        assert not re.search(r"url\(|@import", sheet)


def test_content_security_policy_is_minimal() -> None:
    metas = Elements(index_html(full_report())).all("meta")
    policy = next(m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == CONTENT_SECURITY_POLICY
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy


def test_every_figure_has_alternative_text_and_a_caption() -> None:
    page = index_html(full_report())
    images = Elements(page).all("img")
    assert [image["alt"] for image in images] == ["A dot at 0 of 60."] * 2  # once at the top, once in its notebook
    assert all((image["src"] or "").endswith(PNG) for image in images)
    assert page.count("<figcaption>Delivery</figcaption>") == 2


def test_a_figure_without_alternative_text_uses_its_plain_text() -> None:
    bare = shown({"text/plain": "<Figure 640x480>", "image/png": PNG})
    assert Elements(index_html(report_of(executed("01_a", bare)))).all("img")[0]["alt"] == "<Figure 640x480>"


def test_every_internal_link_has_exactly_one_target() -> None:
    elements = Elements(index_html(full_report()))
    anchors = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    targets = [a["href"] for tag in ("a", "use") for a in elements.all(tag) if "href" in a and "download" not in a]
    assert {(target or "")[1:] for target in targets} <= set(anchors)
    assert "#open-02_two" in targets


def test_a_finding_reaches_its_section() -> None:
    page = index_html(full_report())
    assert "It set the bridge on 0 of 4 agents." in page.replace("\N{NO-BREAK SPACE}", " ")
    assert page.index('id="links"') < page.index('id="link-3"') < page.index('id="claims"') < page.index('id="fix-1"')


def test_an_address_outside_stays_readable_without_being_a_link() -> None:
    assert '<span class="address">(https://example.org/x)</span>' in index_html(full_report())


def test_unknown_is_shown_as_unknown_and_never_as_a_percentage() -> None:
    unknown = finding(verdict="unknown", sound="unknown", before=None, after=(0, 0), evidence=())
    page = index_html(report_of(executed("01_a", recorded(unknown))))
    status = page[page.index('id="links"') : page.index('id="reading"')]
    assert ">unknown<" in status
    shown_rates = re.findall(r'class="counts">([^<]*)<', page)
    assert shown_rates
    assert set(shown_rates) == {"unknown"}
    assert not re.search(r"\b(0|100) %", status)


def test_a_matrix_cell_shows_all_some_or_none_by_shape_and_word() -> None:
    page = index_html(full_report())
    assert re.findall(r'class="outcome (\w+)"', page) == ["none", "some", "all"]


def test_evidence_is_text_and_not_markup() -> None:
    evil = finding(evidence=("<img src=x onerror=alert(1)> & <b>bold</b>",), answer="a < b", title="T · <i>n</i>")
    page = index_html(report_of(executed("01_a", recorded(evil))))
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; &lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    assert "<i>n" not in page


def test_a_failed_notebook_is_shown_first() -> None:
    failed = notebook(code("fail()", raised("ValueError", "a < b")))
    page = index_html(report_of(("01_a", failed)))
    assert "<title>Incomplete: " in page
    assert page.index("01_a: code cell 1: ValueError: a &lt; b") < page.index('id="answer"')


def test_a_complete_report_does_not_call_itself_incomplete() -> None:
    assert "Incomplete" not in index_html(full_report())


def test_notebooks_show_source_with_its_location_and_fold_their_code() -> None:
    page = index_html(full_report())
    assert "bridgekit/a.py, lines 1 to 2" in page
    assert "<summary>code, 1 line</summary>" in page
    assert "\x1b" not in page


def test_numeric_columns_are_right_aligned_with_their_heading() -> None:
    table = Table(
        name="t", caption="T", columns=("who", "ms"), records=({"who": "a", "ms": 1.5}, {"who": "b", "ms": None})
    )
    page = index_html(report_of(executed("01_a", tabulated(table))))
    assert '<th scope="col" class="number">ms</th>' in page
    assert '<td class="number" data-label="ms: ">–</td>' in page
    assert '<th scope="col">who</th>' in page


def test_text_between_backticks_is_shown_as_code() -> None:
    mine = claim("claim-x", evidence=("Run `bridgekit serve` & <b>wait</b>.",))
    page = index_html(report_of(executed("01_a", recorded(mine))))
    assert "Run <code>bridgekit serve</code> &amp; &lt;b&gt;wait&lt;/b&gt;." in page
