"""The chunks of a PNG, walked without decoding: W3C PNG, third edition, section 5."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from handlers.errors import ImageError
from handlers.exif import orientation
from handlers.picture import Picture

MAGIC = b"\x89PNG\r\n\x1a\n"

# libpng writes 8 KiB of pixels a chunk, so that 32 MiB are 4,096 chunks; no encoder is known that
# writes less than 1 KiB.
MAX_CHUNKS = 2**15
MAX_TEXT, MAX_TEXTS = 2**20, 2**23  # bytes that a text, and all, may inflate to; real: kilobytes

MAX_HEADERS = {b"IHDR": 13, b"PLTE": 3 * 256, b"tRNS": 256}  # bytes, section 11

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF = b"exif"
_PROFILE = b"Raw profile type exif"  # how ImageMagick keeps EXIF
_XMP = b"XML:com.adobe.xmp"


@dataclass(frozen=True)
class Chunk:
    """A chunk's type, and its content, without a copy."""

    kind: bytes
    content: memoryview
    intact: bool  # by its checksum


def chunks(data: bytes | bytearray) -> Iterator[Chunk]:
    """The chunks up to IEND, or to where there is none any more; IDAT is not checked.

    Raises:
        ImageError: 413, there are too many.
    """
    view = memoryview(data)
    place = len(MAGIC)
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, place)
        if not kind.isalpha():
            return
        content = view[place + 8 : place + 8 + length]
        checksum = view[place + 8 + length : place + 12 + length]
        intact = kind == b"IDAT" or int.from_bytes(checksum, "big") == zlib.crc32(
            content, zlib.crc32(kind)
        )
        yield Chunk(kind, content, intact)
        if kind == b"IEND":
            return
        place += 12 + length
    raise ImageError(
        413, "TooManyChunks", f"The PNG has more than {MAX_CHUNKS:,} chunks: save it anew."
    )


def read(data: bytes | bytearray) -> Picture:
    """The picture of a PNG file: its header, palette, transparency and the first run of IDAT.

    Texts, profiles, the frames of an animation and what follows IEND are left out.

    Raises:
        ImageError: 413, it has too many chunks.
        ValueError: it is no PNG, or a text in it inflates to more than `MAX_TEXT`.
    """
    headers: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    texts = _Texts()
    ended = False
    for chunk in chunks(data):
        if chunk.kind == b"IDAT":
            if not ended:
                pixels.append(chunk.content)
            continue
        ended = bool(pixels)
        if not (ended or chunk.intact):
            raise ValueError(f"a wrong checksum in {chunk.kind.decode()}")
        if chunk.kind in MAX_HEADERS and not ended:
            if chunk.kind in headers or len(chunk.content) > MAX_HEADERS[chunk.kind]:
                raise ValueError(f"two {chunk.kind.decode()} chunks, or one that is too long")
            headers[chunk.kind] = bytes(chunk.content)
        elif chunk.kind == b"eXIf":
            texts.kept[_EXIF] = bytes(chunk.content)
        elif chunk.kind in _TEXTS:
            texts.add(chunk)
    if not pixels or len(headers.get(b"IHDR", b"")) < MAX_HEADERS[b"IHDR"]:
        raise ValueError("it ends before the picture begins")
    width, height, depth = struct.unpack_from(">IIB", headers[b"IHDR"])
    content = [MAGIC, *(_chunk(kind, [headers[kind]]) for kind in headers)]
    return Picture(
        width=width,
        height=height,
        depth=depth,
        coded=sum(map(len, pixels)),
        buffers=0,
        scans=1,
        orientation=orientation(texts.exif(), texts.kept.get(_XMP)),
        scalable=False,
        content=b"".join([*content, _chunk(b"IDAT", pixels), _chunk(b"IEND", [])]),
    )


def _chunk(kind: bytes, contents: Sequence[bytes | memoryview]) -> bytes:
    length, checksum = 0, zlib.crc32(kind)
    for content in contents:
        length, checksum = length + len(content), zlib.crc32(content, checksum)
    head, tail = struct.pack(">I", length) + kind, struct.pack(">I", checksum)
    return b"".join([head, *contents, tail])


class _Texts:
    """The texts that say how the picture lies, by keyword; all that are compressed are counted."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self._left = MAX_TEXTS

    def add(self, chunk: Chunk) -> None:
        """Keep a text that is wanted. Raises ValueError where it inflates to too much."""
        if len(chunk.content) > MAX_TEXT:
            return  # a picture with a note, which is not read
        keyword, _, text = bytes(chunk.content).partition(b"\0")
        packed = chunk.kind == b"zTXt"
        if chunk.kind == b"iTXt":  # flag, method, language, translated keyword, text
            packed = text[:1] == b"\1"
            text = text[2:].split(b"\0", 2)[-1]
        elif packed:
            text = text[1:]  # after the method, of which there is one
        if packed:
            text = self._inflate(text)
        if keyword in (_EXIF, _PROFILE, _XMP):
            self.kept[keyword] = text

    def _inflate(self, text: bytes) -> bytes:
        try:
            inflated = zlib.decompressobj().decompress(text, MAX_TEXT + 1)
        except zlib.error:
            return b""
        self._left -= len(inflated)
        if len(inflated) > MAX_TEXT or self._left < 0:
            raise ValueError(f"its texts inflate to more than {MAX_TEXT:,} bytes")
        return inflated

    def exif(self) -> bytes | None:
        """The EXIF block, by its own chunk or as ImageMagick's lines of hexadecimal digits."""
        if _EXIF in self.kept or _PROFILE not in self.kept:
            return self.kept.get(_EXIF)
        lines = self.kept[_PROFILE].decode("latin-1").split("\n")[3:]
        try:
            return bytes.fromhex("".join(lines))
        except ValueError:
            return b"no hexadecimal digits"
