"""Reasons for a restart, taken ports, and the reason why a worker failed."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from client import archives, serve, server, settings
from client.settings import StartError
from tests import cards
from tests.client.local_server import recorded
from tests.client.test_archives import write_archive

CONFIG = Path(__file__).parents[2] / "config.properties"


def test_a_server_is_restarted_only_after_changes(tmp_path: Path) -> None:
    path = write_archive(tmp_path)
    running = recorded(tmp_path, archives={path.name: archives.read(path).sha256})
    assert serve.reason_to_restart(running, tmp_path, {}, []) is None
    new_settings = serve.reason_to_restart(running, tmp_path, {"a": "b"}, [])
    assert new_settings == "its settings have changed"
    new_store = serve.reason_to_restart(running, tmp_path / "store", {}, [])
    assert new_store == f"it serves {tmp_path}"
    write_archive(tmp_path, card=cards.archived(warnings=["rebuilt"]))
    rebuilt = serve.reason_to_restart(running, tmp_path, {}, [])
    assert rebuilt == "resnet50-1.0.mar was rebuilt"
    path.unlink()
    removed = serve.reason_to_restart(running, tmp_path, {}, [])
    assert removed == "resnet50-1.0.mar was removed from the model store"


def test_a_taken_port_is_refused_with_owner_and_remedy(tmp_path: Path) -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
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


def test_the_example_is_an_image_of_a_test_set(tmp_path: Path) -> None:
    assert serve.example_image(tmp_path) is None
    for name in ["a/train/x.png", "a/test/NORMAL/notes.txt", "a/test/NORMAL/y.jpeg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert serve.example_image(tmp_path) == tmp_path / "a/test/NORMAL/y.jpeg"
