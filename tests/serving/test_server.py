"""The server as its users meet it: a real TorchServe, real archives, real requests."""

import base64
import binascii
import csv
import json
import math
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from client import api
from client import state as states
from client.__main__ import main
from client.server import is_free
from tests.handlers.test_dicom import file, radiograph
from tests.serving.conftest import (
    Place,
    Served,
    client,
    logit,
    new_place,
    picture,
    write_archive,
)

WHITE, BLACK = picture(255), picture(0)
RAW = {"Content-Type": "application/octet-stream"}


def post(
    served: Served, road: str, content: bytes | None = None, **options: Any
) -> requests.Response:
    url = f"{served.place.inference}/{road}"
    return requests.post(url, data=content, timeout=60, **options)


def probability(grey: int) -> float:
    """Of PNEUMONIA, for version 1.0: the logits are l and -l."""
    return 1 / (1 + math.exp(-2 * logit(grey)))


def worker_pids(place: Place) -> dict[tuple[str, str], int]:
    entries = [
        entry
        for network in {v.network for v in api.versions(place.management_at)}
        for entry in api.call("GET", place.management_at, f"/models/{network}/all").json()
    ]
    return {(e["modelName"], e["modelVersion"]): e["workers"][0]["pid"] for e in entries}


@pytest.fixture
def workers_live_on(served: Served) -> Iterator[None]:
    before = worker_pids(served.place)
    yield
    assert worker_pids(served.place) == before


@pytest.fixture(scope="module")
def second_version(served: Served) -> str:
    """resnet50 2.0 beside 1.0, brought in by `serve` alone; its own handlers say a line."""
    write_archive(served.place, "resnet50", "2.0", bias=-1.0, line="print('my own handlers')")
    again = client("serve", served.place)
    assert again.returncode == 0, again.stderr
    assert "resnet50 2.0 answers" in again.stdout
    assert "Starting" not in again.stdout
    return "2.0"


