"""Settings of ours reach TorchServe and its workers."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from benchmarks.serving import tune_server
from client import api, settings
from client import state as states
from client.state import Running
from tests.serving.conftest import ROOT, Place, client, new_place, picture, write_archive

VALUES = {
    settings.WORKERS: "2",
    settings.BATCH_SIZE: "3",
    settings.MAX_BATCH_DELAY: "2",
    settings.THREADS: "1",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of other settings, without an access log."""
    place = new_place(tmp_path_factory.mktemp("settings"))
    write_archive(place, "resnet50", "1.0")
    started = client("serve", place, "--config", write_config(place))
    assert started.returncode == 0, started.stdout + started.stderr
    result = states.running(place.state)
    assert result
    yield result
    assert client("stop", place).returncode == 0


def write_config(place: Place) -> Path:
    values = settings.read(ROOT / "config.properties", {})
    java = f"{values['vmargs']} -Dpneumocam.access=off"
    changes = {**VALUES, "vmargs": java, "metrics_config": values["metrics_config"]}
    path = place.store.parent / "config.properties"
    path.write_text(tune_server.update((ROOT / "config.properties").read_text(), changes))
    return path


def test_batches_and_workers_follow_the_settings(running: Running) -> None:
    (reply,) = api.call("GET", running.management_at, "/models/resnet50").json()
    assert (reply["batchSize"], reply["maxBatchDelay"]) == (3, 2)
    assert [worker["status"] for worker in reply["workers"]] == ["READY", "READY"]
    for worker in reply["workers"]:
        assert psutil.Process(worker["pid"]).environ()["PNEUMOCAM_THREADS"] == "1"


def test_the_access_log_can_be_left_out(running: Running) -> None:
    url = f"{running.inference}/predictions/resnet50"
    assert requests.post(url, data=picture(200), timeout=60).status_code == 200
    logs = Path(running.temporary).parent / "logs"
    assert "resnet50" in (logs / "model_log.log").read_text()
    assert (logs / "access_log.log").read_text() == ""
