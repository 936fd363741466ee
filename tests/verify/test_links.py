"""The table of the nine links agrees with the audit and with the modules."""

from __future__ import annotations

from bridgekit_verify.links import LINKS


def test_links_are_numbered_as_in_the_audit() -> None:
    assert [link.number for link in LINKS] == list(range(1, 10))
    assert len({link.name for link in LINKS}) == 9
    assert LINKS[8].title == "Link 9 · AgentWebSocketBridge routing"


def test_link_9_is_the_only_one_that_the_audit_reports_as_broken() -> None:
    assert [link.number for link in LINKS if link.reported == "broken"] == [9]
    assert {link.reported for link in LINKS} == {"working", "broken"}


def test_link_is_defined_in_the_module_with_its_number() -> None:
    for link in LINKS:
        _, _, file = link.module.__name__.rpartition(".")
        assert str(link.number) in file.split("_")
        assert getattr(link.part, "__module__", None) == link.module.__name__
