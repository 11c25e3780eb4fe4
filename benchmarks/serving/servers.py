"""The systems under load: pneumocam's server, started as by `make serve`, and the peers."""

import base64
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving.load import OVERLAY, Target, Verifier
from client import api, archives, serve, settings
from client import server as torchserve
from client import state as states

ROOT = Path(__file__).parents[2]
PREDICT = "/{network}/predict?heatmap={heatmap}"  # of TorchServe's paths, the one with a query
START_SECONDS = 120
STOP_SECONDS = 20


@dataclass
class Server:
    """A running server of one network or several."""

    name: str
    pid: int
    port: int
    path: str  # with {network} and {heatmap} to fill in
    content_type: str = "application/octet-stream"
    wrap: Callable[[bytes], bytes] = bytes  # image → request body
    verifiers: dict[str, Verifier] = field(default_factory=dict)

    def target(self, images: Sequence[bytes], network: str, heatmap: str = OVERLAY) -> Target:
        """The target for requests about these images to a network, with a heatmap option."""
        path = self.path.format(network=network, heatmap=heatmap)
        return Target(self.port, path, [self.wrap(image) for image in images], self.content_type)

    def verifier(self, network: str) -> Verifier:
        """The verifier of a network's answers: the same one in every call."""
        return self.verifiers.setdefault(network, Verifier())


@dataclass(frozen=True)
class Peer:
    """A peer: a handler for TorchServe, or a module that serves by itself."""

    name: str
    title: str
    handler: str = ""  # a file of benchmarks/peers
    module: str = ""
    batch: int = 1
    wrap: Callable[[bytes], bytes] = bytes
    content_type: str = "application/octet-stream"


def _as_json(image: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(image).decode()}).encode()


PEERS = (
    Peer("captum", "TorchServe, Captum, matplotlib", handler="captum_handler.py"),
    Peer("gradcam", "FastAPI, pytorch-grad-cam", module="benchmarks.peers.gradcam_app"),
    Peer(
        "litserve",
        "LitServe, hook CAM, batched",
        module="benchmarks.peers.litserve_app",
        wrap=_as_json,
        content_type="application/json",
    ),
    Peer("tuned", "TorchServe, eager, tuned by hand", handler="tuned_handler.py", batch=4),
)


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """A free port of the loopback interface for each name."""
    with ExitStack() as stack:  # all are bound at the same time, so that no two are equal
        probes = [stack.enter_context(closing(socket.socket())) for _ in names]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return dict(zip(names, [probe.getsockname()[1] for probe in probes], strict=True))


@contextmanager
def pneumocam(
    name: str,
    paths: Sequence[Path],
    changes: Mapping[str, str] | None = None,
    config: Path = ROOT / "config.properties",
) -> Iterator[Server]:
    """pneumocam's server with the archives at `paths`; its store and state are temporary.

    `changes` override the settings of the file `config`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store, state, changed = folder / "store", folder / "state", folder / "config.properties"
        values = {**settings.read(config, {}), **(changes or {})}
        changed.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        store.mkdir()
        for path in paths:
            archive = archives.read(path)
            shutil.copy(path, store / f"{archive.network}-{archive.version}.mar")
        options = serve.Options(
            model_store=store,
            config=changed,
            log_config=ROOT / "deploy" / "log4j2.xml",
            state=state,
            data=folder,
            ports=free_ports(list(settings.PORTS)),
        )
        try:
            with (folder / "printed").open("w") as file, redirect_stdout(file):
                serve.serve(options)
            running = states.running(state)
            assert running
            yield Server(name, running.pid, running.ports["inference"], PREDICT)
        finally:
            torchserve.stop(state)


@contextmanager
def empty_torchserve(store: Path) -> Iterator[states.Running]:
    """A TorchServe with pneumocam's settings and no model."""
    with tempfile.TemporaryDirectory() as temporary:
        state = Path(temporary) / "state"
        ports = free_ports(list(settings.PORTS))
        values = settings.read(ROOT / "config.properties", ports)
        log_config = ROOT / "deploy" / "log4j2.xml"
        try:
            yield torchserve.start(values, store, state, log_config)
        finally:
            torchserve.stop(state)


