"""Command-line options made from the fields of a dataclass, for `train` and `client`."""

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
    """A dataclass field that is an option too: `split_seed` is `--split-seed`.

    The option's type is the field's annotation; bool is a flag. `settings` are those of argparse's
    `add_argument` (`choices`, `metavar` …), and `name` where the option is called otherwise. A
    field of several values needs its `type`.
    """
    field: Value = dataclasses.field(default=default, metadata={"help": help, **settings})
    return field


def add(
    parser: argparse.ArgumentParser,
    options: "type[DataclassInstance]",
    without: Collection[str] = (),
) -> None:
    """Add the options of a dataclass in the order of its fields, `without` some of these.

    Raises:
        TypeError: a field's annotation is no single type, and its option names none.
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
    """The dataclass of the parsed options, with `values` for its other fields.

    An option that the parser was made `without` keeps its default.
    """
    names = [field.name for field in dataclasses.fields(options) if _is_option(field)]
    parts = {name: getattr(parsed, name) for name in names if name in parsed}
    return options(**parts | values)


def _is_option(field: "dataclasses.Field[Any]") -> bool:
    return "help" in field.metadata


def _value_type(name: str, annotation: Any) -> type:
    """The type of one value: of `int | None` int."""
    types = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    types = tuple(kind for kind in types if kind is not NoneType)
    if len(types) != 1 or not isinstance(types[0], type):
        raise TypeError(f"{name}: {annotation} is no single type: give the option its type=")
    return types[0]
