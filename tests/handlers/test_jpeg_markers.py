import io
import struct
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from handlers import jpeg_markers, limits
from handlers.errors import ImageError
from handlers.jpeg_markers import MAX_FILL, MAX_GAP, MAX_SEGMENTS, check_scans, read, segments
from handlers.pixels import decode

SIDE = 48
MEGABYTES = 4_000_000
PICTURE = Image.fromarray(np.add.outer(np.arange(SIDE) * 3, np.arange(SIDE)).astype(np.uint8))


def jpeg(image: Image.Image = PICTURE, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", **options)
    return content.getvalue()


def segment(marker: int, payload: bytes = b"") -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


PLAIN, PROGRESSIVE = jpeg(quality=90), jpeg(quality=90, progressive=True)
PIXELS = decode(PLAIN, SIDE)


def behind_soi(more: bytes, content: bytes = PLAIN) -> bytes:
    return content[:2] + more + content[2:]


def before_eoi(more: bytes, content: bytes = PLAIN) -> bytes:
    return content[:-2] + more + content[-2:]


def repeated(piece: bytes) -> bytes:
    return piece * (MEGABYTES // len(piece))


def scans(count: int, content: bytes = PROGRESSIVE) -> bytes:
    """The last scan of a progressive JPEG again and again, until it has so many."""
    last = content.rindex(b"\xff\xda")
    return before_eoi(content[last:-2] * (count - content.count(b"\xff\xda")), content)


def operations(function: Callable[[], object]) -> int:
    """Python calls, to Python and to C, that a function makes."""
    count = 0

    def tally(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(tally)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


COMMENT = segment(0xFE)
FRAME = segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 1) + b"\1\x11\0")
TABLE = segment(0xDB, (b"\0" + bytes([1]) * 64) * 1000)
# Megabytes of what costs a parser written in Python a second or more, and the answer.
HOSTILE = {
    "empty comments": (behind_soi(repeated(COMMENT)), "TooManySegments"),
    "empty APP15": (behind_soi(repeated(segment(0xEF))), "TooManySegments"),
    "empty APP0": (behind_soi(repeated(segment(0xE0))), "TooManySegments"),
    "empty tables": (behind_soi(repeated(segment(0xDB))), "TooManySegments"),
    "full tables": (behind_soi(repeated(TABLE)), "BrokenImage"),
    "frames": (behind_soi(repeated(FRAME)), "BrokenImage"),
    "restart intervals": (behind_soi(repeated(segment(0xDD, b"\0\1"))), "TooManySegments"),
    "restart markers": (behind_soi(repeated(b"\xff\xd0")), "TooManySegments"),
    "fill bytes": (behind_soi(repeated(b"\xff")), "BrokenImage"),
    "zeros": (behind_soi(COMMENT + repeated(b"\0")), "BrokenImage"),
    "stuffed bytes": (behind_soi(repeated(b"\xff\0")), "BrokenImage"),
    "EXIF": (behind_soi(repeated(segment(0xE1, b"Exif\0\0" + bytes(60)))), "TooManySegments"),
    "long EXIF": (behind_soi(repeated(segment(0xE1, b"Exif\0\0" + bytes(60_000)))), None),
    "Photoshop resources": (
        behind_soi(repeated(segment(0xED, b"Photoshop 3.0\0" + (b"8BIM" + bytes(8)) * 5000))),
        None,
    ),
    "a profile": (behind_soi(repeated(segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(9999)))), None),
    "fill bytes in a scan": (before_eoi(repeated(b"\xff")), "BrokenImage"),
    "restarts in a scan": (before_eoi(repeated(b"\xff\xd3")), None),
    "reserved markers in a scan": (before_eoi(repeated(b"\xff\1")), None),
    "comments behind the scan": (before_eoi(repeated(COMMENT)), "TooManySegments"),
    "comments between scans": (before_eoi(repeated(COMMENT), PROGRESSIVE), "TooManySegments"),
    "scans": (scans(50_000), "TooManyScans"),
    "a film": (PLAIN + repeated(b"\xff\xda\x12\x34"), None),
}
BODIES = [content for content, _ in HOSTILE.values()]


