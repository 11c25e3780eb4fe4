import os
import subprocess
import sys
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import folders
from handlers.folders import images, original, printable

DICOM = bytes(128) + b"DICM" + bytes(40)
JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"


def write(root: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names(root: Path) -> list[str]:
    return [str(image.relative) for image in images(root).images]


def reasons(root: Path) -> dict[str, str]:
    return {str(entry.relative): entry.reason for entry in images(root).passed_over}


def test_images_are_known_by_their_suffix_in_any_case(tmp_path: Path) -> None:
    valid = ["a.JPG", "b.jpeg", "c.Png", "d.DCM", "e.jfif", "f.tiff"]
    write(tmp_path, *valid, "notes.txt", "table.csv", "x.jpeg.part", "y.png~")
    assert names(tmp_path) == valid
    assert set(reasons(tmp_path)) == {"notes.txt", "table.csv", "x.jpeg.part", "y.png~"}
    assert set(reasons(tmp_path).values()) == {folders.NO_IMAGE}


@pytest.mark.parametrize("name", ["IM000001", "1.2.840.113619.2.5.1762583153", "i1", "scan.ima"])
def test_dicom_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"DICOM/{name}", "DICOM/README", content=DICOM)
    write(tmp_path, "DICOM/README", content=DICOM[:131])
    assert names(tmp_path) == [f"DICOM/{name}"]


def test_the_index_of_a_dicom_medium_is_no_image(tmp_path: Path) -> None:
    write(tmp_path, "DICOMDIR", "Dicomdir/IM1", content=DICOM)
    assert names(tmp_path) == ["Dicomdir/IM1"]
    assert reasons(tmp_path) == {"DICOMDIR": folders.INDEX}


def test_a_jpeg_or_png_without_a_suffix_is_an_image_and_an_unfinished_one_is_not(
    tmp_path: Path,
) -> None:
    write(tmp_path, "photo", "photo.part", content=JPEG)
    write(tmp_path, "drawing", "drawing.bak", content=PNG)
    assert names(tmp_path) == ["drawing", "photo"]


LEFTOVERS = [
    ".ipynb_checkpoints/a-checkpoint.jpeg",
    ".hidden.jpeg",
    "._a.jpeg",
    "deep/.git/objects/a.jpeg",
    "__MACOSX/._a.jpeg",
    "__MACOSX/a.jpeg",
    "@eaDir/a.jpeg",
    "deep/@eaDir/a.jpeg/SYNOPHOTO_THUMB_XL.jpg",
    "Thumbs.db",
    "THUMBS.DB",
    "desktop.ini",
    "deep/Desktop.ini",
    "$RECYCLE.BIN/a.jpeg",
    ".DS_Store",
    ".Trash-1000/files/a.jpeg",
]


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_hidden_files_and_systems_leftovers_are_passed_over(tmp_path: Path, leftover: str) -> None:
    write(tmp_path, "a.jpeg", "deep/b.jpeg", leftover, content=DICOM)
    assert names(tmp_path) == ["a.jpeg", "deep/b.jpeg"]
    walk = images(tmp_path)
    assert [entry.reason for entry in walk.passed_over] == [folders.HIDDEN]
    assert walk.remarkable == []


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    write(tmp_path, ".data/set/a.png")
    assert names(tmp_path / ".data") == ["set/a.png"]


def test_links_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/deep/b.png", "store/3f")
    root = write(tmp_path / "root", "a.png")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "c.png").symlink_to(tmp_path / "store/3f")
    assert names(root) == ["a.png", "c.png", "more/deep/b.png"]
    assert [image.path for image in images(root).images][1] == root / "c.png"
    (tmp_path / "link").symlink_to(root)
    assert names(tmp_path / "link") == names(root)


def test_loops_end_and_each_folder_is_read_once_under_its_own_name(tmp_path: Path) -> None:
    write(tmp_path, "z/a.png", "z/deep/b.png")
    (tmp_path / "a-link").symlink_to(tmp_path / "z")
    (tmp_path / "z/up").symlink_to(tmp_path)
    (tmp_path / "z/deep/up").symlink_to(tmp_path / "z")
    assert names(tmp_path) == ["z/a.png", "z/deep/b.png"]
    assert reasons(tmp_path) == dict.fromkeys(["a-link", "z/deep/up", "z/up"], folders.REPEATED)


def test_of_two_links_to_one_folder_the_first_counts(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/a.png")
    for name in ("two", "one"):
        (tmp_path / "root" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "root") == ["one/a.png"]
    assert reasons(tmp_path / "root") == {"two": folders.REPEATED}


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/nowhere/a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "folder").symlink_to(".git/annex/objects/f7")
    walk = images(tmp_path)
    assert walk.images == []
    assert [str(entry) for entry in walk.remarkable] == [
        f"{name}: a link that leads nowhere" for name in ("a.png", "b.png", "folder")
    ]


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == []
    assert set(reasons(tmp_path).values()) == {folders.SPECIAL}


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.png", "closed/b.png", "IM0001")
    scandir, opened = os.scandir, Path.open

    def refuse(path: Path) -> object:
        if path.name in ("closed", "IM0001"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def refuse_file(path: Path, mode: str) -> object:
        return refuse(path) if path.name == "IM0001" else opened(path, mode)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(Path, "open", refuse_file)
    assert names(tmp_path) == ["a.png"]
    why = "can't be read: Permission denied"
    assert reasons(tmp_path) == {"IM0001": why, "closed": why}


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        images(tmp_path / "none")


def test_a_file_that_is_named_is_an_image_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, "notes.txt")
    assert names(tmp_path / "notes.txt") == ["notes.txt"]


def test_the_order_is_that_of_the_paths(tmp_path: Path) -> None:
    write(tmp_path, "b/a.png", "b.png", "a/z.png", "B.png", "a.png", "b/A.png", "a-b/c.png")
    expected = [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*.png"))]
    assert [image.relative for image in images(tmp_path).images] == [
        PurePosixPath(path) for path in expected
    ]


def test_names_in_other_charsets_are_read_and_shown(tmp_path: Path) -> None:
    name = b"r\xf6ntgen\x1b[31m.jpeg"
    Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(JPEG)
    (image,) = images(tmp_path).images
    assert image.path.read_bytes() == JPEG
    shown = printable(image.relative)
    assert shown == r"r\xf6ntgen\x1b[31m.jpeg"
    assert os.fsencode(original(shown)) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("röntgen 50%.jpeg", "röntgen 50%.jpeg"),
        ("胸片/a b.png", "胸片/a b.png"),
        ("two\nlines", r"two\x0alines"),
        ("back\\slash", r"back\\slash"),
        ("right\u202eleft", r"right\u202eleft"),
        ("\u0085", r"\u0085"),
    ],
)
def test_what_is_printed(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert original(shown) == name


@given(st.binary(max_size=60))
def test_nothing_of_a_name_is_lost(name: bytes) -> None:
    shown = printable(os.fsdecode(name))
    shown.encode("utf-8")
    assert not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in shown)
    assert os.fsencode(original(shown)) == name


def test_nothing_heavy_is_imported() -> None:
    """The client walks folders, and needs neither numpy nor a decoder."""
    code = "import handlers.folders, handlers.class_folders, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "PIL", "pydicom", "torch"} & set(run.stdout.split())
