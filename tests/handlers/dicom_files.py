"""Radiographs as DICOM files, well made and not."""

import io
import struct
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from handlers import pixels
from handlers.dicom import WARN, Policy, read
from handlers.errors import ImageError

LIMIT = 1_000_000
ANY = Policy(WARN)

Stored = npt.NDArray[np.integer[Any]]

# Every stored value of 12 bits once, in a shape that no step can turn unseen.
TWELVE = np.arange(4096, dtype=np.uint16).reshape(32, 128)


def radiograph(stored: Stored, bits: int = 0, /, **tags: Any) -> Dataset:
    """A chest radiograph with these stored values; a tag given as None is left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    dataset.set_pixel_data(
        stored, "MONOCHROME2", bits or 8 * stored.itemsize, generate_instance_uid=False
    )
    given = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", **tags}
    for keyword, value in given.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def file(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def raw(dataset: Dataset, keyword: str, vr: str, value: bytes) -> Dataset:
    """With a value as it may stand in a file, whatever pydicom thinks of it."""
    tag = Tag(keyword)
    dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return dataset


def compressed(frame: bytes, stored: Stored, bits: int, syntax: str, /, **tags: Any) -> bytes:
    """A file whose frame is this codestream, whatever it holds."""
    dataset = radiograph(stored, bits, **tags)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    return file(dataset)


def element(tag: int, vr: str, value: bytes) -> bytes:
    """An element's bytes, explicit little endian; `value` is of even length."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def before_pixels(content: bytes, extra: bytes) -> bytes:
    """The file with more elements right before PixelData."""
    place = content.rindex(b"\xe0\x7f\x10\x00O")
    return content[:place] + extra + content[place:]


def with_pixels(content: bytes, pixels: bytes) -> bytes:
    """The file with these bytes instead of the element PixelData."""
    return content[: content.rindex(b"\xe0\x7f\x10\x00O")] + pixels


def table(descriptor: list[int], entries: bytes, vr: str = "OW") -> Dataset:
    """An item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if min(descriptor) < 0 else "US", descriptor)
    item.add_new("LUTData", vr, entries)
    return item


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def shown(dataset: Dataset, policy: Policy = ANY) -> npt.NDArray[np.uint8]:
    return read(file(dataset), policy, LIMIT)[0]


def warned(dataset: Dataset, policy: Policy = ANY) -> list[str]:
    return read(file(dataset), policy, LIMIT)[1]


def refusal(content: bytes, policy: Policy = Policy()) -> ImageError:  # noqa: B008 -- frozen
    with pytest.raises(ImageError) as caught:
        pixels.read(content, 32, policy)
    return caught.value
