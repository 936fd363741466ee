"""Markdown of notebooks, rendered for a page that contains no scripts and loads nothing."""

from __future__ import annotations

from bridgekit_verify.report.markup import markdown_html

ANSWER = "<details><summary>One <b>answer</b></summary>\n\n```python\nx = 1\n```\n\nText.\n</details>\n\nAfter."


def test_answer_of_an_exercise_is_folded() -> None:
    html = markdown_html(ANSWER)
    assert html.startswith('<details class="code"><summary>One &lt;b&gt;answer&lt;/b&gt;</summary>')
    assert html.index("</details>") < html.index("After.")
    assert html.count("<details") == html.count("</details>") == 1


def test_other_html_is_shown_as_text() -> None:
    html = markdown_html("<script>alert(1)</script>\n\n<details onclick=x>\n\nafter")
    assert "<script" not in html
    assert "<details" not in html
    assert "&lt;script&gt;" in html


def test_a_link_to_a_section_of_the_same_notebook_works_on_the_page() -> None:
    html = str(markdown_html("[All notebooks](#All-notebooks)\n\n## All notebooks", ["00_a"], "00_a"))
    assert '<a href="#00_a-All-notebooks">All notebooks</a>' in html
    assert '<h4 id="00_a-All-notebooks">All notebooks</h4>' in html
    assert "<span>All notebooks</span>" in str(markdown_html("[All notebooks](#All-notebooks)"))