# Many images


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_scored_and_gone_on_with(served: Served, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out/scores.csv"
    (folder / "deep").mkdir(parents=True)
    greys = range(0, 250, 12)
    for grey in greys:
        (folder / "deep" / f"{grey:03d}.png").write_bytes(picture(grey))
    (folder / "broken.png").write_bytes(b"no image")
    first = client("score", served.place, folder, "--out", out)
    assert first.returncode == 1
    assert f"{len(greys)} answered, 1 refused" in first.stdout
    assert "refused: broken.png: These bytes are no image" in first.stderr
    result = {row["file"]: row for row in rows(out)}
    assert len(result) == len(greys) + 1
    for grey in greys:
        row = result[f"deep/{grey:03d}.png"]
        assert float(row["probability"]) == pytest.approx(probability(grey), rel=1e-5)
        assert (row["model"], row["version"], row["error"]) == ("resnet50", "1.0", "")

    # Interrupted in a line; one image is new, the broken one is mended.
    lines = out.read_text().splitlines(keepends=True)
    kept = [line for line in lines[1:] if line.startswith("deep/")][:5]
    out.write_text(lines[0] + "".join(kept) + "deep/240.png,PNEU")
    (folder / "broken.png").write_bytes(WHITE)
    second = client("score", served.place, folder, "--out", out)
    assert second.returncode == 0, second.stderr
    assert f"5 are in {out} already, {len(greys) - 4} to go" in second.stderr
    assert {row["file"] for row in rows(out)} == set(result)
    assert len(rows(out)) == len(result)

    following = client("score", served.place, folder, "--out", out, "--network", "densenet161")
    assert "holds answers of resnet50" in following.stderr
    (tmp_path / "mine.csv").write_text("name,age\n")
    stranger = client("score", served.place, folder, "--out", tmp_path / "mine.csv")
    assert "is no table of scores" in stranger.stderr
    assert (tmp_path / "mine.csv").read_text() == "name,age\n"


# Asking


def test_a_raw_body_is_answered(served: Served) -> None:
    for grey in (0, 100, 255):
        response = post(served, "predictions/resnet50", picture(grey), headers=RAW)
        assert response.headers["Content-Type"].startswith("application/json")
        answer = response.json()
        assert answer["model"] == "resnet50"
        assert answer["version"] == "1.0"
        assert answer["probability"]["PNEUMONIA"] == pytest.approx(probability(grey), rel=1e-5)
        assert answer["logit"]["PNEUMONIA"] == pytest.approx(logit(grey), abs=1e-5)
        assert answer["label"] == ("PNEUMONIA" if grey > 127 else "NORMAL")
        assert "a stand-in that measures brightness" in answer["warnings"]


def test_map_and_bias_give_the_logit(served: Served) -> None:
    heatmap = post(served, "predictions/resnet50", WHITE, headers=RAW).json()["heatmap"]
    values = [value for row in heatmap["map"] for value in row]
    assert len(values) == 16
    assert sum(values) / 16 + heatmap["bias"] == pytest.approx(logit(255), abs=1e-3)


def test_dicom_is_answered(served: Served) -> None:
    stored = np.full((80, 80), 100, np.uint8)
    chest = file(radiograph(stored, PatientName="SECRET", ViewPosition=None))
    of_png = post(served, "predictions/resnet50", picture(100), headers=RAW).json()
    for answer in (
        post(served, "predictions/resnet50", chest, headers={"Content-Type": "application/dicom"}),
        post(served, "predictions/resnet50", files={"image": ("x.dcm", chest)}),
    ):
        assert answer.json()["probability"] == of_png["probability"]
        assert [w for w in answer.json()["warnings"] if "ViewPosition (0018,5101)" in w]
    refused = post(served, "predictions/resnet50", file(radiograph(stored, Modality="CT")))
    assert refused.status_code == 422
    assert refused.json()["type"] == "UnsuitableImage"
    assert "Modality (0008,0060)" in refused.json()["message"]
    logs = "".join(path.read_text() for path in served.place.state.rglob("*.log"))
    assert logs
    assert "SECRET" not in logs


def test_every_way_to_send_an_image_gives_the_same_answer(served: Served) -> None:
    encoded = base64.b64encode(WHITE).decode()
    answers = [
        post(served, "predictions/resnet50", WHITE, headers=RAW),
        post(served, "predictions/resnet50", files={"any": ("x.png", WHITE, "image/png")}),
        post(served, "predictions/resnet50", json={"image": encoded}),
        post(served, "resnet50/predict", WHITE, headers=RAW),
        post(served, "resnet50/1.0/predict", WHITE, headers=RAW),
        post(served, "predictions/resnet50/1.0", picture(255, format="JPEG"), headers=RAW),
    ]
    assert [response.status_code for response in answers] == [200] * 6
    assert len({json.dumps(r.json()["probability"]) for r in answers}) == 1


def test_options_arrive_by_form_by_json_and_by_query(served: Served) -> None:
    options = {"heatmap": "none", "operating_point": "rule_in"}
    encoded = base64.b64encode(WHITE).decode()
    for response in (
        post(served, "predictions/resnet50", files={"image": WHITE, **_fields(options)}),
        post(served, "predictions/resnet50", json={"image": encoded, **options}),
        post(served, "resnet50/predict", WHITE, headers=RAW, params=options),
    ):
        answer = response.json()
        assert "heatmap" not in answer or answer["heatmap"] is None
        assert answer["operating_point"] == "rule_in"
        assert answer["threshold"] == 0.9999
        assert answer["label"] == "NORMAL"  # .9997 is not enough to rule in


def _fields(options: dict[str, str]) -> dict[str, tuple[None, str]]:
    return {name: (None, value) for name, value in options.items()}


def test_an_overlay_is_returned_where_png_is_accepted(served: Served, tmp_path: Path) -> None:
    for header in ("Accept", "accept"):
        headers = {**RAW, header: "image/png"}
        response = post(served, "predictions/resnet50", WHITE, headers=headers)
        assert response.headers["Content-Type"] == "image/png"
        path = tmp_path / "overlay.png"
        path.write_bytes(response.content)
        with Image.open(path) as overlay:
            assert overlay.format == "PNG"
            assert overlay.width == overlay.height


def test_the_readiness_check_answers_the_card(served: Served) -> None:
    card = api.card(served.place.management_at, "resnet50", "1.0")
    assert card.network == "resnet50"
    assert card.default_operating_point == "balanced"


# Hostile requests


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    check = struct.pack(">I", binascii.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


@pytest.mark.usefixtures("workers_live_on")
@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(b"", 400, id="empty"),
        pytest.param(picture(9, 400)[:-200], 400, id="truncated PNG"),
        pytest.param(picture(9, 400, "JPEG")[:1000], 400, id="truncated JPEG"),
        pytest.param(b"not an image at all", 415, id="text"),
        pytest.param(b"<!doctype html><html><body>no</body></html>", 415, id="HTML"),
        pytest.param(bomb(30_000, 30_000), 413, id="bomb"),
        pytest.param(bytes(30_000_000), 415, id="30 MB of zeros"),
    ],
)
def test_a_bad_image_gets_a_clear_error(served: Served, content: bytes, status: int) -> None:
    refused(post(served, "predictions/resnet50", content, headers=RAW), status)


