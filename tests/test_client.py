import http.server
import os
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from client import api, archives, predict, serve, server, settings, versions
from client import state as states
from client.__main__ import main
from client.predict import Image, Question
from client.settings import StartError
from client.state import Running
from tests import cards
from tests.test_archives import write_archive

CONFIG = Path(__file__).parents[1] / "config.properties"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def a_server(tmp_path: Path, **changes: object) -> Running:
    content = {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "temporary": str(tmp_path / "temporary"),
        "inference": "http://127.0.0.1:1",
        "management": "http://127.0.0.1:2",
        "ports": {},
        "model_store": str(tmp_path),
        "workers": 1,
        "settings": settings.fingerprint({}),
        "archives": {},
    }
    return Running(**{**content, **changes})  # type: ignore[arg-type]


# Versions


def test_versions_sort_as_people_sort_them() -> None:
    names = ["1.10", "1.9", "2.0", "1.9-rc", "1.9.1"]
    assert sorted(names, key=api.version_key) == ["1.9", "1.9.1", "1.10", "1.9-rc", "2.0"]


def test_the_table_of_versions_marks_the_default() -> None:
    rows = [
        api.Version("resnet50", "1.0", False, 1, "READY", 0),
        api.Version("resnet50", "2.0", True, 1, "READY", 3),
    ]
    lines = versions.table(rows).splitlines()
    assert lines[1].split() == ["resnet50", "1.0", "1", "READY", "0"]
    assert lines[2].split() == ["resnet50", "2.0", "default", "1", "READY", "3"]


# Settings


def test_the_settings_bind_to_loopback_alone() -> None:
    values = settings.read(CONFIG, {})
    assert settings.ports_of(values) == {
        "inference": 8080,
        "management": 8081,
        "metrics": 8082,
        "grpc-inference": 7070,
        "grpc-management": 7071,
    }
    assert values["max_request_size"] == str(64 * 2**20)
    assert values["disable_token_authorization"] == values["enable_model_api"] == "true"


def test_ports_given_go_over_those_of_the_file() -> None:
    values = settings.read(CONFIG, {"inference": 9001, "grpc-management": 9002})
    assert values["inference_address"] == "http://127.0.0.1:9001"
    assert settings.ports_of(values)["grpc-management"] == 9002


@pytest.mark.parametrize(
    "line",
    [
        "inference_address=http://0.0.0.0:8080",
        "management_address=http://10.0.0.1:8081",
        "grpc_inference_address=0.0.0.0",
    ],
)
def test_an_open_address_is_refused(tmp_path: Path, line: str) -> None:
    config = tmp_path / "config.properties"
    config.write_text(f"{CONFIG.read_text()}\n{line}\n")
    with pytest.raises(StartError, match=r"open to other machines.*Name 127\.0\.0\.1"):
        settings.read(config, {})


def test_an_address_left_out_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text("inference_address=http://127.0.0.1:8080\n")
    with pytest.raises(StartError, match="management_address"):
        settings.read(config, {})


@pytest.mark.parametrize("line", ["pneumocam_batch_size=0", "pneumocam_threads=two"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    config = tmp_path / "config.properties"
    config.write_text(f"{CONFIG.read_text()}\n{line}\n")
    with pytest.raises(StartError, match=f"{line}.*whole number above 0"):
        settings.read(config, {})


def test_missing_settings_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="--config"):
        settings.read(tmp_path / "config.properties", {})


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080/models", True),
        ("http://[::1]:8080", True),
        ("http://192.168.0.7:8080", False),
        ("http://server.example", False),
        ("", False),
    ],
)
def test_loopback_addresses(url: str, loopback: bool) -> None:
    assert api.is_loopback(url) is loopback


# What is imported

LIGHT = {"arrays", "card", "card_fields", "decision", "files", "records"}


