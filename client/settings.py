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


class StartError(Exception):
    """The server can't be started so, with the remedy."""


def read(config: Path, ports: dict[str, int]) -> dict[str, str]:
    """The settings of a properties file, with the given ports over its own.

    Raises StartError for an address that other machines can reach.
    """
    if not config.is_file():
        raise StartError(
            f"{config} does not exist: start in the project's folder, or --config FILE"
        )
    lines = [line.strip() for line in config.read_text().splitlines()]
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    values = {key.strip(): value.strip() for key, value in pairs}
    for name, port in ports.items():
        key = PORTS[name]
        values[key] = f"http://127.0.0.1:{port}" if key.endswith("_address") else str(port)
    for key in ("inference", "management", "metrics", "grpc_inference", "grpc_management"):
        _refuse_open_address(config, f"{key}_address", values)
    return values


def _refuse_open_address(config: Path, key: str, values: dict[str, str]) -> None:
    address = values.get(key, "")
    if not api.is_loopback(address if "//" in address else f"//{address}"):
        raise StartError(
            f"{config}: {key}={address} is open to other machines, and whoever reaches the server "
            "can use it without a token: name 127.0.0.1"
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
