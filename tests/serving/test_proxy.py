"""The nginx of deploy/ in front of a real TorchServe that asks for tokens."""

import http.client
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client import api, tokens
from tests.serving.conftest import ROOT, Place, client, new_place, picture, write_archive

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CONFIG = (ROOT / "deploy/nginx.conf").read_text()
RAW = {"Content-Type": "application/octet-stream"}
HERE, STRANGER = "127.0.0.1", "127.0.0.2"  # both are this machine; the first is allowed in
LIMIT = 64 * 2**20
# Debian's own nginx.conf, as far as it matters.
MAIN = """daemon off; pid {0}/nginx.pid; error_log stderr;
events {{ }}
http {{
    client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
    uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
    include {0}/pneumocam.conf;
}}
"""

pytestmark = [
    pytest.mark.skipif(
        NGINX is None, reason="NO NGINX, THE PROXY IS NOT TESTED: apt-get install nginx-light"
    ),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="make tls needs openssl"),
]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Proxy:
    """nginx with its own pair, operators' pair, and the server behind it."""

    folder: Path
    place: Place
    open: int
    guarded: int

    def token(self, kind: str) -> dict[str, str]:
        token = tokens.read(self.place.state / tokens.FILE, kind, self.place.management)
        return {"Authorization": f"Bearer {token}"}

    def connect(
        self, port: int, source: str = HERE, pair: str | None = None
    ) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self.folder / "server.pem")
        if pair:
            context.load_cert_chain(self.folder / f"{pair}.pem", self.folder / f"{pair}.key")
        return http.client.HTTPSConnection(
            HERE, port, context=context, source_address=(source, 0), timeout=60
        )

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Of inference, as whoever has a token."""
        with closing(self.connect(self.open)) as connection:
            bring = {**RAW, **self.token(tokens.INFERENCE), **headers}
            return send(connection, method, path, body, bring)

    def read(
        self, method: str, path: str, source: str = HERE, pair: str | None = "operators"
    ) -> Answer:
        """Of management and metrics, as the operator whom all other doors let in."""
        with closing(self.connect(self.guarded, source, pair)) as connection:
            return send(connection, method, path, None, self.token(tokens.MANAGEMENT))


def send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
) -> Answer:
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return Answer(answer.status, answer.headers, answer.read())


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for probe in probes:
            probe.bind((HERE, 0))
        return [probe.getsockname()[1] for probe in probes]


def adapt(folder: Path, place: Place, ports: list[int]) -> str:
    """The repository's file with this test's ports and paths, and nothing else changed."""
    text = CONFIG
    for old, new, times in [
        ("listen 443 ssl;", f"listen {HERE}:{ports[0]} ssl;", 1),
        ("listen 8443 ssl;", f"listen {HERE}:{ports[1]} ssl;", 1),
        ("allow 192.0.2.0/24;", f"allow {HERE};", 1),
        ("/etc/pneumocam/", f"{folder}/", 5),
        ("/var/log/nginx/", f"{folder}/", 2),
        ("http://127.0.0.1:8080;", f"{place.inference};", 3),
        ("http://127.0.0.1:8081;", f"{place.management};", 1),
        ("http://127.0.0.1:8082;", f"http://127.0.0.1:{place.ports['metrics']};", 1),
    ]:
        assert text.count(old) == times, old
        text = text.replace(old, new)
    return text


def make_pairs(folder: Path) -> None:
    for name in ("server", "operators"):
        command = ["make", "tls", f"TLS={folder / 'made'}"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        for kind in ("key", "pem"):
            (folder / "made" / f"server.{kind}").replace(folder / f"{name}.{kind}")


def as_nobody(folder: Path) -> dict[str, Any]:
    """Options of a process without privileges, to which the folder then belongs."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(100):
        assert process.poll() is None, "nginx ended"
        with closing(socket.socket()) as probe:
            if probe.connect_ex((HERE, port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("nginx does not listen")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """resnet50 1.0, served with tokens, and 2.0 in the store, for whoever may register it."""
    place = new_place(tmp_path_factory.mktemp("behind"))
    write_archive(place, "resnet50", "1.0")
    started = client("serve", place, "--auth", "token")
    assert started.returncode == 0, started.stdout + started.stderr
    write_archive(place, "resnet50", "2.0")
    yield place
    assert client("stop", place).returncode == 0


@pytest.fixture(scope="module")
def proxy(place: Place) -> Iterator[Proxy]:
    assert NGINX
    ports = free_ports(2)
    # Not pytest's own folder, which nobody may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pairs(folder)
        (folder / "pneumocam.conf").write_text(adapt(folder, place, ports))
        (folder / "nginx.conf").write_text(MAIN.format(folder))
        rights = as_nobody(folder)
        command = [NGINX, "-e", "stderr", "-c", str(folder / "nginx.conf")]
        checked = subprocess.run(
            [*command, "-t"], capture_output=True, text=True, check=False, **rights
        )
        assert checked.returncode == 0, checked.stderr
        assert "test is successful" in checked.stderr
        assert "[warn]" not in checked.stderr
        with subprocess.Popen(command, **rights) as process:
            wait_for_port(process, ports[1])
            yield Proxy(folder, place, *ports)
            process.terminate()


def state(proxy: Proxy) -> tuple[list[api.Version], str]:
    """What is served, and the keys: what only management may change."""
    keys = proxy.place.state / tokens.FILE
    return api.versions(api.Address(proxy.place.management, keys=str(keys))), keys.read_text()


@pytest.fixture
def nothing_changes(proxy: Proxy) -> Iterator[None]:
    before = state(proxy)
    yield
    assert state(proxy) == before


def direct(proxy: Proxy, method: str, path: str, body: bytes, **headers: str) -> Answer:
    with closing(http.client.HTTPConnection(HERE, proxy.place.ports["inference"])) as connection:
        bring = {**RAW, **proxy.token(tokens.INFERENCE), **headers}
        return send(connection, method, path, body, bring)


def test_limits_equal_the_servers() -> None:
    settings = (ROOT / "config.properties").read_text()
    assert f"max_request_size={LIMIT}\n" in settings
    assert "client_max_body_size   64m;" in CONFIG
    longest = re.search(r"^default_response_timeout=(\d+)$", settings, re.MULTILINE)
    waits = re.findall(r"proxy_read_timeout +(\d+)s;", CONFIG)
    assert longest
    assert len(waits) == 2
    assert min(map(int, waits)) > int(longest[1])


# Inference


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    "path",
    [
        "/predictions/resnet50",
        "/predictions/resnet50/1.0",
        "/resnet50/predict?heatmap=map&class=NORMAL",
        "/resnet50/1.0/predict?heatmap=none",
        "/explanations/resnet50",
    ],
)
def test_answers_equal_the_servers(proxy: Proxy, method: str, path: str) -> None:
    name = {"X-Request-Id": "study-7"}
    through = proxy.ask(method, path, picture(200), **name)
    assert through.status == 200
    assert through.json()["request_id"] == "study-7"
    assert through.json() == direct(proxy, method, path, picture(200), **name).json()


def test_an_overlay_passes_unchanged(proxy: Proxy) -> None:
    accept = {"Accept": "image/png"}
    through = proxy.ask("POST", "/predictions/resnet50", picture(200), **accept)
    assert through.headers["Content-Type"] == "image/png"
    expected = direct(proxy, "POST", "/predictions/resnet50", picture(200), **accept)
    assert through.body == expected.body


def test_a_request_without_an_id_gets_an_id_that_is_logged(proxy: Proxy) -> None:
    made = proxy.ask("POST", "/predictions/resnet50", picture(200)).json()["request_id"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    for _ in range(50):  # nginx writes the line after the answer
        (line,) = (proxy.folder / "pneumocam.log").read_text().splitlines()[-1:]
        if line.endswith(f" {made}"):
            break
        time.sleep(0.1)
    assert f'{HERE} "POST /predictions/resnet50 HTTP/1.1" 200 ' in line
    assert line.endswith(f" {made}")


def test_an_error_passes_and_leaves_the_connection_open(proxy: Proxy) -> None:
    headers = {**RAW, **proxy.token(tokens.INFERENCE)}
    with closing(proxy.connect(proxy.open)) as connection:
        for _ in range(3):
            refused = send(connection, "POST", "/predictions/resnet50", b"no image", headers)
            assert refused.status == 415
            assert refused.json()["type"] == "NotAnImage"
            assert refused.headers["Connection"] == "keep-alive"
        bad = send(connection, "POST", "/predictions/resnet50", picture(9), RAW)
        assert bad.json()["type"] == "InvalidKeyException"  # without a token
    assert proxy.ask("POST", "/predictions/nothing", picture(9)).status == 404
    assert proxy.ask("GET", "/ping").json() == {"status": "Healthy"}


def test_a_body_over_the_limit_is_refused_at_the_door(proxy: Proxy) -> None:
    over = proxy.ask("POST", "/predictions/resnet50", bytes(LIMIT + 1))
    assert over.status == 413
    assert over.json() == {"code": 413, "type": "Proxy", "message": "more than 64 MiB"}
    # As large as may be, the handler itself says that no image is.
    whole = proxy.ask("POST", "/predictions/resnet50", bytes(LIMIT))
    assert whole.status == 413
    assert whole.json()["type"] == "TooManyBytes"


@pytest.mark.usefixtures("nothing_changes")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/predictions/resnet50"),
        ("DELETE", "/predictions/resnet50"),
        ("OPTIONS", "/"),
        ("GET", "/models"),
        ("POST", "/models?url=resnet50-2.0.mar"),
        ("GET", "/metrics"),
        ("POST", "/ping"),
        ("POST", "/predictions/../models?url=resnet50-2.0.mar"),
        ("POST", "/predictions/resnet50/..%2f1.0"),
        ("POST", "//predictions/resnet50"),
    ],
)
def test_nothing_but_inference_passes(proxy: Proxy, method: str, path: str) -> None:
    refused = proxy.ask(method, path, picture(200) if method != "GET" else None)
    assert refused.status == 403
    assert refused.json() == {"code": 403, "type": "Proxy", "message": "not open to you here"}


