import csv
import shutil
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image as Pillow

from handlers import pixels
from tests.small import write_images
from train.data import dataset as datasets
from train.data import splits
from train.data.dataset import Image
from train.data.patients import (
    FULL_SIZE_PATIENTS,
    DataError,
    Subject,
    by_column,
    by_pattern,
    kaggle_subject,
)

SHARED = Path(__file__).parents[4] / "shared" / "data"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the real X-rays are not beside the project")


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("train/PNEUMONIA/person23_bacteria_107.jpeg", "bacteria-23"),
        ("train/PNEUMONIA/person23_virus_56.jpeg", "virus-23"),
        ("train/PNEUMONIA/person447_virus_921_1.jpeg", "virus-447"),
        ("train/NORMAL/IM-0115-0001.jpeg", "IM-115"),
        ("train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg", "NORMAL2-IM-115"),
    ],
)
def test_patient_of_kaggles_names(name: str, patient: str) -> None:
    subject = kaggle_subject(PurePosixPath(name))
    assert subject is not None
    assert subject.patient == patient


def test_a_name_of_the_other_class_is_an_error() -> None:
    with pytest.raises(DataError, match="Move it to the folder PNEUMONIA"):
        kaggle_subject(PurePosixPath("train/NORMAL/person1_virus_6.jpeg"))


def test_patient_by_pattern_and_by_table(tmp_path: Path) -> None:
    path = PurePosixPath("train/NORMAL/p12-b.png")
    assert by_pattern(r"p(\d+)")(path).patient == "12"
    with pytest.raises(DataError, match="does not match"):
        by_pattern("q")(path)
    with pytest.raises(DataError, match="not a regular expression"):
        by_pattern("(")
    table = tmp_path / "who.csv"
    table.write_text("file,who\np12-b.png,Anna\n")
    assert by_column(table, "who")(path).patient == "Anna"
    with pytest.raises(DataError, match="no column"):
        by_column(table, "patient")
    with pytest.raises(DataError, match="names no patient"):
        by_column(table, "who")(PurePosixPath("train/NORMAL/other.png"))


def load(root: Path, cache: Path, **options: object) -> datasets.Dataset:
    return datasets.load(root, 32, cache=cache, **options)  # type: ignore[arg-type]


