"""The walk over a file's elements: what it reads, names, counts and refuses."""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from handlers import pixels
from handlers.dicom import read
from handlers.dicom_frame import MAX_FRAGMENTS
from handlers.dicom_parser import MAX_DEPTH, MAX_ELEMENTS
from tests.handlers.dicom_files import (
    ANY,
    LIMIT,
    TWELVE,
    before_pixels,
    code,
    element,
    file,
    radiograph,
    raw,
    refusal,
    shown,
    table,
    with_pixels,
)
from tests.handlers.test_jpeg_markers import operations

ROWS, COLUMNS, PIXELS = 0x00280010, 0x00280011, 0x7FE00010
UNDEFINED = b"\xff\xff\xff\xff"
ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HH", 0xFFFE, n) for n in (0xE000, 0xE00D, 0xE0DD))
EMPTY = bytes(4)


def written(
    body: bool, big: bool = False, syntax: str | None = ExplicitVRLittleEndian, **tags: Any
) -> bytes:
    """A file whose body is explicit or not and of this byte order, whatever its syntax says."""
    dataset = radiograph(TWELVE, 12, **tags)
    if big:
        dataset.PixelData = TWELVE.astype(">u2").tobytes()
    meta = dataset.file_meta
    if syntax is None:
        del meta.TransferSyntaxUID
    else:
        meta.TransferSyntaxUID = syntax
    head, tail = DicomBytesIO(), DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=False)
    tail.is_implicit_VR, tail.is_little_endian = not body, not big
    dataset["PixelData"].VR = "OW"
    del dataset.file_meta
    write_dataset(tail, dataset)
    return bytes(128) + b"DICM" + head.getvalue() + tail.getvalue()


@pytest.mark.parametrize(
    "syntax", [None, "", ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize(("explicit", "big"), [(True, False), (False, False), (True, True)])
def test_a_body_is_read_as_it_is_written(syntax: str | None, explicit: bool, big: bool) -> None:
    content = written(explicit, big, syntax)
    np.testing.assert_array_equal(read(content, ANY, LIMIT)[0], shown(radiograph(TWELVE, 12)))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_an_encapsulated_frame_without_a_syntax(syntax: str) -> None:
    dataset = radiograph(TWELVE, 12)
    dataset.compress(syntax, generate_instance_uid=False)
    content = file(dataset).replace(syntax.encode(), b"\0" * len(syntax))
    np.testing.assert_array_equal(read(content, ANY, LIMIT)[0], shown(radiograph(TWELVE, 12)))


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.4.110",  # JPEG XL
        "1.2.840.10008.1.2.4.112",
        "1.2.840.10008.1.2.4.102",  # MPEG-4
        "1.2.840.10008.1.2.1.99",  # deflated
        "1.2.840.113619.5.2",  # private
        "1.2.3.4",
        "SECRET^NAME",
    ],
)
def test_other_transfer_syntaxes(syntax: str) -> None:
    result = refusal(written(True, syntax=syntax))
    assert (result.status, result.type) == (415, "TransferSyntax")
    assert "SECRET" not in str(result)


# --- values that are not what the dictionary says


@pytest.mark.parametrize(
    "keyword",
    ["Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel"],
)
@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("LT", b"A" * 15_000),
        ("UT", b"9" * 400_000),
        ("OB", b"A" * 300),
        ("UL", struct.pack("<L", 4_000_000_000)),
        ("SL", struct.pack("<l", -5)),
        ("FD", struct.pack("<d", float("inf"))),
        ("IS", b"32"),
        ("US", struct.pack("<HH", 32, 32)),
    ],
)
def test_an_integer_is_of_its_vr(keyword: str, vr: str, value: bytes) -> None:
    result = refusal(file(raw(radiograph(TWELVE, 12), keyword, vr, value)), ANY)
    assert result.status == 400
    assert keyword in str(result) or "ends within" in str(result)  # odd: the rest is shifted


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated", "BitsStored"])
def test_an_integer_that_is_missing_or_empty(keyword: str) -> None:
    dataset = radiograph(TWELVE, 12)
    del dataset[keyword]
    for content in (file(dataset), file(raw(radiograph(TWELVE, 12), keyword, "US", b""))):
        result = refusal(content, ANY)
        assert (result.status, keyword in str(result)) == (400, True)


@pytest.mark.parametrize(
    ("keyword", "value", "status"),
    [
        ("Rows", 0, 422),
        ("SamplesPerPixel", 3, 422),
        ("PixelRepresentation", 2, 422),
        ("NumberOfFrames", 0, 422),
        ("NumberOfFrames", -1, 422),
        ("BitsStored", 0, 422),
    ],
)
def test_an_integer_is_in_its_range(keyword: str, value: int, status: int) -> None:
    result = refusal(file(radiograph(TWELVE, 12, **{keyword: value})), ANY)
    assert (result.status, keyword in str(result)) == (status, True)


