"""Every field of a card, at every level: kept, or refused with its path."""

import copy
import dataclasses
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest

from handlers import card
from handlers.card import CardError
from handlers.records import Record
from tests import cards
from tests.cards import Document

Place = tuple[str | int, ...]  # of a field, from the top of a document
NETWORK, ENSEMBLE = cards.every_field(), cards.every_field_of_an_ensemble()


def nodes(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value of a document with its path, the document itself first."""
    yield path, value
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(inner, (*path, key))


def at(document: Any, path: Place) -> Any:
    for key in path:
        document = document[key]
    return document


def changed(document: Document, path: Place, change: Callable[[Any, Any], None]) -> Document:
    """A copy of a document; `change` has had the parent of the path's last key, and that key."""
    document = copy.deepcopy(document)
    change(at(document, path[:-1]), path[-1])
    return document


def replaced(document: Document, path: Place, value: Any) -> Document:
    return changed(document, path, lambda parent, key: parent.__setitem__(key, value))


def named(path: Place) -> str:
    return ".".join(map(str, path))


def parsed(document: object) -> card.Card | None:
    """The card that a document describes; None where it is refused."""
    try:
        return card.parse(document)
    except CardError:
        return None


def refused(document: object) -> str:
    """What is said of a document that is refused."""
    with pytest.raises(CardError) as refusal:
        card.parse(document)
    return str(refusal.value)


@pytest.mark.parametrize("document", [NETWORK, ENSEMBLE], ids=["network", "ensemble"])
def test_a_card_with_every_field_round_trips(document: Document) -> None:
    assert card.document(card.parse(document)) == document


def records(kind: Any) -> set[type[Record]]:
    """The types of record that a type of record holds, itself too."""
    if isinstance(kind, type) and issubclass(kind, Record):
        hints = typing.get_type_hints(kind)
        inner = [records(hint) for name, hint in hints.items() if name != "extra"]
        return {kind}.union(*inner)
    return set[type[Record]]().union(*(records(argument) for argument in get_args(kind)))


def present(value: Any) -> dict[type[Record], set[str]]:
    """The fields that are there in the records of a value, by type of record."""
    result: dict[type[Record], set[str]] = {}
    if isinstance(value, Record):
        fields = {spec.name: getattr(value, spec.name) for spec in dataclasses.fields(value)}
        result[type(value)] = {name for name, inner in fields.items() if inner is not None}
        inner = list(fields.values())
    elif isinstance(value, Mapping):
        inner = list(value.values())
    else:
        inner = list(value) if isinstance(value, tuple) else []
    for each in inner:
        for kind, names in present(each).items():
            result[kind] = result.get(kind, set()) | names
    return result


def test_every_field_is_in_the_cards_with_every_field() -> None:
    result = present((card.parse(NETWORK), card.parse(ENSEMBLE)))
    for kind in records(card.ArchivedNetwork) | records(card.ArchivedEnsemble):
        assert result[kind] == {spec.name for spec in dataclasses.fields(kind)}, kind


@pytest.mark.parametrize("document", [NETWORK, ENSEMBLE], ids=["network", "ensemble"])
def test_unknown_fields_are_kept_at_every_level(document: Document, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    objects = [
        place
        for place, value in nodes(document)
        if isinstance(value, dict) and isinstance(value_at(document, place), Record)
    ]
    assert len(objects) > 20
    extended = copy.deepcopy(document)
    for place in objects:
        at(extended, place)["of_a_later_version"] = {"nested": [1, None, "text"]}
    card.write(path, card.parse(extended))
    assert json.loads(path.read_text()) == extended
    assert card.document(card.read(path)) == extended


def value_at(document: Document, path: Place) -> Any:
    """What a document's value at a path was read as."""
    value: Any = card.parse(document)
    for key in path:
        value = getattr(value, str(key)) if isinstance(value, Record) else value[key]
    return value


# --- what is refused


def fields_of(document: Document) -> list[Place]:
    """The paths of the fields of the records in a document."""
    return [
        path
        for path, _ in nodes(document)
        if path and isinstance(value_at(document, path[:-1]), Record)
    ]


def is_required(document: Document, path: Place) -> bool:
    specs = {spec.name: spec for spec in dataclasses.fields(value_at(document, path[:-1]))}
    spec = specs[str(path[-1])]
    has_no_default = (
        spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
    )
    return has_no_default and named(path).split(".")[-1] not in NULLABLE


# Without a default, and null where they are missing.
NULLABLE = {"test", "errors_caught"}
# Without these a card is of another type, or of none.
KIND_FIELDS = {("members",), ("version",), ("temperature",)}
EACH_FIELD = [
    pytest.param(document, path, id=f"{name}-{named(path)}")
    for name, document in (("network", NETWORK), ("ensemble", ENSEMBLE))
    for path in fields_of(document)
    if path[:1] != ("members",) or len(path) == 1 or (path[:2] == ("members", 1) and len(path) == 3)
]


@pytest.mark.parametrize(("document", "path"), EACH_FIELD)
def test_a_missing_field_is_refused_with_the_path(document: Document, path: Place) -> None:
    without = changed(document, path, lambda parent, key: parent.pop(key))
    if path in KIND_FIELDS:
        assert not isinstance(parsed(without), type(card.parse(document)))
    elif is_required(document, path):
        assert refused(without) == f"{named(path)}: the field is missing"
    else:
        spec = {s.name: s for s in dataclasses.fields(value_at(document, path[:-1]))}[str(path[-1])]
        default = None if spec.default is dataclasses.MISSING else spec.default
        assert getattr(value_at(without, path[:-1]), str(path[-1])) == default


NEEDED = {
    str: "a text is needed",
    bool: "true or false is needed",
    int: "a whole number is needed",
    float: "a number is needed",
}


def mistypes(hint: Any) -> list[tuple[Any, str]]:
    """Values that a field of a type can't have, each with what the refusal says is needed."""
    needed = NEEDED.get(hint)
    if needed:
        wrong: list[Any] = ["1", 1, 1.5, True, [], {}]
        right = {str: [0], bool: [3], int: [1], float: [1, 2]}[hint]
        return [(value, needed) for place, value in enumerate(wrong) if place not in right]
    if isinstance(hint, UnionType):
        (kind,) = (kind for kind in get_args(hint) if kind is not type(None))
        return mistypes(kind)
    if typing.get_origin(hint) is tuple:
        return [(value, "list") for value in ("text", 1, True, {})]
    return [(value, "an object is needed") for value in ("text", 1, True, [])]


@pytest.mark.parametrize(("document", "path"), EACH_FIELD)
def test_a_mistyped_field_is_refused_with_the_path(document: Document, path: Place) -> None:
    hint = typing.get_type_hints(type(value_at(document, path[:-1])))[str(path[-1])]
    for value, needed in mistypes(hint):
        message = refused(replaced(document, path, value))
        assert message.startswith(f"{named(path)}: "), value
        assert needed in message, value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    numbers = [
        path
        for path, number in nodes(NETWORK)
        if isinstance(number, float) and path[:2] != ("training", "recipes")
    ]
    assert len(numbers) > 40
    for path in numbers:
        assert (
            refused(replaced(NETWORK, path, value)) == f"{named(path)}: a finite number is needed"
        )
    written = json.dumps({**NETWORK, "temperature": value})
    with pytest.raises(CardError, match=r"^temperature: a finite number is needed"):
        card.loads(written)


@pytest.mark.parametrize("path", [("map", "rows"), ("temperature",), ("bias", 1), ("ages", 0)])
def test_true_is_no_number(path: Place) -> None:
    assert refused(replaced(NETWORK, path, True)).startswith(f"{named(path)}: a ")


@pytest.mark.parametrize("ages", [[1], [1, 2, 3]])
def test_a_pair_has_two(ages: list[int]) -> None:
    assert refused({**NETWORK, "ages": ages}) == "ages: a list of 2 is needed"
