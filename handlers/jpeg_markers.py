"""The segments of a JPEG, walked without decoding: ITU-T T.81, annex B; JPEG-LS: T.87."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from handlers.errors import ImageError
from handlers.exif import orientation
from handlers.picture import Picture

MAGIC = b"\xff\xd8\xff"
SOI_BYTES = b"\xff\xd8"

# A segment holds up to 64 KiB, so that 32 MiB are full with 512. A radiograph has 6 to 30, a
# phone's picture with a depth map in XMP up to 200.
MAX_SEGMENTS = 4096
MAX_GAP = 2**16  # bytes before a marker that belong to no segment; real files have 0
MAX_FILL = 4096  # FF in a row within a scan; real files have 0
MAX_TABLES = 2**16  # bytes of tables before the first scan; real files have 200 to 1,000
MAX_SCANS = 64  # a progressive JPEG has about ten

# T.81, table B.1: the second byte of a marker.
SOF0, SOF_LS, DHT, JPG, DAC = 0xC0, 0xF7, 0xC4, 0xC8, 0xCC
RST0, SOI, EOI, SOS, DQT, DNL, DRI = 0xD0, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD
APP0, APP1, APP14, APP15, COM = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
FRAMES = frozenset(range(SOF0, RST0)) - {DHT, JPG, DAC}
LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
TABLES = frozenset({DHT, DAC, DQT, DNL, DRI})

COLOURS = frozenset({(APP0, b"JFIF\0"), (APP14, b"Adobe")})  # what says YCbCr, RGB, CMYK or YCCK
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

_MARKER = re.compile(rb"\xff[^\x00\xff]")
# Within coded data FF 00 is a value, FF D0 to FF D7 restart it, and decoders pass over what is
# reserved. JPEG-LS stuffs a bit, so that its values go up to FF 7F.
_AFTER_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_AFTER_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
# Pillow hands libjpeg a longer run again and again, with 64 KiB more each time: 9 s for 32 MiB.
_FILL = b"\xff" * MAX_FILL


@dataclass(frozen=True)
class Segment:
    """A marker (its second byte), where it starts and where its payload lies.

    `end` is where the next one may start: past the coded data of a scan, else `stop`.
    """

    marker: int
    start: int
    payload: int
    stop: int
    end: int


@dataclass(frozen=True)
class Frame:
    """A frame header: bits of a sample, sides in pixels, sampling factors (H, V) by component."""

    marker: int
    depth: int
    height: int
    width: int
    sampling: Sequence[tuple[int, int]]

    def coefficients(self) -> int:
        """Bytes of all coefficients, which a decoder keeps until the last of several scans."""
        if not all(1 <= factor <= 4 for pair in self.sampling for factor in pair):
            raise ValueError("a sampling factor is not 1 to 4")
        across = max((h for h, _ in self.sampling), default=1)
        down = max((v for _, v in self.sampling), default=1)
        units = -(-self.width // (8 * across)) * -(-self.height // (8 * down))
        return 2 * 64 * units * sum(h * v for h, v in self.sampling)


def segments(data: bytes | bytearray) -> Iterator[Segment]:
    """The segments from SOI to EOI, or to the end of the bytes where there is no EOI.

    Raises:
        ImageError: 413, there are too many.
        ValueError: what stands there is no segment.
    """
    view = memoryview(data)
    place, after_scan = 2, _AFTER_SCAN
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.search(data, place, place + MAX_GAP + 2)
        if match is None:
            if place + MAX_GAP < len(data):
                raise ValueError(f"no JPEG marker within {MAX_GAP:,} bytes")
            return
        start, payload = match.span()
        marker = data[start + 1]
        stop = end = payload
        if marker >= SOF0 and not RST0 <= marker <= EOI:
            length = int.from_bytes(view[payload : payload + 2], "big")
            if length < 2 and (APP0 <= marker <= APP15 or marker == COM):
                length = 2  # as decoders have it
            stop = end = payload + length
            payload += 2
            if length < 2 or stop > len(data):
                raise ValueError(f"the length of the segment FF{marker:02X} is wrong")
        if marker == SOF_LS:
            after_scan = _AFTER_LS_SCAN
        if marker == SOS:
            following = after_scan.search(data, stop)
            end = following.start() if following else len(data)
            if data.find(_FILL, stop, end) >= 0:
                raise ValueError(f"more than {MAX_FILL:,} fill bytes in a scan")
        yield Segment(marker, start, payload, stop, end)
        if marker == EOI:
            return
        place = end
    raise ImageError(
        413,
        "TooManySegments",
        f"The JPEG has more than {MAX_SEGMENTS:,} segments: save it anew.",
    )


def check_scans(jpeg: bytes | bytearray) -> None:
    """Refuse a JPEG of very many scans: of 20 bytes each, each is decoded over the whole image.

    Raises:
        ImageError: 413.
        ValueError: as `segments` does.
    """
    count = sum(segment.marker == SOS for segment in segments(jpeg))
    if count > MAX_SCANS:
        raise too_many_scans(f"{count:,} scans, the limit is {MAX_SCANS}")


def too_many_scans(what: str) -> ImageError:
    """A refusal that names how many."""
    return ImageError(413, "TooManyScans", f"The JPEG has {what}: save it anew, not progressive.")


def frame(marker: int, content: bytes | memoryview) -> Frame:
    """The frame header in the payload of an SOF segment (T.81, B.2.2).

    Raises:
        ValueError: it is cut short.
    """
    payload = bytes(content)
    if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
        raise ValueError("the frame header is cut short")
    return Frame(
        marker,
        payload[0],
        int.from_bytes(payload[1:3], "big"),
        int.from_bytes(payload[3:5], "big"),
        [divmod(factors, 16) for factors in payload[7::3]],
    )


def read(data: bytes | bytearray) -> Picture:
    """The picture of a JPEG file: its scans, its tables, and the APP segments that name colours.

    Comments, profiles, previews and all else that only describes the picture are left out, as is
    what follows it: a phone's film, a second picture.

    Raises:
        ImageError: 413, it has too many segments or scans.
        ValueError: it is no JPEG of one picture.
    """
    view = memoryview(data)
    header = _Header()
    coded = scans = start = 0
    end = len(data)  # of a file that is cut short, which its decoder says
    for segment in segments(data):
        if segment.marker == EOI:
            end = segment.end
            break
        if segment.marker == SOS:
            if scans and not header.several:
                raise ValueError("a scan behind the only one that its frame has")
            start = start or segment.start
            scans += 1
            coded += segment.end - segment.start
            if scans > MAX_SCANS:
                raise too_many_scans(f"more than {MAX_SCANS} scans")
        if not scans or segment.start == start:
            header.add(segment.marker, view[segment.payload : segment.stop])
    if header.frame is None or not scans:
        raise ValueError("it ends before the picture begins")
    return Picture(
        width=header.frame.width,
        height=header.frame.height,
        depth=header.frame.depth,
        coded=coded,
        buffers=header.frame.coefficients() if header.several else 0,
        scans=scans,
        orientation=orientation(b"".join(header.exif) if header.exif else None, header.xmp),
        scalable=header.frame.marker not in LOSSLESS,
        content=b"".join([SOI_BYTES, *header.parts, view[start:end]]),
    )


class _Header:
    """What precedes the first scan, sorted into what the decoder needs and what describes."""

    def __init__(self) -> None:
        self.frame: Frame | None = None
        self.several = False  # scans, each over the whole picture
        self.parts: list[bytes] = []
        self.exif: list[memoryview] = []
        self.xmp: bytes | None = None
        self._tables = 0

    def add(self, marker: int, payload: memoryview) -> None:
        """Sort a segment in. Raises ValueError where it has no place here."""
        if marker == SOS:
            if self.frame is None or not payload:
                raise ValueError("a scan without a frame")
            partial = payload[0] < len(self.frame.sampling)
            self.several = partial or self.frame.marker in PROGRESSIVE
        elif marker in FRAMES:
            if self.frame is not None:
                raise ValueError("two frame headers")
            self.frame = frame(marker, payload)
            self._keep(marker, payload)
        elif marker in TABLES:
            self._tables += len(payload)
            if self._tables > MAX_TABLES:
                raise ValueError(f"more than {MAX_TABLES:,} bytes of tables")
            self._keep(marker, payload)
        elif marker == APP1 and payload[: len(_EXIF)] == _EXIF:
            self.exif.append(payload[len(_EXIF) :])
        elif marker == APP1 and payload[: len(_XMP)] == _XMP:
            self.xmp = bytes(payload[len(_XMP) :])
        elif (marker, bytes(payload[:5])) in COLOURS:
            self._keep(marker, payload)
        elif not (APP0 <= marker <= APP15 or marker == COM or RST0 <= marker < SOI):
            raise ValueError(f"the marker FF{marker:02X} before the picture")

    def _keep(self, marker: int, payload: memoryview) -> None:
        self.parts.append(bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload)
