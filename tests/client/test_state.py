"""The state folder: the record of the running server and of defaults."""

from pathlib import Path

import psutil

from client import server
from client import state as states
from tests.client.local_server import recorded


def test_a_recorded_server_is_read_back(tmp_path: Path) -> None:
    running = recorded(tmp_path)
    states.record(tmp_path, running)
    assert states.running(tmp_path) == running
    extended = states.record_archive(tmp_path, running, "resnet50-1.0.mar", "abc")
    assert states.running(tmp_path) == extended
    assert extended.archives == {"resnet50-1.0.mar": "abc"}
    states.forget(tmp_path)
    assert states.recorded_server(tmp_path) is None


def test_a_process_with_the_same_pid_is_not_the_server(tmp_path: Path) -> None:
    ended = recorded(tmp_path, created=psutil.Process().create_time() - 1)
    states.record(tmp_path, ended)
    assert states.running(tmp_path) is None


def test_stopping_does_not_end_a_process_with_the_same_pid(tmp_path: Path) -> None:
    ended = recorded(tmp_path, created=psutil.Process().create_time() - 1)
    states.record(tmp_path, ended)
    assert server.stop(tmp_path) is False
    assert states.recorded_server(tmp_path) is None
    assert server.stop(tmp_path) is False


def test_defaults_are_recorded_by_network(tmp_path: Path) -> None:
    states.record_defaults(tmp_path, "resnet50", ["1.0", "2.0"])
    states.record_defaults(tmp_path, "densenet161", ["1.0"])
    assert states.defaults(tmp_path, "resnet50") == ["1.0", "2.0"]
    assert states.defaults(tmp_path, "vgg") == []
