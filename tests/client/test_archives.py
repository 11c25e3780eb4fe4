"""Archives of a model store: read, or refused with the file and the field."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from client import archives
from client.archives import ArchiveError
from tests import cards


def write_archive(
    folder: Path,
    network: str = "resnet50",
    version: str = "1.0",
    card: object = None,
    *,
    manifest: object = None,
    files: Mapping[str, bytes] = {},
) -> Path:
    """An archive of a card, a manifest and more files; by default card and manifest are valid."""
    path = folder / f"{network}-{version}.mar"
    model = {"modelName": network, "modelVersion": version}
    card = card or cards.archived(network=network, version=version)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest or {"model": model}))
        archive.writestr("card.json", json.dumps(card))
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_archives_are_sorted_from_the_lowest_version(tmp_path: Path) -> None:
    for network, version in [("resnet50", "1.10"), ("resnet50", "1.9"), ("densenet161", "1.0")]:
        write_archive(tmp_path, network, version)
    store = archives.find(tmp_path, None)
    assert [(archive.network, archive.version) for archive in store] == [
        ("densenet161", "1.0"),
        ("resnet50", "1.9"),
        ("resnet50", "1.10"),
    ]
    assert archives.highest(store, "resnet50") == "1.10"
    assert {a.network for a in archives.find(tmp_path, ["resnet50"])} == {"resnet50"}


def test_an_empty_model_store_names_make_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="make archive"):
        archives.find(tmp_path, None)


def test_a_network_without_an_archive_is_refused_with_the_present_networks(tmp_path: Path) -> None:
    write_archive(tmp_path)
    with pytest.raises(ArchiveError, match=r"no archive of vgg.*resnet50.*make archive"):
        archives.find(tmp_path, ["vgg"])


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArchiveError, match="not a whole archive"):
        archives.read(path)


def test_an_archive_without_a_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet50-1.0.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{}")
    with pytest.raises(ArchiveError, match=r"resnet50-1\.0\.mar holds no card\.json"):
        archives.read(path)


def test_an_archive_with_the_card_of_a_different_network_is_refused(tmp_path: Path) -> None:
    model = {"modelName": "resnet50", "modelVersion": "1.0"}
    path = write_archive(tmp_path, "densenet161", manifest={"model": model})
    with pytest.raises(
        ArchiveError, match=r"its manifest names resnet50 1\.0, its card densenet161 1\.0: build"
    ):
        archives.read(path)


@pytest.mark.parametrize("manifest", [{"model": {}}, {"model": "resnet50"}, ["model"]])
def test_a_manifest_without_a_name_is_refused(tmp_path: Path, manifest: object) -> None:
    path = write_archive(tmp_path, manifest=manifest)
    with pytest.raises(ArchiveError, match=r"resnet50-1\.0\.mar: MAR-INF/MANIFEST\.json names no"):
        archives.read(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"temperature": "warm"}, "temperature: a number is needed"),
        ({"input": {}}, r"input\.size: the field is missing"),
        ({"graph": {"file": "graph.onnx"}}, r"graph\.sha256: the field is missing"),
        ({"schema": 2}, "schema: 2 is newer than 1: update this program"),
        ({"version": None}, "version: a text is needed"),
        ({"members": [{}]}, r"members\.0\.network: the field is missing"),
    ],
)
def test_a_malformed_card_is_refused_with_the_file_and_the_field(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write_archive(tmp_path, card=cards.archived(**changes))
    with pytest.raises(ArchiveError, match=rf"^resnet50-1\.0\.mar: card\.json: {reason}"):
        archives.read(path)


def test_the_card_of_an_evaluated_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet50-1.0.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", json.dumps(cards.evaluated()))
    with pytest.raises(ArchiveError, match=r"card\.json is not of an archive, it has no version"):
        archives.read(path)


FILES = {"graph.onnx": b"graph", "golden.png": b"golden"}
STORED = {
    name.split(".")[0]: {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
    for name, content in FILES.items()
}


def test_files_are_checked_against_the_card(tmp_path: Path) -> None:
    card = cards.archived(**STORED)
    archives.check(archives.read(write_archive(tmp_path, card=card, files=FILES)))
    without = {"graph.onnx": b"graph"}
    with pytest.raises(ArchiveError, match=r"resnet50-1\.0\.mar holds no golden\.png"):
        archives.check(archives.read(write_archive(tmp_path, card=card, files=without)))
    changed = {**FILES, "graph.onnx": b"changed"}
    with pytest.raises(ArchiveError, match=r"graph\.onnx has sha256 .*, its card says"):
        archives.check(archives.read(write_archive(tmp_path, card=card, files=changed)))


def test_the_graph_of_every_member_is_checked_against_the_card(tmp_path: Path) -> None:
    members = [
        cards.archived(network=name, graph=graph)
        for name, graph in (
            ("resnet50", STORED["graph"]),
            ("densenet161", {**STORED["graph"], "file": "densenet161.onnx"}),
        )
    ]
    card = cards.ensemble(members, golden=STORED["golden"])
    path = write_archive(tmp_path, "pneumonia", card=card, files=FILES)
    with pytest.raises(ArchiveError, match=r"pneumonia-1\.0\.mar holds no densenet161\.onnx"):
        archives.check(archives.read(path))
    files = {**FILES, "densenet161.onnx": b"graph"}
    path = write_archive(tmp_path, "pneumonia", card=card, files=files)
    archives.check(archives.read(path))


def test_damaged_content_is_refused(tmp_path: Path) -> None:
    files = {**FILES, "graph.onnx": b"graph" * 1000}
    path = write_archive(tmp_path, card=cards.archived(**STORED), files=files)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("graph.onnx")
    content = bytearray(path.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename)
    content[start : start + 8] = b"\xff" * 8  # no valid deflate block
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="not a whole archive"):
        archives.check(archives.read(path))


def test_an_archive_of_the_first_versions_is_read(tmp_path: Path) -> None:
    first = cards.archived(graph=STORED["graph"])  # names no engine
    del first["golden"], first["golden_logits"]
    archives.check(archives.read(write_archive(tmp_path, card=first, files=FILES)))
