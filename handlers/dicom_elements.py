"""The values of DICOM elements, as the dictionary has them (PS3.5, 6.2; PS3.6)."""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from pydicom.datadict import tag_for_keyword

from handlers.errors import ImageError

MAX_TEXT = 1024  # bytes of a text that are read

_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Encoding:
    """How a data set's elements are written."""

    explicit: bool = True
    big: bool = False

    @property
    def order(self) -> Literal["<", ">"]:
        """The byte order, for `struct` and NumPy."""
        return ">" if self.big else "<"


@dataclass(frozen=True)
class Element:
    """A value as its bytes; `vr` is empty where the data set leaves it to the dictionary."""

    vr: str
    value: memoryview
    encoding: Encoding
    items: Sequence["Elements"] = ()


@dataclass(frozen=True)
class Elements:
    """Elements of a data set or an item, by tag."""

    by_tag: dict[int, Element] = field(default_factory=dict)

    def get(self, keyword: str) -> Element | None:
        """The element of this keyword, if there is one."""
        return self.by_tag.get(tag(keyword))

    def text(self, keyword: str) -> str:
        """The text of an element, by keyword, without padding; "" where it is absent or empty."""
        element = self.get(keyword)
        if element is None or element.vr in _NUMBERS:
            return ""
        content = bytes(element.value[:MAX_TEXT])
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        return text.strip(" \0")

    def numbers(self, keyword: str, dictionary: str = "DS") -> list[float]:
        """The numbers of a value, as its VR or else the dictionary's has them.

        What is no number is NaN, so that it keeps its place.
        """
        element = self.get(keyword)
        if element is None or not element.value:
            return []
        code = _NUMBERS.get(element.vr or dictionary)
        if code is None:
            text = self.text(keyword)
            return [_decimal(part) for part in text.split("\\")] if text else []
        numbers = struct.Struct(element.encoding.order + code)
        content = element.value[: MAX_TEXT - MAX_TEXT % numbers.size]
        if len(content) % numbers.size:
            return []
        return [float(number) for (number,) in numbers.iter_unpack(content)]

    def short(self, keyword: str, default: int | None = None) -> int:
        """The one unsigned short of a value (VR US).

        Raises:
            ImageError: 400, it is not that, or missing without a default.
        """
        element = self.get(keyword)
        if element is None or not element.value:
            if default is None:
                raise broken(f"{named(keyword)} is missing")
            return default
        if element.vr not in ("", "US") or len(element.value) != 2:
            raise broken(f"{named(keyword)} is not one unsigned short (VR US)")
        (number,) = struct.unpack(element.encoding.order + "H", element.value)
        return int(number)

    def items(self, keyword: str) -> Sequence["Elements"]:
        """The items of a sequence; none where it is missing or no sequence."""
        element = self.get(keyword)
        return element.items if element is not None else ()


def broken(why: str) -> ImageError:
    """A refusal for a file whose elements are not as the standard has them."""
    return ImageError(400, "BrokenImage", f"DICOM {why}.")


def cut_short(where: str) -> ImageError:
    """A refusal for a file that ends too early."""
    return ImageError(
        400, "BrokenImage", f"The DICOM file ends within {where}: it is cut short, send it whole."
    )


@lru_cache(maxsize=256)
def tag(keyword: str) -> int:
    """The tag of a keyword, as group * 65536 + element."""
    number = tag_for_keyword(keyword)
    assert number is not None, keyword
    return int(number)


def named(keyword: str) -> str:
    """A keyword with its tag, as messages name it."""
    return f"{keyword} {hexadecimal(tag(keyword))}"


def hexadecimal(number: int) -> str:
    """A tag as (gggg,eeee)."""
    return f"({number >> 16:04X},{number & 0xFFFF:04X})"


def _decimal(text: str) -> float:
    """A decimal string; NaN for all else, also for what `float` would take (inf, 1_0)."""
    text = text.strip(" \0")
    return float(text) if _DECIMAL.fullmatch(text) else float("nan")
