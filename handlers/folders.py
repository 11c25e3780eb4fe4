"""Which files of a folder are images: the one walk, for training, client and batch.

It needs the standard library alone, since the client imports it.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Read, or refused by their decoder with what they are; a name with another suffix, or with none,
# is judged by the file's first bytes.
SUFFIXES = frozenset(
    {".dcm", ".jpe", ".jpeg", ".jfif", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
)

# What systems leave in folders, in lower case, and the index of a DICOM medium.
_LEFTOVERS = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})
_DICOMDIR = "dicomdir"

_DICOM = 128, b"DICM"  # PS3.10, 7.1: where it stands, and what
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")

# Control characters, line separators, marks that turn the direction of a line, bytes that are not
# UTF-8 (os.fsdecode), and the backslash that escapes them.
_UNPRINTABLE = re.compile("[\\\\\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4}))")


# Why a file or folder is passed over.
HIDDEN = "hidden, or left by a system"
DANGLING = "a link that leads nowhere"
REPEATED = "a link to a folder that is read already"
SPECIAL = "neither a file nor a folder"
NO_IMAGE = "no image by its name or its first bytes"
INDEX = "the index of a DICOM medium"


@dataclass(frozen=True)
class ImageFile:
    """An image, and its path below the folder that was walked."""

    path: Path
    relative: PurePosixPath


@dataclass(frozen=True)
class PassedOver:
    """A file or folder that was not read, and why."""

    relative: PurePosixPath
    reason: str

    def __str__(self) -> str:
        """One line to print."""
        return f"{printable(self.relative)}: {self.reason}"


@dataclass(frozen=True)
class Walk:
    """The images below a folder in the order of their paths, and what else lies there."""

    images: Sequence[ImageFile]
    passed_over: Sequence[PassedOver]

    @property
    def remarkable(self) -> Sequence[PassedOver]:
        """What was passed over and may be missed: all but hidden files and systems' leftovers."""
        return [entry for entry in self.passed_over if entry.reason != HIDDEN]


def images(root: Path) -> Walk:
    """The images below a folder, or the one file that `root` is, whatever its name.

    Hidden files and folders are passed over. Links are followed, each folder once, under its own
    name where it has one below `root`; of the same folder behind two links, the first counts.

    Raises:
        OSError: `root` can't be read.
    """
    if stat.S_ISREG(root.stat().st_mode):
        return Walk([ImageFile(root, PurePosixPath(root.name))], [])
    walker = _Walker(root)
    return Walk(
        sorted(walker.images, key=lambda image: image.relative.parts),
        sorted(walker.passed_over, key=lambda entry: entry.relative.parts),
    )


class _Walker:
    def __init__(self, root: Path) -> None:
        self.images: list[ImageFile] = []
        self.passed_over: list[PassedOver] = []
        self._links: list[tuple[Path, PurePosixPath]] = []
        self._read: set[tuple[int, int]] = set()
        self._folder(root, PurePosixPath())
        while self._links:  # after the folders that lie here themselves
            path, relative = self._links.pop(0)
            self._folder(path, relative)

    def _pass(self, relative: PurePosixPath, reason: str) -> None:
        self.passed_over.append(PassedOver(relative, reason))

    def _folder(self, root: Path, below: PurePosixPath) -> None:
        folders = [(root, below)]
        while folders:
            folder, relative = folders.pop()
            try:
                status = folder.stat()
                identity = status.st_dev, status.st_ino
                if identity in self._read:
                    self._pass(relative, REPEATED)
                    continue
                self._read.add(identity)
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                if not relative.parts:
                    raise
                self._pass(relative, _unreadable(error))
                continue
            folders += reversed(list(self._entries(folder, relative, entries)))

    def _entries(
        self, folder: Path, below: PurePosixPath, entries: Sequence[os.DirEntry[str]]
    ) -> Iterator[tuple[Path, PurePosixPath]]:
        """Sort the entries in; the folders among them are yielded."""
        for entry in entries:
            path, relative = folder / entry.name, below / entry.name
            if is_hidden(entry.name):
                self._pass(relative, HIDDEN)
                continue
            try:
                mode = entry.stat().st_mode
                if stat.S_ISDIR(mode):
                    if entry.is_symlink():
                        self._links.append((path, relative))
                    else:
                        yield path, relative
                elif not stat.S_ISREG(mode):
                    self._pass(relative, SPECIAL)
                elif entry.name.lower() == _DICOMDIR:
                    self._pass(relative, INDEX)
                elif is_image(path):
                    self.images.append(ImageFile(path, relative))
                else:
                    self._pass(relative, NO_IMAGE)
            except OSError as error:
                self._pass(relative, DANGLING if entry.is_symlink() else _unreadable(error))


def is_hidden(name: str) -> bool:
    """Whether a name is hidden, or one that a system gives to its own files."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix, else by its first bytes.

    A DICOM file may have any name (`IM000001`, or a UID with its dots); a JPEG or PNG that has
    a foreign suffix is a copy or an unfinished download.

    Raises:
        OSError: it can't be read.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    start, magic = _DICOM
    with path.open("rb") as file:
        head = file.read(start + len(magic))
    return head[start:] == magic or (not suffix and head.startswith(_STARTS))


def _unreadable(error: OSError) -> str:
    return f"can't be read: {error.strerror or error}"


def printable(path: PurePosixPath | Path | str) -> str:
    r"""A path as UTF-8 text on one line: `r\xf6ntgen.jpeg` for a name in Latin-1.

    Nothing is lost: `original` reads it back. A path without backslashes, control characters and
    foreign bytes is as it was.
    """

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        if match[0] == "\\":
            return r"\\"
        if 0xDC80 <= code <= 0xDCFF:  # a byte, by os.fsdecode
            return f"\\x{code - 0xDC00:02x}"
        return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"

    return _UNPRINTABLE.sub(escape, str(path))


def original(text: str) -> str:
    """The path that `printable` made this text of."""

    def character(match: re.Match[str]) -> str:
        if match[1]:
            code = int(match[1], 16)
            return chr(code if code < 0x80 else 0xDC00 + code)
        return chr(int(match[2], 16)) if match[2] else "\\"

    return _ESCAPED.sub(character, text)
