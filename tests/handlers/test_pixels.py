import binascii
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from handlers import pixels
from handlers.errors import ImageError
from handlers.pixels import decode, read

SIZE = 48
# Brighter to the right and below, no two quarters alike.
PICTURE = np.add.outer(np.arange(SIZE) * 3, np.arange(SIZE)).astype(np.uint8)


def file(image: Image.Image | NDArray[Any], format: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(content, format, **options)
    return content.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", binascii.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG by hand, for what Pillow does not write."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body + chunk(b"IEND", b"")


def difference(each: NDArray[np.uint8], following: NDArray[np.uint8]) -> int:
    return int(np.abs(each.astype(int) - following.astype(int)).max())


def even(content: bytes) -> int:
    """The one value of an even picture."""
    values = np.unique(decode(content, 8))
    assert len(values) == 1
    return int(values[0])


# What an image becomes


def test_a_picture_of_the_right_size_comes_back_as_it_is() -> None:
    result = decode(file(PICTURE), SIZE)
    assert result.dtype == np.uint8
    assert result.flags.writeable
    assert_array_equal(result, PICTURE)


def test_the_aspect_ratio_is_not_kept() -> None:
    wide = np.repeat(PICTURE, 2, axis=1)
    result = decode(file(wide), SIZE)
    assert result.shape == (SIZE, SIZE)
    # The kernel is a triangle, three source pixels wide to each side: all but the border is flat.
    assert difference(result[:, 2:-2], PICTURE[:, 2:-2]) <= 1


def test_halving_is_pillows_triangle() -> None:
    steps = np.zeros((64, 64), np.uint8)
    steps[:, 32:] = 160
    # Halved, a pixel weighs four: 1/8, 3/8, 3/8, 1/8.
    assert decode(file(steps), 32)[0, 14:18].tolist() == [0, 20, 140, 160]


def test_grey_is_the_luma_of_bt_601() -> None:
    for colour, grey in {(255, 0, 0): 76, (0, 255, 0): 150, (0, 0, 255): 29}.items():
        assert even(file(Image.new("RGB", (40, 40), colour))) == grey


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same() -> None:
    random = np.random.default_rng(0).normal(110, 60, (12, 12)).clip(0, 255).astype(np.uint8)
    for factor, alike in ((3.9, 0), (4, 8), (9, 8)):
        side = round(factor * SIZE)
        smooth = Image.fromarray(random).resize((side, side), Image.Resampling.BICUBIC)
        data = file(smooth, "JPEG", quality=90)
        whole = Image.open(io.BytesIO(data)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        result = decode(data, SIZE)
        assert difference(result, np.asarray(whole)) <= alike
        assert np.abs(result.astype(int) - np.asarray(whole)).mean() <= alike / 16


def test_grey_comes_before_the_squash() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    expected = Image.fromarray(noise).convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    assert_array_equal(decode(file(noise), SIZE), np.asarray(expected))


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_a_grey_jpeg_is_its_copy_in_three_channels(quality: int) -> None:
    each = decode(file(PICTURE, "JPEG", quality=quality), SIZE)
    three = decode(file(np.dstack([PICTURE] * 3), "JPEG", quality=quality), SIZE)
    assert difference(each, three) <= 1


def test_sixteen_bits_are_eight_of_the_same_picture() -> None:
    random = np.random.default_rng(0)
    fine = PICTURE.astype(np.uint16) * 257 + random.integers(-128, 129, PICTURE.shape)
    fine = fine.clip(0, 65535).astype(np.uint16)
    assert_array_equal(decode(file(fine), SIZE), PICTURE)
    assert difference(decode(file(fine), 20), decode(file(PICTURE), 20)) <= 1


@pytest.mark.parametrize(
    ("value", "grey"), [(0, 0), (128, 0), (129, 1), (4095, 16), (32768, 128), (65535, 255)]
)
def test_sixteen_bits_are_divided_by_257_and_rounded(value: int, grey: int) -> None:
    assert even(file(np.full((32, 32), value, np.uint16))) == grey


def test_sixteen_bit_colour_and_alpha() -> None:
    rgb = png(32, 32, 16, 2, (b"\0" + struct.pack(">3H", 51400, 51400, 51400) * 32) * 32)
    grey_alpha = png(32, 32, 16, 4, (b"\0" + struct.pack(">2H", 51400, 32896) * 32) * 32)
    assert even(rgb) == 200
    assert even(grey_alpha) == 100  # 200 of which half is there


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I"])
def test_every_order_of_sixteen_bits(mode: str) -> None:
    values = PICTURE.astype(np.uint16) * 257
    content = {"I;16B": values.astype(">u2"), "I": values.astype(np.int32)}.get(mode, values)
    image = Image.frombytes(mode, (SIZE, SIZE), content.tobytes())
    assert_array_equal(np.asarray(pixels._grey(image)), PICTURE)


def test_floats_count_as_0_to_255() -> None:
    image = Image.fromarray(np.array([[-5.0, 77.0, 300.0]], np.float32))
    assert np.asarray(pixels._grey(image)).tolist() == [[0, 77, 255]]


def test_a_mode_no_one_knows_is_an_error_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_open", lambda *_: Image.new("LAB", (40, 40)))
    with pytest.raises(ImageError) as refusal:
        decode(file(PICTURE), 8)
    assert refusal.value.status == 400


def test_one_bit() -> None:
    result = decode(file(Image.fromarray(PICTURE > 90)), SIZE)
    assert_array_equal(result, np.where(PICTURE > 90, 255, 0))


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_reach_from_black_to_white(bits: int) -> None:
    most = 2**bits - 1
    rows = b"".join(b"\0" + bytes([255 if row < 16 else 0]) * (32 * bits // 8) for row in range(32))
    result = decode(png(32, 32, bits, 0, rows), 32)
    assert (result[0, 0], result[-1, 0]) == (255, 0), most


def test_a_palette() -> None:
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert even(file(image)) == 124
    assert_array_equal(decode(file(Image.fromarray(PICTURE).convert("P")), SIZE), PICTURE)


def test_cmyk_which_jpeg_holds_inverted() -> None:
    content = file(Image.new("CMYK", (40, 40), (0, 0, 0, 155)), "JPEG", quality=100)
    assert b"Adobe" in content
    assert abs(even(content) - 100) <= 1
    content = file(Image.new("CMYK", (40, 40), (155, 155, 155, 0)), "JPEG", quality=100)
    assert abs(even(content) - 100) <= 1


def test_what_is_transparent_lies_over_black() -> None:
    assert even(file(Image.new("LA", (40, 40), (200, 128)))) == 100
    assert even(file(Image.new("RGBA", (40, 40), (200, 200, 200, 128)))) == 100
    assert even(file(Image.new("RGBA", (40, 40), (255, 255, 255, 0)))) == 0
    opaque = Image.merge("LA", (Image.fromarray(PICTURE), Image.new("L", (SIZE, SIZE), 255)))
    assert_array_equal(decode(file(opaque), SIZE), PICTURE)


def test_transparent_colours_lie_over_black() -> None:
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([0, 0, 0, 200, 200, 200])
    assert even(file(palette, transparency=bytes([255, 128]))) == 100
    assert even(file(palette, transparency=1)) == 0
    assert even(file(Image.new("L", (40, 40), 77), transparency=77)) == 0
    assert even(file(Image.new("L", (40, 40), 78), transparency=77)) == 78
    assert even(file(Image.new("RGB", (40, 40), (9, 9, 9)), transparency=(9, 9, 9))) == 0
    row = b"\0" + struct.pack(">H", 7710) * 32
    assert even(png(32, 32, 16, 0, row * 32)) == 30
    assert even(png(32, 32, 16, 0, row * 32, chunk(b"tRNS", struct.pack(">H", 7710)))) == 0


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, format: str) -> None:
    tall = Image.fromarray(np.ascontiguousarray(PICTURE[:, :40]))
    exif = Image.Exif()
    exif[274] = orientation
    content = file(tall, format, exif=exif, **({"quality": 100} if format == "JPEG" else {}))
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image)
    assert upright.size == ((40, 48) if orientation < 5 else (48, 40))
    expected = upright.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    assert_array_equal(decode(content, SIZE), np.asarray(expected))
    corners = decode(content, SIZE)[[0, 0, -1, -1], [0, -1, 0, -1]]
    # Where the dark corner of the file stands once it is upright: EXIF 2.32, table 7.
    assert corners.argmin() == [0, 1, 3, 2, 0, 1, 3, 2][orientation - 1]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_leaves_the_picture_as_it_lies() -> None:
    content = file(PICTURE, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    assert_array_equal(decode(content, SIZE), PICTURE)


def test_of_several_pictures_the_first() -> None:
    first, second = Image.fromarray(PICTURE), Image.new("L", (SIZE, SIZE))
    moving = file(first, save_all=True, append_images=[second])
    assert b"acTL" in moving
    assert_array_equal(decode(moving, SIZE), PICTURE)
    several = file(first, "MPO", save_all=True, append_images=[second], quality=100)
    assert difference(decode(several, SIZE), PICTURE) <= 1


def test_a_bytearray_is_as_good() -> None:
    assert_array_equal(decode(bytearray(file(PICTURE)), SIZE), PICTURE)


# What is refused


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("content", "status", "kind", "words"),
    [
        pytest.param(b"", 400, "EmptyImage", "send a JPEG, PNG or DICOM", id="empty"),
        pytest.param(file(NOISE)[:-900], 400, "BrokenImage", "whole file", id="cut PNG"),
        pytest.param(file(NOISE)[:20], 400, "BrokenImage", "whole file", id="cut PNG header"),
        pytest.param(file(NOISE)[:8], 400, "BrokenImage", "whole file", id="PNG magic"),
        pytest.param(file(NOISE, "JPEG")[:700], 400, "BrokenImage", "whole", id="cut JPEG"),
        pytest.param(file(NOISE, "JPEG")[:3], 400, "BrokenImage", "whole", id="JPEG magic"),
        pytest.param(b"\xff\xd8\xff" + bytes(99), 400, "BrokenImage", "whole", id="no JPEG"),
        pytest.param(
            b"hello, is this a lung?", 415, "NotAnImage", "send JPEG, PNG or DICOM", id="text"
        ),
        pytest.param(b"<!doctype html><p>", 415, "NotAnImage", "like HTML", id="HTML"),
        pytest.param(b"%PDF-1.7 ...", 415, "NotAnImage", "like PDF", id="PDF"),
        pytest.param(bytes(30_000_000), 415, "NotAnImage", "like zeros", id="zeros"),
        pytest.param(bytes(128) + b"DICM", 422, "UnsuitableImage", "PixelData", id="DICOM magic"),
        pytest.param(file(NOISE, "GIF"), 415, "NotAnImage", "like GIF", id="GIF"),
        pytest.param(file(NOISE, "TIFF"), 415, "NotAnImage", "like TIFF", id="TIFF"),
        pytest.param(file(NOISE, "WEBP"), 415, "NotAnImage", "like WebP", id="WebP"),
        pytest.param(file(NOISE, "BMP"), 415, "NotAnImage", "like BMP", id="BMP"),
        pytest.param(file(NOISE[:1, :1]), 400, "ImageTooSmall", "1 x 1", id="one pixel"),
        pytest.param(file(NOISE[:31]), 400, "ImageTooSmall", "64 x 31", id="31 rows"),
        pytest.param(
            png(30_000, 30_000, 8, 0, bytes(9)), 413, "TooManyPixels", "50,000,000", id="PNG bomb"
        ),
        pytest.param(png(2**31 - 1, 32, 8, 0, b""), 413, "TooManyPixels", "smaller", id="long"),
        pytest.param(bytes(32 * 2**20 + 1), 413, "TooManyBytes", "33,554,432", id="bytes"),
    ],
)
def test_a_bad_image_is_refused_with_the_remedy(
    content: bytes, status: int, kind: str, words: str
) -> None:
    with pytest.raises(ImageError, match=words) as refusal:
        decode(content, SIZE)
    assert (refusal.value.status, refusal.value.type) == (status, kind)


def test_a_jpeg_bomb_is_refused_by_its_header() -> None:
    content = file(NOISE, "JPEG")
    start = content.index(b"\xff\xc0") + 5
    large = content[:start] + struct.pack(">HH", 60_000, 60_000) + content[start + 4 :]
    with pytest.raises(ImageError, match="60000 x 60000") as refusal:
        decode(large, SIZE)
    assert refusal.value.status == 413


def test_limits_can_be_set() -> None:
    content = file(PICTURE)
    read(content, SIZE, max_bytes=len(content), max_pixels=SIZE * SIZE)
    for limits in ({"max_bytes": len(content) - 1}, {"max_pixels": SIZE * SIZE - 1}):
        with pytest.raises(ImageError) as refusal:
            read(content, SIZE, **limits)
        assert refusal.value.status == 413


@pytest.mark.filterwarnings("error")
def test_a_large_but_lawful_image_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit must not matter
    decode(file(PICTURE), SIZE)


def test_text_that_swells_is_refused() -> None:
    swelling = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    content = png(32, 32, 8, 0, bytes(33 * 32), swelling)
    with pytest.raises(ImageError) as refusal:
        decode(content, SIZE)
    assert (refusal.value.status, refusal.value.type) == (400, "BrokenImage")


def test_nothing_of_pillow_is_changed() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert Image.MAX_IMAGE_PIXELS is not None


WHOLE = [file(NOISE), file(NOISE, "JPEG"), file(Image.fromarray(NOISE).convert("P"))]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]), content=st.binary())
def test_any_bytes_are_an_image_or_an_image_error(start: bytes, content: bytes) -> None:
    _image_or_error(start + content)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(data=st.data(), whole=st.sampled_from(WHOLE))
def test_a_damaged_image_is_an_image_or_an_image_error(data: st.DataObject, whole: bytes) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, min(len(whole), 700) - 1))
        damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    _image_or_error(bytes(damaged))


def _image_or_error(content: bytes) -> None:
    try:
        shape = read(content, 16, max_pixels=1_000_000).pixels.shape
    except ImageError as error:
        shape = (16, 16) if error.status in (400, 413, 415) and error.type.isalpha() else ()
    assert shape == (16, 16)


REAL = Path(__file__).parents[3] / "shared" / "data" / "full_size"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real X-rays are not beside the project")
def test_real_x_rays() -> None:
    for path in sorted(REAL.glob("*/*"))[::5]:
        with Image.open(path) as image:
            grey = image.convert("L")
        expected = np.asarray(grey.resize((96, 96), Image.Resampling.BILINEAR))
        assert_array_equal(decode(file(grey), 96), expected)
        smaller = decode(path.read_bytes(), 96)  # JPEG, which is decoded at a part of its size
        assert difference(smaller, expected) <= 24
        assert np.abs(smaller.astype(int) - expected).mean() < 1
