"""DICOM as a viewer would show it, and what is no frontal chest radiograph."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from handlers import pixels
from handlers.dicom import Policy, read
from handlers.dicom_parser import MAX_ELEMENTS
from handlers.errors import ImageError
from tests.handlers.dicom_files import ANY, LIMIT, TWELVE, file, radiograph, refusal, shown

SHARED = Path(__file__).parents[3] / "shared" / "data" / "dicom"
# --- values


def test_without_a_window_the_whole_range_of_bits_stored_is_shown() -> None:
    expected = np.round(TWELVE / 4095 * 255)
    np.testing.assert_array_equal(shown(radiograph(TWELVE, 12)), expected)
    eight = (TWELVE % 256).astype(np.uint8)
    np.testing.assert_array_equal(shown(radiograph(eight)), eight)


def test_monochrome1_is_inverted() -> None:
    white_is_low = radiograph(TWELVE, 12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(shown(white_is_low), 255 - shown(radiograph(TWELVE, 12)))


def test_bits_above_bits_stored_are_no_values() -> None:
    dirty = radiograph(TWELVE, 12)
    dirty.PixelData = (TWELVE | 0xA000).astype("<u2").tobytes()
    np.testing.assert_array_equal(shown(dirty), shown(radiograph(TWELVE, 12)))


def test_a_window_after_the_rescale() -> None:
    """PS3.3, C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) of the output's range."""
    dataset = radiograph(TWELVE, 12, RescaleSlope="2", RescaleIntercept="-1000")
    dataset.WindowCenter, dataset.WindowWidth = ["1000", "40"], ["2001", "400"]
    meant = 2.0 * TWELVE - 1000
    share = ((meant - 999.5) / 2000 + 0.5).clip(0, 1)
    np.testing.assert_allclose(shown(dataset), share * 255, atol=0.5 + 1e-9)
    assert shown(dataset).min() == 0
    assert shown(dataset).max() == 255


