"""The map of notebook 00 shows the ten links, with the audit's status of each."""

from __future__ import annotations

from bridgekit_verify.links import LINKS
from bridgekit_verify.report.chain_map import chain_map, chain_map_text


def test_map_and_its_text_name_every_link_with_its_status() -> None:
    drawn = [text.get_text() for text in chain_map().axes[0].texts]
    text = chain_map_text()
    for link in LINKS:
        assert {str(link.number), link.name, f"passes on {link.output}"} <= {*drawn}
        status = f"status in the audit: {link.reported}."
        assert f"Link {link.number} ({link.name}) passes on {link.output}; {status}" in text
    assert [drawn.count(status) for status in ("working", "broken", "not examined")] == [8, 1, 1]
    assert "Link 10 (Hub and sockets)" in text
