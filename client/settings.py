"""TorchServe's settings: the properties file with our ports over it, on loopback alone."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from client import api

# What `--NAME-port` sets, and how the settings spell it.
PORTS = {
    "inference": "inference_address",
    "management": "management_address",
    "metrics": "metrics_address",
    "grpc-inference": "grpc_inference_port",
    "grpc-management": "grpc_management_port",
}

# Whole numbers above 0. Only the first is TorchServe's, which passes over the others.
WORKERS = "default_workers_per_model"
BATCH_SIZE = "pneumocam_batch_size"
MAX_BATCH_DELAY = "pneumocam_max_batch_delay"  # milliseconds
THREADS = "pneumocam_threads"  # of a worker; left out, the engine's choice: one a physical core
COUNTS = (WORKERS, BATCH_SIZE, MAX_BATCH_DELAY, THREADS)


class StartError(Exception):
    """The server can't be started so, with the remedy."""


def read(
    config: Path,
    ports: dict[str, int],
    *,
    auth: str | None = None,
    tls: Path | None = None,
    host: str | None = None,
) -> dict[str, str]:
    """The settings of a properties file, with what is given over its own.

    `tls` is a folder with server.key (PKCS 8) and server.pem; `host` is where inference listens.

    Raises StartError for a number that is none, and for an address that other machines can reach,
    but for that of inference with tokens and TLS.
    """
    if not config.is_file():
        raise StartError(
            f"{config} does not exist: start in the project's folder, or --config FILE"
        )
    lines = [line.strip() for line in config.read_text().splitlines()]
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    values = {key.strip(): value.strip() for key, value in pairs}
    if "metrics_config" in values:  # TorchServe runs in another folder
        values["metrics_config"] = str((config.parent / values["metrics_config"]).resolve())
    for key in COUNTS:
        _refuse_no_count(config, key, values.get(key, "1"))
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
    if not (asks_for_tokens(values) and scheme == "https"):
        _refuse_open_address(config, PORTS["inference"], values)
    return values


def _refuse_no_count(config: Path, key: str, text: str) -> None:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise StartError(f"{config}: {key}={text}: give a whole number above 0, or leave it out")


_NO_TOKENS = "disable_token_authorization"


def asks_for_tokens(values: dict[str, str]) -> bool:
    """Whether the server lets in only who brings a token: it does unless told not to."""
    return values.get(_NO_TOKENS, "false").lower() != "true"


def _certificate(folder: Path) -> dict[str, str]:
    files = {"private_key_file": folder / "server.key", "certificate_file": folder / "server.pem"}
    for file in files.values():
        if not file.is_file():
            raise StartError(f"TLS={folder}: there is no {file}. For tests: make tls")
    return {key: str(file.resolve()) for key, file in files.items()}


def _refuse_open_address(config: Path, key: str, values: dict[str, str]) -> None:
    address = values.get(key, "")
    if not api.is_loopback(address if "//" in address else f"//{address}"):
        raise StartError(
            f"{config}: {key}={address} is open to other machines. Name 127.0.0.1; only inference "
            "may be open, and with both AUTH=token and TLS=FOLDER"
        )


def ports_of(values: dict[str, str]) -> dict[str, int]:
    """Every port the settings name."""
    return {name: urlsplit(address(values, name)).port or 80 for name in PORTS}


def address(values: dict[str, str], name: str) -> str:
    """The address of one of PORTS, as `http://host:port`."""
    value = values.get(PORTS[name], "")
    return value if "//" in value else f"//127.0.0.1:{value}"


def fingerprint(values: dict[str, str]) -> str:
    """The settings as one hash: a server started with others has to be restarted."""
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()
