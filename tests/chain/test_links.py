"""The table of the nine links."""

from __future__ import annotations

from bridgekit.chain import LINKS


def test_links_are_the_audits_nine_in_its_order() -> None:
    assert [link.number for link in LINKS] == list(range(1, 10))
    assert len({link.name for link in LINKS}) == 9
    assert LINKS[8].title == "Link 9 · AgentWebSocketBridge routing"


def test_audit_calls_only_link_9_broken() -> None:
    assert [link.number for link in LINKS if link.reported == "broken"] == [9]
    assert {link.reported for link in LINKS} == {"working", "broken"}


def test_each_link_lives_in_the_module_of_its_number() -> None:
    for link in LINKS:
        _, _, file = link.module.__name__.rpartition(".")
        assert str(link.number) in file.split("_")
        assert getattr(link.part, "__module__", None) == link.module.__name__
