"""What a compressed frame says of itself, in the one form that its decoder can't read differently.

JPEG and JPEG-LS: ITU-T T.81, B and ITU-T T.87, C. JPEG 2000: ITU-T T.800, A. A marker that one grey
frame does not need is refused: decoders disagree on what such a marker means.
"""

import struct
from dataclasses import dataclass

from handlers.dicom_elements import broken
from handlers.errors import ImageError
from handlers.limits import FEW

MAX_SEGMENTS = 1_000  # before the coded data; encoders write about ten
MAX_SCANS = 16  # a progressive grey JPEG has about six

# Of JPEG 2000. A decoder allocates each of these before it reads a byte of their data.
MAX_TILES = 4_096
MAX_TILE_PARTS = 16_384
MAX_BLOCKS = 250_000  # of coefficients; of 64 x 64, 50 million pixels have 16,000
MAX_PACKETS = 1_000_000
# Pixels a coded byte above `FEW`: OpenJPEG takes eight bytes a pixel. At 20 : 1, radiographs of 16
# bits have 10.
DENSITY = 16

BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC2, 0xC3, 0xF7
_FRAMES = frozenset((BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS, JPEG_LS))
_DHT, _DQT, _DRI, _COM, _LSE, _SOS = 0xC4, 0xDB, 0xDD, 0xFE, 0xF8, 0xDA
_TABLES = frozenset((_DHT, _DQT, _DRI, _COM, _LSE, *range(0xE0, 0xF0)))
_EOI = b"\xff\xd9"

_J2K = b"\xff\x4f\xff\x51"
_COD, _COC, _SOT, _SOD = 0x52, 0x53, 0x90, 0x93
# CAP, COC, TLM, PLM, CPF, QCD, QCC, RGN, CRG, COM; of a tile-part: PLT, QCD, QCC, COM.
_MAIN = frozenset((0x50, _COD, _COC, 0x55, 0x57, 0x59, 0x5C, 0x5D, 0x5E, 0x63, 0x64))
_TILE_PART = frozenset((0x58, 0x5C, 0x5D, 0x64))


@dataclass(frozen=True)
class Codestream:
    """A frame's own size in pixels, bits a sample, kind of coding and coded bytes."""

    rows: int
    columns: int
    bits: int
    components: int
    coding: int  # JPEG's marker of the start of frame; 0 for JPEG 2000
    coded: int  # bytes of coded data, without tables and what follows the image
    end: int  # where the image ends in the frame


def _damaged(why: str) -> ImageError:
    return ImageError(400, "BrokenImage", f"DICOM PixelData holds a damaged frame: {why}.")


def _undecoded(why: str) -> ImageError:
    return ImageError(
        415,
        "TransferSyntax",
        f"DICOM PixelData holds {why}, which is not decoded here: send Explicit VR Little Endian.",
    )


def is_codestream(start: bytes) -> bool:
    """Whether a frame that starts so is of a kind that tells its own size."""
    return is_jpeg(start) or is_jpeg2000(start)


def is_jpeg(frame: bytes) -> bool:
    """Whether a frame is JPEG or JPEG-LS."""
    return frame.startswith(b"\xff\xd8")


def is_jpeg2000(frame: bytes) -> bool:
    """Whether a frame is a bare JPEG 2000 codestream."""
    return frame.startswith(_J2K)


def jpeg(frame: bytes) -> Codestream:
    """The header of a JPEG or JPEG-LS frame.

    Raises:
        ImageError: 400 damaged or cut short; 413 too many scans; 415 a coding that no transfer
            syntax has.
    """
    place = 2
    header: tuple[int, int, int, int, int] | None = None
    for _ in range(MAX_SEGMENTS):
        if len(frame) < place + 4:
            raise _damaged("it ends before its coded data")
        if frame[place] != 0xFF or frame[place + 1] == 0xFF:
            raise _damaged("bytes between the segments of its header")
        marker = frame[place + 1]
        (length,) = struct.unpack_from(">H", frame, place + 2)
        if marker in _FRAMES:
            if header is not None:
                raise _damaged("two starts of frame")
            if length < 8 or len(frame) < place + 2 + length:
                raise _damaged("its start of frame is too short")
            header = (marker, *struct.unpack_from(">BHHB", frame, place + 4))
        elif marker == _SOS:
            break
        elif marker not in _TABLES:
            raise _undecoded(f"JPEG with the marker FF{marker:02X}")
        elif marker == _LSE and frame[place + 4 : place + 5] != b"\1":
            raise _undecoded("JPEG-LS with parameters other than presets")
        if length < 2:
            raise _damaged("a segment of its header has no length")
        place += 2 + length
    else:
        raise _damaged(f"more than {MAX_SEGMENTS:,} segments before its coded data")
    if header is None:
        raise _damaged("no start of frame before its coded data")
    end = frame.find(_EOI, place)
    if end < 0:  # CharLS searches for seconds where nothing ends the data
        raise _damaged("it is cut short, its end is missing: send the whole file")
    scans = frame.count(bytes((0xFF, _SOS)), place, end)
    if scans > MAX_SCANS:
        raise ImageError(
            413,
            "TooManyScans",
            f"The JPEG has {scans:,} scans, the limit is {MAX_SCANS}: save it anew.",
        )
    coding, bits, rows, columns, components = header
    return Codestream(rows, columns, bits, components, coding, end - place, end + len(_EOI))


