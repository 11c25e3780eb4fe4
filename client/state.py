"""The state folder: the record of the running server, of defaults and of retired archives."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from client import api, tokens
from client.api import Address
from handlers import files


@dataclass(frozen=True)
class Running:
    """The record of a server that was started from this state folder."""

    pid: int
    created: float  # start of the process: the system reuses pids
    temporary: str  # folder of its sockets and unpacked archives
    inference: str  # URL
    management: str  # URL
    ports: dict[str, int]
    model_store: str
    workers: int  # of each network
    settings: str  # fingerprint of the settings it was started with
    archives: dict[str, str]  # sha256 by file name
    keys: str | None = None  # TorchServe's file of tokens, if it needs them
    authority: str | None = None  # PEM file of its certificate, if it has one
    batch_size: int = api.BATCH_SIZE
    max_batch_delay: int = api.MAX_BATCH_DELAY_MS  # milliseconds

    @property
    def management_at(self) -> Address:
        """The address of its management API."""
        return Address(self.management, tokens.MANAGEMENT, keys=self.keys)

    @property
    def inference_at(self) -> Address:
        """The address of its inference API."""
        return Address(
            self.inference,
            tokens.INFERENCE,
            keys=self.keys,
            management=self.management,
            authority=self.authority,
        )


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the lock of a state folder: only one verb at a time changes its server."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def running(state: Path) -> Running | None:
    """The server of this state folder; None if none is alive."""
    recorded = recorded_server(state)
    return recorded if recorded and process(recorded) else None


def recorded_server(state: Path) -> Running | None:
    """The server last started from this folder and not stopped since, dead or alive."""
    content = _read(state / "server.json")
    return Running(**content) if content else None


def process(server: Running) -> psutil.Process | None:
    """The server's Java process; None if it has ended, even if its pid is in use again."""
    try:
        candidate = psutil.Process(server.pid)
        same = candidate.create_time() == server.created
        alive = same and candidate.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return candidate if alive else None


def record(state: Path, server: Running) -> None:
    """Record the server."""
    _write(state / "server.json", asdict(server))


def record_archive(state: Path, server: Running, file: str, sha256: str) -> Running:
    """The record of the server, written with one more archive."""
    server = replace(server, archives={**server.archives, file: sha256})
    record(state, server)
    return server


def forget(state: Path) -> None:
    """Remove the record of the server."""
    (state / "server.json").unlink(missing_ok=True)


def record_retired(state: Path, network: str, version: str) -> None:
    """Record that a version was unregistered, so that `serve` does not load its archive again."""
    server = running(state)
    file = f"{network}-{version}.mar"
    if server and file in server.archives:
        sha256 = server.archives[file]
        left = {name: digest for name, digest in server.archives.items() if name != file}
        record(state, replace(server, archives=left))
        _write(state / "retired.json", {**_read(state / "retired.json"), file: sha256})


def retired(state: Path) -> dict[str, str]:
    """The sha256 of retired archives by file name; a rebuilt archive has a new one."""
    return {str(file): str(sha256) for file, sha256 in _read(state / "retired.json").items()}


def forget_retired(state: Path, file: str) -> None:
    """Remove an archive from the record of retired ones."""
    left = {name: digest for name, digest in retired(state).items() if name != file}
    _write(state / "retired.json", left)


def defaults(state: Path, network: str) -> list[str]:
    """The versions that were a network's default, the latest last."""
    return list(_read(state / "defaults.json").get(network, []))


def record_defaults(state: Path, network: str, history: list[str]) -> None:
    """Record the defaults of a network; stopping the server keeps this record."""
    _write(state / "defaults.json", {**_read(state / "defaults.json"), network: history})


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}


def _write(path: Path, content: dict[str, Any]) -> None:
    files.write_text(path, json.dumps(content, indent=1))