@pytest.mark.parametrize(("content", "refusal"), HOSTILE.values(), ids=HOSTILE.keys())
def test_megabytes_of_headers_cost_no_more_than_their_bound(
    content: bytes, refusal: str | None
) -> None:
    def answer() -> None:
        if refusal is None:
            assert_array_equal(decode(content, SIDE), PIXELS)
            return
        with pytest.raises(ImageError) as error:
            decode(content, SIDE)
        assert error.value.type == refusal

    assert operations(answer) < 20 * MAX_SEGMENTS


@pytest.mark.parametrize("content", BODIES, ids=HOSTILE.keys())
def test_megabytes_of_headers_are_held_once(content: bytes) -> None:
    tracemalloc.start()
    try:
        read(content)
    except (ImageError, ValueError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < len(content) + 1_000_000


def test_segments_are_counted() -> None:
    few = behind_soi(segment(0xFE) * (MAX_SEGMENTS - 20))
    assert_array_equal(decode(few, SIDE), PIXELS)
    with pytest.raises(ImageError, match="4,096 segments: save it anew") as refusal:
        decode(behind_soi(segment(0xFE) * MAX_SEGMENTS), SIDE)
    assert (refusal.value.status, refusal.value.type) == (413, "TooManySegments")


def test_fill_bytes_are_passed_over_up_to_a_bound() -> None:
    assert_array_equal(decode(behind_soi(b"\xff" * MAX_GAP), SIDE), PIXELS)
    with pytest.raises(ImageError, match="no JPEG marker within 65,536 bytes"):
        decode(behind_soi(b"\xff" * (MAX_GAP + 10)), SIDE)
    assert_array_equal(decode(before_eoi(b"\xff" * (MAX_FILL - 1)), SIDE), PIXELS)
    for plain in (PLAIN, PROGRESSIVE):
        with pytest.raises(ImageError, match="more than 4,096 fill bytes in a scan"):
            decode(before_eoi(b"\xff" * (MAX_FILL + 1), plain), SIDE)


@pytest.mark.parametrize("length", [b"\0\0", b"\0\1"])
def test_a_comment_shorter_than_its_length_is_passed_over(length: bytes) -> None:
    assert_array_equal(decode(behind_soi(b"\xff\xfe" + length + b"left over"), SIDE), PIXELS)


def test_the_decoder_gets_the_picture_alone() -> None:
    more = segment(0xE1, b"Exif\0\0" + bytes(9000)) + segment(0xE2, bytes(9000))
    content = read(behind_soi(more + segment(0xFE, b"who it is")) + b"a film" * 9999).content
    assert content == read(PLAIN).content
    assert len(content) <= len(PLAIN)


def test_scans_beside_the_picture_do_not_count() -> None:
    block = b"\xff\xda\0\0" * 200
    thumbnail = b"Exif\0\0" + scans(60)[:60_000]
    for content in (
        PLAIN + b"MotionPhoto_Data" + block,
        PROGRESSIVE + scans(200),
        behind_soi(segment(0xE1, block)),
        behind_soi(segment(0xE1, thumbnail) * 3),
        behind_soi(segment(0xFE, block), PROGRESSIVE),
    ):
        check_scans(content)
        assert np.abs(decode(content, SIDE).astype(int) - PIXELS).max() <= 1


def test_scans_of_the_picture_count_wherever_they_stand() -> None:
    assert decode(scans(64), SIDE).shape == (SIDE, SIDE)
    last = PROGRESSIVE.rindex(b"\xff\xda")
    scan = PROGRESSIVE[last:-2]
    for content in (
        scans(65),
        before_eoi((segment(0xFE, bytes(300)) + scan) * 65, PROGRESSIVE),
        before_eoi((b"\xff\xff\xff" + scan) * 65, PROGRESSIVE),
        scans(65)[:-2],
    ):
        for check in (check_scans, limits.check_scans, lambda body: decode(body, SIDE)):
            with pytest.raises(ImageError, match="save it anew") as refusal:
                check(content)
            assert (refusal.value.status, refusal.value.type) == (413, "TooManyScans")


def test_scans_over_very_many_coefficients_are_refused_before_decoding() -> None:
    large = before_eoi(bytes(1_000_000), scans(40))
    start = large.index(b"\xff\xc2") + 5
    large = large[:start] + struct.pack(">HH", 7000, 7000) + large[start + 4 :]
    with pytest.raises(ImageError, match="40 scans over 98 MB") as refusal:
        decode(large, SIDE)
    assert refusal.value.status == 413


def test_codes_that_are_no_jpeg_have_no_scans() -> None:
    limits.check_scans(b"\xff\x4f\xff\x51" + b"\xff\xda\0\0" * 100)  # JPEG 2000


def test_a_frame_header_is_read_as_it_stands() -> None:
    colours = Image.new("RGB", (70, 50))
    picture = read(jpeg(colours, subsampling="4:2:0", progressive=True))
    assert (picture.width, picture.height, picture.depth) == (70, 50, 8)
    # 5 x 4 units of 16 x 16 pixels, each of 4 + 1 + 1 blocks of 64 coefficients of 2 bytes.
    assert picture.buffers == 5 * 4 * 6 * 64 * 2
    assert read(jpeg(colours)).buffers == 0


def test_jpeg_ls_has_values_that_would_be_markers_in_jpeg() -> None:
    frame = segment(0xF7, struct.pack(">BHHB", 8, 9, 9, 1) + b"\1\x11\0")
    scan = segment(0xDA, b"\1\1\0\0\0\0") + b"\xff\x5a\xff\x7f\1"
    content = b"\xff\xd8" + frame + scan + b"\xff\xd9"
    assert [s.marker for s in segments(content)] == [0xF7, 0xDA, 0xD9]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (behind_soi(segment(0xC0, b"\x08\0\x09\0\x09\1\1\x11\0")), "two frame headers"),
        (behind_soi(segment(0xDE, b"\x08\0\x09\0\x09\1\1\x11\0")), "the marker FFDE"),
        (behind_soi(segment(0xDF, b"\1")), "the marker FFDF"),
        (behind_soi(b"\xff\xd8"), "the marker FFD8"),
        (behind_soi(b"\xff\xdb\0\1"), "the segment FFDB is wrong"),
        (PLAIN[: PLAIN.index(b"\xff\xc0")], "before the picture begins"),
        (PLAIN[:2] + PLAIN[PLAIN.index(b"\xff\xda") :], "a scan without a frame"),
        (before_eoi(PLAIN[PLAIN.index(b"\xff\xda") : -2]), "a scan behind the only one"),
        (PLAIN[:2] + b"\xff\xd9", "before the picture begins"),
    ],
)
def test_what_is_no_picture_is_named(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(content)
    with pytest.raises(ImageError, match=words) as refusal:
        decode(content, SIDE)
    assert (refusal.value.status, refusal.value.type) == (400, "BrokenImage")


@pytest.mark.parametrize("plain", [PLAIN, PROGRESSIVE], ids=["baseline", "progressive"])
@pytest.mark.parametrize(
    "stray", [b"\xff\xd8", b"\xff\xc4\0\x04ab", b"\xff\xc0\xff", b"\xff\xf0\0\2"]
)
def test_a_scan_that_is_broken_off_is_no_picture(plain: bytes, stray: bytes) -> None:
    """Else an answer is given on the grey that stands for the rest."""
    start = plain.index(b"\xff\xda") + 60
    with pytest.raises(ImageError) as refusal:
        decode(plain[:start] + stray + plain[start:], SIDE)
    assert (refusal.value.status, refusal.value.type) == (400, "BrokenImage")


METADATA = st.one_of(
    st.builds(segment, st.sampled_from([*range(0xE0, 0xF0), 0xFE]), st.binary(max_size=300)),
    st.integers(1, 40).map(lambda count: b"\xff" * count),
)


@given(more=st.lists(METADATA, max_size=8), behind=st.binary(max_size=99), whole=st.booleans())
def test_metadata_fill_bytes_and_what_follows_change_nothing(
    more: list[bytes], behind: bytes, whole: bool
) -> None:
    plain = PLAIN if whole else PROGRESSIVE
    content = behind_soi(b"".join(more), plain) + behind
    assert_array_equal(decode(content, SIDE), decode(plain, SIDE))
    assert read(content).coded == read(plain).coded


@given(st.binary(max_size=400))
def test_segments_follow_each_other_in_any_bytes(content: bytes) -> None:
    end = 2
    try:
        for result in segments(jpeg_markers.MAGIC + content):
            assert end <= result.start < result.payload <= result.stop <= result.end
            end = result.end
    except ValueError:
        pass
    assert end <= len(content) + 3
