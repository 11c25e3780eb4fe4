"""`make data` against a mock of Kaggle on loopback."""

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kagglesdk import kaggle_env, kaggle_http_client

from train.data import kaggle as kaggle_set
from train.data.kaggle import FetchError
from train.data.patients import DataError

COUNTS = {"train": (2, 3), "val": (1, 1), "test": (2, 2)}


def archive() -> bytes:
    """A zip like Kaggle's: the set, a nested copy of it, and macOS files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for root in ("chest_xray", "chest_xray/chest_xray", "chest_xray/__MACOSX/chest_xray"):
            for split, (normal, pneumonia) in COUNTS.items():
                for name, count in (("NORMAL", normal), ("PNEUMONIA", pneumonia)):
                    for number in range(count):
                        path = f"{root}/{split}/{name}/IM-{number:04d}-0001.jpeg"
                        packed.writestr(path, f"{path} " * 400)
                    packed.writestr(f"{root}/{split}/{name}/.DS_Store", "mac")
                    packed.writestr(f"{root}/{split}/{name}/._IM-0000-0001.jpeg", "mac")
    return stream.getvalue()


class Kaggle(BaseHTTPRequestHandler):
    """The two API calls and the archive download, with ranges."""

    content = archive()
    break_after: int | None = None
    ranges: list[str | None]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/GetDataset"):
            body = json.dumps({"currentVersionNumber": 2, "ref": kaggle_set.HANDLE}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif self.path.endswith("/DownloadDataset"):
            self.send_response(302)
            self.send_header("Location", "/archive.zip")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        requested = self.headers.get("Range")
        type(self).ranges.append(requested)
        start = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
        content = self.content[start:]
        self.send_response(206 if requested else 200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.break_after is not None and not requested:
            content = content[: self.break_after]
            self.close_connection = True
        self.wfile.write(content)


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Kaggle]]:
    class KaggleMock(Kaggle):
        ranges: list[str | None] = []  # noqa: RUF012

    with ThreadingHTTPServer(("127.0.0.1", 0), KaggleMock) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, address)
        assert kaggle_http_client.get_endpoint(kaggle_env.KaggleEnv.PROD) == address
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "credentials"))
        yield KaggleMock
        server.shutdown()


def test_fetch_copies_the_set_once(kaggle: type[Kaggle], tmp_path: Path) -> None:
    folder = tmp_path / "chest_xray"
    kaggle_set.fetch(folder, counts=COUNTS)
    fetched = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(fetched) == 11
    assert not any("__MACOSX" in str(path) or path.name.startswith(".") for path in fetched)
    text = (folder / "train/PNEUMONIA/IM-0002-0001.jpeg").read_text()
    assert text.startswith("chest_xray/train/")  # of the outer copy
    requests = len(kaggle.ranges)
    kaggle_set.fetch(folder, counts=COUNTS)
    assert len(kaggle.ranges) == requests


def test_interrupted_copy_resumes(
    kaggle: type[Kaggle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "chest_xray"
    link_or_copy = kaggle_set._link_or_copy
    copied: list[Path] = []

    def stop(source: Path, target: Path) -> None:
        if len(copied) == 4:
            raise KeyboardInterrupt
        copied.append(target)
        link_or_copy(source, target)

    monkeypatch.setattr(kaggle_set, "_link_or_copy", stop)
    with pytest.raises(KeyboardInterrupt):
        kaggle_set.fetch(folder, counts=COUNTS)
    assert kaggle_set.wrong_counts(folder, COUNTS) is not None
    monkeypatch.setattr(kaggle_set, "_link_or_copy", link_or_copy)
    kaggle_set.fetch(folder, counts=COUNTS)
    assert kaggle_set.wrong_counts(folder, COUNTS) is None
    assert len(kaggle.ranges) == 1  # downloaded once


def test_interrupted_download_resumes(
    kaggle: type[Kaggle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kagglehub.clients.CHUNK_SIZE", 1000)
    kaggle.break_after = 2000
    with pytest.raises(FetchError, match=r"can't be fetched.*DATA=folder"):
        kaggle_set.fetch(tmp_path / "chest_xray", counts=COUNTS)
    kaggle_set.fetch(tmp_path / "chest_xray", counts=COUNTS)
    assert kaggle.ranges[-1] == "bytes=2000-"


def test_wrong_counts_are_named(kaggle: type[Kaggle], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train/NORMAL has 2 of 9 images"):
        kaggle_set.fetch(tmp_path / "chest_xray", counts={**COUNTS, "train": (9, 3)})


def test_unreachable_kaggle_raises_with_manual_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = "http://127.0.0.1:9"
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, unreachable)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    with pytest.raises(FetchError, match=r"by hand from https://www\.kaggle\.com"):
        kaggle_set.fetch(tmp_path / "chest_xray", counts=COUNTS)