@pytest.mark.parametrize("frames", [b"1 ", b" 1", b"+1", b""])
def test_one_frame(frames: bytes) -> None:
    dataset = raw(radiograph(TWELVE, 12), "NumberOfFrames", "IS", frames)
    np.testing.assert_array_equal(shown(dataset), shown(radiograph(TWELVE, 12)))


@pytest.mark.parametrize("frames", [b"1e", b"two ", b"1\\1", b"1e99"])
def test_frames_that_are_no_number(frames: bytes) -> None:
    dataset = raw(radiograph(TWELVE, 12), "NumberOfFrames", "IS", frames)
    assert "NumberOfFrames" in str(refusal(file(dataset), ANY))


@pytest.mark.parametrize("vr", ["SQ", "UN", "UT", "LT", "OF"])
def test_pixel_data_is_ob_or_ow(vr: str) -> None:
    content = file(radiograph(TWELVE, 12))
    head = struct.pack("<HH", 0x7FE0, 0x10) + vr.encode()
    head += struct.pack("<H", 0) if vr == "LT" else bytes(2) + UNDEFINED
    result = refusal(with_pixels(content, head + (ITEM + EMPTY) * 1000 + SEQUENCE_END + EMPTY), ANY)
    assert (result.status, "PixelData (7FE0,0010)" in str(result)) == (400, True)


# --- what comes before the pixels