@pytest.mark.usefixtures("workers_live_on")
def test_a_single_pixel_is_not_a_radiograph(served: Served) -> None:
    refused(post(served, "predictions/resnet50", picture(255, 1), headers=RAW), 400, 415, 422)


@pytest.mark.usefixtures("workers_live_on")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"image": ', id="broken"),
        pytest.param(b"[1, 2, 3]", id="list"),
        pytest.param(b'{"picture": "x"}', id="no image"),
        pytest.param(b'{"image": 7}', id="a number"),
        pytest.param(b'{"image": "not base64!"}', id="bad base64"),
        pytest.param(b'{"image": ""}', id="empty image"),
    ],
)
def test_bad_json_gets_a_clear_error(served: Served, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    refused(post(served, "predictions/resnet50", body, headers=headers), 400)


@pytest.mark.usefixtures("workers_live_on")
def test_a_bad_form_gets_a_clear_error(served: Served) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    refused(post(served, "predictions/resnet50", b"--b--\r\n", headers=headers), 400)
    two = {"one": ("1.png", WHITE, "image/png"), "other": ("2.png", BLACK, "image/png")}
    refused(post(served, "predictions/resnet50", files=two), 400)


@pytest.mark.usefixtures("workers_live_on")
@pytest.mark.parametrize("option", ["heatmap", "class", "operating_point"])
def test_an_unknown_value_of_an_option_is_refused(served: Served, option: str) -> None:
    response = post(served, "resnet50/predict", WHITE, headers=RAW, params={option: "nonsense"})
    refused(response, 400)


def refused(response: requests.Response, *statuses: int) -> None:
    assert response.status_code in statuses, response.text
    assert response.headers["Content-Type"].startswith("application/json")
    error = response.json()
    assert set(error) == {"code", "type", "message"}
    assert error["code"] == response.status_code
    assert error["message"]


@pytest.mark.usefixtures("workers_live_on")
def test_a_bad_image_harms_no_good_image_of_a_batch(served: Served) -> None:
    contents = [WHITE, b"text", BLACK, b""] * 8

    def ask(content: bytes) -> requests.Response:
        return post(served, "predictions/resnet50", content, headers=RAW)

    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(ask, contents))
    assert [response.status_code for response in responses] == [200, 415, 200, 400] * 8
    for response, grey in zip(responses[::2], [255, 0] * 8, strict=True):
        result = response.json()["probability"]["PNEUMONIA"]
        assert result == pytest.approx(probability(grey), rel=1e-5)


def test_archives_come_from_the_model_store_alone(served: Served) -> None:
    archive = served.place.store / "resnet50-1.0.mar"
    for url in (f"file://{archive}", "http://127.0.0.1:1/x.mar", f"../store/{archive.name}"):
        with pytest.raises(api.ServerError) as refusal:
            api.call("POST", served.place.management_at, "/models", params={"url": url})
        assert refusal.value.code == 404


# Starting again, versions


