"""DICOM bytes → grey uint8 (H, W) as a viewer would show it, and whether it is a frontal chest.

No value of a tag is repeated in a message: any of them may name a patient.
"""

import re

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from handlers import dicom_display, dicom_display_tags, dicom_frame, dicom_parser, dicom_suitability
from handlers.dicom_elements import Elements, Encoding, named
from handlers.dicom_suitability import MODALITIES, REFUSE, WARN, Policy
from handlers.errors import ImageError

__all__ = ["MODALITIES", "PREFIX", "REFUSE", "WARN", "Policy", "is_dicom", "read"]

PREFIX = 128, b"DICM"  # PS3.10, 7.1: where it stands, and what


def is_dicom(data: bytes | bytearray) -> bool:
    """Whether these bytes say that they are a DICOM file."""
    start, magic = PREFIX
    return data[start : start + len(magic)] == magic


def read(
    data: bytes | bytearray, policy: Policy, max_pixels: int
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Grey (H, W) of a DICOM file, white is what stops the rays, and warnings about the image.

    Modality LUT or rescale, then VOI LUT or window (PS3.3, C.11.1 and C.11.2), the first of each
    that makes sense; without, the range that Bits Stored declares, or that of the values where they
    cover little of it; MONOCHROME1 inverted; padding black.

    Raises:
        ImageError: 400 broken or cut short; 413 too many pixels, elements, fragments or scans;
            415 a transfer syntax that is not decoded; 422 not one frontal chest radiograph, unless
            the policy is to warn of that.
    """
    view = memoryview(data)
    meta, start = dicom_parser.meta(view, PREFIX[0] + len(PREFIX[1]))
    syntax = _syntax(meta)
    encoding = dicom_frame.NATIVE.get(syntax, Encoding()) if syntax is not None else Encoding()
    body = dicom_parser.body(view, start, encoding)
    elements = body.elements
    if not body.start:
        raise _unsuitable("PixelData", "is missing: send an image, not a report or a reference")
    shape = _pixel_module(elements)
    reasons = list(dicom_suitability.reasons(elements, policy))
    if reasons and policy.unsuitable == REFUSE:
        raise ImageError(422, "UnsuitableImage", "; ".join(reasons) + ".")
    stored = dicom_frame.stored(view, body, syntax, shape, max_pixels)
    display = dicom_display_tags.display(elements, shape.bits, shape.signed)
    grey, warnings = dicom_display.render(stored, display)
    return grey, [*reasons, *dicom_suitability.doubts(elements, policy), *warnings]


def _syntax(meta: Elements) -> str | None:
    """The transfer syntax, or None where the file names none."""
    syntax = meta.text("TransferSyntaxUID")
    if not syntax:
        return None
    if syntax not in dicom_frame.DECODED:
        # Only the standard's own are repeated: any other text may be a patient's.
        standard = re.fullmatch(r"1\.2\.840\.10008(\.\d{1,4}){1,6}", syntax, re.ASCII)
        name = UID(syntax).name if standard else "of a private kind"
        raise ImageError(
            415,
            "TransferSyntax",
            f"DICOM transfer syntax {name} is not decoded here: send Explicit VR Little Endian.",
        )
    return syntax


def _unsuitable(keyword: str, why: str) -> ImageError:
    return ImageError(422, "UnsuitableImage", f"DICOM {named(keyword)} {why}.")


def _pixel_module(elements: Elements) -> dicom_frame.Shape:
    """The frame's shape and how its values are stored (PS3.3, C.7.6.3).

    Raises:
        ImageError: 400 an element that is not what the dictionary says; 422 not one frame of grey.
    """
    frames = elements.numbers("NumberOfFrames", "IS")
    if frames and frames != [1.0]:
        raise _unsuitable("NumberOfFrames", "is not 1: send one frame")
    if elements.short("SamplesPerPixel", 1) != 1:
        raise _unsuitable("SamplesPerPixel", "is not 1: send the radiograph itself, in grey")
    if elements.text("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise _unsuitable("PhotometricInterpretation", "is not grey: send the radiograph itself")
    allocated, bits = elements.short("BitsAllocated"), elements.short("BitsStored")
    if allocated not in (8, 16):
        raise _unsuitable("BitsAllocated", "is neither 8 nor 16")
    if not 1 <= bits <= allocated:
        raise _unsuitable("BitsStored", "is more than BitsAllocated, or nothing")
    if elements.short("HighBit", bits - 1) != bits - 1:
        raise _unsuitable("HighBit", "is not BitsStored - 1")
    signed = elements.short("PixelRepresentation")
    if signed not in (0, 1):
        raise _unsuitable("PixelRepresentation", "is neither 0 nor 1")
    rows, columns = elements.short("Rows"), elements.short("Columns")
    if not rows or not columns:
        raise _unsuitable("Rows" if not rows else "Columns", "is 0: send an image with pixels")
    return dicom_frame.Shape(rows, columns, allocated, bits, bool(signed))
