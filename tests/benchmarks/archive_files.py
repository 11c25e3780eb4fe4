"""Archives of the stand-in network that measures brightness."""

import json
import zipfile
from pathlib import Path

from tests.handlers.test_classifier import write


def pack_archive(folder: Path, network: str = "resnet50", version: str = "1.0") -> Path:
    """Path of an archive of the stand-in, in a new folder."""
    folder.mkdir()
    model = write(folder / "model", network=network, version=version)
    path = folder / f"{network}-{version}.mar"
    with zipfile.ZipFile(path, "w") as archive:
        for file in model.iterdir():
            archive.write(file, file.name)
        manifest = {"model": {"modelName": network, "modelVersion": version}}
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    return path