def test_a_voi_table_comes_before_a_window() -> None:
    dataset = radiograph(TWELVE, 12, WindowCenter="10", WindowWidth="5")
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (257 * (np.arange(4096) // 32 + 100)).astype("<u2").tobytes()
    table["LUTData"].VR = "OW"
    dataset.VOILUTSequence = [table]
    np.testing.assert_array_equal(shown(dataset), TWELVE // 32 + 100)


def test_signed_values() -> None:
    signed = TWELVE.astype(np.int16) - 2048
    np.testing.assert_array_equal(shown(radiograph(signed, 12)), shown(radiograph(TWELVE, 12)))


def test_padding_is_black_inverted_or_not() -> None:
    for meaning in ("MONOCHROME1", "MONOCHROME2"):
        dataset = radiograph(TWELVE, 12, PhotometricInterpretation=meaning)
        before = shown(dataset)
        dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = 4000, 4010
        padding = (TWELVE >= 4000) & (TWELVE <= 4010)
        np.testing.assert_array_equal(shown(dataset), np.where(padding, 0, before))


# --- transfer syntaxes


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_syntaxes_give_the_same(syntax: str) -> None:
    dataset = radiograph(TWELVE, 12)
    dataset.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(shown(dataset), shown(radiograph(TWELVE, 12)))


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
    ],
)
def test_files_of_other_makers_give_the_same(name: str) -> None:
    def of(name: str) -> npt.NDArray[np.uint8]:
        return read(Path(str(get_testdata_file(name))).read_bytes(), ANY, LIMIT)[0]

    np.testing.assert_array_equal(of(name), of("MR_small.dcm"))


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG2000.dcm"])
def test_lossy_syntaxes(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    grey, noticed = read(path.read_bytes(), ANY, LIMIT)
    assert grey.shape == (1024, 256)
    assert 0 < grey.mean() < 255
    assert len(noticed) == 4  # NM, WHOLE BODY, no view, no window


def test_a_deflated_file_is_not_inflated() -> None:
    path = Path(str(get_testdata_file("image_dfl.dcm")))
    assert refusal(path.read_bytes(), ANY).status == 415
    dataset = radiograph(TWELVE, 12)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert "Deflated" in str(refusal(file(dataset), ANY))


def test_an_unknown_syntax() -> None:
    content = file(radiograph(TWELVE, 12)).replace(
        b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"
    )
    assert refusal(content).status in (400, 415)


# --- what is not answered


@pytest.mark.parametrize(
    ("tags", "tag"),
    [
        ({"NumberOfFrames": 2}, "NumberOfFrames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation"),
        ({"BitsStored": 17}, "BitsStored"),
        ({"HighBit": 15}, "HighBit"),
        ({"BitsAllocated": 32}, "BitsAllocated"),
    ],
)
def test_pixels_that_are_not_one_grey_frame(tags: dict[str, Any], tag: str) -> None:
    result = refusal(file(radiograph(TWELVE, 12, **tags)), ANY)
    assert (result.status, result.type) == (422, "UnsuitableImage")
    assert tag in str(result)


@pytest.mark.parametrize("name", ["test-SR.dcm", "rtplan.dcm", "waveform_ecg.dcm"])
def test_no_image_at_all(name: str) -> None:
    result = refusal(Path(str(get_testdata_file(name))).read_bytes(), ANY)
    assert (result.status, result.type) == (422, "UnsuitableImage")
    assert "PixelData (7FE0,0010)" in str(result)


def test_too_large_by_the_tags_or_by_the_frame() -> None:
    assert refusal(file(radiograph(TWELVE, 12, Rows=60_000, Columns=60_000))).status == 413
    for syntax, start in ((JPEG2000Lossless, b"\xff\x4f\xff\x51"), (JPEGLSLossless, b"\xff\xf7")):
        dataset = radiograph(TWELVE, 12)
        dataset.compress(syntax, generate_instance_uid=False)
        content = bytearray(file(dataset))
        place = content.index(start) + (8 if syntax == JPEG2000Lossless else 5)
        content[place : place + 4] = b"\x7f\xff\x7f\xff"  # width, or height and width
        result = refusal(bytes(content))
        assert (result.status, result.type) == (400, "BrokenImage")


# --- hostile files


def test_a_header_is_read_so_far_and_no_further() -> None:
    content = file(radiograph(TWELVE, 12))
    place = content.index(b"\x18\x00\x15\x00CS")  # BodyPartExamined
    empty = b"\x09\x00\x01\x10SH\0\0"
    padded = content[:place] + empty * MAX_ELEMENTS + content[place:]
    result = refusal(padded, ANY)
    assert (result.status, result.type) == (413, "TooManyBytes")
    short = content[:place] + empty * 1000 + content[place:]
    np.testing.assert_array_equal(pixels.read(short, 32).pixels, pixels.read(content, 32).pixels)


def test_no_name_is_repeated_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    secret = "SECRET"
    dataset = radiograph(TWELVE, 12, PatientName=secret, Modality=secret, BodyPartExamined=secret)
    for keyword in ("ViewPosition", "PatientAge", "WindowCenter", "WindowWidth", "PatientID"):
        dataset.add_new(keyword, "LO", secret)
    content = file(dataset)
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        assert secret not in str(refusal(content))
        assert secret not in str(pixels.read(content, 32, ANY).warnings)
    assert secret not in caplog.text
    assert not printed


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=4), st.integers(200, 9000))
def test_hostile_bytes_are_answered_or_refused(place: int, bytes_: bytes, end: int) -> None:
    content = bytearray(file(radiograph(TWELVE, 12, PatientName="A", WindowCenter="1")))
    content[place : place + len(bytes_)] = bytes_
    try:
        assert pixels.read(content[:end], 16, ANY, max_pixels=LIMIT).pixels.shape == (16, 16)
    except ImageError as error:
        assert error.status in (400, 413, 415, 422)  # noqa: PT017 -- either is right


# --- a real one


def test_a_real_radiograph() -> None:
    content = (SHARED / "sample1.dcm").read_bytes()
    decoded = pixels.read(content, 128, Policy(ages=(1, 5)))
    assert 60 < decoded.pixels.mean() < 200
    assert ["ViewPosition" in decoded.warnings[0], "age" in decoded.warnings[1]] == [True, True]
    with pydicom.dcmread(SHARED / "sample1.dcm") as dataset:
        np.testing.assert_array_equal(read(content, ANY, 2 * LIMIT)[0], dataset.pixel_array)
    assert "BodyPartExamined" in str(refusal((SHARED / "sample4.dcm").read_bytes()))
