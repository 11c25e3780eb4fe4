"""DICOM bytes → grey uint8 (H, W) as a viewer would show it, and whether it is a frontal chest.

No value of a tag is repeated in a message: any of them may name a patient.
"""

import io
import itertools
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RLELossless

from handlers.errors import ImageError
from handlers.limits import check_pixels, check_scans

PREFIX = 128, b"DICM"  # PS3.10, 7.1: where it stands, and what
REFUSE, WARN = "refuse", "warn"
MODALITIES = frozenset({"CR", "DX"})  # computed and digital radiography

MAX_HEADER = 2**19  # bytes before the pixels; reading so many of empty items takes a second

_PIXELS = Tag("PixelData")
_CHEST = re.compile(r"\b(CHEST|THORAX|LUNGS?)\b")
_NOT_FRONTAL = {"LL", "RL", "LAT", "LATERAL", "LLO", "RLO"}
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it repeats values that it can't read


@dataclass(frozen=True)
class Policy:
    """What a site lets be answered, and the ages in years that the network knows."""

    unsuitable: str = REFUSE  # or WARN: answer, and say so
    modalities: frozenset[str] = MODALITIES
    ages: tuple[float, float] | None = None


def is_dicom(data: bytes | bytearray) -> bool:
    """Whether these bytes say that they are a DICOM file."""
    start, magic = PREFIX
    return data[start : start + len(magic)] == magic


def read(
    data: bytes | bytearray, policy: Policy, max_pixels: int
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Grey (H, W) of a DICOM file, white is what stops the rays, and warnings about the image.

    Modality LUT or rescale, then VOI LUT or the first window (PS3.3, C.11.1 and C.11.2), without
    either the whole range of Bits Stored; MONOCHROME1 inverted; padding black.

    Raises:
        ImageError: 400 broken; 413 too many pixels; 415 a transfer syntax that can't be decoded;
            422 not one frontal chest radiograph, unless the policy is to warn of that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they repeat values, as the log does
        dataset = _parse(data)
        _check_pixels(dataset)
        reasons = list(_reasons(dataset, policy))
        if reasons and policy.unsuitable == REFUSE:
            raise ImageError(422, "UnsuitableImage", "; ".join(reasons) + ".")
        _check_sides(dataset, len(data), max_pixels)
        return _render(dataset), [*reasons, *_doubts(dataset, policy)]


def _parse(data: bytes | bytearray) -> Dataset:
    """What stands before the pixels, and the pixels.

    Not by dcmread, which inflates a deflated file, and reads millions of empty elements, without a
    limit.
    """
    header = io.BytesIO(data[:MAX_HEADER])
    header.seek(PREFIX[0] + len(PREFIX[1]))
    meta = read_dataset(
        header,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag.group != 2,
    )
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise _unknown_syntax(DeflatedExplicitVRLittleEndian)
    header.seek(0)
    dataset = read_partial(header, stop_when=lambda tag, _vr, _length: tag >= _PIXELS)
    if header.tell() == MAX_HEADER:
        raise ImageError(
            413,
            "TooManyBytes",
            f"DICOM PixelData does not begin in the first {MAX_HEADER:,} bytes: leave out private "
            "elements.",
        )
    stream = io.BytesIO(data)
    stream.seek(header.tell())
    implicit, little_endian = dataset.original_encoding
    read = itertools.count()
    dataset.update(
        read_dataset(
            stream,
            is_implicit_VR=bool(implicit),
            is_little_endian=bool(little_endian),
            stop_when=lambda *_: next(read) > 0,
        )
    )
    return dataset


def _unknown_syntax(uid: UID) -> ImageError:
    return ImageError(
        415,
        "TransferSyntax",
        f"DICOM transfer syntax {uid.name} is not decoded here: send Explicit VR Little Endian.",
    )


def _unsuitable(keyword: str, why: str) -> ImageError:
    return ImageError(422, "UnsuitableImage", f"DICOM {_named(keyword)} {why}.")


def _named(keyword: str) -> str:
    tag = Tag(keyword)
    return f"{keyword} ({tag.group:04X},{tag.element:04X})"


def _check_pixels(dataset: Dataset) -> None:
    """One frame of grey, whose values are as the tags say."""
    if "PixelData" not in dataset:
        raise _unsuitable("PixelData", "is missing: send an image, not a report or a reference")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise _unsuitable("NumberOfFrames", "is not 1: send one frame")
    if dataset.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise _unsuitable("PhotometricInterpretation", "is not grey: send the radiograph itself")
    if dataset.BitsAllocated not in (8, 16):
        raise _unsuitable("BitsAllocated", "is neither 8 nor 16")
    if not 1 <= dataset.BitsStored <= dataset.BitsAllocated:
        raise _unsuitable("BitsStored", "is more than BitsAllocated, or nothing")
    if dataset.get("HighBit", dataset.BitsStored - 1) != dataset.BitsStored - 1:
        raise _unsuitable("HighBit", "is not BitsStored - 1")


def _check_sides(dataset: Dataset, sent: int, max_pixels: int) -> None:
    """Before anything is decoded: not too many pixels, by the tags and by the frame's own header.

    A decoder believes the latter.
    """
    sides = dataset.Rows, dataset.Columns
    check_pixels(sides[1], sides[0], sent, max_pixels)
    uid = dataset.file_meta.TransferSyntaxUID
    if not uid.is_compressed:
        return
    try:
        decodable = get_decoder(uid).is_available
    except NotImplementedError:
        decodable = False
    if not decodable:
        raise _unknown_syntax(uid)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if uid != RLELossless:
        check_scans(frame)
        if _frame_sides(frame) != sides:
            raise ImageError(
                400, "BrokenImage", "DICOM Rows and Columns are not those of the frame."
            )


def _frame_sides(frame: bytes) -> tuple[int, int] | None:
    """Height and width in a frame's header; None where there is none.

    JPEG 2000: SIZ (ITU-T T.800, A.5.1). JPEG and JPEG-LS: start of frame (ITU-T T.81, B.2.2).
    """

    def number(place: int, length: int) -> int:
        return int.from_bytes(frame[place : place + length], "big")

    if frame.startswith(b"\xff\xd8"):
        place = 2
        while place + 9 <= len(frame):
            marker = frame[place + 1]
            if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
                return number(place + 5, 2), number(place + 7, 2)
            place += 2 + number(place + 2, 2)
        return None
    siz = frame.find(b"\xff\x4f\xff\x51")
    if siz < 0:
        return None
    return number(siz + 12, 4) - number(siz + 20, 4), number(siz + 8, 4) - number(siz + 16, 4)


def _reasons(dataset: Dataset, policy: Policy) -> Iterator[str]:
    """Why this is no frontal chest radiograph, by what the tags say."""
    if _code(dataset, "Modality") not in policy.modalities:
        yield f"DICOM {_named('Modality')} is none of {', '.join(sorted(policy.modalities))}"
    part = _code(dataset, "BodyPartExamined")
    if part and not _CHEST.search(part):
        yield f"DICOM {_named('BodyPartExamined')} is not CHEST"
    codes = dataset.get("ViewCodeSequence") or []
    meanings = " ".join(str(code.get("CodeMeaning", "")) for code in codes).lower()
    if _code(dataset, "ViewPosition") in _NOT_FRONTAL or re.search("lateral|oblique", meanings):
        yield f"DICOM {_named('ViewPosition')} is neither PA nor AP"


def _doubts(dataset: Dataset, policy: Policy) -> Iterator[str]:
    """What a reader of the answer should know, though it is answered."""
    if not _code(dataset, "BodyPartExamined"):
        yield f"DICOM {_named('BodyPartExamined')} is missing: taken for a chest"
    if _code(dataset, "ViewPosition") not in {"PA", "AP"} | _NOT_FRONTAL:
        yield f"DICOM {_named('ViewPosition')} is missing or unknown: taken for frontal"
    age = _years(str(dataset.get("PatientAge") or ""))
    if age is not None and policy.ages and not policy.ages[0] <= age < policy.ages[1] + 1:
        low, high = policy.ages
        yield f"the patient's age is not within the training images' {low:g} to {high:g} years"


def _code(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip().upper()


def _years(age: str) -> float | None:
    """An age string (PS3.5, 6.2: nnnD, nnnW, nnnM, nnnY) in years; without a unit, years."""
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY]?)\s*", age)
    return int(match[1]) * _YEARS[match[2]] if match else None


