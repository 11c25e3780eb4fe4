"""DICOM bytes → elements before the pixels, in one walk that copies no value (PS3.5, 7).

The walk counts elements and items before it builds them and bounds how deep they nest. A value is
skipped by its length, so a large overlay or table costs nothing.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from handlers.dicom_elements import (
    Element,
    Elements,
    Encoding,
    broken,
    cut_short,
    hexadecimal,
    tag,
)
from handlers.errors import ImageError

MAX_ELEMENTS = 20_000  # with those of sequences, and items; a radiograph's header has 100 to 1,000
MAX_DEPTH = 16  # of sequences within sequences

PIXELS = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF

# PS3.5, 6.2. Long: two reserved bytes and four of length.
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

# Of sequences, only these are kept; the others are skipped.
_KEPT = ("ModalityLUTSequence", "VOILUTSequence", "ViewCodeSequence", "AnatomicRegionSequence")


@dataclass(frozen=True)
class Body:
    """What stands before the pixels, and where the pixels stand."""

    elements: Elements
    encoding: Encoding
    vr: str = ""  # of PixelData
    start: int = 0
    length: int | None = None  # None: a sequence of fragments, which has no length


def meta(data: memoryview, start: int) -> tuple[Elements, int]:
    """The file meta information (group 2, explicit little endian) and where it ends.

    Raises:
        ImageError: 400 broken or cut short; 413 too many elements.
    """
    walk = _Walk(data)
    elements: dict[int, Element] = {}
    place = start
    while (
        bytes(data[place : place + 2]) == b"\2\0"
    ):  # before the rest is read as if of this encoding
        number, element, place = next(walk.elements(place, len(data), Encoding(), 0))
        elements[number] = element
    return Elements(elements), place


def body(data: memoryview, start: int, encoding: Encoding) -> Body:
    """The elements from `start` to PixelData, in the encoding that they show.

    Raises:
        ImageError: 400 broken or cut short; 413 too many elements.
    """
    encoding = _as_written(data, start, encoding)
    walk = _Walk(data)
    elements: dict[int, Element] = {}
    for number, element, end in walk.elements(start, len(data), encoding, 0):
        if number == PIXELS:
            if walk.undefined:
                return Body(Elements(elements), encoding, element.vr, end, None)
            length = len(element.value)
            return Body(Elements(elements), encoding, element.vr, end - length, length)
        elements[number] = element
    return Body(Elements(elements), encoding)


def _as_written(data: memoryview, start: int, encoding: Encoding) -> Encoding:
    """The encoding that the first element shows; groups of a data set begin at 0008."""
    head = bytes(data[start : start + 6])
    if len(head) < 6:
        return encoding
    little, big = int.from_bytes(head[:2], "little"), int.from_bytes(head[:2], "big")
    swapped = encoding.big
    if min(little, big) <= 0xFF < max(little, big):
        swapped = big < little
    vr = head[4:]
    return Encoding(vr in _SHORT or vr in _LONG, swapped)


class _Walk:
    """One walk over elements, and how many may still come."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.left = MAX_ELEMENTS
        self.undefined = False  # PixelData has no length
        self.kept = {tag(keyword) for keyword in _KEPT}

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ImageError(
                413,
                "TooManyBytes",
                f"The DICOM header has more than {MAX_ELEMENTS:,} elements and items: leave out "
                "those that the image does not need.",
            )

    def elements(
        self, place: int, end: int, encoding: Encoding, depth: int
    ) -> Iterator[tuple[int, Element, int]]:
        """(tag, element, where it ends) up to `end`, PixelData or the end of an item.

        PixelData is never walked as a sequence: without a length it ends where its fragments begin.
        """
        tags = struct.Struct(encoding.order + "HH")
        long, short = struct.Struct(encoding.order + "L"), struct.Struct(encoding.order + "H")
        data = self.data
        while place < end:
            self.count()
            if place + 8 > end:
                raise cut_short("an element's header")
            group, element = tags.unpack_from(data, place)
            number = group << 16 | element
            code = bytes(data[place + 4 : place + 6])
            vr = ""
            if number == _ITEM_END or not encoding.explicit or not b"AA" <= code <= b"ZZ":
                # Some writers fall back to implicit VR in the middle of a file.
                (length,) = long.unpack_from(data, place + 4)
                place += 8
            elif code in _LONG or code not in _SHORT:  # PS3.5, 6.2: VRs to come are long
                if place + 12 > end:
                    raise cut_short("an element's header")
                vr = code.decode("latin-1")
                (length,) = long.unpack_from(data, place + 8)
                place += 12
            else:
                vr = code.decode("latin-1")
                (length,) = short.unpack_from(data, place + 6)
                place += 8
            if number == _ITEM_END and depth:
                yield number, Element("", data[place:place], encoding), place
                return
            if group == _ITEM >> 16:
                raise broken(f"element {hexadecimal(number)} stands outside of a sequence")
            written = encoding
            if vr == "UN":  # PS3.5, 6.2.2, note 2: as in implicit VR, little endian
                vr, written = "", Encoding(False)
            items: list[Elements] = []
            start = place
            if length == _UNDEFINED and number == PIXELS and not depth:
                self.undefined = True
                yield number, Element(vr, data[place:place], written), place
                return
            if length == _UNDEFINED:
                if vr not in ("", "SQ") and number != PIXELS:
                    raise broken(
                        f"element {hexadecimal(number)} has no length, which its VR must have"
                    )
                items, place = self.items(place, end, written, depth + 1, number in self.kept, True)
            else:
                if place + length > end:
                    raise cut_short(
                        f"element {hexadecimal(number)}, {length:,} bytes by its own length"
                    )
                place += length
                if number in self.kept and vr in ("", "SQ"):
                    items, _ = self.items(start, place, written, depth + 1, True, False)
            yield number, Element(vr, data[start:place], written, items), place
            if number == PIXELS and not depth:
                return

    def items(
        self, place: int, end: int, encoding: Encoding, depth: int, keep: bool, delimited: bool
    ) -> tuple[list[Elements], int]:
        """The items of a sequence up to its delimiter or `end`, and where it ends."""
        if depth > MAX_DEPTH:
            raise broken(f"sequences are nested more than {MAX_DEPTH} deep")
        header = struct.Struct(encoding.order + "HHL")
        found: list[Elements] = []
        while place < end:
            self.count()
            if place + 8 > end:
                raise cut_short("an item's header")
            group, element, length = header.unpack_from(self.data, place)
            number = group << 16 | element
            place += 8
            if number == _SEQUENCE_END:
                return found, place
            if number != _ITEM:
                raise broken(f"sequence holds {hexadecimal(number)} where an item should begin")
            last = end if length == _UNDEFINED else place + length
            if last > end:
                raise cut_short("an item")
            if keep or length == _UNDEFINED:
                elements: dict[int, Element] = {}
                for inner, content, after in self.elements(place, last, encoding, depth):
                    elements[inner], place = content, after
                if length == _UNDEFINED and elements.pop(_ITEM_END, None) is None:
                    raise cut_short("an item")
                found.append(Elements(elements))
            if length != _UNDEFINED:
                place = last
        if delimited:
            raise cut_short("a sequence")
        return found, place