def jpeg2000(frame: bytes, size: tuple[int, int]) -> Codestream:
    """The header of a JPEG 2000 codestream of `size` (rows, columns), its parts counted.

    Raises:
        ImageError: 400 damaged, cut short or of another size; 413 too many tiles, code-blocks or
            packets; 415 what is not decoded.
    """
    if len(frame) < 45:
        raise _damaged("it ends within its header")
    length, _, x1, y1, x0, y0, tile_w, tile_h, tile_x, tile_y, components, depth, dx, dy = (
        struct.unpack_from(">HHIIIIIIIIHBBB", frame, 4)
    )
    if components != 1 or length != 41:
        raise _undecoded(f"JPEG 2000 of {components} components")
    if not (tile_x <= x0 < x1 and tile_y <= y0 < y1 and tile_w and tile_h and dx == dy == 1):
        raise _damaged("its size is contradictory")
    columns, rows = x1 - x0, y1 - y0
    if (rows, columns) != size:
        raise broken("Rows and Columns are not those of the frame")
    tiles = -((tile_x - x1) // tile_w) * -((tile_y - y1) // tile_h)
    if tiles > MAX_TILES:
        raise _too_many("tiles", tiles, MAX_TILES)
    place = 4 + length
    codings: list[bytes] = []
    layers = 0
    for _ in range(MAX_SEGMENTS):
        marker, content, after = _segment(frame, place)
        if marker == _SOT:
            break
        if marker not in _MAIN:
            raise _undecoded(f"JPEG 2000 with the marker FF{marker:02X}")
        if marker == _COD:
            if len(content) < 10:
                raise _damaged("its coding style is too short")
            layers = int.from_bytes(content[2:4], "big")
            codings.append(content[:1] + content[5:])
        elif marker == _COC:
            codings.append(content[1:])
        place = after
    else:
        raise _damaged(f"more than {MAX_SEGMENTS:,} segments in its header")
    if not layers:
        raise _damaged("it has no coding style")
    for coding in codings:
        _count(coding, min(columns, tile_w), min(rows, tile_h), tiles, layers)
    end = _tile_parts(frame, place)
    if rows * columns > max(FEW, DENSITY * (end - place)):
        what = f"pixels in {end - place:,} coded bytes"
        raise _too_many(what, rows * columns, max(FEW, DENSITY * (end - place)))
    return Codestream(rows, columns, (depth & 0x7F) + 1, components, 0, end - place, end)


def _segment(frame: bytes, place: int) -> tuple[int, bytes, int]:
    """(second byte of its marker, content, where it ends) of a marker segment."""
    if len(frame) < place + 4 or frame[place] != 0xFF:
        raise _damaged("it is cut short or a segment of its header has a wrong length")
    (length,) = struct.unpack_from(">H", frame, place + 2)
    if length < 2 or len(frame) < place + 2 + length:
        raise _damaged("it is cut short or a segment of its header has a wrong length")
    return frame[place + 1], frame[place + 4 : place + 2 + length], place + 2 + length


def _too_many(what: str, count: int, limit: int) -> ImageError:
    return ImageError(
        413,
        "TooManyPixels",
        f"The JPEG 2000 frame has {count:,} {what}, the limit is {limit:,}: save it anew.",
    )


def _count(coding: bytes, width: int, height: int, tiles: int, layers: int) -> None:
    """Refuse too many code-blocks or packets by a coding style (T.800, A.6.1 and B.6 to B.12).

    `coding` is Scod, then levels, code-block width, height, style, transform and precincts.
    """
    if len(coding) < 6:
        raise _damaged("its coding style is too short")
    levels, block_w, block_h = coding[1], coding[2] + 2, coding[3] + 2
    precincts = coding[6:] if coding[0] & 1 else b"\xff" * (levels + 1)
    if levels > 32 or max(block_w, block_h) > 10 or len(precincts) <= levels:
        raise _damaged("its coding style is contradictory")
    blocks = packets = 0
    for level in range(levels + 1):
        scale = levels - level
        w, h = -(-width >> scale), -(-height >> scale)
        precinct_w, precinct_h = precincts[level] & 15, precincts[level] >> 4
        band = min(level, 1)  # a precinct is halved into the bands of every level but the first
        if min(precinct_w, precinct_h) < band:
            raise _damaged("its coding style is contradictory")
        inner_w, inner_h = min(block_w, precinct_w - band), min(block_h, precinct_h - band)
        packets += ((w >> precinct_w) + 2) * ((h >> precinct_h) + 2)
        blocks += ((w >> inner_w) + 2) * ((h >> inner_h) + 2)
    if blocks * tiles > MAX_BLOCKS:
        raise _too_many("code-blocks", blocks * tiles, MAX_BLOCKS)
    if packets * tiles * layers > MAX_PACKETS:
        raise _too_many("packets", packets * tiles * layers, MAX_PACKETS)


def _tile_parts(frame: bytes, place: int) -> int:
    """Walk the tile-parts to the end of the codestream, and say where that is (T.800, A.4)."""
    for _ in range(MAX_TILE_PARTS):
        if frame[place : place + 2] == _EOI:
            return place + len(_EOI)
        marker, content, inner = _segment(frame, place)
        if marker != _SOT or len(content) != 8:
            raise _damaged("it is cut short or a tile-part has a wrong length")
        (length,) = struct.unpack_from(">I", content, 2)
        end = place + length if length else max(frame.rfind(_EOI), inner)  # 0: up to the end
        for _ in range(MAX_SEGMENTS):
            if frame[inner : inner + 2] == bytes((0xFF, _SOD)):
                break
            marker, content, inner = _segment(frame, inner)
            if marker not in _TILE_PART:
                raise _undecoded(f"JPEG 2000 with the marker FF{marker:02X} in a tile-part")
        else:
            raise _damaged(f"more than {MAX_SEGMENTS:,} segments in a tile-part")
        if not inner + 2 <= end <= len(frame):
            raise _damaged("it is cut short or a tile-part has a wrong length")
        place = end
    raise _too_many("tile-parts", MAX_TILE_PARTS + 1, MAX_TILE_PARTS)
