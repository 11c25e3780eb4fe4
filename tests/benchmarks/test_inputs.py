"""Inputs of the serving benchmark: machine, images, archives, the peers' weights."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.serving import environment, images, inputs
from tests.benchmarks.archive_files import pack_archive
from train.model import checkpoint


def test_facts_of_the_machine_have_versions_and_no_paths() -> None:
    facts = environment.machine()
    assert facts["versions"]["torchserve"] == "0.12.0"  # type: ignore[index]
    assert facts["cores_of_machine"]
    assert str(Path.home()) not in json.dumps(facts)
    assert str(environment.ROOT) not in json.dumps(facts)
    assert environment.version("no-such-package") is None


def jpeg(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), 100).save(file, "JPEG")
    return file.getvalue()


def test_images_are_spread_over_a_folder(tmp_path: Path) -> None:
    for number in range(24):
        (tmp_path / f"{number:02}.jpeg").write_bytes(jpeg(100 + number))
    (tmp_path / "notes.txt").write_text("no image")
    chosen = images.read(tmp_path)
    sides = [Image.open(io.BytesIO(image)).width - 100 for image in chosen]
    assert sides == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]
    (tmp_path / "few").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no JPEG"):
        images.read(tmp_path / "few")


def test_facts_of_images() -> None:
    facts = images.facts([jpeg(100), jpeg(2000), jpeg(1000)], "of a test")
    assert facts["count"] == 3
    assert facts["megapixels"] == [0.01, 1.0, 4.0]
    assert facts["bytes"] == sorted(len(jpeg(side)) for side in (100, 1000, 2000))


def test_a_phantom_is_written_at_full_size() -> None:
    with Image.open(io.BytesIO(images._phantom(0))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (1248, 1248))


def test_archives_are_named_by_label(tmp_path: Path) -> None:
    path = pack_archive(tmp_path / "a")
    folder = pack_archive(tmp_path / "b", "densenet161").parent
    options = [f"f32={path}", f"int8={folder}", f"none={tmp_path / 'nothing'}"]
    archived = inputs.read_archives(options)
    assert [(labelled.label, labelled.network, labelled.engine) for labelled in archived] == [
        ("f32", "resnet50", "onnxruntime"),
        ("int8", "densenet161", "onnxruntime"),
    ]


def test_malformed_archive_options_are_refused(tmp_path: Path) -> None:
    path = pack_archive(tmp_path / "a")
    for options, message in (
        ([str(path)], "LABEL=FILE_OR_FOLDER"),
        ([f"captum={path}"], "not be a peer's name"),
        ([f"a/b={path}"], "LABEL=FILE_OR_FOLDER"),
        ([f"f32={path}", f"f32={path}"], "same label"),
        ([f"f32={tmp_path}"], "make archive"),
    ):
        with pytest.raises(ValueError, match=message):
            inputs.read_archives(options)


@pytest.mark.usefixtures("small_networks")
def test_peers_without_published_weights_get_random_weights(tmp_path: Path) -> None:
    assert inputs.peer_weights("small", [], None) is None
    path = inputs.peer_weights("small", [], tmp_path)
    assert path
    network, card = checkpoint.load(path)
    assert (card.network, card.input.size, card.classes) == (
        *("small", 224),
        ("NORMAL", "PNEUMONIA"),
    )
    assert card.warnings == ("never trained: for a smoke run of the benchmark",)
    assert not network.training
