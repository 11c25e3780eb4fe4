"""Frozen dataclasses as JSON objects: checked field by field, unknown fields kept.

Why no library: docs/decisions/0012-the-card-is-a-type.md.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

EXTRA = "extra"

R = TypeVar("R", bound="Record")


class RecordError(ValueError):
    """A field is missing or of another type; the message begins with its path."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object. `extra` holds the fields that its type does not have, by name."""

    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def decode(kind: type[R], document: object, path: str = "") -> R:
    """The record of a JSON object, as `json.loads` returns it.

    A field without a default is required, unless it can be null. Numbers must be finite.

    Raises:
        RecordError: the path of the field, such as `operating_points.balanced.threshold`, and what
            is needed there.
    """
    if not isinstance(document, Mapping):
        raise _needed("an object", path)
    hints, required = _fields(kind)  # type: ignore[arg-type]  # a class can be hashed
    values: dict[str, Any] = {}
    for name, hint in hints.items():
        if name in document:
            values[name] = _decode(hint, document[name], _join(path, name))
        elif name in required:
            if not _is_optional(hint):  # TorchServe's management API leaves nulls out
                raise RecordError(f"{_join(path, name)}: the field is missing")
            values[name] = None
    extra = {name: value for name, value in document.items() if name not in hints}
    return kind(**values, extra=extra)


def encode(record: Record) -> dict[str, Any]:
    """A record as a dict for `json.dumps`, without optional fields that are None."""
    document = {
        spec.name: _encode(value)
        for spec in fields(record)
        if spec.name != EXTRA
        and ((value := getattr(record, spec.name)) is not None or spec.default is not None)
    }
    return {**document, **record.extra}


def extend(kind: type[R], record: Record, **changes: Any) -> R:
    """A record of another type with the fields of `record`, changed by `changes`."""
    values = {spec.name: getattr(record, spec.name) for spec in fields(record)}
    return kind(**(values | changes))


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return encode(value)
    if isinstance(value, Mapping):
        return {name: _encode(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(each) for each in value]
    return value


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of a record's fields by name, without `extra`; the names without a default."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name != EXTRA}
    required = (
        spec.name
        for spec in fields(kind)
        if spec.default is MISSING and spec.default_factory is MISSING
    )
    return hints, frozenset(required)


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _needed(value: str, path: str) -> RecordError:
    return RecordError(f"{path or 'the document'}: {value} is needed")


_SCALARS: dict[type, tuple[str, tuple[type, ...]]] = {
    str: ("a text", (str,)),
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
}


def _decode(hint: Any, value: object, path: str) -> Any:
    """A JSON value as the type of its field; a whole number is accepted for a float."""
    if hint is Any:
        return value
    if isinstance(hint, type) and issubclass(hint, Record):
        return decode(hint, value, path)
    if hint in _SCALARS:
        return _scalar(hint, value, path)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(arguments, value, path)
    if origin is tuple:
        return _tuple(arguments, value, path)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _needed("an object", path)
        return {
            name: _decode(arguments[1], each, _join(path, name)) for name, each in value.items()
        }
    raise TypeError(f"{hint} is no type of a record's field")


def _is_optional(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _scalar(hint: type, value: object, path: str) -> Any:
    description, accepted = _SCALARS[hint]
    # True is an int in Python, but not a number in JSON.
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise _needed(description, path)
    if isinstance(value, float) and not math.isfinite(value):
        raise _needed("a finite number", path)
    return value


def _optional(arguments: tuple[Any, ...], value: object, path: str) -> Any:
    """A value of type `X | None`, the only union: an error can then name the needed type."""
    if value is None:
        return None
    (hint,) = (argument for argument in arguments if argument is not type(None))
    return _decode(hint, value, path)


def _tuple(arguments: tuple[Any, ...], value: object, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _needed("a list", path)
    if arguments[-1] is Ellipsis:
        hints = arguments[:1] * len(value)
    elif len(value) == len(arguments):
        hints = arguments
    else:
        raise _needed(f"a list of {len(arguments)}", path)
    return tuple(
        _decode(hint, each, _join(path, place))
        for place, (hint, each) in enumerate(zip(hints, value, strict=True))
    )
