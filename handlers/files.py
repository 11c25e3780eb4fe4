"""Atomic writing of files, and their hashes."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it replaces `path` when the block ends.

    Until then `path` is unchanged. If the block fails, the temporary file is removed. The folder is
    created. `mode` is the mode of the new file, set before anything is written.

    Raises:
        OSError: the folder is read-only, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        if mode is not None:
            partial.unlink(missing_ok=True)
            partial.touch(mode=mode)
        yield partial
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    """Write a text file (UTF-8) atomically; see `replacing`."""
    with replacing(path, mode) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