def test_pixels_are_those_of_serving_and_come_from_the_cache(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(images, tmp_path)
    assert first.pixels.shape == (100, 32, 32)
    for row in (0, 57, 99):
        expected = pixels.decode((images / first.images[row].path).read_bytes(), 32)
        assert np.array_equal(first.pixels[row], expected)

    def broken(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pixels, "decode", broken)
    second = load(images, tmp_path)
    assert isinstance(second.pixels, np.memmap)
    assert np.array_equal(first.pixels, second.pixels)


def test_the_same_seed_gives_the_same_split(images: Path, tmp_path: Path) -> None:
    first, again, following = (load(images, tmp_path, seed=seed) for seed in (1, 1, 2))
    assert first.parts == again.parts
    assert first.parts != following.parts
    assert set(first.parts) == set(splits.PARTS) - {splits.OFFICIAL}
    datasets.write_split(first, tmp_path / "split.csv")
    with (tmp_path / "split.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["split"] for row in rows] == first.parts
    assert rows[0]["sha256"] == first.images[0].sha256
    assert "block-calibrate" in datasets.table(first)


def test_each_file_its_own_patient_is_said_loudly(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(images, tmp_path)
    assert "EACH FILE IS TAKEN FOR A PATIENT" in caplog.text


def test_without_a_test_folder_one_is_held_out(tmp_path: Path) -> None:
    root = write_images(tmp_path / "set")
    shutil.rmtree(root / "test")
    assert len(load(root, tmp_path).rows(splits.TEST)) == pytest.approx(0.12 * 80, abs=2)


def test_broken_files_stop_the_run_or_are_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_images(tmp_path / "set")
    (root / "train/NORMAL/empty.png").touch()
    (root / "train/NORMAL/text.jpg").write_text("no image")
    whole = (root / "test/NORMAL/test-NORMAL-000.png").read_bytes()
    (root / "test/NORMAL/test-NORMAL-000.png").write_bytes(whole[:400])
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError, match="3 unreadable") as error:
            load(root, tmp_path / "cache")
        for name in ("train/NORMAL/empty.png", "train/NORMAL/text.jpg", "test-NORMAL-000.png"):
            assert name in str(error.value)
    kept = load(root, tmp_path / "cache", skip_broken=True)
    assert len(kept.images) == len(kept.pixels) == 99
    assert "text.jpg" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "train/PNEUMONAI").mkdir(), "known classes are"),
        (lambda root: shutil.rmtree(root / "train/NORMAL"), "train/NORMAL holds no image"),
        (lambda root: shutil.rmtree(root / "test/NORMAL"), "test/NORMAL holds no image"),
        (lambda root: shutil.rmtree(root / "train"), "no folder train"),
        (
            lambda root: shutil.copy(
                root / "test/NORMAL/test-NORMAL-001.png", root / "train/NORMAL/copy.png"
            ),
            "two splits or classes",
        ),
        (
            lambda root: shutil.copy(
                root / "train/NORMAL/train-NORMAL-001.png", root / "train/PNEUMONIA/copy.png"
            ),
            "two splits or classes",
        ),
    ],
)
def test_a_data_set_that_is_wrong_is_refused(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    root = write_images(tmp_path / "set")
    change(root)
    with pytest.raises(DataError, match=message):
        load(root, tmp_path / "cache")


def test_one_patient_in_two_folders_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lie in two of"):
        load(images, tmp_path, patient=r"(\d+)\.png")


def test_patients_and_byte_identical_images_stay_together() -> None:
    def image(number: int, patient: str, content: str) -> Image:
        subject = Subject(patient, "NORMAL", (number, ""))
        return Image(PurePosixPath(f"train/NORMAL/{number}"), "train", 0, subject, content)

    images = [image(n, f"p{n // 3}", f"hash{n}") for n in range(300)]
    # Patients 10 and 60 share an image.
    images[30] = image(30, "p10", "same")
    images[181] = image(181, "p60", "same")
    for seed in range(20):
        parts = splits.part(images, seed)
        together = {parts[row] for row in (30, 31, 32, 180, 181, 182)}
        assert len(together) == 1
        for patient in range(100):
            assert len(set(parts[3 * patient : 3 * patient + 3])) == 1


def test_a_block_is_a_run_of_ids() -> None:
    images = [
        Image(
            PurePosixPath(f"train/NORMAL/{n}"), "train", 0,
            Subject(f"p{n}", "NORMAL", (n, "")), f"hash{n}",
        )
        for n in range(1000)
    ]  # fmt: skip
    parts = np.array(splits.part(images, 3))
    for part, share in ((splits.SELECT, 0.08), (splits.CALIBRATE, 0.10)):
        rows = np.flatnonzero(parts == part)
        # One run, or two where it reaches across the other block.
        assert (np.diff(rows) > 1).sum() <= 1
        assert len(rows) == round(1000 * share)
    assert (parts == splits.RANDOM).sum() == 50
    assert (np.diff(np.flatnonzero(parts == splits.RANDOM)) > 1).sum() > 30


@real
def test_the_real_split(tmp_path: Path) -> None:
    images = datasets.scan(SHARED / "chest_xray")
    datasets.verify(images)
    assert len(images) == 5856
    parts = splits.part(images, 0)
    counted = Counter(parts)
    training = sum(image.folder == "train" for image in images)
    assert training == 5216
    assert counted["test"] == 624
    assert counted["val"] == 16
    for part, share in (("fit", 0.77), ("random", 0.05), ("block-select", 0.08),
                        ("block-calibrate", 0.10)):  # fmt: skip
        assert counted[part] / training == pytest.approx(share, abs=0.01)
    place: dict[str, set[str]] = {}
    for image, part in zip(images, parts, strict=True):
        place.setdefault(image.subject.patient, set()).add(part)
        place.setdefault(image.sha256, set()).add(part)
    assert all(len(part) == 1 for part in place.values())
    assert all(place[patient] == {"random"} for patient in FULL_SIZE_PATIENTS)
    for series in ("bacteria", "virus", "IM", "NORMAL2-IM"):
        for part in ("random", "block-select", "block-calibrate"):
            rows = [i for i, p in zip(images, parts, strict=True)
                    if p == part and i.subject.series == series]  # fmt: skip
            whole = sum(i.subject.series == series and i.folder == "train" for i in images)
            assert len(rows) / whole == pytest.approx(splits.SHARES[part], abs=0.03)


@real
def test_the_patients_of_the_full_size_images() -> None:
    files = (SHARED / "full_size").glob("*/*")
    subjects = [kaggle_subject(PurePosixPath(path.parent.name) / path.name) for path in files]
    assert {subject.patient for subject in subjects if subject} == FULL_SIZE_PATIENTS


@real
def test_the_small_copies_are_the_originals_squashed() -> None:
    for path in sorted((SHARED / "full_size").glob("*/*"))[::6]:
        copy = SHARED / "chest_xray/train" / path.parent.name / path.name
        theirs = np.asarray(Pillow.open(copy).convert("L")).astype(float)

        def separate(ours: np.ndarray, theirs: np.ndarray = theirs) -> float:
            return float(np.abs(ours.astype(float) - theirs).mean())

        # Nearer than any other filter; what is left is JPEG of quality 75.
        result = separate(pixels.decode(path.read_bytes(), 224))
        assert result < 3
        grey = Pillow.open(path).convert("L")
        for following in (
            Pillow.Resampling.BICUBIC,
            Pillow.Resampling.BOX,
            Pillow.Resampling.LANCZOS,
        ):
            assert result < separate(np.asarray(grey.resize((224, 224), following)))


def test_a_sample_is_of_its_part_and_always_the_same(dataset: datasets.Dataset) -> None:
    rows = dataset.rows(splits.SELECT)
    sample = dataset.sample(splits.SELECT, 5)
    assert len(set(sample)) == 5
    assert set(sample) <= set(rows)
    assert np.array_equal(sample, dataset.sample(splits.SELECT, 5))
    assert sorted(dataset.sample(splits.SELECT, 1000)) == list(rows)