def test_the_client_takes_of_handlers_what_is_light_alone() -> None:
    project = tomllib.loads((CONFIG.parent / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["source_modules"] == ["client"]]
    modules = {path.stem for path in (CONFIG.parent / "handlers").glob("*.py")} - {"__init__"}
    forbidden = {f"handlers.{name}" for name in modules - LIGHT}
    assert forbidden <= set(contract["forbidden_modules"])


def test_the_client_starts_without_what_answers_images() -> None:
    script = "import sys, client.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert "handlers.card" in imported
    heavy = {
        "torch",
        "PIL",
        "pydicom",
        "onnxruntime",
        "openvino",
        "numpy",
        "scipy",
        "sklearn",
        "ts",
    }
    assert not heavy & imported


# The card that a version answers with


def described(monkeypatch: pytest.MonkeyPatch, metadata: object) -> None:
    """A server whose version describes itself with this."""
    response = SimpleNamespace(json=lambda: [{"customizedMetadata": metadata}])
    monkeypatch.setattr(api, "call", lambda *_arguments, **_options: response)


def test_the_card_of_a_version_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    described(monkeypatch, cards.archived())
    assert api.card(api.Address(""), "resnet50", "1.0").threshold == 0.5


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ("none", "gives no card: 'none'"),
        ({**cards.archived(), "bias": [0, "1"]}, r"gives no card: bias\.1: a number is needed"),
        (cards.evaluated(), "gives the card of no archive"),
    ],
)
def test_what_is_no_card_is_an_error(
    monkeypatch: pytest.MonkeyPatch, metadata: object, reason: str
) -> None:
    described(monkeypatch, metadata)
    with pytest.raises(api.ServerError, match=rf"^resnet50 1\.0 {reason}"):
        api.card(api.Address(""), "resnet50", "1.0")


# The state folder


def test_a_recorded_server_comes_back(tmp_path: Path) -> None:
    here = a_server(tmp_path)
    states.record(tmp_path, here)
    assert states.running(tmp_path) == here
    more = states.record_archive(tmp_path, here, "resnet50-1.0.mar", "abc")
    assert states.running(tmp_path) == more
    assert more.archives == {"resnet50-1.0.mar": "abc"}
    states.forget(tmp_path)
    assert states.recorded_server(tmp_path) is None


def test_a_process_with_the_same_number_is_not_the_server(tmp_path: Path) -> None:
    another = a_server(tmp_path, created=psutil.Process().create_time() - 1)
    states.record(tmp_path, another)
    assert states.running(tmp_path) is None


def test_stopping_leaves_a_process_with_the_same_number_alone(tmp_path: Path) -> None:
    another = a_server(tmp_path, created=psutil.Process().create_time() - 1)
    states.record(tmp_path, another)
    assert server.stop(tmp_path) is False
    assert states.recorded_server(tmp_path) is None
    assert server.stop(tmp_path) is False


def test_defaults_are_remembered_by_network(tmp_path: Path) -> None:
    states.record_defaults(tmp_path, "resnet50", ["1.0", "2.0"])
    states.record_defaults(tmp_path, "densenet161", ["1.0"])
    assert states.defaults(tmp_path, "resnet50") == ["1.0", "2.0"]
    assert states.defaults(tmp_path, "vgg") == []


# Starting


def test_a_server_goes_on_unless_what_it_serves_has_changed(tmp_path: Path) -> None:
    path = write_archive(tmp_path)
    running = a_server(tmp_path, archives={path.name: archives.read(path).sha256})
    assert serve.reason_to_restart(running, tmp_path, {}, []) is None
    other_settings = serve.reason_to_restart(running, tmp_path, {"a": "b"}, [])
    assert other_settings == "its settings have changed"
    other_store = serve.reason_to_restart(running, tmp_path / "other", {}, [])
    assert other_store == f"it serves {tmp_path}"
    write_archive(tmp_path, card=cards.archived(warnings=["built anew"]))
    anew = serve.reason_to_restart(running, tmp_path, {}, [])
    assert anew == "resnet50-1.0.mar was built anew"
    path.unlink()
    gone = serve.reason_to_restart(running, tmp_path, {}, [])
    assert gone == "resnet50-1.0.mar has left the model store"


def test_a_taken_port_is_named_with_its_owner_and_the_remedy(tmp_path: Path) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert not server.is_free(port)
        values = settings.read(CONFIG, {"inference": port})
        with pytest.raises(StartError, match=rf"port {port} is taken by .*--inference-port"):
            server.start(values, tmp_path, tmp_path, CONFIG)
    assert server.is_free(port)


LOG = """\
2026-01-01T00:00:00,000 [INFO ] W-9000-resnet50_1.0-stdout MODEL_LOG - Torch worker started.
2026-01-01T00:00:00,000 [INFO ] W-9000-resnet50_1.0-stdout MODEL_LOG - Traceback (most recent):
2026-01-01T00:00:00,000 [INFO ] W-9001-resnet50_2.0-stdout MODEL_LOG - of another version
2026-01-01T00:00:00,000 [INFO ] W-9000-resnet50_1.0-stdout MODEL_LOG - ValueError: the reason
"""
DIED = "W-9000-resnet50_1.0-stdout MODEL_LOG - Backend worker process died.\n"


