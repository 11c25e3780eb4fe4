"""PixelData → stored values (rows, columns), unsigned as they lie in the file (PS3.5, 8 and A.4).

| syntax | decoder | licence |
| --- | --- | --- |
| JPEG baseline, extended (12 bits), lossless | imagecodecs: libjpeg-turbo | BSD-3, IJG |
| JPEG-LS | imagecodecs: CharLS | BSD-3 |
| JPEG 2000, HTJ2K | pylibjpeg-openjpeg: OpenJPEG | MIT, BSD-2 |
| RLE | Pillow: PackBits | MIT-CMU |
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from imagecodecs import jpeg8_decode, jpegls_decode
from openjpeg.utils import decode, get_parameters
from PIL import Image
from pydicom import uid

from handlers import dicom_codestream
from handlers.dicom_codestream import Codestream
from handlers.dicom_elements import Encoding, broken, cut_short, named
from handlers.dicom_parser import Body
from handlers.errors import ImageError
from handlers.limits import check_pixels

MAX_FRAGMENTS = 10_000  # of one frame; of 4 KB each, they are 40 MB

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

NATIVE: dict[str, Encoding] = {
    uid.ImplicitVRLittleEndian: Encoding(explicit=False),
    uid.ExplicitVRLittleEndian: Encoding(),
    uid.ExplicitVRBigEndian: Encoding(big=True),
}
_JPEG = frozenset(
    (
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
    )
)
_JPEG_2000 = frozenset(
    (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
)
DECODED: frozenset[str] = frozenset((*NATIVE, *_JPEG, *_JPEG_2000, uid.RLELossless))


@dataclass(frozen=True)
class Shape:
    """What the tags say of the frame's values."""

    rows: int
    columns: int
    allocated: int  # bits, 8 or 16
    bits: int  # that are stored
    signed: bool

    @property
    def values(self) -> int:
        """How many values the frame has."""
        return self.rows * self.columns

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Of a stored value."""
        return np.dtype(f"u{self.allocated // 8}")


def stored(
    data: memoryview, body: Body, syntax: str | None, shape: Shape, max_pixels: int
) -> npt.NDArray[np.unsignedinteger]:
    """The frame's values (rows, columns), without sign, bits above Bits Stored as they are.

    `syntax` is None where the file names none.

    Raises:
        ImageError: 400 broken, cut short or not as the tags say; 413 too many pixels; 415 a coding
            that is not decoded.
    """
    if body.length is not None:
        if body.vr not in ("", "OB", "OW"):
            raise broken(f"{named('PixelData')} is neither OB nor OW")
        if syntax is not None and syntax not in NATIVE:
            raise broken(f"{named('PixelData')} is not encapsulated, as its transfer syntax says")
        check_pixels(shape.columns, shape.rows, len(data), max_pixels)
        return _native(data, body, body.length, shape)
    if body.vr not in ("OB", "OW"):
        raise broken(f"{named('PixelData')} has no length, and is neither OB nor OW")
    if syntax in NATIVE:
        raise broken(
            f"{named('PixelData')} is encapsulated, which its transfer syntax does not say"
        )
    fragments = _fragments(data, body.start)
    whole = fragments[0] if len(fragments) == 1 else memoryview(b"".join(fragments))
    frame = bytes(whole) if dicom_codestream.is_codestream(bytes(whole[:4])) else b""
    if dicom_codestream.is_jpeg(frame):
        header = dicom_codestream.jpeg(frame)
    elif dicom_codestream.is_jpeg2000(frame):
        header = dicom_codestream.jpeg2000(frame, (shape.rows, shape.columns))
    elif syntax in (None, uid.RLELossless):
        check_pixels(shape.columns, shape.rows, len(whole), max_pixels)
        return _run_lengths(whole, shape)
    else:
        raise broken(
            f"{named('PixelData')} holds no bare codestream, which its transfer syntax demands"
        )
    check_pixels(shape.columns, shape.rows, header.coded, max_pixels)
    _check(header, shape)
    values = _jpeg_2000 if dicom_codestream.is_jpeg2000(frame) else _jpeg
    try:
        decoded = values(frame[: header.end], header)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # whatever a decoder makes of hostile bytes
        raise broken(f"{named('PixelData')} holds a damaged frame: it can't be decoded") from error
    if header.bits > shape.bits and not shape.signed:  # a lossy coding may exceed the bits stored
        decoded = np.minimum(decoded, decoded.dtype.type(2**shape.bits - 1))
    return decoded


def _native(
    data: memoryview, body: Body, length: int, shape: Shape
) -> npt.NDArray[np.unsignedinteger]:
    """Values as they lie in the file; 8 bits in big-endian words are swapped (PS3.5, 7.3)."""
    size = shape.values * shape.dtype.itemsize
    if length < size:
        raise broken(
            f"{named('PixelData')} has {length:,} bytes, Rows and Columns need {size:,}: it is cut "
            "short or they are wrong"
        )
    content = data[body.start : body.start + length]
    if shape.allocated == 8 and body.encoding.big and body.vr == "OW":
        swapped = np.frombuffer(content[: length - length % 2], ">u2").astype("<u2")
        return swapped.view(np.uint8)[: shape.values].reshape(shape.rows, shape.columns)
    values = np.frombuffer(content, shape.dtype.newbyteorder(body.encoding.order), shape.values)
    return values.reshape(shape.rows, shape.columns)


def _fragments(data: memoryview, start: int) -> list[memoryview]:
    """The fragments of an encapsulated frame, without the offset table (PS3.5, A.4)."""
    fragments: list[memoryview] = []
    place = start
    while True:
        if place + 8 > len(data):
            raise cut_short(named("PixelData"))
        tag, length = bytes(data[place : place + 4]), data[place + 4 : place + 8]
        place += 8
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM:
            raise broken(f"{named('PixelData')} holds something else than fragments")
        end = place + int.from_bytes(length, "little")
        if end > len(data):
            raise cut_short(named("PixelData"))
        fragments.append(data[place:end])
        if len(fragments) > MAX_FRAGMENTS:
            raise ImageError(
                413,
                "TooManyBytes",
                f"DICOM {named('PixelData')} has more than {MAX_FRAGMENTS:,} fragments: "
                "write one frame as one fragment.",
            )
        place = end
    if len(fragments) < 2:
        raise broken(f"{named('PixelData')} holds no frame")
    return fragments[1:]


def _check(header: Codestream, shape: Shape) -> None:
    """Refuse a frame that is not of the size, depth and one component that the tags say."""
    if (header.rows, header.columns) != (shape.rows, shape.columns):
        raise broken("Rows and Columns are not those of the frame")
    if header.components != 1:
        raise broken(f"{named('SamplesPerPixel')} is not that of the frame")
    if not 2 <= header.bits <= shape.allocated:
        raise broken(f"{named('BitsAllocated')} does not hold the frame's values")


def _jpeg(frame: bytes, header: Codestream) -> npt.NDArray[np.unsignedinteger]:
    values = np.empty((header.rows, header.columns), np.uint8 if header.bits <= 8 else np.uint16)
    decoder = jpegls_decode if header.coding == dicom_codestream.JPEG_LS else jpeg8_decode
    decoder(frame, out=values)  # raises where its own header says another size
    return values


def _jpeg_2000(frame: bytes, header: Codestream) -> npt.NDArray[np.unsignedinteger]:
    says = get_parameters(frame, 0)
    size = says["rows"], says["columns"], says["samples_per_pixel"], says["precision"]
    if size != (header.rows, header.columns, 1, header.bits):
        raise broken("Rows and Columns are not those of the frame")
    values = decode(frame, 0, reshape=False)
    return values.view("u1" if header.bits <= 8 else "<u2").reshape(header.rows, header.columns)


def _run_lengths(frame: memoryview, shape: Shape) -> npt.NDArray[np.unsignedinteger]:
    """RLE (PS3.5, G): a segment a byte of a value, high byte first, each in PackBits."""
    if len(frame) < 64:
        raise cut_short(named("PixelData"))
    count, *offsets = struct.unpack_from("<16L", frame)
    if count != shape.dtype.itemsize:
        raise broken(f"{named('PixelData')} has not one RLE segment for each byte of a value")
    starts = [*offsets[:count], len(frame)]
    if sorted(starts) != starts or starts[0] < 64:
        raise broken(f"{named('PixelData')} has RLE segments outside of its frame")
    values = np.empty((shape.values, count), np.uint8)
    for plane in range(count):
        segment = frame[starts[plane] : starts[plane + 1]]
        try:
            row = Image.frombytes("L", (shape.values, 1), segment, "packbits", "L")
        except ValueError as error:
            raise broken(f"{named('PixelData')} holds RLE that is cut short or damaged") from error
        values[:, count - 1 - plane] = np.asarray(row)[0]
    return values.view(f"<u{count}").reshape(shape.rows, shape.columns)
