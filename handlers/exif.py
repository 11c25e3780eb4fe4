"""How a picture lies in its file: EXIF 2.32, tag 274, or the same in XMP."""

import re
import struct

ORIENTATION = 274  # EXIF 2.32, table 4
UPRIGHT = 1

_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}  # TIFF 6.0, section 2
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # whole numbers of four bytes at most
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """The orientation, 1 to 8: by the EXIF block, else by the XMP packet, else upright.

    Reads one directory of at most 65,535 entries and follows none of their offsets, which may
    name the same megabytes again and again.
    """
    if exif is not None:
        try:
            value = _tag(exif.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0"))
        except (struct.error, ValueError):
            return UPRIGHT  # a broken block says nothing of how the picture lies
        if value is not None:
            return value
    match = _XMP.search(xmp) if xmp else None
    return int(match[1]) if match else UPRIGHT


def _tag(tiff: bytes) -> int | None:
    """The value of the tag in the first directory of a TIFF file; None where it is not there."""
    if not tiff:
        return None
    order = _ORDERS.get(tiff[:4])
    if order is None:
        raise ValueError("not a TIFF header")
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    value = None
    entries = tiff[start + 2 : start + 2 + 12 * count]
    whole = entries[: len(entries) // 12 * 12]
    for tag, kind, number, content in struct.iter_unpack(f"{order}HHI4s", whole):
        if tag == ORIENTATION and kind in _TYPES and number == 1:
            (value,) = struct.unpack_from(order + _TYPES[kind], content)
    return value