def _render(dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Grey (H, W). All steps work value by value, so they run once on all values there can be."""
    signed = dataset.PixelRepresentation == 1
    count = 2**dataset.BitsStored
    first = -count // 2 if signed else 0
    stored = pixel_array(dataset)
    if stored.ndim != 2:
        raise ImageError(400, "BrokenImage", "The DICOM frame is not grey.")
    kind = f"{'i' if signed else 'u'}{dataset.BitsAllocated // 8}"
    values = np.arange(first, first + count).astype(kind)
    grey = _shown(values, dataset)
    if (padding := dataset.get("PixelPaddingValue")) is not None:
        limit = dataset.get("PixelPaddingRangeLimit", padding)
        low, high = sorted((int(padding), int(limit)))
        grey[max(0, low - first) : max(0, high - first + 1)] = 0
    shown: npt.NDArray[np.uint8] = grey[
        stored.astype(np.int32).clip(first, first + count - 1) - first
    ]
    return shown


def _shown(values: npt.NDArray[np.integer], dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Stored values (n,) → 0 (black) to 255."""
    meant = apply_modality_lut(values, dataset)
    displayed = apply_voi_lut(meant, dataset).astype(np.float64)
    low, high = float(meant.min()), float(meant.max())
    if "ModalityLUTSequence" in dataset:
        low, high = 0.0, 2.0 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    if "VOILUTSequence" in dataset:
        low, high = 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    grey = (255 * ((displayed - low) / max(high - low, 1e-12))).round().clip(0, 255)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return grey.astype(np.uint8)
