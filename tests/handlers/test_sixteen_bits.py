"""PNG of 16 bits that hold 8 to 15: shown by the range of the values present."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from handlers.pixels import decode
from tests.handlers.test_pixels import SIZE, chunk, file, png


def twelve_in_sixteen(bits: int, low: int = 0) -> NDArray[np.uint16]:
    """A ramp over the values that so many bits can have, in 16 bits."""
    return np.tile(np.linspace(low, 2**bits - 1, SIZE).round().astype(np.uint16), (SIZE, 1))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15])
def test_sixteen_bits_that_hold_fewer_are_shown_by_the_values_present(bits: int) -> None:
    right = np.linspace(0, 255, SIZE)
    for low in (0, 2 ** (bits - 2)):
        result = decode(file(twelve_in_sixteen(bits, low)), SIZE)
        assert np.abs(result - right).max() <= 1


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_sixteen_bits_that_hold_fewer(colour: int, channels: int) -> None:
    values = twelve_in_sixteen(12, 300)
    pixels = np.repeat(values[..., None], channels, axis=-1).astype(">u2")
    right = np.linspace(0, 255, SIZE)
    if channels in (2, 4):
        pixels[..., -1] = 65535
        pixels[:8, :, -1] = 0
        pixels[:8, :, 0] = 7000
    # Sub and Up filters, so that a filter's distance between pixels matters.
    before = np.zeros_like(pixels[0]).view(np.uint8)
    rows = b""
    for number, row in enumerate(pixels):
        line = row.reshape(-1).view(np.uint8)
        kept = before.reshape(-1) if number % 2 else np.r_[np.zeros(2 * channels, np.uint8), line]
        rows += bytes([1 + number % 2]) + (line - kept[: len(line)]).tobytes()
        before = line
    result = decode(png(SIZE, SIZE, 16, colour, rows), SIZE)
    assert (result[:8] == 0).all() or channels == 3
    assert np.abs(result[8:] - right).max() <= 1


def test_the_transparent_colour_of_sixteen_bits_that_hold_fewer() -> None:
    values = np.repeat(twelve_in_sixteen(12)[..., None], 3, axis=-1).astype(">u2")
    values[:8] = 4000, 3000, 4000
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    clear = chunk(b"tRNS", struct.pack(">3H", 4000, 3000, 4000))
    result = decode(png(SIZE, SIZE, 16, 2, rows, clear), SIZE)
    assert (result[:8] == 0).all()
    assert np.abs(result[8:] - np.linspace(0, 255, SIZE)).max() <= 1


def test_sixteen_bits_that_are_filled_are_not_stretched() -> None:
    result = decode(file(twelve_in_sixteen(16, 32768)), SIZE)
    assert (result.min(), result.max()) == (128, 255)


def test_the_transparent_value_is_no_value_present() -> None:
    values = twelve_in_sixteen(12, 1000)
    values[:8] = 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    result = decode(png(SIZE, SIZE, 16, 0, rows, chunk(b"tRNS", b"\xff\xff")), SIZE)
    assert (result[:8] == 0).all()
    assert np.abs(result[8:] - np.linspace(0, 255, SIZE)).max() <= 1


@given(
    values=st.lists(st.integers(0, 2**15 - 1), min_size=32, max_size=32),
    factor=st.integers(1, 3),
    shift=st.integers(0, 20),
)
def test_sixteen_bits_rise_with_the_values(values: list[int], factor: int, shift: int) -> None:
    row = np.array(values, np.uint16)
    shown = decode(file(np.tile(row, (32, 1))), 32)[0].astype(int)
    assert (np.diff(shown[np.argsort(row, kind="stable")]) >= 0).all()
    few = row // 16
    again = decode(file(np.tile(factor * few + shift, (32, 1))), 32)[0]
    assert_array_equal(again, decode(file(np.tile(few, (32, 1))), 32)[0])
