"""A server that lets in only who brings a token, by TLS."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from client import settings, tokens
from client.__main__ import main
from client.settings import StartError
from tests.serving.conftest import ROOT, Place, client, new_place, picture, write_archive

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="make tls needs openssl")
RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make tls` makes."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["make", "tls", f"TLS={folder}"], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, tls: Path) -> Iterator[Place]:
    place = new_place(tmp_path_factory.mktemp("guarded"))
    write_archive(place, "resnet50", "1.0")
    started = client("serve", place, "--auth", "token", "--tls", tls)
    assert started.returncode == 0, started.stdout + started.stderr
    assert 'curl -H "Authorization: Bearer $(make -s token)" --cacert' in started.stdout
    yield place
    assert client("stop", place).returncode == 0


def ask(place: Place, tls: Path, token: str | None) -> requests.Response:
    bring = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.post(
        f"https://127.0.0.1:{place.ports['inference']}/predictions/resnet50",
        data=picture(255),
        headers={**RAW, **bring},
        verify=str(tls / "server.pem"),
        timeout=30,
    )


def test_only_requests_with_a_token_are_answered(guarded: Place, tls: Path) -> None:
    for wrong in (None, "nonsense"):
        refused = ask(guarded, tls, wrong)
        assert refused.status_code == 400
        assert refused.json()["type"] == "InvalidKeyException"
    token = client("token", guarded).stdout.strip()
    answered = ask(guarded, tls, token)
    assert answered.status_code == 200
    assert answered.json()["label"] == "PNEUMONIA"
    management = requests.get(f"{guarded.management}/models", timeout=10)
    assert management.status_code == 400
    # The token of inference opens nothing else.
    bring = {"Authorization": f"Bearer {token}"}
    second = requests.get(f"{guarded.management}/models", headers=bring, timeout=10)
    assert second.status_code == 400


def test_plain_http_and_a_stranger_get_nothing(guarded: Place) -> None:
    port = guarded.ports["inference"]
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://127.0.0.1:{port}/ping", timeout=10)
    url = f"http://127.0.0.1:{port}/predictions/resnet50"
    with suppress(requests.exceptions.ConnectionError):
        plain = requests.post(url, data=picture(255), headers=RAW, timeout=10)
        assert plain.status_code >= 300, plain.text


def test_the_client_brings_tokens_by_itself(guarded: Place, tls: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(picture(255))
    predicted = client("predict", guarded, tmp_path / "x.png")
    assert predicted.returncode == 0, predicted.stderr
    assert "PNEUMONIA" in predicted.stdout
    versions = client("versions", guarded)
    assert "resnet50" in versions.stdout, versions.stderr
    again = client("serve", guarded, "--auth", "token", "--tls", tls)
    assert "Already running" in again.stdout, again.stderr
    url = f"https://127.0.0.1:{guarded.ports['inference']}"
    stranger = client("predict", guarded, tmp_path / "x.png", "--server", url)
    assert "not trusted here" in stranger.stdout
    token = client("token", guarded).stdout.strip()
    words = ["--server", url, "--token", token, "--authority", tls / "server.pem"]
    assert client("predict", guarded, tmp_path / "x.png", *words).returncode == 0


def test_a_stale_token_is_renewed(guarded: Place, tls: Path) -> None:
    file = guarded.state / tokens.FILE
    assert file.stat().st_mode & 0o077 == 0
    keys = json.loads(file.read_text())
    before = keys["inference"]["key"]
    keys["inference"]["expiration time"] = (datetime.now(UTC) - timedelta(1)).isoformat()
    file.write_text(json.dumps(keys))
    token = tokens.read(file, tokens.INFERENCE, guarded.management)
    assert token != before
    assert ask(guarded, tls, token).status_code == 200
    assert ask(guarded, tls, before).status_code == 400
    assert tokens.read(file, tokens.INFERENCE, guarded.management) == token


def test_remote_machines_reach_inference_only_with_both(tls: Path) -> None:
    config = ROOT / "config.properties"
    for words in ({}, {"auth": "token"}, {"tls": tls}):
        with pytest.raises(StartError, match="AUTH=token and TLS=FOLDER"):
            settings.read(config, {}, host="0.0.0.0", **words)  # type: ignore[arg-type]
    values = settings.read(config, {}, host="0.0.0.0", auth="token", tls=tls)
    assert values["inference_address"] == "https://0.0.0.0:8080"
    assert values["management_address"] == "http://127.0.0.1:8081"


def test_management_stays_here_even_so(tls: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    text = (ROOT / "config.properties").read_text()
    for key in ("management_address=http://", "metrics_address=http://", "grpc_inference_address="):
        config.write_text(text.replace(f"{key}127.0.0.1", f"{key}0.0.0.0"))
        with pytest.raises(StartError, match="open to other machines"):
            settings.read(config, {}, auth="token", tls=tls)


def test_a_folder_without_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StartError, match=r"no .*server\.key\. For tests: make tls"):
        settings.read(ROOT / "config.properties", {}, tls=tmp_path)
    assert main(["token", "--state", str(tmp_path)]) == 2
    assert "no server is running here" in capsys.readouterr().err


def test_a_promotion_is_gated_and_watched_through_tokens_and_tls(
    guarded: Place, tls: Path, tmp_path: Path
) -> None:
    write_archive(guarded, "resnet50", "2.0")
    assert client("register", guarded, guarded.store / "resnet50-2.0.mar").returncode == 0
    for name, grey in (("NORMAL", 20), ("PNEUMONIA", 240)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(picture(grey))
    token, stop = client("token", guarded).stdout.strip(), threading.Event()

    def go_on_asking() -> None:
        while not stop.wait(0.05):
            ask(guarded, tls, token)

    asking = threading.Thread(target=go_on_asking)
    asking.start()
    done = client("promote", guarded, "resnet50", "2.0", "--replay", tmp_path, "--watch", "3")
    stop.set()
    asking.join()
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = (guarded.state / "promotions").glob("*.json")
    content = json.loads(report.read_text())
    assert content["outcome"] == "Passed"
    assert [figures["errors"] for figures in content["figures"]] == [0, 0]
    assert client("rollback", guarded, "resnet50").returncode == 0