def test_serving_prints_addresses_and_a_curl_that_works(served: Served, tmp_path: Path) -> None:
    assert served.place.inference in served.printed
    assert "make stop" in served.printed
    commands = re.findall(r"^  (curl .*)$", served.printed, flags=re.MULTILINE)
    assert len(commands) == 2
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    answers = [
        subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True)
        for command in commands
    ]
    assert "label" in json.loads(answers[0].stdout)
    assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_serving_again_changes_nothing(served: Served) -> None:
    before = states.running(served.place.state)
    pids = worker_pids(served.place)
    again = client("serve", served.place)
    assert again.returncode == 0
    assert "Already running" in again.stdout
    assert states.running(served.place.state) == before
    assert worker_pids(served.place) == pids


def test_two_versions_stand_side_by_side(served: Served, second_version: str) -> None:
    result = {
        version: post(served, f"predictions/resnet50/{version}", WHITE, headers=RAW).json()
        for version in ("1.0", second_version)
    }
    assert result["1.0"]["logit"]["PNEUMONIA"] == pytest.approx(logit(255), abs=1e-5)
    assert result["2.0"]["logit"]["PNEUMONIA"] == pytest.approx(logit(255, -1.0), abs=1e-5)
    default = post(served, "predictions/resnet50", WHITE, headers=RAW).json()
    assert default["version"] == "1.0"  # a new version never makes itself the default


def test_an_archive_runs_the_handlers_inside(served: Served, second_version: str) -> None:
    log = (served.place.state / "logs" / "model_log.log").read_text()
    reply = [line for line in log.splitlines() if line.endswith("my own handlers")]
    assert reply
    assert all(f"-resnet50_{second_version}-stdout" in line for line in reply)


def test_the_default_changes_under_load_without_a_lost_request(
    served: Served, second_version: str
) -> None:
    state = ["--state", str(served.place.state)]
    done = threading.Event()

    def ask_on() -> list[tuple[int, str]]:
        answers = []
        while not done.is_set():
            response = post(served, "predictions/resnet50", WHITE, headers=RAW)
            answers.append((response.status_code, response.json().get("version", "")))
        return answers

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(ask_on) for _ in range(4)]
        try:
            for _ in range(5):
                assert main(["promote", "resnet50", second_version, *state]) == 0
                assert main(["rollback", "resnet50", *state]) == 0
        finally:
            done.set()
        answers = [answer for thread in threads for answer in thread.result()]
    assert set(answers) == {(200, "1.0"), (200, "2.0")}
    assert states.defaults(served.place.state, "resnet50") == ["1.0"]


