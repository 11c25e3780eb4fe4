"""What the state folder remembers: the server that runs, and which versions were the default."""

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
    """A server that was started from this state folder."""

    pid: int
    created: float  # with the pid: a number is given again, never with the same time
    temporary: str  # its own folder for sockets and unpacked archives
    inference: str
    management: str
    ports: dict[str, int]
    model_store: str
    workers: int
    settings: str  # sha256 of the settings it was started with
    archives: dict[str, str]  # file name → sha256
    keys: str | None = None  # TorchServe's file of tokens, where it asks for them
    authority: str | None = None  # what signed its certificate, where it has one
    batch_size: int = api.BATCH_SIZE
    max_batch_delay: int = api.MAX_BATCH_DELAY_MS

    @property
    def management_at(self) -> Address:
        """Where and how to manage it."""
        return Address(self.management, tokens.MANAGEMENT, keys=self.keys)

    @property
    def inference_at(self) -> Address:
        """Where and how to ask it."""
        return Address(
            self.inference,
            tokens.INFERENCE,
            keys=self.keys,
            management=self.management,
            authority=self.authority,
        )


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """One verb at a time changes the server of a state folder; another waits for it."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def running(state: Path) -> Running | None:
    """The server of this state folder, where it is alive."""
    recorded = recorded_server(state)
    return recorded if recorded and process(recorded) else None


def recorded_server(state: Path) -> Running | None:
    """The server last started here and not stopped since, dead or alive."""
    content = _read(state / "server.json")
    return Running(**content) if content else None


def process(server: Running) -> psutil.Process | None:
    """The server's Java process; None where it is gone, whoever has its number now."""
    try:
        found = psutil.Process(server.pid)
        gone = found.create_time() != server.created or found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return None if gone else found


def record(state: Path, server: Running) -> None:
    """Remember the server."""
    _write(state / "server.json", asdict(server))


def record_archive(state: Path, server: Running, file: str, sha256: str) -> Running:
    """Remember that the server serves one archive more."""
    server = replace(server, archives={**server.archives, file: sha256})
    record(state, server)
    return server


def forget(state: Path) -> None:
    """No server runs any more."""
    (state / "server.json").unlink(missing_ok=True)


def record_retired(state: Path, network: str, version: str) -> None:
    """Remember that a version was taken off: `serve` leaves its archive where it lies."""
    server = running(state)
    file = f"{network}-{version}.mar"
    if server and file in server.archives:
        sha256 = server.archives[file]
        left = {name: digest for name, digest in server.archives.items() if name != file}
        record(state, replace(server, archives=left))
        _write(state / "retired.json", {**_read(state / "retired.json"), file: sha256})


def retired(state: Path) -> dict[str, str]:
    """Archives that were taken off, by file name: their sha256. One built anew is another."""
    return {str(file): str(sha256) for file, sha256 in _read(state / "retired.json").items()}


def forget_retired(state: Path, file: str) -> None:
    """An archive is registered again."""
    left = {name: digest for name, digest in retired(state).items() if name != file}
    _write(state / "retired.json", left)


def defaults(state: Path, network: str) -> list[str]:
    """The versions that were a network's default, the present one last."""
    return list(_read(state / "defaults.json").get(network, []))


def record_defaults(state: Path, network: str, history: list[str]) -> None:
    """Remember the defaults of one network; they outlive the server."""
    _write(state / "defaults.json", {**_read(state / "defaults.json"), network: history})


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}


def _write(path: Path, content: dict[str, Any]) -> None:
    files.write_text(path, json.dumps(content, indent=1))
