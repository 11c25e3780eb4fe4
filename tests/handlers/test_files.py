"""Files are whole or not there."""

import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handlers import files

NOBODY = 65534


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Whatever a mode lets in is let in."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "card.json"
    files.write_text(path, "old")
    with files.replacing(path) as partial:
        partial.write_text("new")
        assert partial.parent == path.parent  # on the same disk, or it could not be renamed
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path.parent) == ["card.json"]


def test_text_is_utf_8(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.md", "64 × 64\n")
    assert (tmp_path / "a.md").read_bytes() == b"64 \xc3\x97 64\n"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("no text"), KeyboardInterrupt()]
)
def test_a_failure_leaves_the_old_file_and_no_partial_file(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "card.json"
    files.write_text(path, "old")

    def write() -> None:
        with files.replacing(path) as partial:
            partial.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["card.json"]


def test_a_failure_leaves_nothing_of_a_new_file(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        files.write_text(tmp_path / "a.txt", "\ud800")
    assert names(tmp_path) == []


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError), files.replacing(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.usefixtures("open_umask")
def test_a_mode_holds_from_the_first_byte_on(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("open to all")
    (tmp_path / "key.part").write_text("of a writer that was killed")
    assert mode(tmp_path / "key.part") == 0o666
    with files.replacing(path, 0o600) as partial:
        assert mode(partial) == 0o600
        assert partial.read_bytes() == b""
        partial.write_text("secret")
    assert mode(path) == 0o600
    files.write_text(path, "another", 0o640)
    assert (mode(path), path.read_text()) == (0o640, "another")


@contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder in which this process can't write; root can in any, and is somebody else here."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "card.json").write_text("old")
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


@pytest.mark.parametrize("file_mode", [None, 0o600])
def test_a_read_only_folder_is_an_error(file_mode: int | None) -> None:
    with read_only_folder() as folder:
        with pytest.raises(PermissionError):
            files.write_text(folder / "card.json", "new", file_mode)
        assert (folder / "card.json").read_text() == "old"
        assert names(folder) == ["card.json"]


def test_readers_see_the_old_file_or_the_new_file(tmp_path: Path) -> None:
    path, length = tmp_path / "card.json", 200_000
    texts = {letter * length for letter in "ab"}
    files.write_text(path, "a" * length)

    def write() -> None:
        for _ in range(200):
            for text in texts:
                files.write_text(path, text)

    writer = threading.Thread(target=write)
    writer.start()
    read = set()
    while writer.is_alive():
        read.add(path.read_text())
    assert read == texts


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "graph.onnx").write_bytes(content)
    assert files.sha256(tmp_path / "graph.onnx") == hashlib.sha256(content).hexdigest()