def test_the_client_works_through_the_proxy(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "sick.png").write_bytes(picture(200))
    (tmp_path / "text.png").write_bytes(b"no image")
    token = proxy.token(tokens.INFERENCE)["Authorization"].removeprefix("Bearer ")
    words = ["--server", f"https://{HERE}:{proxy.open}", "--token", token]
    words += ["--authority", str(proxy.folder / "server.pem")]
    sent = client("predict", proxy.place, tmp_path, *words)
    assert re.search(r"sick.png +PNEUMONIA", sent.stdout), sent.stderr
    assert re.search(r"text.png +refused: These bytes are no image", sent.stdout)


# Management and metrics


def test_an_operator_reads_the_models(proxy: Proxy) -> None:
    listed = proxy.read("GET", "/models?limit=10")
    assert [model["modelName"] for model in listed.json()["models"]] == ["resnet50"]
    for path in ("/models/resnet50", "/models/resnet50/1.0", "/models/resnet50/all"):
        assert proxy.read("GET", path).json()[0]["modelVersion"] == "1.0"
    card = proxy.read("GET", "/models/resnet50?customized=true").json()[0]["customizedMetadata"]
    assert card["network"] == "resnet50"
    assert proxy.read("GET", "/models/nothing").status == 404


def test_a_stranger_reads_nothing(proxy: Proxy) -> None:
    assert proxy.read("GET", "/models", pair=None).status == 403
    assert proxy.read("GET", "/models", pair="server").status == 400  # of another authority
    assert proxy.read("GET", "/models", source=STRANGER).status == 403
    assert proxy.read("GET", "/metrics", source=STRANGER).status == 403
    with closing(proxy.connect(proxy.guarded, pair="operators")) as connection:
        without = send(connection, "GET", "/models", None, {})
    assert without.json()["type"] == "InvalidKeyException"  # the server still asks


