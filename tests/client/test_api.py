"""Versions and cards, as the management API describes them, and addresses on loopback."""

from types import SimpleNamespace

import pytest

from client import api, transport, versions
from tests import cards


def test_versions_are_sorted_part_by_part() -> None:
    names = ["1.10", "1.9", "2.0", "1.9-rc", "1.9.1"]
    assert sorted(names, key=api.version_key) == ["1.9", "1.9.1", "1.10", "1.9-rc", "2.0"]


def test_the_table_of_versions_marks_the_default() -> None:
    rows = [
        api.Version("resnet50", "1.0", False, 1, "READY", 0),
        api.Version("resnet50", "2.0", True, 1, "READY", 3),
    ]
    lines = versions.table(rows).splitlines()
    assert lines[1].split() == ["resnet50", "1.0", "1", "READY", "0"]
    assert lines[2].split() == ["resnet50", "2.0", "default", "1", "READY", "3"]


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080/models", True),
        ("http://[::1]:8080", True),
        ("http://192.168.0.7:8080", False),
        ("http://server.example", False),
        ("", False),
    ],
)
def test_loopback_addresses(url: str, loopback: bool) -> None:
    assert transport.is_loopback(url) is loopback


def describe(monkeypatch: pytest.MonkeyPatch, metadata: object) -> None:
    """Let every request return a description of a version with this metadata."""
    response = SimpleNamespace(json=lambda: [{"customizedMetadata": metadata}])
    monkeypatch.setattr(api, "call", lambda *_arguments, **_options: response)


def test_the_card_of_a_version_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    describe(monkeypatch, cards.archived())
    assert api.card(api.Address(""), "resnet50", "1.0").threshold == 0.5


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ("none", "gives no card: 'none'"),
        ({**cards.archived(), "bias": [0, "1"]}, r"gives no card: bias\.1: a number is needed"),
        (cards.evaluated(), "gives a card that is not of an archive"),
    ],
)
def test_metadata_without_an_archives_card_is_an_error(
    monkeypatch: pytest.MonkeyPatch, metadata: object, reason: str
) -> None:
    describe(monkeypatch, metadata)
    with pytest.raises(api.ServerError, match=rf"^resnet50 1\.0 {reason}"):
        api.card(api.Address(""), "resnet50", "1.0")
