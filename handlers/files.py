"""Files that are whole or not there: written beside their place, then renamed."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends.

    What lies at `path` stays whole until then. If the block fails, nothing is left behind. The
    folder is created. `mode` is that of the new file, from its first byte on.

    Raises:
        OSError: the folder is read-only, the disk is full.
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
    """Write a whole text file (UTF-8), as `replacing` does."""
    with replacing(path, mode) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