def register(running: states.Running, file: str, batch: int) -> float:
    """Load an archive of the store with one worker; the seconds until that worker answers."""
    query = {
        "url": file,
        "initial_workers": "1",
        "synchronous": "true",
        "batch_size": str(batch),
        "max_batch_delay": str(running.max_batch_delay),
    }
    started = time.perf_counter()
    api.call("POST", running.management_at, "/models", params=query)
    return time.perf_counter() - started


def unregister(running: states.Running, network: str) -> None:
    """Unload a network and wait until its worker has ended."""
    pid = worker_pid(running, network)
    api.call("DELETE", running.management_at, f"/models/{network}")
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], STOP_SECONDS)


def worker_pid(running: states.Running, network: str) -> int:
    """The process id of a network's first worker."""
    versions = api.call("GET", running.management_at, f"/models/{network}").json()
    return int(versions[0]["workers"][0]["pid"])


def pack(name: str, handler: Path, store: Path, extra: Path | None = None) -> Path:
    """Build an archive of a handler and a folder of extra files; the archive's path."""
    options: dict[str, object] = {
        "--model-name": name,
        "--version": "1.0",
        "--handler": handler,
        "--export-path": store,
    }
    if extra:
        options["--extra-files"] = extra
    archiver = Path(sys.executable).with_name("torch-model-archiver")
    words = [str(word) for pair in options.items() for word in pair]
    subprocess.run([str(archiver), *words], check=True, capture_output=True)
    return store / f"{name}.mar"


@contextmanager
def peer_server(peer: Peer, weights: Path) -> Iterator[Server]:
    """A peer's server with the weights of a file (safetensors, its card beside it)."""
    start = _in_torchserve if peer.handler else _standalone
    with tempfile.TemporaryDirectory() as folder, start(peer, weights, Path(folder)) as server:
        yield server


@contextmanager
def _in_torchserve(peer: Peer, weights: Path, folder: Path) -> Iterator[Server]:
    extra, store = folder / "extra", folder / "store"
    store.mkdir()
    for package in ("train", "handlers", "benchmarks/peers"):
        shutil.copytree(ROOT / package, extra / package, ignore=shutil.ignore_patterns("__*__"))
    shutil.copy(ROOT / "benchmarks" / "__init__.py", extra / "benchmarks")
    for suffix in (".safetensors", ".json"):
        shutil.copy(weights.with_suffix(suffix), extra / f"weights{suffix}")
    pack(peer.name, ROOT / "benchmarks" / "peers" / peer.handler, store, extra)
    with empty_torchserve(store) as running:
        # One worker with a thread per core. TorchServe's default, a worker per core, makes their
        # threads compete: with Captum it was ten times slower.
        register(running, f"{peer.name}.mar", peer.batch)
        port = running.ports["inference"]
        yield Server(peer.name, running.pid, port, f"/predictions/{peer.name}")


@contextmanager
def _standalone(peer: Peer, weights: Path, folder: Path) -> Iterator[Server]:
    port = free_ports(["inference"])["inference"]
    command = [sys.executable, "-m", peer.module, str(weights.resolve()), str(port)]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(port, process, log)
            yield Server(peer.name, process.pid, port, "/predict", peer.content_type, peer.wrap)
        finally:
            _stop(process)


def _wait_for(port: int, process: subprocess.Popen[Any], log: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    log.seek(0)
    raise RuntimeError(f"a peer did not start:\n{log.read()[-3000:]}")


def _stop(process: subprocess.Popen[Any]) -> None:
    """End a process that was started here, and its descendants."""
    try:
        descendants = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        descendants = []
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    for survivor in psutil.wait_procs(descendants, 2)[1]:
        survivor.kill()
