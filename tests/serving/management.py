"""The management API for tests of it, on a server whose models they may change."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.serving.conftest import Place, client, new_place, picture, write_archive
from tests.serving.test_server import RAW

Arguments = dict[str, str]
FIRST, SECOND = "resnet50-1.0.mar", "resnet50-2.0.mar"
NO_MODEL, NO_VERSION = "ModelNotFoundException", "ModelVersionNotFoundException"
BAD_REQUEST, CONFLICT = "BadRequestException", "ConflictStatusException"


@contextmanager
def serving(folder: Path) -> Iterator[Place]:
    """A server of resnet50 1.0; 2.0 lies in its store."""
    place = new_place(folder)
    write_archive(place, "resnet50", "1.0")
    started = client("serve", place)
    assert started.returncode == 0, started.stdout + started.stderr
    write_archive(place, "resnet50", "2.0", bias=-1.0)
    yield place
    assert client("stop", place).returncode == 0


def manage(place: Place, method: str, road: str, **query: str) -> requests.Response:
    return requests.request(method, f"{place.management}{road}", params=query, timeout=60)


def predict(place: Place, network: str) -> requests.Response:
    url = f"{place.inference}/predictions/{network}"
    return requests.post(url, data=picture(200), headers=RAW, timeout=60)


def done(response: requests.Response, *codes: int) -> str:
    """What was done, in TorchServe's words."""
    assert response.status_code in (codes or (200,)), response.text
    answer: dict[str, str] = response.json()
    assert set(answer) == {"status"}
    return answer["status"]


def refused(response: requests.Response, code: int, kind: str, words: str = "") -> None:
    assert response.status_code == code, response.text
    error = response.json()
    assert (error["code"], error["type"]) == (code, kind)
    assert words in error["message"]


def described(place: Place, road: str) -> list[dict[str, Any]]:
    response = manage(place, "GET", f"/models/{road}")
    assert response.status_code == 200, response.text
    entries: list[dict[str, Any]] = response.json()
    return entries


def register(place: Place, file: str = FIRST, **query: str) -> requests.Response:
    return manage(place, "POST", "/models", url=file, model_name="zoo", **query)


@contextmanager
def registered(place: Place, **query: str) -> Iterator[requests.Response]:
    """The first archive under the name of zoo, without a worker unless `query` asks for one."""
    try:
        yield register(place, **{"initial_workers": "0", **query})
    finally:
        manage(place, "DELETE", "/models/zoo")
