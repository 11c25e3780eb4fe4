import binascii
import io
import itertools
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from handlers import png_chunks
from handlers.errors import ImageError
from handlers.pixels import decode
from handlers.png_chunks import MAX_CHUNKS, chunks, read
from tests.handlers.test_jpeg_markers import operations

SIDE = 48
PICTURE = np.add.outer(np.arange(SIDE) * 3, np.arange(SIDE)).astype(np.uint8)


def png(image: Any = PICTURE, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", **options)
    return content.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    check = struct.pack(">I", binascii.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


HEAD = png_chunks.MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0))
PIXELS = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PICTURE))
PLAIN = HEAD + chunk(b"IDAT", PIXELS) + chunk(b"IEND")


def between(more: bytes, behind: bytes = b"") -> bytes:
    return HEAD + more + chunk(b"IDAT", PIXELS) + behind + chunk(b"IEND")


def packed(kind: bytes, keyword: bytes, size: int) -> bytes:
    head = keyword + {b"zTXt": b"\0\0", b"iTXt": b"\0\1\0\0\0"}[kind]
    return chunk(kind, head + zlib.compress(bytes(size), 9))


FRAME = struct.pack(">IIIIIHHBB", 0, SIDE, SIDE, 0, 0, 1, 1, 0, 0)
EMPTY = chunk(b"prVt")
# Megabytes of what costs a parser written in Python a second or more, and the answer.
HOSTILE = {
    "empty chunks": (between(EMPTY * 100_000), "TooManyChunks"),
    "empty chunks behind": (between(b"", EMPTY * 100_000), "TooManyChunks"),
    "empty IDAT": (between(chunk(b"IDAT") * 100_000), "TooManyChunks"),
    "texts": (between(chunk(b"tEXt", b"k\0") * 100_000), "TooManyChunks"),
    "frames": (
        between(chunk(b"acTL", b"\0\0\0\2" * 2) + chunk(b"fcTL", FRAME) * 99_999),
        "TooManyChunks",
    ),
    "a long text": (between(chunk(b"tEXt", b"k\0" + b"\xe4" * 9_000_000)), None),
    "a long palette": (between(chunk(b"PLTE", bytes(9_000_000))), "BrokenImage"),
    "a long transparency": (between(chunk(b"tRNS", b"\xff" * 9_000_000)), "BrokenImage"),
    "palettes": (between(chunk(b"PLTE", bytes(768)) * 9000), "BrokenImage"),
    "a text that swells": (between(packed(b"zTXt", b"k", 200_000_000)), "BrokenImage"),
    "a text that swells behind": (between(b"", packed(b"zTXt", b"k", 200_000_000)), "BrokenImage"),
    "texts that swell": (between(packed(b"iTXt", b"k", 1_000_000) * 3000), "BrokenImage"),
    "a profile that swells": (
        between(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(200_000_000), 9))),
        None,
    ),
    "what is behind": (PLAIN + EMPTY * 100_000, None),
}


@pytest.mark.parametrize(("content", "refusal"), HOSTILE.values(), ids=HOSTILE.keys())
def test_megabytes_of_chunks_cost_no_more_than_their_bound(
    content: bytes, refusal: str | None
) -> None:
    def answer() -> None:
        if refusal is None:
            assert_array_equal(decode(content, SIDE), PICTURE)
            return
        with pytest.raises(ImageError) as error:
            decode(content, SIDE)
        assert error.value.type == refusal

    assert operations(answer) < 12 * MAX_CHUNKS


@pytest.mark.parametrize(
    "content", [content for content, _ in HOSTILE.values()], ids=HOSTILE.keys()
)
def test_megabytes_of_chunks_are_held_once(content: bytes) -> None:
    tracemalloc.start()
    try:
        read(content)
    except (ImageError, ValueError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < len(content) + png_chunks.MAX_TEXTS + 4_000_000


def test_the_smallest_chunks_of_libpng_fill_the_largest_body() -> None:
    pieces = chunk(b"IDAT") * (MAX_CHUNKS - 20)
    assert_array_equal(decode(between(pieces), SIDE), PICTURE)
    assert 8192 * MAX_CHUNKS >= 8 * 32 * 2**20


def test_the_decoder_gets_the_picture_alone() -> None:
    notes = chunk(b"tEXt", b"k\0" + bytes(9000)) + chunk(b"iCCP", bytes(9000))
    content = read(between(notes, notes) + b"behind" * 9999).content
    assert content == read(PLAIN).content
    kinds = [result.kind for result in chunks(content)]
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_only_the_first_run_of_pixels_is_coded() -> None:
    content = HEAD + chunk(b"IDAT", PIXELS) + EMPTY + chunk(b"IDAT", bytes(5000)) + chunk(b"IEND")
    assert read(content).coded == len(PIXELS)
    assert_array_equal(decode(content, SIDE), PICTURE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (between(EMPTY[:-1] + b"\0"), "a wrong checksum in prVt"),
        (between(chunk(b"IHDR", bytes(13))), "two IHDR chunks"),
        (HEAD + chunk(b"IEND"), "before the picture begins"),
        (png_chunks.MAGIC + chunk(b"IDAT", PIXELS), "before the picture begins"),
        (png_chunks.MAGIC + b"\0\0\0\0\0\0\0\0", "before the picture begins"),
    ],
)
def test_what_is_no_picture_is_named(content: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as refusal:
        decode(content, SIDE)
    assert (refusal.value.status, refusal.value.type) == (400, "BrokenImage")


XMP = '<rdf:Description tiff:Orientation="6"/>'


@pytest.mark.parametrize("packed", [False, True])
def test_the_orientation_in_a_text(packed: bool) -> None:
    exif = Image.Exif()
    exif[274] = 3
    profile = exif.tobytes()
    lines = f"\nexif\n{len(profile):8}\n" + "\n".join(
        profile.hex()[start : start + 72] for start in range(0, 2 * len(profile), 72)
    )
    by_xmp, by_profile = PngInfo(), PngInfo()
    by_xmp.add_itxt("XML:com.adobe.xmp", XMP, zip=packed)
    by_profile.add_text("Raw profile type exif", lines, zip=packed)
    assert_array_equal(decode(png(pnginfo=by_xmp), SIDE), np.rot90(PICTURE, -1))
    assert_array_equal(decode(png(pnginfo=by_profile), SIDE), np.rot90(PICTURE, 2))


ANCILLARY = st.builds(
    chunk,
    st.sampled_from(
        [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"pHYs", b"prVt", b"acTL", b"fcTL"]
    ),
    st.binary(max_size=200),
)


@given(
    more=st.lists(ANCILLARY, max_size=6),
    cuts=st.lists(st.integers(0, len(PIXELS)), max_size=6).map(sorted),
    behind=st.lists(ANCILLARY, max_size=4),
    trailing=st.binary(max_size=60),
)
def test_other_chunks_and_how_pixels_are_cut_change_nothing(
    more: list[bytes], cuts: list[int], behind: list[bytes], trailing: bytes
) -> None:
    places = [0, *cuts, len(PIXELS)]
    pieces = [chunk(b"IDAT", PIXELS[a:b]) for a, b in itertools.pairwise(places)]
    content = b"".join([HEAD, *more, *pieces, *behind, chunk(b"IEND"), trailing])
    assert read(content).content == read(PLAIN).content
    assert_array_equal(decode(content, SIDE), PICTURE)


@given(st.binary(max_size=300))
def test_chunks_of_any_bytes(content: bytes) -> None:
    result = list(chunks(png_chunks.MAGIC + content))
    assert sum(8 + len(c.content) for c in result) <= len(content)