def test_the_client_lists_versions_and_refuses_unknown_versions(
    served: Served, second_version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state", str(served.place.state)]
    assert main(["versions", *state]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["resnet50", "1.0", "default", "1", "READY", "0"] in rows
    assert ["resnet50", second_version, "1", "READY", "0"] in rows
    assert main(["promote", "resnet50", "9", *state]) == 1
    assert "resnet50 has no version 9: it has 1.0, 2.0" in capsys.readouterr().err
    assert main(["promote", "vgg", "1.0", *state]) == 1
    assert "it has densenet161, resnet50" in capsys.readouterr().err
    assert main(["rollback", "densenet161", *state]) == 1
    assert "has had no other default" in capsys.readouterr().err


def test_an_archive_that_fails_says_why_and_leaves_nothing(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_archive(served.place, "resnet50", "6.6", line="raise ValueError('no luck')")
    state = ["--state", str(served.place.state)]
    before = api.versions(served.place.management_at)
    try:
        assert main(["register", str(path), *state]) == 1
    finally:
        path.unlink()
    error = capsys.readouterr().err
    assert "resnet50-6.6.mar does not load" in error
    assert "ValueError: no luck" in error
    assert api.versions(served.place.management_at) == before


def test_registering_by_hand_is_safe_to_repeat(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state", str(served.place.state)]
    path = served.place.store / "resnet50-1.0.mar"
    assert main(["register", str(path), *state]) == 0
    assert "is served already" in capsys.readouterr().out
    elsewhere = shutil.copy(path, tmp_path)
    assert main(["register", str(elsewhere), *state]) == 1
    assert "copy it there first" in capsys.readouterr().err


# Predicting


def test_predicting_prints_a_table_and_saves_overlays(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "black.png").write_bytes(BLACK)
    (folder / "white.jpeg").write_bytes(picture(255, format="JPEG"))
    overlays = tmp_path / "overlays"
    state = ["--state", str(served.place.state)]
    assert main(["predict", str(folder), "--save", str(overlays), *state]) == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()]
    assert rows[1] == ["black.png", "NORMAL", "0.0003", "0.5000", "resnet50/1.0"]
    assert rows[2] == ["white.jpeg", "PNEUMONIA", "0.9997", "0.5000", "resnet50/1.0"]
    assert printed.err.count("a stand-in that measures brightness") == 1
    assert sorted(path.name for path in overlays.iterdir()) == ["black.png.png", "white.jpeg.png"]


def test_predicting_lists_refusals(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "white.png", tmp_path / "notes.txt"
    good.write_bytes(WHITE)
    bad.write_text("not an image")
    options = ["--state", str(served.place.state), "--operating-point", "rule_in"]
    paths = [str(good), str(bad), str(tmp_path / "missing.png")]
    assert main(["predict", *paths, *options, "--version", "1.0"]) == 1
    printed = capsys.readouterr()
    rows = printed.out.splitlines()
    assert rows[1].split()[1:4] == ["NORMAL", "0.9997", "0.9999"]
    assert re.search(r"notes\.txt +refused: .+ \(415\)", rows[2])
    assert "refused: No such file" in rows[3]
    assert "2 of 3 refused" in printed.err


def test_an_image_beyond_the_limit_is_refused(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(65 * 2**20)
    assert main(["predict", str(large), "--state", str(served.place.state)]) == 1
    assert "refused" in capsys.readouterr().out


# Servers of their own


def test_a_second_server_starts_and_stops_alone(served: Served, tmp_path: Path) -> None:
    pids = worker_pids(served.place)
    place = new_place(tmp_path)
    write_archive(place, "resnet50", "1.0")
    started = client("serve", place)
    assert started.returncode == 0, started.stderr
    second = states.running(place.state)
    assert second is not None
    processes = psutil.Process(second.pid).children(recursive=True)
    assert len(processes) == 1

    # Restarted where an archive has changed.
    write_archive(place, "resnet50", "1.0", bias=0.0)
    again = client("serve", place)
    assert "Restarting the server: resnet50-1.0.mar was rebuilt" in again.stdout, again.stderr
    third = states.running(place.state)
    assert third is not None
    assert third.pid != second.pid
    processes += psutil.Process(third.pid).children(recursive=True)

    assert client("stop", place).stdout == "Stopped.\n"
    gone = [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert gone == []
    assert states.process(third) is None
    assert all(is_free(port) for port in place.ports.values())
    assert not Path(third.temporary).exists()
    assert states.defaults(place.state, "resnet50") == ["1.0"]
    stopped_again = client("stop", place)
    assert (stopped_again.returncode, stopped_again.stdout) == (0, "No server is running here.\n")
    assert worker_pids(served.place) == pids


def test_a_server_with_a_failing_archive_is_stopped(tmp_path: Path) -> None:
    place = new_place(tmp_path)
    write_archive(place, "resnet50", "1.0", line="import a_package_that_is_missing")
    started = client("serve", place)
    assert started.returncode == 1
    assert "No module named 'a_package_that_is_missing'" in started.stderr
    assert states.recorded_server(place.state) is None
    assert all(is_free(port) for port in place.ports.values())


def test_a_taken_port_and_an_empty_store_are_named(served: Served, tmp_path: Path) -> None:
    place = new_place(tmp_path)
    empty = client("serve", place)
    assert empty.returncode == 1
    assert "make archive" in empty.stderr
    shutil.copy(served.place.store / "resnet50-1.0.mar", place.store)
    with closing(socket.socket()) as following:
        following.bind(("127.0.0.1", place.ports["metrics"]))
        following.listen()
        taken = client("serve", place)
    assert taken.returncode == 1
    assert f"port {place.ports['metrics']} is taken by" in taken.stderr
    assert f"(process {os.getpid()})" in taken.stderr
    assert "--metrics-port" in taken.stderr