def test_a_large_header_costs_nothing() -> None:
    overlay = element(0x60003000, "OW", bytes(3000 * 3000 // 8)) + element(
        0x60200010, "US", b"\0\1"
    )
    private = element(0x00291010, "OB", bytes(20_000_000))
    content = file(radiograph(TWELVE, 12))
    for extra in (overlay, private):
        grey, _ = read(before_pixels(content, extra), ANY, LIMIT)
        np.testing.assert_array_equal(grey, shown(radiograph(TWELVE, 12)))
    tables = [table([0, 0, 16], bytes(131_072))] * 20
    grey = shown(radiograph(TWELVE, 12, VOILUTSequence=tables))
    np.testing.assert_array_equal(grey, shown(radiograph(TWELVE, 12)))


def sequence(tag: int, content: bytes) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + b"SQ\0\0" + UNDEFINED + content


def test_sequences_are_walked_or_skipped() -> None:
    """Of defined and of undefined length, with an icon's own PixelData, and in implicit VR."""
    content = file(radiograph(TWELVE, 12))
    icon = element(PIXELS, "OW", bytes(64))
    fragments = struct.pack("<HH", 0x7FE0, 0x10) + b"OB\0\0" + UNDEFINED + ITEM + EMPTY
    fragments += ITEM + struct.pack("<L", 4) + bytes(4) + SEQUENCE_END + EMPTY
    for inner in (icon, fragments, element(0x00280010, "LT", b"xx")):
        delimited = ITEM + UNDEFINED + inner + ITEM_END + EMPTY + SEQUENCE_END + EMPTY
        sized = ITEM + struct.pack("<L", len(inner)) + inner
        implicit = struct.pack("<HHL", 0x0028, 0x0010, 2) + b"xx"
        unknown = ITEM + UNDEFINED + implicit + ITEM_END + EMPTY + SEQUENCE_END + EMPTY
        for extra in (
            sequence(0x00880200, delimited),
            sequence(0x00880200, sized + SEQUENCE_END + EMPTY),
            element(0x00880200, "SQ", sized),
            sequence(0x00880200, unknown).replace(b"SQ", b"UN", 1),
        ):
            grey, _ = read(before_pixels(content, extra), ANY, LIMIT)
            np.testing.assert_array_equal(grey, shown(radiograph(TWELVE, 12)))


def nested(depth: int) -> bytes:
    return (
        struct.pack("<HH", 0x40, 0x275)
        + b"SQ\0\0"
        + UNDEFINED
        + (ITEM + UNDEFINED + struct.pack("<HH", 0x40, 0x275) + b"SQ\0\0" + UNDEFINED) * depth
    )


BOMBS: dict[str, Callable[[], bytes]] = {
    "empty elements": lambda: b"".join(
        struct.pack("<HH", 0x29, n & 0xFFFF) + b"CS\0\0" for n in range(4_000_000)
    ),
    "empty items": lambda: sequence(0x00400275, (ITEM + EMPTY) * 4_000_000),
    "empty items of a sequence that is read": lambda: element(
        0x00540220, "SQ", (ITEM + EMPTY) * 4_000_000
    ),
    "nested": lambda: nested(1_000_000),
    "nested a little": lambda: nested(MAX_DEPTH),
    "unknown without a length": lambda: sequence(0x00291010, (ITEM + EMPTY) * 4_000_000).replace(
        b"SQ", b"UN", 1
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_elements_and_items_are_counted(name: str) -> None:
    content = before_pixels(file(radiograph(TWELVE, 12)), BOMBS[name]())
    refusal(content[:400], ANY)  # imports and caches
    tracemalloc.start()
    status = refusal_of_any_size(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert status in (400, 413)
    assert peak < 50e6
    # A few calls for each element up to the limit, whatever the number in the file.
    assert operations(lambda: refusal_of_any_size(content)) < 10 * MAX_ELEMENTS


def refusal_of_any_size(content: bytes) -> int:
    with pytest.raises(pixels.ImageError) as caught:
        pixels.read(content, 32, ANY, max_bytes=2**27)
    return int(caught.value.status)


def test_fragments_are_counted() -> None:
    start = struct.pack("<HH", 0x7FE0, 0x10) + b"OB\0\0" + UNDEFINED
    content = written(True, syntax=JPEGBaseline8Bit)
    bomb = start + (ITEM + EMPTY) * (MAX_FRAGMENTS + 2) + SEQUENCE_END + EMPTY
    result = refusal(with_pixels(content, bomb))
    assert (result.status, "fragments" in str(result)) == (413, True)


def test_as_many_elements_as_are_read() -> None:
    content = file(radiograph(TWELVE, 12))
    few = struct.pack("<HH", 0x29, 0x1001) + b"CS\0\0"
    grey, _ = read(before_pixels(content, few * (MAX_ELEMENTS - 100)), ANY, LIMIT)
    np.testing.assert_array_equal(grey, shown(radiograph(TWELVE, 12)))


# --- cut files


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("syntax", ["", RLELossless, JPEG2000Lossless])
def test_a_cut_file_is_told(share: float, syntax: str) -> None:
    dataset = radiograph(TWELVE, 12, ViewCodeSequence=[code("272479007", "SCT", "PA")])
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    content = file(dataset)
    body = content.index(b"\x08\x00\x60\x00CS")
    for cut in (content[: body + int(share * (len(content) - body))], content[:-1]):
        result = refusal(cut)
        assert result.status in (400, 422)
        assert "cut short" in str(result) or "PixelData (7FE0,0010) is missing" in str(result)


def test_too_few_pixels_are_told() -> None:
    dataset = radiograph(TWELVE, 12)
    dataset.PixelData = dataset.PixelData[:-2]
    result = refusal(file(dataset))
    assert (result.status, "8,192" in str(result)) == (400, True)


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("badVR.dcm", "NumberOfFrames"),
        ("nested_priv_SQ.dcm", "PhotometricInterpretation"),
        ("meta_missing_tsyntax.dcm", "PhotometricInterpretation"),
        ("priv_SQ.dcm", "PixelData"),
        ("no_meta_group_length.dcm", "PixelData"),
        ("UN_sequence.dcm", "PixelData"),
    ],
)
def test_odd_files_of_other_makers_that_are_no_radiograph(name: str, keyword: str) -> None:
    result = refusal(Path(str(get_testdata_file(name))).read_bytes(), ANY)
    assert (result.status, keyword in str(result)) == (422, True)


@pytest.mark.parametrize("name", ["MR_small_padded.dcm", "CT_small.dcm", "liver_1frame.dcm"])
def test_odd_files_of_other_makers_that_are_read(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    with pydicom.dcmread(path) as dataset:
        if dataset.BitsAllocated < 8:
            assert "BitsAllocated" in str(refusal(path.read_bytes(), ANY))
            return
        values = dataset.pixel_array.astype(int).reshape(-1)
    grey, _ = read(path.read_bytes(), ANY, LIMIT)
    assert np.diff(grey.reshape(-1)[np.argsort(values)].astype(int)).min() >= 0


def test_of_what_is_a_body_part_only_group_and_element_are_named() -> None:
    """A refusal names the tag that is wrong, never its value."""
    content = file(radiograph(TWELVE, 12, PatientName="SECRET"))
    place = content.index(b"SECRET") - 2
    broken = content[:place] + b"\xff\xff" + content[place + 2 :]
    result = refusal(broken)
    assert "SECRET" not in str(result)
    assert "(0010,0010)" in str(result)