def test_metrics_are_read_and_nothing_else(proxy: Proxy) -> None:
    metrics = proxy.read("GET", "/metrics", pair=None)
    assert metrics.status == 200
    assert b"# TYPE ts_inference_requests_total counter" in metrics.body
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        assert proxy.read(method, "/metrics", pair=None).status == 403


@pytest.mark.usefixtures("nothing_changes")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/models?url=resnet50-2.0.mar"),
        ("DELETE", "/models/resnet50/1.0"),
        ("PUT", "/models/resnet50?min_worker=2&synchronous=true"),
        ("PUT", "/models/resnet50/1.0/set-default"),
        ("GET", "/models/resnet50/1.0/set-default"),
        ("HEAD", "/models"),
        ("OPTIONS", "/models"),
        ("PATCH", "/models/resnet50"),
        ("PROPFIND", "/models"),
        ("GET", "/"),
        ("GET", "/token?type=management"),
        ("GET", "/workflows"),
        # Decoded, these are what may be read; as they were sent, TorchServe sees other roads.
        ("GET", "/token/../models?type=management"),
        ("GET", "/token/%2e%2e/models?type=management"),
        ("GET", "/token/..%2fmodels?type=management"),
        ("GET", "/token%2f..%2fmodels?type=management"),
        ("GET", "/%6dodels"),
        ("GET", "//models"),
        ("GET", "/./models"),
        ("GET", "/models;/../token"),
        ("GET", "/models\\..\\token"),
        ("GET", "/models#/../token"),
        ("GET", "http://127.0.0.1/token/../models?type=management"),
        ("DELETE", "/metrics/../models/resnet50/1.0"),
        ("DELETE", "/models/resnet50%2f1.0"),
        ("POST", "http://127.0.0.1/models?url=resnet50-2.0.mar"),
    ],
)
def test_whoever_reads_changes_nothing(proxy: Proxy, method: str, path: str) -> None:
    refused = proxy.read(method, path)
    assert refused.status == 403
    assert refused.headers["Content-Type"] == "text/html"  # nginx's own, not TorchServe's
