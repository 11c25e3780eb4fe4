"""TorchServe's settings: a properties file with the options of `serve` applied, on loopback."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from client import transport

# The setting of each port, by the name in `--NAME-port`.
PORTS = {
    "inference": "inference_address",
    "management": "management_address",
    "metrics": "metrics_address",
    "grpc-inference": "grpc_inference_port",
    "grpc-management": "grpc_management_port",
}

# Whole numbers above 0. TorchServe reads the first and ignores the others, which the client reads.
WORKERS = "default_workers_per_model"
BATCH_SIZE = "pneumocam_batch_size"
MAX_BATCH_DELAY = "pneumocam_max_batch_delay"  # milliseconds
THREADS = "pneumocam_threads"  # of a worker; without it the engine uses one per physical core
COUNTS = (WORKERS, BATCH_SIZE, MAX_BATCH_DELAY, THREADS)

_NO_TOKENS = "disable_token_authorization"


class StartError(Exception):
    """The server can't be started; the message says why and the remedy."""


def read(
    config: Path,
    ports: dict[str, int],
    *,
    auth: str | None = None,
    tls: Path | None = None,
    host: str | None = None,
) -> dict[str, str]:
    """The settings of a properties file by key, with the options of `serve` over them.

    `ports` are by name in PORTS; `tls` is a folder with server.key (PKCS 8) and server.pem; `host`
    is the address that inference listens on.

    Raises:
        StartError: the file does not exist, a count is not a whole number above 0, or other
            machines can reach an address. Inference may be reachable with both tokens and TLS.
    """
    if not config.is_file():
        raise StartError(
            f"{config} does not exist: run this in the project's folder, or name it with --config"
        )
    lines = [line.strip() for line in config.read_text().splitlines()]
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    values = {key.strip(): value.strip() for key, value in pairs}
    if "metrics_config" in values:  # absolute, since TorchServe runs in the state folder
        values["metrics_config"] = str((config.parent / values["metrics_config"]).resolve())
    for key in COUNTS:
        _require_count(config, key, values.get(key, "1"))
    if auth == "token":
        values[_NO_TOKENS] = "false"
    if tls:
        values |= _certificate(tls)
    for name, port in ports.items():
        key = PORTS[name]
        values[key] = f"http://127.0.0.1:{port}" if key.endswith("_address") else str(port)
    inference = urlsplit(address(values, "inference"))
    scheme = "https" if "certificate_file" in values else inference.scheme
    netloc = f"{host or inference.hostname}:{inference.port}"
    values[PORTS["inference"]] = f"{scheme}://{netloc}"
    for name in ("management", "metrics", "grpc_inference", "grpc_management"):
        _refuse_open_address(config, f"{name}_address", values)
    if not (needs_token(values) and scheme == "https"):
        _refuse_open_address(config, PORTS["inference"], values)
    return values


def _require_count(config: Path, key: str, text: str) -> None:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise StartError(f"{config}: {key}={text}: give a whole number above 0, or leave it out")


def needs_token(values: dict[str, str]) -> bool:
    """Whether the server refuses requests without a token, which is TorchServe's default."""
    return values.get(_NO_TOKENS, "false").lower() != "true"


def _certificate(folder: Path) -> dict[str, str]:
    """TorchServe's settings for the key and the certificate in a folder."""
    files = {"private_key_file": folder / "server.key", "certificate_file": folder / "server.pem"}
    for file in files.values():
        if not file.is_file():
            raise StartError(f"TLS={folder}: there is no {file}. For tests: make tls")
    return {key: str(file.resolve()) for key, file in files.items()}


def _refuse_open_address(config: Path, key: str, values: dict[str, str]) -> None:
    address = values.get(key, "")
    if not transport.is_loopback(address if "//" in address else f"//{address}"):
        raise StartError(
            f"{config}: {key}={address} is open to other machines. Name 127.0.0.1; only inference "
            "may be open, and with both AUTH=token and TLS=FOLDER"
        )


def ports_of(values: dict[str, str]) -> dict[str, int]:
    """The port of each of PORTS, by name."""
    return {name: urlsplit(address(values, name)).port or 80 for name in PORTS}


def address(values: dict[str, str], name: str) -> str:
    """The address of one of PORTS as `http://host:port`; of gRPC, `//127.0.0.1:port`."""
    setting = values.get(PORTS[name], "")
    return setting if "//" in setting else f"//127.0.0.1:{setting}"


def fingerprint(values: dict[str, str]) -> str:
    """The SHA-256 of the settings; a server started with different ones must be restarted."""
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()
