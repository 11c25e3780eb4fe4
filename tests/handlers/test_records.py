"""Records as JSON objects, type by type."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from handlers import records
from handlers.records import Record, RecordError


@dataclass(frozen=True, kw_only=True)
class Cell(Record):
    row: int
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Grid(Record):
    name: str
    dilated: bool
    scale: float
    first: Cell
    cells: tuple[Cell, ...]
    pair: tuple[int, str]
    by_name: Mapping[str, Cell]
    figure: float | None  # is written as null, and may be missing
    note: str | None = None
    origin: Cell | None = None
    settings: Mapping[str, Any] | None = None


GRID: dict[str, Any] = {
    "name": "grid",
    "dilated": False,
    "scale": 2,
    "first": {"row": 1, "share": 0.25},
    "cells": [{"row": 1, "share": 1.0}, {"row": 2, "share": 0.0}],
    "pair": [3, "three"],
    "by_name": {"top": {"row": 0, "share": 0.5}},
    "figure": None,
}


def refused(document: object) -> str:
    with pytest.raises(RecordError) as refusal:
        records.decode(Grid, document)
    return str(refusal.value)


def test_every_type_of_field() -> None:
    expected = Grid(
        name="grid",
        dilated=False,
        scale=2,
        first=Cell(row=1, share=0.25),
        cells=(Cell(row=1, share=1.0), Cell(row=2, share=0.0)),
        pair=(3, "three"),
        by_name={"top": Cell(row=0)},
        figure=None,
    )
    assert records.decode(Grid, GRID) == expected
    assert records.encode(expected) == GRID


def test_optional_fields() -> None:
    document = {**GRID, "note": "text", "origin": {"row": 1, "share": 0.5}, "settings": {"a": [1]}}
    assert records.encode(records.decode(Grid, document)) == document
    nulls = {**GRID, "note": None, "origin": None, "settings": None}
    assert records.encode(records.decode(Grid, nulls)) == GRID


def test_a_default_is_written() -> None:
    assert records.encode(records.decode(Cell, {"row": 1})) == {"row": 1, "share": 0.5}


def test_unknown_fields_are_kept_and_stay_with_the_record() -> None:
    document = {**GRID, "first": {"row": 1, "share": 0.25, "colour": "grey"}, "later": {"a": None}}
    grid = records.decode(Grid, document)
    assert grid.extra == {"later": {"a": None}}
    assert grid.first.extra == {"colour": "grey"}
    assert records.encode(grid) == document


def test_a_field_named_extra_is_unknown() -> None:
    cell = records.decode(Cell, {"row": 1, "share": 0.5, "extra": 3})
    assert cell.extra == {"extra": 3}
    assert records.encode(cell) == {"row": 1, "share": 0.5, "extra": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 1}, "name: a text is needed"),
        ({"dilated": 0}, "dilated: true or false is needed"),
        ({"scale": "2"}, "scale: a number is needed"),
        ({"scale": True}, "scale: a number is needed"),
        ({"scale": float("nan")}, "scale: a finite number is needed"),
        ({"figure": float("-inf")}, "figure: a finite number is needed"),
        ({"first": []}, "first: an object is needed"),
        ({"first": {"row": 1.5}}, "first.row: a whole number is needed"),
        ({"first": {"row": 1.0}}, "first.row: a whole number is needed"),
        ({"first": {}}, "first.row: the field is missing"),
        ({"cells": {}}, "cells: a list is needed"),
        ({"cells": [{"row": 1}, {"row": True}]}, "cells.1.row: a whole number is needed"),
        ({"pair": [3]}, "pair: a list of 2 is needed"),
        ({"pair": ["three", 3]}, "pair.0: a whole number is needed"),
        ({"by_name": []}, "by_name: an object is needed"),
        ({"by_name": {"top": {"share": 1}}}, "by_name.top.row: the field is missing"),
        ({"note": 1}, "note: a text is needed"),
        ({"origin": "top"}, "origin: an object is needed"),
        ({"settings": []}, "settings: an object is needed"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    assert refused({**GRID, **changes}) == message


@pytest.mark.parametrize("name", [name for name in GRID if name != "figure"])
def test_a_field_without_a_default_is_required(name: str) -> None:
    document = {field: value for field, value in GRID.items() if field != name}
    assert refused(document) == f"{name}: the field is missing"


def test_a_missing_field_that_can_be_null_is_null() -> None:
    """As TorchServe's management API returns a card."""
    without = {name: value for name, value in GRID.items() if name != "figure"}
    assert records.decode(Grid, without) == records.decode(Grid, {**GRID, "figure": None})
    assert records.encode(records.decode(Grid, without))["figure"] is None


@pytest.mark.parametrize("document", [None, [], "grid", 1])
def test_a_record_is_an_object(document: object) -> None:
    assert refused(document) == "the document: an object is needed"


def test_the_path_continues_from_the_prefix() -> None:
    with pytest.raises(RecordError, match=r"^grids\.0\.row: a whole number is needed$"):
        records.decode(Cell, {"row": "1"}, "grids.0")


def test_a_type_that_json_has_not_is_a_mistake_of_the_program() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong(Record):
        names: set[str]

    with pytest.raises(TypeError, match="no type of a record's field"):
        records.decode(Wrong, {"names": ["a"]})


def test_a_record_is_extended() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Coloured(Cell):
        colour: str

    cell = records.decode(Cell, {"row": 1, "later": True})
    coloured = records.extend(Coloured, cell, colour="grey", share=1.0)
    assert records.encode(coloured) == {"row": 1, "share": 1.0, "colour": "grey", "later": True}