def test_the_reason_is_the_workers_first_traceback() -> None:
    reason = "Traceback (most recent):\nValueError: the reason"
    assert serve.worker_reason(LOG + DIED + LOG, "resnet50", "1.0") == reason
    assert serve.worker_reason(DIED + LOG, "resnet50", "1.0") == reason


def test_without_a_traceback_the_reason_is_the_workers_last_lines() -> None:
    assert serve.worker_reason(LOG, "resnet50", "2.0") == "of another version"
    assert serve.worker_reason("", "resnet50", "1.0") == ""


def test_the_example_is_a_picture_of_a_test_set(tmp_path: Path) -> None:
    assert serve.example_image(tmp_path) is None
    for name in ["a/train/x.png", "a/test/NORMAL/notes.txt", "a/test/NORMAL/y.jpeg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert serve.example_image(tmp_path) == tmp_path / "a/test/NORMAL/y.jpeg"


# Predicting


def test_folders_give_their_pictures_and_files_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ["b.JPEG", "deep/a.png", "notes.txt"]:
        (tmp_path / name).touch()
    found = predict.images([tmp_path, tmp_path / "notes.txt"])
    assert [image.name for image in found] == ["b.JPEG", "deep/a.png", "notes.txt"]


def test_overlays_of_pictures_with_one_name_do_not_overwrite_each_other() -> None:
    asked = [Image(Path("1/x.png"), "x.png"), Image(Path("2/x.png"), "x.png")]
    assert list(predict.overlay_names(asked).values()) == ["x.png.png", "x.png-2.png"]


def test_a_row_gives_the_probability_of_its_label() -> None:
    answer = {
        "model": "resnet50",
        "version": "1.0",
        "label": "PNEUMONIA",
        "probability": {"NORMAL": 0.25, "PNEUMONIA": 0.75},
        "threshold": 0.431,
    }
    assert predict.row(answer).split() == ["PNEUMONIA", "0.7500", "0.4310", "resnet50/1.0"]


def test_without_a_server_the_remedy_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "x.png"
    image.touch()
    address = f"http://127.0.0.1:{free_port()}"
    state = ["--state", str(tmp_path / "state")]
    assert main(["predict", str(image), "--server", address, *state]) == 2
    assert "start it with make serve" in capsys.readouterr().err
    assert main(["versions", "--management", address, *state]) == 2
    assert main(["promote", "resnet50", "2.0", "--management", address, *state]) == 2
    assert main(["register", str(image), *state]) == 2
    assert main(["stop", *state]) == 0


def test_shadowing_has_ended_and_names_what_replaces_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    promote = ["promote", "resnet50", "2.0", "--state", str(state), "--shadow", "60"]
    for words in ([], ["--replay", str(tmp_path), "--watch", "60"]):
        assert main([*promote, *words]) == 1  # not 2: no server was looked for
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.startswith("error: shadowing has ended")
        for name in ("--replay", "REPLAY=folder", "--watch", "WATCH=seconds"):
            assert name in line
    assert not state.exists()


def test_the_make_line_still_passes_shadow_on() -> None:
    dry = ["make", "--dry-run", "promote", "SHADOW=60"]
    assert '--shadow "60"' in subprocess.check_output(dry, cwd=CONFIG.parent, text=True)


def test_nothing_to_ask_is_an_error(tmp_path: Path) -> None:
    assert predict.predict([tmp_path], Question()) == predict.REFUSED


def test_a_proxy_of_the_environment_is_not_asked_about_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with answering([200]) as address:
        assert predict.ask(b"", Question(server=api.Address(address))) == {}


def test_a_full_queue_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "WAITS", (0.0, 0.0))
    with answering([503, 503, 200]) as address:
        assert predict.ask(b"", Question(server=api.Address(address))) == {}
    with (
        answering([503, 503, 503]) as address,
        pytest.raises(api.ServerError, match="status 503"),
    ):
        predict.ask(b"", Question(server=api.Address(address)))
    with answering([400]) as address, pytest.raises(api.ServerError, match="status 400"):
        predict.ask(b"", Question(server=api.Address(address)))


@contextmanager
def answering(statuses: list[int]) -> Iterator[str]:
    """A server on loopback that gives these statuses, one after another."""
    left = iter(statuses)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = next(left)
            body = b"{}" if status == 200 else b'{"message": "status %d"}' % status
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as there:
        threading.Thread(target=there.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{there.server_port}"
        there.shutdown()
