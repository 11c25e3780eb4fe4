"""TorchServe's tokens, read from the file that it writes and renewed when they have expired.

The file has three keys: one for inference and one for management, both valid for an hour, and one
that only requests new ones. A new token makes the old one invalid.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from client import transport

FILE = "key_file.json"
INFERENCE, MANAGEMENT = "inference", "management"
MARGIN = timedelta(seconds=30)  # renew this long before expiry: a request may take a while


class TokenError(Exception):
    """No token can be read or renewed; the message says the remedy."""


def read(file: Path, kind: str, management: str) -> str:
    """A valid token for inference or management; one that expires is renewed first.

    `management` is the URL of the management API, which issues new tokens.

    Raises:
        TokenError: the file can't be read, or the server refuses a new token.
        NoServerError: no server answers at `management`.
    """
    keys = _keys(file)
    if _expires(keys[kind]) - MARGIN < datetime.now(UTC):
        headers = {"Authorization": f"Bearer {keys['API']['key']}"}
        try:
            transport.request("GET", f"{management}/token", headers, params={"type": kind})
        except transport.ServerError as error:
            raise TokenError(
                f"{management} issues no new token ({error.code}: {error}): restart the server"
            ) from error
        keys = _keys(file)
    return str(keys[kind]["key"])


def _keys(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise TokenError(
            f"{file} can't be read ({error}): the server writes it, for the user who started it "
            "only. Read a token as that user (make token), and pass it with --token"
        ) from error


def _expires(key: dict[str, str]) -> datetime:
    """The time at which a token expires, in UTC."""
    # Without the fraction: TorchServe writes nanoseconds, which datetime does not read.
    return datetime.fromisoformat(key["expiration time"][:19]).replace(tzinfo=UTC)
