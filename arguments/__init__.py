"""Command-line options from the fields of a dataclass, for `train` and `client`."""

import argparse
import dataclasses
from collections.abc import Collection
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value = TypeVar("Value")
Options = TypeVar("Options", bound="DataclassInstance")


def option(default: Value, help: str, **settings: Any) -> Value:
    """A dataclass field that is a command-line option as well: `split_seed` is `--split-seed`.

    The option's type is the field's annotation; a bool is a flag. `settings` are keywords of
    argparse's `add_argument` (`choices`, `metavar` …), and `name` if the option has another name
    than the field. A field of several values needs its `type`.
    """
    field: Value = dataclasses.field(default=default, metadata={"help": help, **settings})
    return field


def add(
    parser: argparse.ArgumentParser,
    options: "type[DataclassInstance]",
    without: Collection[str] = (),
) -> None:
    """Add the options of a dataclass in the order of its fields, except the fields in `without`.

    Raises:
        TypeError: a field's annotation is not a single type, and its option has no `type`.
    """
    annotations = get_type_hints(options)
    for field in dataclasses.fields(options):
        if _is_option(field) and field.name not in without:
            settings = {"dest": field.name, "default": field.default, **field.metadata}
            name = settings.pop("name", f"--{field.name.replace('_', '-')}")
            if annotations[field.name] is bool:
                settings["action"] = "store_true"
            elif "type" not in settings:
                settings["type"] = _value_type(field.name, annotations[field.name])
            parser.add_argument(name, **settings)


def build(options: type[Options], parsed: argparse.Namespace, **values: Any) -> Options:
    """An instance of the dataclass with the parsed options, and with `values` for other fields.

    An option that the parser does not have keeps its default.
    """
    names = [field.name for field in dataclasses.fields(options) if _is_option(field)]
    parts = {name: getattr(parsed, name) for name in names if name in parsed}
    return options(**parts | values)


def _is_option(field: "dataclasses.Field[Any]") -> bool:
    return "help" in field.metadata


def _value_type(name: str, annotation: Any) -> type:
    """The type of an annotation without None: int for `int | None`."""
    types = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    types = tuple(kind for kind in types if kind is not NoneType)
    if len(types) != 1 or not isinstance(types[0], type):
        raise TypeError(f"{name}: {annotation} is not a single type: give the option its type=")
    return types[0]
