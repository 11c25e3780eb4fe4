"""TorchServe's tokens, read from the file that it writes, renewed where they have expired.

A file of three keys: one for inference and one for management, both for an hour, and one that only
asks for new ones. A new one ends the old one.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

FILE = "key_file.json"
INFERENCE, MANAGEMENT = "inference", "management"
SPARE = timedelta(seconds=30)  # before it expires: a request may take a while


class TokenError(Exception):
    """There is no token to be had, with the remedy."""


def read(file: Path, kind: str, management: str) -> str:
    """The token for inference or management; the server is asked for a new one where it is stale.

    Raises TokenError where the file can't be read or the server gives none.
    """
    keys = _keys(file)
    if _expires(keys[kind]) - SPARE < datetime.now(UTC):
        answer = requests.get(
            f"{management}/token",
            params={"type": kind},
            headers={"Authorization": f"Bearer {keys['API']['key']}"},
            timeout=10,
        )
        if answer.status_code != requests.codes.ok:
            raise TokenError(f"{management} gives no new token ({answer.status_code}): restart it")
        keys = _keys(file)
    return str(keys[kind]["key"])


def _keys(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise TokenError(
            f"{file} can't be read ({error}): the server writes it for the user who started it. "
            "Take a token from there, and give it with --token"
        ) from error


def _expires(key: dict[str, str]) -> datetime:
    # Nanoseconds, which Python does not read.
    return datetime.fromisoformat(key["expiration time"][:19]).replace(tzinfo=UTC)
