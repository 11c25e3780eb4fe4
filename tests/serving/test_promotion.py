"""Promotion through the gate, switching back, and retirement, on a real server under load."""

import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from client import api
from tests.serving.conftest import Place, client, logit, new_place, picture, write_archive

RAW = {"Content-Type": "application/octet-stream"}
SLIGHT = -3.9  # of a bias of -4: the same labels
BIASES = {"1.0": -4.0, "2.0": SLIGHT, "3.0": 0.5, "4.0": -4.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """1.0 serves; 2.0 is nearly the same, 3.0 calls the healthy sick, 4.0 breaks when told to."""
    folder = tmp_path_factory.mktemp("promotion")
    place = new_place(folder)
    broken = (
        "import pathlib, handlers.heatmap as h\n"
        f"draw, flag = h.overlay, pathlib.Path({str(folder / 'broken')!r})\n"
        "h.overlay = lambda *words: 1 / 0 if flag.exists() else draw(*words)"
    )
    for version, bias in BIASES.items():
        write_archive(place, "resnet50", version, bias, broken if version == "4.0" else "")
    started = client("serve", place)
    assert started.returncode == 0, started.stdout + started.stderr
    assert client("promote", place, "resnet50", "1.0").returncode == 0
    yield place
    assert client("stop", place).returncode == 0


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    for name, greys in (("NORMAL", range(20, 100, 10)), ("PNEUMONIA", range(160, 240, 10))):
        (folder / name).mkdir()
        for grey in greys:
            (folder / name / f"{grey}.png").write_bytes(picture(grey))
    return folder


def ask(place: Place, road: str = "resnet50") -> requests.Response:
    url = f"{place.inference}/predictions/{road}"
    return requests.post(url, data=picture(60), headers=RAW, timeout=30)


def default(place: Place) -> str:
    return next(v.version for v in api.versions(place.management_at) if v.default)


@contextmanager
def load(place: Place, road: str = "resnet50") -> Iterator[list[requests.Response]]:
    """Eight clients that ask without a pause."""
    answers: list[requests.Response] = []
    stop = threading.Event()

    def entry() -> None:
        while not stop.is_set():
            answers.append(ask(place, road))

    threads = [threading.Thread(target=entry) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def check_each(answers: list[requests.Response]) -> None:
    """No request was lost, and each answer is that of the version it names."""
    assert answers
    for answer in answers:
        assert answer.status_code == 200, answer.text
        reply = answer.json()
        expected = logit(60, BIASES[reply["version"]])
        assert reply["logit"]["PNEUMONIA"] == pytest.approx(expected, abs=1e-4)


def test_a_passing_candidate_is_promoted_under_load(place: Place, replay: Path) -> None:
    with load(place) as answers:
        done = client("promote", place, "resnet50", "2.0", "--replay", replay, "--watch", "2")
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed" in done.stdout
    assert default(place) == "2.0"
    check_each(answers)
    assert {answer.json()["version"] for answer in answers} == {"1.0", "2.0"}
    (report,) = (place.state / "promotions").glob("resnet50-2.0-*.md")
    assert "| changed_labels | 0 | 0.05 | passed |" in report.read_text()
    back = client("rollback", place, "resnet50")
    assert back.returncode == 0, back.stderr
    assert default(place) == "1.0"


def test_a_worse_candidate_is_refused_under_load(place: Place, replay: Path) -> None:
    with load(place) as answers:
        done = client("promote", place, "resnet50", "3.0", "--replay", replay)
    assert done.returncode == 1
    assert "Refused for specificity, changed_labels" in done.stderr
    assert default(place) == "1.0"
    check_each(answers)
    assert {answer.json()["version"] for answer in answers} == {"1.0"}


def test_errors_after_the_switch_switch_back(place: Place, replay: Path) -> None:
    flag = place.state.parent / "broken"

    def corrupt() -> None:
        while default(place) != "4.0":
            time.sleep(0.1)
        flag.touch()
        ask(place)

    breaking = threading.Thread(target=corrupt)
    breaking.start()
    done = client("promote", place, "resnet50", "4.0", "--replay", replay, "--watch", "20")
    breaking.join()
    flag.unlink()
    assert done.returncode == 1
    assert "Switched back to 1.0: 1 errors since the switch" in done.stderr
    assert default(place) == "1.0"
    assert ask(place).json()["version"] == "1.0"


def test_a_version_is_retired_under_load(place: Place) -> None:
    refused = client("retire", place, "resnet50", "1.0")
    assert "is the default: promote another version first" in refused.stderr
    slow = [
        threading.Thread(target=lambda: late.append(ask(place, "resnet50/3.0"))) for _ in range(20)
    ]
    late: list[requests.Response] = []
    with load(place) as answers:
        for thread in slow:
            thread.start()
        done = client("retire", place, "resnet50", "3.0")
        for thread in slow:
            thread.join()
    assert done.returncode == 0, done.stderr
    check_each(answers)
    # What had been asked was answered; what came after was told so, and nothing hung.
    assert {answer.status_code for answer in late} <= {200, 404, 503}
    assert "3.0" not in {v.version for v in api.versions(place.management_at)}
    again = client("serve", place)  # its archive lies there still
    assert again.returncode == 0, again.stderr
    assert "3.0" not in {v.version for v in api.versions(place.management_at)}
    back = client("register", place, place.store / "resnet50-3.0.mar")
    assert back.returncode == 0, back.stderr
    assert "3.0" in {v.version for v in api.versions(place.management_at)}


def test_a_gate_needs_both_classes(place: Place, tmp_path: Path) -> None:
    (tmp_path / "NORMAL").mkdir()
    (tmp_path / "NORMAL/x.png").write_bytes(picture(60))
    done = client("promote", place, "resnet50", "2.0", "--replay", tmp_path)
    assert "holds no images below NORMAL and PNEUMONIA" in done.stderr
    missing = client("retire", place, "resnet50", "9.9")
    assert "has no version 9.9: it has 1.0" in missing.stderr


# What is refused at registration leaves name and version free, and what serves goes on


def changed(archive: Path, name: str, change: Callable[[bytes], bytes], target: Path) -> Path:
    """A copy of an archive with one file changed in it."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for each in old.namelist():
            content = old.read(each)
            new.writestr(each, change(content) if each == name else content)
    return target


def wrong_golden(card: bytes) -> bytes:
    reply = json.loads(card)
    reply["golden_logits"] = [value + 0.01 for value in reply["golden_logits"]]
    return json.dumps(reply).encode()


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("graph.onnx", lambda content: content + b"x", "graph.onnx has sha256"),
        ("golden.png", lambda content: content[:-1], "golden.png has sha256"),
        ("card.json", lambda _content: b"{", "card.json: it is not JSON"),
        ("card.json", wrong_golden, "answers the golden image with logits"),
        ("handlers/__init__.py", lambda _content: b"1 / 0", "ZeroDivisionError"),
    ],
)
def test_registering_a_broken_archive_gives_the_reason(
    place: Place, name: str, change: Callable[[bytes], bytes], reason: str
) -> None:
    whole = write_archive(place, "resnet50", "7.0")
    whole.rename(kept := place.store.parent / "kept.mar")
    path = changed(kept, name, change, place.store / "resnet50-7.0.mar")
    with load(place) as answers:
        done = client("register", place, path)
    assert done.returncode == 1
    assert reason in done.stderr, done.stderr
    assert "7.0" not in {v.version for v in api.versions(place.management_at)}
    check_each(answers)
    kept.rename(path)  # the version is free
    done = client("register", place, path)
    assert done.returncode == 0, done.stderr
    assert ask(place, "resnet50/7.0").status_code == 200
    assert client("retire", place, "resnet50", "7.0").returncode == 0
    path.unlink()


def test_a_file_that_is_no_archive_is_refused(place: Place) -> None:
    path = place.store / "resnet50-8.0.mar"
    path.write_bytes((place.store / "resnet50-1.0.mar").read_bytes()[:-100])
    done = client("register", place, path)
    assert done.returncode == 1
    assert "is not a whole archive" in done.stderr
    path.unlink()
    done = client("register", place, path)
    assert "does not exist" in done.stderr
