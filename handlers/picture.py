"""A picture's own bytes, apart from what else its file holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """What a JPEG or PNG claims of its picture, and the bytes that its decoder needs.

    `content` is a file of the same format without metadata and without what follows the picture;
    `coded` counts the bytes that hold pixels. `buffers` are the bytes that a decoder holds beside
    the decoded image and passes over in each of `scans`. `depth` is the bits of a channel,
    `orientation` as in EXIF, 1 to 8; what is `scalable` can be decoded at 1/2, 1/4 or 1/8.
    """

    width: int
    height: int
    depth: int
    coded: int
    buffers: int
    scans: int
    orientation: int
    scalable: bool
    content: bytes
